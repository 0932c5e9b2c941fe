package ask

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table of checks in README.md")

const tableBegin, tableEnd = "<!-- the table of checks, made from lint_codes.go by go test ./dataplane/ask -update -->\n", "<!-- end of the table -->\n"

// The table is made from the registry, so that neither says what the other doesn't.
func TestTheTableOfChecksIsMadeFromTheRegistry(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), tableBegin)
	_, after, found := strings.Cut(rest, tableEnd)
	if !found {
		t.Fatal("README.md has no table of checks")
	}
	var b strings.Builder
	b.WriteString("| code | severity | what is found | what to do | others | see |\n|---|---|---|---|---|---|\n")
	for i := range Checks {
		c := &Checks[i]
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | [%s](%s) |\n", c.Code, c.Severity, c.Title, c.Help, strings.Join(c.Scanners, ", "), "document", c.Reference)
	}
	b.WriteString("\nWhat services need in their subnet (NSG303):\n\n| service | needs | see |\n|---|---|---|\n")
	for _, key := range slices.Sorted(maps.Keys(subnetServices)) {
		s := subnetServices[key]
		fmt.Fprintf(&b, "| %s | %s | [document](%s) |\n", s.name, strings.Join(texts(s.needs, func(n need) string { return n.String() }), "; "), s.reference)
	}
	want := before + tableBegin + b.String() + tableEnd + after
	if *update {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Error("README.md has another table of checks: go test ./dataplane/ask -run TableOfChecks -update")
	}
}

func TestEachCheckSaysWhatToDoAndWhereItIsWritten(t *testing.T) {
	for i := range Checks {
		c := &Checks[i]
		switch {
		case i > 0 && c.Code <= Checks[i-1].Code:
			t.Errorf("%s does not come behind %s", c.Code, Checks[i-1].Code)
		case !slices.Contains(Severities, c.Severity):
			t.Errorf("%s has severity %q", c.Code, c.Severity)
		case c.Title == "" || !strings.HasSuffix(c.Help, "."):
			t.Errorf("%s: title %q, help %q", c.Code, c.Title, c.Help)
		case !strings.HasPrefix(c.Reference, "https://learn.microsoft.com/"):
			t.Errorf("%s refers to %q, which is no document of Microsoft's", c.Code, c.Reference)
		case strings.ContainsAny(c.Title+c.Help, "|\n"):
			t.Errorf("%s does not fit into a table", c.Code)
		case CheckOf(c.Code) != c:
			t.Errorf("%s is not found", c.Code)
		}
	}
}
