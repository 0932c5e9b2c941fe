package arm

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/ruleset"
)

// ServiceTags is a service tag file: Microsoft's weekly ServiceTags_Public_DATE.json, or
// the answer of the service tag discovery API. Tags are found by name in any case, not by
// region: the region in the file is not always the one in the name.
//
// Rules may name tags whose networkFeatures lack NSGs: NSGs accepted tags before the file
// had this list.
type ServiceTags struct {
	File         string
	ChangeNumber string // of the whole file; grows with each edition; empty when the file has none
	Cloud        string // such as "Public"
	// Written is when the file was last written; of a Reader's alone.
	Written time.Time

	dropped  bool              // prefixes of unused tags are gone, see keep
	digest   digest            // of the content; zero unless a Reader read it
	tags     map[string]tag    // by name in lower case
	problems map[string]string // Known's answers for the first maxHints unknown names
}

// tag is a tag of the file.
type tag struct {
	TagFacts
	// prefixes is nil when keep dropped them.
	prefixes []netip.Prefix
}

func (t *tag) count() int { return t.IPv4 + t.IPv6 }

// TagFacts are what a service tag file says of a tag besides its addresses.
type TagFacts struct {
	Name          string
	ChangeNumber  string // of this tag; empty when the file has none
	Region        string // empty for a tag of all regions; not always the end of the name
	SystemService string // such as "AzureStorage", often empty
	// NetworkFeatures are the Azure features that accept the tag. Most regional tags have
	// nil: they inherit it from the tag without the region.
	NetworkFeatures []string
	IPv4, IPv6      int // numbers of prefixes
}

// Known resolves a tag's name for ruleset's validation.
func (t *ServiceTags) Known(name string) (canonical, problem string) {
	key := strings.ToLower(name)
	found, ok := t.tags[key]
	if ok && found.count() > 0 {
		return found.Name, ""
	}
	if ok {
		return "", "the tag " + found.Name + " has no address prefixes in " + t.File
	}
	problem, ok = t.problems[key]
	switch {
	case ok:
	case len(t.problems) < maxHints:
		problem = t.lacks(t.hint(key))
		t.problems[key] = problem
	default:
		problem = t.lacks("")
	}
	return "", problem
}

// lacks is the message for a name that the file does not have.
func (t *ServiceTags) lacks(hint string) string {
	edition := ""
	if t.ChangeNumber != "" {
		edition = ", change number " + t.ChangeNumber + ","
	}
	return fmt.Sprintf("no service tag of that name is known: %s has %d%s and not this one%s", t.File, len(t.tags), edition, hint)
}

// Prefixes are the prefixes of a tag, by its name in any case, in the file's order. Nil
// when the file has no such tag. They must not be changed.
func (t *ServiceTags) Prefixes(name string) []netip.Prefix {
	return t.tags[strings.ToLower(name)].prefixes
}

// put restores the prefixes of a tag that keep dropped.
func (t *ServiceTags) put(name string, prefixes []netip.Prefix) {
	key := strings.ToLower(name)
	t.tags[key] = tag{t.tags[key].TagFacts, prefixes}
}

// moved are the same tags for another file of the same content.
func (t *ServiceTags) moved(file string) *ServiceTags {
	next := *t
	next.File, next.tags, next.problems = file, maps.Clone(t.tags), map[string]string{}
	return &next
}

// Len is the number of tags.
func (t *ServiceTags) Len() int { return len(t.tags) }

// keep drops the prefixes of tags that are not in use, to save memory.
func (t *ServiceTags) keep(used map[string][]netip.Prefix) {
	for key, of := range t.tags {
		if _, ok := used[of.Name]; !ok && of.prefixes != nil {
			of.prefixes = nil
			t.tags[key] = of
			t.dropped = true
		}
	}
}

// ReadServiceTags reads a service tag file whole. The error may be ruleset.Faults.
func ReadServiceTags(file string) (*ServiceTags, error) {
	data, _, err := readRegular(file)
	if err != nil {
		return nil, fmt.Errorf("service tags: %w", err)
	}
	tags, faults := ParseServiceTags(file, data)
	if len(faults) > 0 {
		return nil, faults
	}
	return tags, nil
}

// Whole gives the tags with all their prefixes. A Reader's tags have only the prefixes
// that its policy uses; the file is then read again. It is an error if it has changed.
func (t *ServiceTags) Whole() (*ServiceTags, error) {
	if !t.dropped {
		return t, nil
	}
	data, _, err := readRegular(t.File)
	if err != nil {
		return nil, fmt.Errorf("service tags: %w", err)
	}
	if sha256.Sum256(data) != t.digest {
		return nil, fmt.Errorf("service tags: %s has changed since it was read: reload to use it", t.File)
	}
	whole, faults := ParseServiceTags(t.File, data)
	if len(faults) > 0 { // impossible: the same content had none before
		return nil, faults
	}
	return whole, nil
}

// Facts are the facts of a tag, by its name in any case.
func (t *ServiceTags) Facts(name string) (f TagFacts, ok bool) {
	found, ok := t.tags[strings.ToLower(name)]
	return found.TagFacts, ok
}

// All are the facts of all tags, sorted by name.
func (t *ServiceTags) All() []TagFacts {
	all := make([]TagFacts, 0, len(t.tags))
	for _, of := range t.tags {
		all = append(all, of.TagFacts)
	}
	slices.SortFunc(all, func(a, b TagFacts) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// maxHints is how many unknown names get a hint, since each is compared with every tag. A
// policy with more unknown names has the wrong file, not spelling mistakes.
const maxHints = 50

// hint lists the tags that are nearly an unknown name, given in lower case.
func (t *ServiceTags) hint(name string) string {
	near := ruleset.NewNearMiss(name)
	base, _, regional := strings.Cut(name, ".")
	for key, of := range t.tags {
		near.Try(of.Name, key, regional && key == base)
	}
	for _, builtIn := range ruleset.BuiltInTagNames() {
		near.Try(builtIn, strings.ToLower(builtIn), false)
	}
	return near.Hint()
}
