package template

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const published = "../../../../shared/data/templates"

// generated makes a value for a parameter without one: the first allowed value, else the
// least, else any of its type.
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
	value := strings.ToLower(name) + strings.Repeat("x", max(0, int(least)-len(name)))
	if most, ok := integer(get(declaration, "maxLength")); ok && int(most) < len(value) {
		value = value[:most]
	}
	return value
}

// evaluatePublished evaluates a template with the parameters file beside it. It generates
// values for parameters that have neither value nor default, and for those that the file
// marks with "GEN-...". It drops values of parameters that the template does not have,
// which Azure would refuse.
func evaluatePublished(t *testing.T, file string, runtime map[string]any) *Result {
	t.Helper()
	document := readObject(t, file)
	parameters := map[string]any{}
	if data, err := os.ReadFile(strings.TrimSuffix(file, ".json") + ".parameters.json"); err == nil {
		p, err := ParseParameters(data)
		if err != nil {
			t.Fatalf("%s: its parameters: %v", file, err)
		}
		parameters = p.Values
	}
	declared := object(document, "parameters")
	for name, value := range parameters {
		mark, _ := value.(string)
		if _, known := field(declared, name); !known || strings.HasPrefix(mark, "GEN-") {
			delete(parameters, name)
		}
	}
	for _, name := range Declared(document) {
		d := object(declared, name)
		_, given := field(parameters, name)
		if _, has := field(d, "defaultValue"); !has && !given {
			parameters[name] = generated(name, d)
		}
	}
	return Evaluate(document, Options{File: file, Parameters: parameters, Runtime: runtime, ReadFile: os.ReadFile})
}

func readObject(t *testing.T, file string) map[string]any {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	v, err := parseJSON(strings.TrimPrefix(string(data), "\ufeff"))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return v.(map[string]any)
}

// needRuntime are the published templates that use values which only Azure knows.
var needRuntime = map[string]string{
	"201-eventhubs-private-endpoint":     "listKeys",
	"301-parameterized-linked-templates": "linked template",
	"nextflow-genomics-cluster-ubuntu":   "listKeys",
	"sas9.4-viya":                        "principalId",
	"thinkbox-deadline":                  "privateIPAddress",
	"vm-to-vm-bandwidth-meter":           "ipAddress",
}

// Every expression of every resource of published templates evaluates, or is reported with
// its place. Six templates need testdata/published-runtime.json, with values that only Azure
// knows.
func TestPublishedTemplatesEvaluate(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(published, "*", "azuredeploy.json"))
	if err != nil || len(files) == 0 {
		t.Skipf("the shared templates are not here: %s", published)
	}
	runtime := readObject(t, "testdata/published-runtime.json")
	complete, alone := 0, 0
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		r := evaluatePublished(t, file, nil)
		if needs, ok := needRuntime[name]; ok {
			if !checkNamed(t, r.Problems, needs) {
				t.Errorf("%s: nothing only Azure knows is named that is about %s: %v", name, needs, r.Problems)
			}
			r = evaluatePublished(t, file, object(runtime, name))
		} else if len(r.Problems) == 0 && len(r.Faults) == 0 {
			alone++
		}
		if n := len(r.Links); n > 0 {
			t.Logf("%s: %d linked templates are not read, the first at %s: %s", name, n, r.Links[0].Place, r.Links[0].Message)
		}
		for _, p := range append(r.Problems, r.Faults...) {
			t.Logf("%s: %s: %s: %s", name, p.Place, p.Expression, p.Message)
		}
		if len(r.Problems) > 0 || len(r.Faults) > 0 {
			t.Logf("%s: incomplete", name)
			continue
		}
		t.Logf("%s: complete", name)
		complete++
	}
	t.Logf("%d of %d complete, %d of them without what only Azure knows", complete, len(files), alone)
	if complete < 45 || alone < 41 {
		t.Errorf("%d of %d complete, %d of them without what only Azure knows; 45 and 41 are wanted", complete, len(files), alone)
	}
}

func checkNamed(t *testing.T, problems []*Problem, what string) bool {
	found := false
	for _, p := range problems {
		if p.Place == "" || p.Expression == "" || p.File == "" {
			t.Errorf("a problem without a place: %+v", p)
		}
		found = found || strings.Contains(p.Message, what)
	}
	return found
}
