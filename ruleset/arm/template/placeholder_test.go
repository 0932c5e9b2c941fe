package template

import (
	"maps"
	"regexp"
	"slices"
	"testing"
)

// The pipeline of the quickstart templates replaces these, each place by a value of its own.
func TestPlaceholdersBecomeValuesOfTheirForm(t *testing.T) {
	text := `{"parameters": {
		"a": {"value": "GEN-UNIQUE"}, "b": {"value": "GEN-UNIQUE-8"}, "c": {"value": "GEN-UNIQUE-8"}, "d": {"value": "GEN-UNIQUE-32"},
		"e": {"value": "GEN-PASSWORD"}, "f": {"value": "GEN-PASSWORD-AMP"}, "g": {"value": "GEN-GUID"}, "h": {"value": {"x": ["GEN-UNIQUE-3"]}},
		"i": {"value": "GEN-UNIQUE-2"}, "j": {"value": "GEN-UNIQUE-33"}, "k": {"value": "GEN-VNET-NAME"}, "l": {"value": "my-GEN-UNIQUE"}, "m": {"value": 7}}}`
	parse := func() *Parameters {
		p, err := ParseParameters([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := parse()
	before := maps.Clone(p.Values)
	if got, want := p.FillPlaceholders(), []string{"a", "b", "c", "d", "e", "f", "g", "h"}; !slices.Equal(got, want) {
		t.Errorf("changed %v, want %v", got, want)
	}
	p.Values["h"] = p.Values["h"].(map[string]any)["x"].([]any)[0]
	for name, form := range map[string]string{
		"a": "ci[0-9a-f]{16}", "b": "ci[0-9a-f]{6}", "c": "ci[0-9a-f]{6}", "d": "ci[0-9a-f]{30}", "e": "cI#[0-9a-f]{17}", "f": "cI&[0-9a-f]{17}",
		"g": "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}", "h": "ci[0-9a-f]",
	} {
		if value := p.Values[name].(string); !regexp.MustCompile("^" + form + "$").MatchString(value) {
			t.Errorf("%s is %q, want the form %s", name, value, form)
		}
	}
	if p.Values["b"] == p.Values["c"] {
		t.Errorf("two places have the same value %q", p.Values["b"])
	}
	for _, name := range []string{"i", "j", "k", "l", "m"} {
		if p.Values[name] != before[name] {
			t.Errorf("%s is %v, want %v as it was", name, p.Values[name], before[name])
		}
	}
	again := parse()
	again.FillPlaceholders()
	if again.Values["a"] != p.Values["a"] {
		t.Errorf("a second reading gives %q, the first %q", again.Values["a"], p.Values["a"])
	}
}
