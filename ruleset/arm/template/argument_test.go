package template

import (
	"errors"
	"strings"
	"testing"
)

// passing is a template whose deployment passes parameters to one that shows what p became. more are properties of the
// deployment besides.
func passing(parameters, declaration, more string) string {
	return `{"parameters": {"known": {"type": "string", "defaultValue": "k"}, "open": {"type": "string"}, "args": {"type": "object", "defaultValue": {"p": {"value": "whole"}}}, "list": {"type": "array", "defaultValue": ["a", "b"]}},
		"resources": [` + nested(more+parameters+`"expressionEvaluationOptions": {"scope": "inner"}, "template": {"parameters": {"p": {`+declaration+`}},
			"resources": [{"type": "T/x", "name": "n", "properties": {"p": "[parameters('p')]"}}]}`) + `]}`
}

// A value that is not understood is never replaced by the default: a rule from anywhere instead of from one network.
func TestArgumentsOfDeployments(t *testing.T) {
	const text, list = `"type": "string", "defaultValue": "DEFAULT"`, `"type": "array", "defaultValue": ["DEFAULT"]`
	for _, tt := range []struct {
		name, parameters, declaration string
		want                          string // JSON of the value; empty: it is open
		problem                       string // part of the reason why it is open
	}{
		{"a value", `"parameters": {"P": {"Value": "[concat(parameters('known'), '!')]"}},`, text, `"k!"`, ""},
		{"an expression for one argument, as Bicep writes a ternary",
			`"parameters": {"p": "[if(equals(1, 1), createObject('value', parameters('known')), createObject('value', 'other'))]"},`, text, `"k"`, ""},
		{"an expression for one argument that is null", `"parameters": {"p": "[if(equals(1, 2), createObject('value', 1), null())]"},`, text, `"DEFAULT"`, ""},
		{"an open expression for one argument", `"parameters": {"p": "[createObject('value', parameters('open'))]"},`, text, "", "the parameter open (string) has no value"},
		{"an argument that only its condition leaves open", `"parameters": {"p": "[if(equals(parameters('open'), 'x'), createObject('value', 1), createObject('value', 2))]"},`, text, "",
			"the parameter open (string) has no value"},
		{"an expression for all", `"parameters": "[parameters('args')]",`, text, `"whole"`, ""},
		{"an expression for all that lacks one", `"parameters": "[createObject()]",`, text, `"DEFAULT"`, ""},
		{"an open expression for all", `"parameters": "[createObject('p', createObject('value', parameters('open')))]",`, text, "", "the parameter open (string) has no value"},
		{"all as no object", `"parameters": "[parameters('list')]",`, text, "", "the parameters of a deployment are of type array; allowed is an object"},
		{"a name that is an expression", `"parameters": {"[concat('', 'p')]": {"value": "named"}},`, text, `"named"`, ""},
		{"a loop in an argument, as Bicep writes a for",
			`"parameters": {"p": {"copy": [{"name": "value", "count": "[length(parameters('list'))]", "input": "[concat(parameters('list')[copyIndex('value')], copyIndex('value', 1))]"}]}},`, list, `["a1","b2"]`, ""},
		{"a loop of none", `"parameters": {"p": {"copy": [{"name": "value", "count": 0, "input": 1}]}},`, list, `[]`, ""},
		{"a loop in an argument whose count is open", `"parameters": {"p": {"copy": [{"name": "value", "count": "[length(parameters('open'))]", "input": 1}]}},`, list, "",
			"the parameter open (string) has no value"},
		{"a loop in a value", `"parameters": {"p": {"value": {"copy": [{"name": "rules", "count": 2, "input": "[copyIndex('rules')]"}]}}},`, `"type": "object"`, `{"rules":[0,1]}`, ""},
		{"a loop of arguments makes no arguments", `"parameters": {"copy": [{"name": "p", "count": 1, "input": {"value": "x"}}]},`, text, "",
			"the argument resources[0].properties.parameters.p is of type array"},
		{"a loop of arguments whose count is open", `"parameters": {"copy": [{"name": "p", "count": "[length(parameters('open'))]", "input": {"value": "x"}}]},`, text, "",
			"the parameter open (string) has no value"},
		{"null", `"parameters": {"p": null},`, text, `"DEFAULT"`, ""},
		{"a null value", `"parameters": {"p": {"value": null}},`, text, `"DEFAULT"`, ""},
		{"an expression that gives a null value", `"parameters": {"p": {"value": "[null()]"}},`, text, `"DEFAULT"`, ""},
		{"a null value where null is allowed", `"parameters": {"p": {"value": null}},`, `"type": "string", "nullable": true`, `null`, ""},
		{"a null value without a default", `"parameters": {"p": {"value": null}},`, `"type": "string"`, "",
			"the parameter p (string) has no defaultValue, and the deployment at resources[0] passes no value for it"},
		{"no argument", ``, text, `"DEFAULT"`, ""},
		{"null for all", `"parameters": null,`, text, `"DEFAULT"`, ""},
		{"a misspelt value", `"parameters": {"p": {"values": "x"}},`, text, "", "is an object of: values; allowed is an object with a value or a reference"},
		{"a bare value", `"parameters": {"p": "x"},`, text, "", "parameters.p is of type string; allowed is an object with a value or a reference"},
		{"a value and a reference", `"parameters": {"p": {"value": "x", "reference": {}}},`, text, "", "is an object of: reference, value"},
		{"a secret", `"parameters": {"p": {"reference": {"keyVault": {"id": "/v"}, "secretName": "s"}}},`, text, "",
			"is in a key vault: only Azure knows it; give it with --runtime, as the field value of /v/secrets/s"},
		{"a secret by an expression", `"parameters": {"p": "[createObject('reference', createObject('keyVault', createObject('id', '/v'), 'secretName', 's'))]"},`, text, "",
			"as the field value of /v/secrets/s"},
		{"a parametersLink that is not here", `"parametersLink": {"uri": "https://example.com/none.json"},`, text, "", "the parameters file https://example.com/none.json is remote and is not fetched"},
		{"an open parametersLink", `"parametersLink": {"uri": "[parameters('open')]"},`, text, "", "the parameter open (string) has no value"},
		{"a parametersLink in an expression", `"parametersLink": "[createObject('uri', 'p.json')]",`, text, `"[not evaluated]"`, ""},
		{"a parametersLink beside the template", `"parametersLink": {"uri": "[uri(deployment().properties.templateLink.uri, 'p.json')]"},`, text, `"[not evaluated]"`, ""},
		{"a parametersLink that is null", `"parametersLink": null, "parameters": {"p": {"value": "x"}},`, text, `"x"`, ""},
		{"a parametersLink to no parameters", `"parametersLink": {"uri": "bad.json"},`, text, "", "the parameters file dir/bad.json: line 2, column 6: parameters.p: allowed is an object with a value"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := evaluateText(t, passing(tt.parameters, tt.declaration, ""), Options{File: "dir/main.json", ReadFile: func(path string) ([]byte, error) {
				switch path {
				case "dir/p.json":
					return []byte(`{"parameters": {"p": {"value": "[not evaluated]"}}} // comment`), nil
				case "dir/bad.json":
					return []byte("{\n\"p\": 1}"), nil
				}
				return nil, errors.New("no such file")
			}})
			if len(r.Faults) > 0 {
				t.Error(r.Faults)
			}
			got := names(r.Document)[1]
			if tt.want != "" {
				// A text that looks like an expression is escaped in a document.
				if want := `  x n {"p":` + strings.Replace(tt.want, `"[not`, `"[[not`, 1) + `}`; got != want || len(r.Problems) > 0 {
					t.Errorf("got %s with %v, want %s", got, r.Problems, want)
				}
				return
			}
			if got != `  x n {"p":"[parameters('p')]"}` {
				t.Errorf("got %s, which is not open", got)
			}
			for _, p := range r.Problems {
				if strings.HasSuffix(p.Place, "properties.p") && strings.Contains(p.Message, tt.problem) {
					return
				}
			}
			t.Errorf("problems %v, want %s", r.Problems, tt.problem)
		})
	}
}

func TestWhatAzureRefusesInArguments(t *testing.T) {
	const declaration = `"type": "string", "defaultValue": ""`
	for _, tt := range []struct{ name, parameters, more, want string }{
		{"one that is not declared", `"parameters": {"q": {"value": 1}},`, "", "resources[0].properties.parameters.q: the deployment d passes q, which its template does not declare; declared are: p"},
		{"one of an expression", `"parameters": "[createObject('q', createObject('value', 1))]",`, "", "passes q, which its template does not declare"},
		{"one of a file", `"parametersLink": {"uri": "q.json"},`, "", "passes q, which its template does not declare"},
		{"parameters and a file", `"parameters": {"p": {"value": "x"}},`, `"parametersLink": {"uri": "q.json"},`, "a deployment has parameters and a parametersLink"},
		{"none", `"parameters": {"P": {"value": "x"}},`, "", ""},
		{"an open loop", `"parameters": {"copy": [{"name": "p", "count": "[length(parameters('open'))]", "input": {"value": "x"}}]},`, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := evaluateText(t, passing(tt.parameters, declaration, tt.more), Options{ReadFile: func(path string) ([]byte, error) { return []byte(`{"q": {"value": 1}}`), nil }})
			switch {
			case tt.want == "" && len(r.Faults) > 0:
				t.Errorf("faults %v", r.Faults)
			case tt.want != "" && (len(r.Faults) != 1 || !strings.Contains(r.Faults[0].Place+": "+r.Faults[0].Message, tt.want)):
				t.Errorf("faults %v, want %s", r.Faults, tt.want)
			}
		})
	}
}

func TestASecretComesFromRuntime(t *testing.T) {
	template := passing(`"parameters": {"p": {"reference": {"keyVault": {"id": "/vaults/v"}, "secretName": "s"}}},`, `"type": "securestring"`, "")
	for _, key := range []string{"/vaults/v/secrets/s", "s"} {
		r := evaluateText(t, template, Options{Runtime: map[string]any{key: map[string]any{"value": "x"}}})
		if got := names(r.Document)[1]; got != `  x n {"p":"x"}` {
			t.Errorf("by %s: %s with %v", key, got, r.Problems)
		}
	}
}

// The scope of a deployment's expressions depends on nothing but its own option.
func TestTheScopeOfAnOpenDeployment(t *testing.T) {
	const template = `{"parameters": {"open": {"type": "string"}, "p": {"type": "string", "defaultValue": "OUTER"}}, LANGUAGE "resources": [
		{"type": "Microsoft.Resources/deployments", "name": "[parameters('open')]", "resourceGroup": "GROUP", "properties": {OPTIONS "parameters": {"p": {"value": "passed"}}, "template": {"parameters": {"p": {"type": "string"}},
			"resources": [{"type": "T/x", "name": "n", "properties": {"p": "[parameters('p')]", "d": "[deployment().name]", "g": "[resourceGroup().name]"}}]}}}]}`
	for _, tt := range []struct{ name, language, options, group, want, link string }{
		{"inner", "", `"expressionEvaluationOptions": {"scope": "Inner"},`, "g", `  x n {"d":"[deployment().name]","g":"g","p":"passed"}`, ""},
		{"inner, in an open group", "", `"expressionEvaluationOptions": {"scope": "inner"},`, "[parameters('open')]", `  x n {"d":"[deployment().name]","g":"[resourceGroup().name]","p":"passed"}`, ""},
		{"outer", "", `"expressionEvaluationOptions": {"scope": "outer"},`, "g", `  x n {"d":"[deployment().name]","g":"nsgd","p":"OUTER"}`, ""},
		{"none", "", "", "g", `  x n {"d":"[deployment().name]","g":"nsgd","p":"OUTER"}`, ""},
		{"none, in version 2 of the language", `"languageVersion": "2.0",`, "", "g", `  x n {"d":"[deployment().name]","g":"g","p":"passed"}`, ""},
		{"an expression", "", `"expressionEvaluationOptions": {"scope": "[concat('in', 'ner')]"},`, "g", `  x n {"d":"[deployment().name]","g":"g","p":"passed"}`, ""},
		{"an open expression", "", `"expressionEvaluationOptions": {"scope": "[parameters('open')]"},`, "g", "", "the parameter open (string) has no value"},
		{"another word", "", `"expressionEvaluationOptions": {"scope": "middle"},`, "g", "", "the scope of expressions is middle; allowed are inner and outer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := evaluateText(t, strings.NewReplacer("LANGUAGE", tt.language, "OPTIONS", tt.options, "GROUP", tt.group).Replace(template), Options{})
			got := names(r.Document)
			if tt.link != "" {
				if len(got) != 1 || len(r.Links) != 1 || !strings.Contains(r.Links[0].Message, tt.link) {
					t.Errorf("got %q with %v, want %s", got, r.Links, tt.link)
				}
				return
			}
			if len(got) != 2 || got[1] != tt.want {
				t.Errorf("got %q with %v, want %s", got, r.Problems, tt.want)
			}
		})
	}
}
