package conformance

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Every fact has a case or a reason, and every case names its fact.
func TestEveryFactHasACaseOrIsLeftOutForAReason(t *testing.T) {
	facts, held := factsAndCases(t)
	for i := range facts {
		f := &facts[i]
		switch n := len(held[f.ID]); {
		case n == 0 && f.LeftOut == "":
			t.Errorf("%s (%s): no case has it as its source, and leftOut does not say why", f.ID, f.Fact)
		case n > 0 && f.LeftOut != "":
			t.Errorf("%s is left out (%s) but case %q holds it", f.ID, f.LeftOut, held[f.ID][0])
		}
	}
}

// factsAndCases are the facts, and for each the names of its cases.
func factsAndCases(t *testing.T) (facts []Fact, held map[string][]string) {
	t.Helper()
	facts, err := LoadFacts()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for i := range facts {
		known[facts[i].ID] = true
	}
	files, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	held = map[string][]string{}
	for _, file := range files {
		for _, c := range file.Cases {
			for _, id := range c.Source {
				if !known[id] {
					t.Errorf("%s: case %q: source %q is no fact of facts.yaml", file.Name, c.Name, id)
				}
				held[id] = append(held[id], c.Name)
			}
		}
	}
	return facts, held
}

// FACTS.md shows facts.yaml and the cases to a person; -update writes it.
func TestFactsAreListedForAPerson(t *testing.T) {
	facts, held := factsAndCases(t)
	var b strings.Builder
	b.WriteString("# What Azure says, and the cases that hold nsgd to it\n\n" +
		"Written from facts.yaml and cases/*.yaml by `go test ./test/conformance -update`. The sections and keys of sources\n" +
		"are those of the project's reference of Azure's behaviour.\n")
	section := ""
	for i := range facts {
		f := &facts[i]
		if s := f.Section(); s != section {
			section = s
			fmt.Fprintf(&b, "\n## %s\n\n| fact | certainty, source | cases |\n|---|---|---|\n", section)
		}
		cases := strings.Join(held[f.ID], "; ")
		if f.LeftOut != "" {
			cases = "left out: " + f.LeftOut
		}
		fmt.Fprintf(&b, "| `%s` %s | %s, %s | %s |\n", f.ID, cell(f.Fact), f.Marker, f.Source, cell(cases))
	}
	if *update {
		write(t, "FACTS.md", []byte(b.String()))
	}
	if got, err := os.ReadFile("FACTS.md"); err != nil || string(got) != b.String() {
		t.Errorf("FACTS.md is not what facts.yaml and the cases give; go test ./test/conformance -update writes it (%v)", err)
	}
}

func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }
