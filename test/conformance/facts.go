package conformance

import (
	"fmt"
	"strings"
)

// Fact is a statement of Azure's documents, models or recorded answers.
type Fact struct {
	// ID begins with the reference's section: "3.1-rules".
	ID string `yaml:"id"`
	// Marker is how certain it is: documented, documented:rec (a recorded answer),
	// documented:issue (an issue or an article) or inferred.
	Marker string `yaml:"marker"`
	// Source is the reference's key for the document.
	Source string `yaml:"source"`
	Fact   string `yaml:"fact"`
	// LeftOut is the reason why no case holds the fact; empty when one does.
	LeftOut string `yaml:"leftOut"`
}

// Section is the reference's section.
func (f *Fact) Section() string {
	section, _, _ := strings.Cut(f.ID, "-")
	return section
}

// LoadFacts reads facts.yaml. Ids are unique.
func LoadFacts() ([]Fact, error) {
	var facts []Fact
	if err := readYAML("facts.yaml", &facts); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i := range facts {
		f := &facts[i]
		if f.ID == "" || f.Fact == "" || f.Marker == "" || f.Source == "" {
			return nil, fmt.Errorf("facts.yaml: fact %q: id, marker, source and fact are needed", f.ID)
		}
		if seen[f.ID] {
			return nil, fmt.Errorf("facts.yaml: fact %q is there twice", f.ID)
		}
		seen[f.ID] = true
	}
	return facts, nil
}
