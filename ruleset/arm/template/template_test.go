package template

import (
	"errors"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// evaluateText evaluates a template with parameters as texts.
func evaluateText(t *testing.T, template string, o Options) *Result {
	t.Helper()
	v, err := parseJSON(template)
	if err != nil {
		t.Fatalf("%v in %s", err, template)
	}
	if o.File == "" {
		o.File = "main.json"
	}
	return Evaluate(v.(map[string]any), o)
}

// names lists resources as "type name {properties}".
func names(document any) []string {
	o, _ := document.(map[string]any)
	list, _ := get(o, "resources").([]any)
	var out []string
	for _, e := range list {
		r, ok := e.(map[string]any)
		if !ok {
			out = append(out, e.(string))
			continue
		}
		line := lastName(text(r, "type")) + " " + text(r, "name")
		properties, _ := get(r, "properties").(map[string]any)
		inner := get(properties, "template")
		if inner == nil && properties != nil {
			j, _ := asJSON(properties)
			line += " " + j
		}
		for _, field := range []string{"condition", "copy"} {
			if v, ok := r[field]; ok {
				j, _ := asJSON(v)
				line += " " + field + " " + j
			}
		}
		out = append(out, line)
		for _, nested := range []any{r, inner} {
			for _, child := range names(nested) {
				out = append(out, "  "+child)
			}
		}
	}
	return out
}

const nsgType = `"type": "Microsoft.Network/networkSecurityGroups"`

func nested(rest string) string {
	return `{"type": "Microsoft.Resources/deployments", "name": "d", "properties": {` + rest + `}}`
}

// templates are small templates with their results.
var templates = []struct {
	name, template string
	want           []string
	problems       []string // "place: part of the message"
}{
	{"a loop of resources",
		`{"resources": [{` + nsgType + `, "name": "[concat('n', copyIndex(1))]", "copy": {"name": "c", "count": "[add(1, 1)]"}, "properties": {"i": "[copyIndex('c')]"}}]}`,
		[]string{`networkSecurityGroups n1 {"i":0}`, `networkSecurityGroups n2 {"i":1}`}, nil},
	{"a loop of none", `{"resources": [{` + nsgType + `, "name": "n", "copy": {"name": "c", "count": 0}}]}`, nil, nil},
	{"a loop of properties within a loop of resources",
		`{"resources": [{` + nsgType + `, "name": "[concat('n', copyIndex())]", "copy": {"name": "c", "count": 2}, "properties": {"copy": [
			{"name": "rules", "count": 2, "input": {"a": "[copyIndex('rules', 10)]", "b": "[copyIndex()]", "copy": [{"name": "deep", "count": 1, "input": "[add(copyIndex('deep'), copyIndex('rules'))]"}]}}]}}]}`,
		[]string{
			`networkSecurityGroups n0 {"rules":[{"a":10,"b":0,"deep":[0]},{"a":11,"b":0,"deep":[1]}]}`,
			`networkSecurityGroups n1 {"rules":[{"a":10,"b":1,"deep":[0]},{"a":11,"b":1,"deep":[1]}]}`,
		}, nil},
	{"loops of variables",
		`{"variables": {"copy": [{"name": "top", "count": 2, "input": "[concat('t', copyIndex('top'))]"}], "o": {"copy": [{"name": "in", "count": 2, "input": {"i": "[copyIndex('in', 1)]"}}]}},
		"resources": [{` + nsgType + `, "name": "n", "properties": {"top": "[variables('top')]", "in": "[variables('o').in]"}}]}`,
		[]string{`networkSecurityGroups n {"in":[{"i":1},{"i":2}],"top":["t0","t1"]}`}, nil},
	{"a loop that is too long", `{"resources": [{` + nsgType + `, "name": "n", "copy": {"name": "c", "count": 801}}]}`,
		[]string{`networkSecurityGroups n copy "[801]"`}, []string{"resources[0].copy.count: allowed is an integer from 0 to 800"}},
	{"a loop whose count is not known", `{"parameters": {"n": {"type": "int"}}, "resources": [{` + nsgType + `, "name": "[concat('n', copyIndex())]", "copy": {"name": "c", "count": "[parameters('n')]"}}]}`,
		[]string{`networkSecurityGroups [concat('n', copyIndex())] copy "[parameters('n')]"`},
		[]string{"resources[0].copy.count: the parameter n (int) has no value", "resources[0].name: it stands in no copy loop"}},
	{"conditions", `{"parameters": {"c": {"type": "bool"}}, "resources": [
		{` + nsgType + `, "name": "yes", "condition": true}, {` + nsgType + `, "name": "no", "condition": "[equals(1, 2)]"},
		{` + nsgType + `, "name": "open", "condition": "[parameters('c')]"}, {` + nsgType + `, "name": "odd", "condition": "[concat('true')]"}]}`,
		[]string{`networkSecurityGroups yes`, `networkSecurityGroups open condition "[parameters('c')]"`, `networkSecurityGroups odd condition "[concat('true')]"`},
		[]string{"resources[2].condition: the parameter c (bool) has no value", "resources[3].condition: a condition is true or false, not of type string"}},
	{"children within their parent, in its loop",
		`{"resources": [{"type": "Microsoft.Network/virtualNetworks", "name": "[concat('v', copyIndex())]", "copy": {"name": "c", "count": 2}, "resources": [
			{"type": "subnets", "name": "s", "properties": {"i": "[copyIndex()]", "id": "[resourceId('Microsoft.Network/virtualNetworks/subnets', concat('v', copyIndex()), 's')]"}}]}]}`,
		[]string{
			`virtualNetworks v0`, `  subnets s {"i":0,"id":"/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/nsgd/providers/Microsoft.Network/virtualNetworks/v0/subnets/s"}`,
			`virtualNetworks v1`, `  subnets s {"i":1,"id":"/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/nsgd/providers/Microsoft.Network/virtualNetworks/v1/subnets/s"}`,
		}, nil},
	{"symbolic names, and what exists already",
		`{"languageVersion": "2.0", "resources": {
			"ip": {"type": "Microsoft.Network/publicIPAddresses", "name": "ip", "location": "northeurope", "properties": {"dnsSettings": {"domainNameLabel": "x"}}},
			"old": {"existing": true, "type": "Microsoft.Network/virtualNetworks", "name": "old"},
			"loop": {` + nsgType + `, "name": "[format('g{0}', copyIndex())]", "copy": {"name": "loop", "count": 2}, "properties": {"v": "[copyIndex()]"}},
			"uses": {` + nsgType + `, "name": "n", "properties": {"fqdn": "[reference('ip').dnsSettings.fqdn]", "one": "[reference('loop[1]').v]", "all": "[length(references('loop'))]", "old": "[reference('old').x]"}}}}`,
		[]string{`publicIPAddresses ip {"dnsSettings":{"domainNameLabel":"x"}}`, `networkSecurityGroups g0 {"v":0}`, `networkSecurityGroups g1 {"v":1}`,
			`networkSecurityGroups n {"all":2,"fqdn":"x.northeurope.cloudapp.azure.com","old":"[reference('old').x]","one":1}`},
		[]string{"resources.uses.properties.old: virtualNetworks/old is not in the template: only Azure knows its properties"}},
	{"a nested template sees the outer parameters and variables", `{"parameters": {"p": {"type": "string", "defaultValue": "outer"}}, "variables": {"v": "ov"}, "resources": [` +
		nested(`"mode": "Incremental", "template": {"parameters": {"p": {"type": "string", "defaultValue": "inner"}}, "variables": {"v": "iv"}, "resources": [
			{`+nsgType+`, "name": "n", "properties": {"p": "[parameters('p')]", "v": "[variables('v')]"}}]}`) + `]}`,
		[]string{`deployments d`, `  networkSecurityGroups n {"p":"outer","v":"ov"}`}, nil},
	{"a nested template of the inner scope sees its own", `{"parameters": {"p": {"type": "string", "defaultValue": "outer"}}, "resources": [` +
		nested(`"expressionEvaluationOptions": {"scope": "inner"}, "parameters": {"p": {"value": "[concat(parameters('p'), '!')]"}},
			"template": {"parameters": {"p": {"type": "string"}, "q": {"type": "string"}}, "resources": [
			{`+nsgType+`, "name": "n", "properties": {"p": "[parameters('p')]", "q": "[parameters('q')]", "d": "[deployment().name]"}}]}`) + `]}`,
		[]string{`deployments d`, `  networkSecurityGroups n {"d":"d","p":"outer!","q":"[parameters('q')]"}`},
		[]string{"resources[0].properties.template.resources[0].properties.q: the parameter q (string) has no defaultValue, and the deployment at resources[0] passes no value for it"}},
	{"outputs of a nested deployment", `{"resources": [` +
		nested(`"expressionEvaluationOptions": {"scope": "inner"}, "template": {"resources": [{`+nsgType+`, "name": "n", "properties": {"x": 5}}],
			"outputs": {"x": {"type": "int", "value": "[reference('n').x]"}, "l": {"type": "array", "copy": {"count": 2, "input": "[copyIndex(1)]"}}}}`) +
		`, {` + nsgType + `, "name": "m", "properties": {"x": "[reference('d').outputs.x.value]", "l": "[reference(resourceId('Microsoft.Resources/deployments', 'd')).outputs.l.value]"}}]}`,
		[]string{`deployments d`, `  networkSecurityGroups n {"x":5}`, `networkSecurityGroups m {"l":[1,2],"x":5}`}, nil},
	{"references in a circle",
		`{"resources": [{` + nsgType + `, "name": "a", "properties": {"x": "[reference('b').x]"}}, {` + nsgType + `, "name": "b", "properties": {"x": "[reference('a').x]"}}]}`,
		[]string{`networkSecurityGroups a {"x":"[reference('b').x]"}`, `networkSecurityGroups b {"x":"[reference('a').x]"}`},
		[]string{"resources[0].properties.x: refers to itself", "resources[1].properties.x: refers to itself"}},
	{"a reference in a name", `{"resources": [{` + nsgType + `, "name": "[reference('b').x]"}]}`,
		[]string{`networkSecurityGroups [reference('b').x]`}, []string{"resources[0].name: needed before anything is deployed"}},
	{"only what depends on a missing parameter is open",
		`{"parameters": {"p": {"type": "string"}}, "variables": {"o": {"a": "[parameters('p')]", "b": "fine", "c": ["[variables('o2')]"]}, "o2": 7},
		"resources": [{` + nsgType + `, "name": "n", "properties": {"a": "[variables('o').a]", "b": "[variables('o').b]", "c": "[variables('o').c[0]]", "o": "[variables('o')]"}}]}`,
		[]string{`networkSecurityGroups n {"a":"[variables('o').a]","b":"fine","c":7,"o":{"a":"[parameters('p')]","b":"fine","c":[7]}}`},
		[]string{"resources[0].properties.a: parameters.p: the parameter p (string) has no value", "variables.o.a: parameters.p: the parameter p (string)"}},
	{"texts that look like expressions stay texts", `{"resources": [{` + nsgType + `, "name": "n", "properties": {"a": "[[x]", "b": "[concat('[', 'x]')]"}}]}`,
		[]string{`networkSecurityGroups n {"a":"[[x]","b":"[[x]"}`}, nil},
	{"names of properties", `{"resources": [{` + nsgType + `, "name": "n", "properties": {"[concat('k', '1')]": 1}}]}`, []string{`networkSecurityGroups n {"k1":1}`}, nil},
	{"children of a resource that is not deployed, or exists already",
		`{"languageVersion": "2.0", "resources": {
			"no": {` + nsgType + `, "name": "[concat('n', 'o')]", "condition": "[equals(1, 2)]", "resources": [{"type": "securityRules", "name": "r", "properties": {}}]},
			"old": {` + nsgType + `, "name": "old", "existing": true, "resources": [{"type": "securityRules", "name": "r", "properties": {}}]}}}`,
		[]string{"securityRules no/r {}", "securityRules old/r {}"}, nil},
	{"a loop beside a property of its name",
		`{"resources": [{` + nsgType + `, "name": "n", "properties": {"rules": ["a"], "copy": [{"name": "rules", "count": 1, "input": "b"}]}}]}`,
		[]string{`networkSecurityGroups n {"copy":"[rules]","rules":["b"]}`}, []string{"resources[0].properties.rules: a copy loop makes the property too"}},
	{"a loop beside a property of its name in another case, which comes first",
		`{"resources": [{` + nsgType + `, "name": "n", "properties": {"Rules": ["a"], "copy": [{"name": "[concat('ru', 'les')]", "count": 1, "input": "b"}]}}]}`,
		[]string{`networkSecurityGroups n {"Rules":["a"],"copy":"[rules]"}`}, []string{"resources[0].properties.copy[0].name: a copy loop makes the property too"}},
	{"two loops of one name",
		`{"resources": [{` + nsgType + `, "name": "n", "properties": {"copy": [{"name": "rules", "count": 1, "input": "a"}, {"name": "rules", "count": 1, "input": "b"}]}}]}`,
		[]string{`networkSecurityGroups n {"copy":"[rules]","rules":["a"]}`}, []string{"resources[0].properties.copy[1].name: a copy loop makes the property too"}},
	{"two loops of one variable",
		`{"variables": {"copy": [{"name": "v", "count": 1, "input": "a"}, {"name": "V", "count": 1, "input": "b"}]}, "resources": [{` + nsgType + `, "name": "n", "properties": {"v": "[variables('v')]"}}]}`,
		[]string{`networkSecurityGroups n {"v":"[variables('v')]"}`}, []string{"resources[0].properties.v: there are two variables V; allowed is one"}},
	{"a loop without its input",
		`{"resources": [{` + nsgType + `, "name": "n", "properties": {"copy": [{"name": "rules", "count": 2}]}}]}`,
		[]string{`networkSecurityGroups n {"copy":"[[{\"count\":2,\"name\":\"rules\"}]]"}`}, []string{"resources[0].properties.copy: the loops of properties are a list; each needs name, count and input"}},
	{"a loop that is in no list",
		`{"resources": [{` + nsgType + `, "name": "n", "properties": {"copy": {"name": "rules", "count": 2, "input": "a"}}}]}`,
		[]string{`networkSecurityGroups n {"copy":"[{\"count\":2,\"input\":\"a\",\"name\":\"rules\"}]"}`}, []string{"resources[0].properties.copy: the loops of properties are a list"}},
	{"resources as an expression", `{"resources": "[variables('r')]"}`, nil, []string{"resources: allowed is no expression"}},
	{"a resource as an expression", `{"resources": ["[variables('r')]"]}`, []string{"[variables('r')]"}, []string{"resources[0]: allowed is no expression"}},
	{"the template of a deployment as an expression", `{"resources": [` + nested(`"template": "[variables('t')]"`) + `]}`, []string{`deployments d`},
		[]string{"resources[0].properties.template: the template has no variable t"}},
	{"the template of a deployment as the content of a file, as Bicep writes it", `{"variables": {"t": {"resources": [{` + nsgType + `, "name": "[[deployment().name]"}]}}, "resources": [` +
		nested(`"expressionEvaluationOptions": {"scope": "inner"}, "template": "[variables('t')]"`) + `]}`, []string{`deployments d`, `  networkSecurityGroups d`}, nil},
	{"the template of a deployment as no object", `{"resources": [` + nested(`"template": "[createArray()]"`) + `]}`, []string{`deployments d`},
		[]string{"resources[0].properties.template: the template of a deployment is of type array; allowed is an object"}},
	{"a resource that a deployment updates with what a later one has", `{"resources": [` +
		nested(`"template": {"resources": [{"type": "T/x", "name": "n", "properties": {"a": "[reference(resourceId('T/x', 'n')).a]"}}]}`) + `,` +
		strings.Replace(nested(`"template": {"resources": [{"type": "T/x", "name": "n", "properties": {"a": 1}}]}`), `"d"`, `"e"`, 1) + `]}`,
		[]string{`deployments d`, `  x n {"a":1}`, `deployments e`, `  x n {"a":1}`}, nil},
	{"a resource that a deployment updates with what it has", `{"resources": [{"type": "T/x", "name": "n", "properties": {"a": 1, "b": 2}}, ` +
		nested(`"template": {"resources": [{"type": "T/x", "name": "n", "properties": {"a": "[reference('n').a]", "b": 3}}]}`) + `,
		{"type": "T/y", "name": "m", "properties": {"a": "[reference('n').a]", "b": "[reference(resourceId('T/x', 'n')).b]"}}]}`,
		[]string{`x n {"a":1,"b":2}`, `deployments d`, `  x n {"a":1,"b":3}`, `y m {"a":1,"b":"[reference(resourceId('T/x', 'n')).b]"}`},
		[]string{"resources[2].properties.b: several times with different b, and which one holds is not known"}},
}

func TestTemplates(t *testing.T) {
	for _, tt := range templates {
		t.Run(tt.name, func(t *testing.T) {
			r := evaluateText(t, tt.template, Options{})
			if got := names(r.Document); !slices.Equal(got, tt.want) {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "\n     "), strings.Join(tt.want, "\n     "))
			}
			if len(r.Problems) != len(tt.problems) {
				t.Errorf("problems %v, want %q", r.Problems, tt.problems)
				return
			}
			for i, p := range r.Problems {
				place, message, _ := strings.Cut(tt.problems[i], ": ")
				if p.Place != place || !strings.Contains(p.Message, message) || p.File != "main.json" {
					t.Errorf("problem %+v, want %q", p, tt.problems[i])
				}
			}
		})
	}
}

func TestParameters(t *testing.T) {
	declare := func(d string) string {
		return `{"parameters": {"P": {` + d + `}}, "resources": [{"type": "T/x", "name": "n", "properties": {"p": "[parameters('p')]"}}]}`
	}
	tests := []struct {
		name, declaration string
		value             any
		want, fault       string
	}{
		{"a text", `"type": "string"`, Text("a=b"), `"a=b"`, ""},
		{"a text as an int", `"type": "int"`, Text("7"), `7`, ""},
		{"a text as a bool", `"type": "Bool"`, Text("True"), `true`, ""},
		{"a text as an array", `"type": "array"`, Text(`[1, "a"]`), `[1,"a"]`, ""},
		{"a text that is no int", `"type": "int"`, Text("x"), "", `the value "x" is no int`},
		{"a value of another type", `"type": "int"`, "7", "", "the value is of type string; declared is int"},
		{"a default", `"type": "string", "defaultValue": "[concat('d', '1')]"`, nil, `"d1"`, ""},
		{"a default of another type", `"type": "int", "defaultValue": "7"`, nil, "", "the value is of type string; declared is int"},
		{"a default that is not allowed", `"type": "string", "defaultValue": "three", "allowedValues": ["One"]`, nil, "", "allowed are [\"One\"]"},
		{"such a default that is not in force", `"type": "string", "defaultValue": "three", "allowedValues": ["One"]`, "One", `"One"`, ""},
		{"null where it is allowed", `"type": "string", "nullable": true`, nil, `null`, ""},
		{"an allowed value, in another case", `"type": "string", "allowedValues": ["One", "Two"]`, "one", `"one"`, ""},
		{"a value that is not allowed", `"type": "string", "allowedValues": ["One", "Two"]`, "three", "", `the value "three" is not allowed; allowed are ["One","Two"]`},
		{"a secret is not shown", `"type": "securestring", "minLength": 12`, "hunter2", "", "the value is not allowed: its length is 7; minLength is 12"},
		{"too small", `"type": "int", "minValue": 2`, Text("1"), "", "minValue is 2"},
		{"too great", `"type": "int", "maxValue": 2`, Text("3"), "", "maxValue is 2"},
		{"too long", `"type": "array", "maxLength": 1`, Text("[1, 2]"), "", "maxLength is 1"},
		{"in a key vault", `"type": "securestring"`, secret{}, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{}
			if tt.value != nil {
				o.Parameters = map[string]any{"p": tt.value}
			}
			r := evaluateText(t, declare(tt.declaration), o)
			if tt.fault != "" {
				if len(r.Faults) != 1 || !strings.Contains(r.Faults[0].Message, tt.fault) || !strings.HasPrefix(strings.ToLower(r.Faults[0].Place), "parameters.p") {
					t.Errorf("faults %v, want %s", r.Faults, tt.fault)
				}
				return
			}
			if tt.want == "" {
				if len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Message, "in a key vault: only Azure knows it") {
					t.Errorf("problems %v", r.Problems)
				}
				return
			}
			if got := names(r.Document); len(r.Problems)+len(r.Faults) > 0 || got[0] != `x n {"p":`+tt.want+`}` {
				t.Errorf("got %v with %v and %v, want %s", got, r.Problems, r.Faults, tt.want)
			}
		})
	}
	r := evaluateText(t, declare(`"type": "string", "defaultValue": ""`), Options{Parameters: map[string]any{"q": "x"}})
	if len(r.Faults) != 1 || !strings.Contains(r.Faults[0].Message, "no parameter of that name; there are: P") {
		t.Errorf("a parameter that is not there: %v", r.Faults)
	}
}

func TestParameterFiles(t *testing.T) {
	tests := []struct{ name, data, want, fault string }{
		{"Azure's form", `{"$schema": "x", "contentVersion": "1.0.0.0", "parameters": {"a": {"value": 1}, "b": {"reference": {"keyVault": {}}}}}`, `{"a":1,"b":{}}`, ""},
		{"the inner object alone", `{"a": {"value": [1]}}`, `{"a":[1]}`, ""},
		{"a bare value", `{"parameters": {"a": 1}}`, "", "line 1, column 22: parameters.a: allowed is an object with a value or a reference"},
		{"a list", `[]`, "", "a parameters file holds an object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			values, err := ParseParameters([]byte(tt.data))
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) {
					t.Errorf("error %v, want %s", err, tt.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := asJSON(values.Values); err != nil || got != tt.want {
				t.Errorf("got %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestLinkedTemplates(t *testing.T) {
	files := map[string]string{
		"dir/nested/rules.json": `{"parameters": {"name": {"type": "string"}}, "resources": [{"type": "T/x", "name": "[parameters('name')]"},
			{"type": "Microsoft.Resources/deployments", "name": "deeper", "properties": {"templateLink": {"relativePath": "leaf.json"}}}]}`,
		"dir/nested/leaf.json": `{"resources": [{"type": "T/x", "name": "[parameters('none')]"}]}`,
		"dir/bad.json":         `{`,
	}
	tests := []struct {
		name, link string
		want       []string
		unread     string
		problem    string
	}{
		{"beside the file, and beside that one", `{"relativePath": "nested/rules.json"}`,
			[]string{"deployments d", "  x linked", "  deployments deeper", "    x [parameters('none')]"}, "", "dir/nested/leaf.json: resources[0].name"},
		{"by the deployment's own link", `{"uri": "[uri(deployment().properties.templateLink.uri, 'nested/rules.json')]"}`,
			[]string{"deployments d", "  x linked", "  deployments deeper", "    x [parameters('none')]"}, "", "dir/nested/leaf.json: resources[0].name"},
		{"remote", `{"uri": "https://example.org/x.json?sas"}`, []string{"deployments d"}, "https://example.org/x.json is remote and is not fetched", ""},
		{"outside the folder", `{"relativePath": "../x.json"}`, []string{"deployments d"}, "is not below the folder of the template", ""},
		{"nowhere", `{"relativePath": "x.json"}`, []string{"deployments d"}, "no such file", ""},
		{"no JSON", `{"relativePath": "bad.json"}`, []string{"deployments d"}, "is no JSON object", ""},
		{"a template spec", `{"id": "/subscriptions/S"}`, []string{"deployments d"}, "a template spec: only Azure has it", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := evaluateText(t, `{"resources": [{"type": "Microsoft.Resources/deployments", "name": "d", "properties": {"templateLink": `+tt.link+`, "parameters": {"name": {"value": "[concat('link', 'ed')]"}}}}]}`,
				Options{File: "dir/main.json", ReadFile: func(path string) ([]byte, error) {
					if data, ok := files[path]; ok {
						return []byte(data), nil
					}
					return nil, errors.New("no such file")
				}})
			got := names(r.Document)
			for i := range got { // other properties of deployments do not matter here
				got[i], _, _ = strings.Cut(got[i], " {")
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			switch {
			case tt.unread == "" && len(r.Links) > 0:
				t.Errorf("not read: %v", r.Links)
			case tt.unread != "" && (len(r.Links) != 1 || !strings.Contains(r.Links[0].Message, tt.unread)):
				t.Errorf("not read: %v, want %s", r.Links, tt.unread)
			}
			if tt.problem != "" && (len(r.Problems) != 1 || r.Problems[0].File+": "+r.Problems[0].Place != tt.problem) {
				t.Errorf("problems %v, want %s", r.Problems, tt.problem)
			}
		})
	}
}

// A remote template that lies here is read: under the folder's address for sure, else with a note that it was guessed.
func TestRemoteTemplatesThatLieHere(t *testing.T) {
	const rules = `{"resources": [{"type": "T/x", "name": "linked"}]}`
	for _, tt := range []struct {
		name, link, artifacts, folder string
		files                         []string
		read, guess, unread           string
	}{
		{name: "below _artifactsLocation", link: "[uri(parameters('_artifactsLocation'), concat('nested/rules.json', parameters('_artifactsLocationSasToken')))]",
			artifacts: "https://example.com/t/", files: []string{"dir/nested/rules.json"}, read: "dir/nested/rules.json"},
		{name: "below _artifactsLocation, though the end of the path lies here too", link: "[concat(parameters('_artifactsLocation'), '/none/rules.json')]",
			artifacts: "https://example.com/t", files: []string{"dir/rules.json"}, unread: "https://example.com/t/none/rules.json is remote and is not fetched"},
		{name: "below _artifactsLocation, out of the folder", link: "[uri(parameters('_artifactsLocation'), '../rules.json')]",
			artifacts: "https://example.com/t/", files: []string{"rules.json"}, unread: "is remote and is not fetched"},
		{name: "by the end of its path", link: "https://example.com/a/b/nested/rules.json?sig=x", files: []string{"dir/nested/rules.json", "dir/rules.json"},
			read: "dir/nested/rules.json", guess: "https://example.com/a/b/nested/rules.json is read from dir/nested/rules.json, because their paths end alike"},
		{name: "the template itself is no template that it links", link: "https://example.com/a/main.json", files: []string{"dir/main.json"}, unread: "is remote and is not fetched"},
		{name: "in another part of the folder", link: "[uri(deployment().properties.templateLink.uri, '../shared/rules.json')]", folder: ".",
			files: []string{"shared/rules.json"}, read: "shared/rules.json"},
		{name: "out of the folder", link: "[uri(deployment().properties.templateLink.uri, '../../shared/rules.json')]", folder: ".",
			files: []string{"../shared/rules.json"}, unread: "is not below the folder of the template"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			read := ""
			r := evaluateText(t, `{"parameters": {"_artifactsLocation": {"type": "string", "defaultValue": "`+tt.artifacts+`"}, "_artifactsLocationSasToken": {"type": "string", "defaultValue": "?sas"}},
				"resources": [{"type": "Microsoft.Resources/deployments", "name": "d", "properties": {"templateLink": {"uri": "`+tt.link+`"}}}]}`,
				Options{File: "dir/main.json", Folder: tt.folder, ReadFile: func(path string) ([]byte, error) {
					if !slices.Contains(tt.files, path) {
						return nil, errors.New("no such file")
					}
					read = path
					return []byte(rules), nil
				}})
			if read != tt.read || (tt.read != "") != slices.Contains(names(r.Document), "  x linked") {
				t.Errorf("read %q, want %q: %q", read, tt.read, names(r.Document))
			}
			for _, list := range []struct {
				got  []*Problem
				want string
			}{{r.Guesses, tt.guess}, {r.Links, tt.unread}} {
				if (list.want != "") != (len(list.got) == 1) || list.want != "" && !strings.Contains(list.got[0].Message, list.want) {
					t.Errorf("got %v, want %q", list.got, list.want)
				}
			}
		})
	}
}

func TestDeploymentsNestAtMostEightDeep(t *testing.T) {
	const template = `{"resources": [{"type": "Microsoft.Resources/deployments", "name": "d", "properties": {"templateLink": {"relativePath": "x.json"}}}]}`
	reads := 0
	r := evaluateText(t, template, Options{ReadFile: func(string) ([]byte, error) { reads++; return []byte(template), nil }})
	if reads > maxDeployments+1 || len(r.Links) != 1 || !strings.Contains(r.Links[0].Message, "deployments nest deeper than 8") {
		t.Errorf("%d templates read, %v", reads, r.Links)
	}
}

// A long policy is no bomb: the caps are for the work that evaluation adds.
func TestALongDocumentIsEvaluated(t *testing.T) {
	list := make([]any, maxSteps/2)
	for i := range list {
		list[i] = true
	}
	r := Evaluate(map[string]any{"resources": []any{
		map[string]any{"type": "T/x", "name": "[concat('n')]", "properties": map[string]any{"list": list}},
	}}, Options{})
	if len(r.Problems) > 0 {
		t.Error(r.Problems)
	}
}

func TestResourcesGoWhereTheyAreSent(t *testing.T) {
	const template = `{"resources": [{"type": "T/x", "name": "n"}, {"type": "Microsoft.Resources/deployments", "name": "d", "resourceGroup": "other",
		"properties": {"template": {"resources": [{"type": "T/x", "name": "m", "properties": {"id": "[resourceGroup().name]"}}]}}}]}`
	ids := func(o Options) []string {
		r := evaluateText(t, template, o)
		list := get(r.Document, "resources").([]any)
		inner := object(object(list[1].(map[string]any), "properties"), "template")
		return []string{text(list[0].(map[string]any), "id"), text(get(inner, "resources").([]any)[0].(map[string]any), "id")}
	}
	if got, want := ids(Options{}), []string{"", "/subscriptions/" + NoSubscription + "/resourceGroups/other/providers/T/x/m"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	want := []string{"/subscriptions/S/resourceGroups/R/providers/T/x/n", "/subscriptions/S/resourceGroups/other/providers/T/x/m"}
	if got := ids(Options{Subscription: "S", ResourceGroup: "R"}); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhatAzureKnowsOfTheGroupComesFromOptions(t *testing.T) {
	const template = `{"resources": [{"type": "T/x", "name": "n", "properties": {"t": "[resourceGroup().tags.who]", "s": "[subscription().displayName]"}}]}`
	for name, runtime := range map[string]map[string]any{
		"by name": {"R": map[string]any{"tags": map[string]any{"who": "me"}}, "S": map[string]any{"displayName": "lab"}},
		"by id":   {"/subscriptions/S/resourceGroups/R": map[string]any{"tags": map[string]any{"who": "me"}}, "/subscriptions/S": map[string]any{"displayName": "lab"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := evaluateText(t, template, Options{Subscription: "S", ResourceGroup: "R", Runtime: runtime})
			if got := names(r.Document); len(r.Problems) > 0 || got[0] != `x n {"s":"lab","t":"me"}` {
				t.Errorf("got %q with %v", got, r.Problems)
			}
		})
	}
}

// bombs would take exponential time or memory.
var bombs = []struct{ name, template string }{
	{"doubling texts", chain("[concat(variables('%'), variables('%'))]", "xxxxxxxxxxxxxxxx")},
	{"doubling arrays", chain("[concat(variables('%'), variables('%'))]", []any{"x"})},
	{"shared arrays", chain("[createArray(variables('%'), variables('%'))]", "x")},
	{"shared objects as text", chain("[createObject('a', variables('%'), 'b', string(variables('%')))]", "x")},
	{"a template that links itself", `{"resources": [{"type": "Microsoft.Resources/deployments", "name": "[concat('d', copyIndex())]", "copy": {"name": "c", "count": 800}, "properties": {"templateLink": {"relativePath": "x.json"}}}]}`},
	{"loops in loops", `{"resources": [{"type": "T/x", "name": "n", "properties": {"copy": [{"name": "a", "count": 800, "input": {"copy": [{"name": "b", "count": 800, "input": {"copy": [{"name": "c", "count": 800, "input": "[copyIndex('c')]"}]}}]}}]}}]}`},
	{"nested map", `{"resources": [{"type": "T/x", "name": "n", "properties": {"x": "[map(range(0, 10000), lambda('a', map(range(0, 10000), lambda('b', add(lambdaVariables('a'), lambdaVariables('b'))))))]"}}]}`},
	{"replace of everything", `{"variables": {"a": "[padLeft('', 65536, 'a')]", "b": "[replace(variables('a'), 'a', variables('a'))]"}, "resources": [{"type": "T/x", "name": "n", "properties": {"x": "[variables('b')]"}}]}`},
	{"a deep value", `{"resources": [{"type": "T/x", "name": "n", "properties": {"x": "[string(reduce(range(0, 10000), 1, lambda('a', 'b', createArray(lambdaVariables('a')))))]", "y": "[reduce(range(0, 10000), 1, lambda('a', 'b', createArray(lambdaVariables('a'))))]"}}]}`},
	{"many problems", `{"resources": [{"type": "T/x", "name": "n", "properties": {"copy": [{"name": "a", "count": 800, "input": {"copy": [{"name": "b", "count": 800, "input": "[x()]"}]}}]}}]}`},
	{"equals of shared arrays", shared("equals(variables('v39'), variables('v39'))")},
	{"contains of shared arrays", shared("contains(createArray(variables('v39')), variables('v39'))")},
	{"indexOf of shared arrays", shared("indexOf(createArray(variables('v39')), variables('v39'))")},
	{"union of shared arrays", shared("union(createArray(variables('v39')), createArray(variables('v39')))")},
	{"intersection of shared arrays", shared("intersection(createArray(variables('v39')), createArray(variables('v39')))")},
	{"references to a long list", `{"resources": [{"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"subnets": [` +
		strings.TrimSuffix(strings.Repeat(`{"name": "s"},`, 3000), ",") + `]}},
		{"type": "T/x", "name": "n", "properties": {"copy": [{"name": "a", "count": 800, "input": {"copy": [{"name": "b", "count": 800, "input": "[reference('v').subnets[0].id]"}]}}]}}]}`},
	{"an endless function", `{"functions": [{"namespace": "o", "members": {"f": {"parameters": [], "output": {"value": "[o.f()]"}}}}], "resources": [{"type": "T/x", "name": "[o.f()]"}]}`},
}

// chain is a template of 40 variables. Each depends on the one before.
func chain(expression string, first any) string {
	variables := map[string]any{"v0": first}
	last := "v0"
	for i := 1; i < 40; i++ {
		name := "v" + string(number(i))
		variables[name] = strings.ReplaceAll(expression, "%", last)
		last = name
	}
	j, err := asJSON(map[string]any{"variables": variables, "resources": []any{
		map[string]any{"type": "T/x", "name": "n", "properties": map[string]any{"x": "[variables('" + last + "')]"}},
	}})
	if err != nil {
		panic(err)
	}
	return j
}

// shared is a template with a value of 2^39 parts that share memory for 39.
func shared(expression string) string {
	return strings.Replace(chain("[createArray(variables('%'), variables('%'))]", "x"), "[variables('v39')]", "[string("+expression+")]", 1)
}

func TestNothingGrowsWithoutBound(t *testing.T) {
	defer debug.SetMaxStack(debug.SetMaxStack(1 << 26)) // a bound of the depth that fails ends the test soon
	for _, tt := range bombs {
		t.Run(tt.name, func(t *testing.T) {
			r := evaluateText(t, tt.template, Options{ReadFile: func(string) ([]byte, error) { return []byte(tt.template), nil }})
			capped := false
			for _, p := range append(r.Problems, r.Links...) {
				capped = capped || strings.Contains(p.Message, "the cap")
			}
			if !capped {
				t.Errorf("no cap is named: %v %v", r.Problems[:min(3, len(r.Problems))], r.Links[:min(3, len(r.Links))])
			}
		})
	}
}
