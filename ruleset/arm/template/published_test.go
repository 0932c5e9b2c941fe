package template

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const published = "../../../../shared/data/templates"

// generated makes a value for a parameter that a template's authors leave to whoever
// deploys it: the first of the allowed ones, else the least or some one of its type.
func generated(name string, declaration map[string]any) any {
	if list, ok := get(declaration, "allowedValues").([]any); ok && len(list) > 0 {
		return list[0]
	}
	switch strings.ToLower(text(declaration, "type")) {
	case "int":
		if least := get(declaration, "minValue"); least != nil {
			return least
		}
		return json.Number("1")
	case "bool":
		return true
	case "array":
		return []any{}
	case "object", "secureobject":
		return map[string]any{}
	}
	least, _ := integer(get(declaration, "minLength"))
	return strings.ToLower(name) + strings.Repeat("x", max(0, int(least)-len(name)))
}

// evaluatePublished evaluates a template with the parameters file beside it, and
// generated values for parameters that have none there and no default.
func evaluatePublished(t *testing.T, file string, runtime map[string]any) *Result {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	v, err := parseJSON(strings.TrimPrefix(string(data), "\ufeff"))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	document := v.(map[string]any)
	parameters := map[string]any{}
	if data, err := os.ReadFile(strings.TrimSuffix(file, ".json") + ".parameters.json"); err == nil {
		if parameters, err = ParseParameters(data); err != nil {
			t.Fatalf("%s: its parameters: %v", file, err)
		}
	}
	declared := object(document, "parameters")
	for _, name := range Declared(document) {
		d := object(declared, name)
		_, given := field(parameters, name)
		if _, has := field(d, "defaultValue"); !has && !given {
			parameters[name] = generated(name, d)
		}
	}
	return Evaluate(document, Options{File: file, Parameters: parameters, Runtime: runtime, ReadFile: os.ReadFile})
}

func TestX(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(published, "*", "azuredeploy.json"))
	n := 0
	for _, file := range files {
		r := evaluatePublished(t, file, nil)
		name := filepath.Base(filepath.Dir(file))
		if len(r.Problems) == 0 && len(r.Faults) == 0 {
			n++
		}
		t.Log(name, len(r.Problems), len(r.Links), len(r.Faults))
		for _, p := range append(append(r.Problems[:min(len(r.Problems), 5):min(len(r.Problems), 5)], r.Links...), r.Faults...) {
			t.Log("   ", p.Place, p.Expression, "|", p.Message)
		}
	}
	t.Log(n, len(files))
}
