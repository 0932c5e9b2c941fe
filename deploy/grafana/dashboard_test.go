package grafana

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the table of README.md")

func load(t *testing.T) *Dashboard {
	t.Helper()
	d, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const begin, end = "<!-- panels -->\n", "<!-- end of panels -->\n"

func TestTheTableOfPanelsIsTheDashboards(t *testing.T) {
	var b strings.Builder
	b.WriteString("\n| panel | shows | queries |\n|---|---|---|\n")
	for _, p := range load(t).Panels {
		var queries []string
		for _, q := range p.Queries {
			queries = append(queries, "`"+strings.ReplaceAll(q.Expr, "|", `\|`)+"`")
		}
		fmt.Fprintf(&b, "| %s: %s | %s | %s |\n", p.Row, p.Title, p.Description, strings.Join(queries, "<br>"))
	}
	b.WriteString("\n")
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(readme), begin)
	table, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatal("README.md has no place for the table")
	}
	if *update {
		if err := os.WriteFile("README.md", []byte(before+begin+b.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(b.String(), table); diff != "" {
		t.Errorf("(-dashboard +README.md)\n%s", diff)
	}
}

// Grafana refuses none of these; it draws panels over each other, or none.
func TestPanelsHavePlacesAndNumbersOfTheirOwn(t *testing.T) {
	var file struct {
		Panels []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ RefID string }
		}
	}
	if err := json.Unmarshal(dashboard, &file); err != nil {
		t.Fatal(err)
	}
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range file.Panels {
		if ids[p.ID] {
			t.Errorf("%s: id %d twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("%s: %d queries", p.Title, len(p.Targets))
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] {
				t.Errorf("%s: query %s twice", p.Title, target.RefID)
			}
			refs[target.RefID] = true
		}
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			t.Errorf("%s: place %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies on %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

func TestVariablesAreUsedAndKnown(t *testing.T) {
	d := load(t)
	for _, q := range d.All() {
		if e := d.Expand(q).Expr; strings.Contains(e, "$") {
			t.Errorf("%s: a variable that the dashboard has not", e)
		}
	}
	for name := range d.Variables {
		used := false
		for _, p := range d.Panels {
			for _, q := range p.Queries {
				used = used || strings.Contains(q.Expr, "$"+name)
			}
		}
		if !used {
			t.Errorf("no panel asks by $%s", name)
		}
	}
}

func TestLabelValues(t *testing.T) {
	got, err := labelValues(`label_values(m{a="b,c"}, l)`)
	if want := (Query{Expr: `m{a="b,c"}`, Label: "l"}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{"", "label_values(m)", "label_names()", "label_values(m, l"} {
		if q, err := labelValues(text); err == nil {
			t.Errorf("%q is %+v", text, q)
		}
	}
}
