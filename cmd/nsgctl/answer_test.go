package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jmespath/go-jmespath"
	"go.yaml.in/yaml/v3"
)

func TestAnswersForPrograms(t *testing.T) {
	const list = `{"rules":[{"name":"web","hits":3,"ports":["80","443"],"used":true,"counters":{"a":1}},{"name":"no","hits":9007199254740993,"ports":[],"used":false,"counters":null}],"more":false}`
	tests := []struct {
		name, format, query string
		lines               bool
		answer, want        string
	}{
		{"JSON as it is", outputJSON, "", false, `{"b":"<1>","a":[1]}`, "{\n  \"b\": \"<1>\",\n  \"a\": [\n    1\n  ]\n}\n"},
		{"JSON on a line", outputJSON, "", true, `{"b": "<1>"}`, `{"b":"<1>"}` + "\n"},
		{"YAML keeps the order of fields", outputYAML, "", false, list,
			"rules:\n  - name: web\n    hits: 3\n    ports:\n      - \"80\"\n      - \"443\"\n    used: true\n    counters:\n      a: 1\n" +
				"  - name: \"no\"\n    hits: 9007199254740993\n    ports: []\n    used: false\n    counters: null\nmore: false\n"},
		{"a YAML document each", outputYAML, "", true, `{"a":1}`, "---\na: 1\n"},
		{"TSV of an answer that begins with a list has a row for each element, by the names of its fields", outputTSV, "", false, list,
			"\t3\tweb\t2\tTrue\nNone\t9007199254740993\tno\t0\tFalse\n"},
		{"TSV of another answer is a row", outputTSV, "", false, `{"access":"Allow","stages":[{}]}`, "Allow\t1\n"},
		{"TSV of a list chooses the order", outputTSV, "rules[].[name,hits]", false, list, "web\t3\nno\t9007199254740992\n"},
		{"TSV of words", outputTSV, "rules[].name", false, list, "web\nno\n"},
		{"TSV of one word", outputTSV, "rules[0].used", false, list, "true\n"},
		{"TSV of an object that was asked for is a row", outputTSV, "rules[0].{z:ports,a:name}", false, list, "web\t2\n"},
		{"TSV of one of many is a row", outputTSV, "[a,b]", true, `{"a":1,"b":"x"}`, "1\tx\n"},
		{"TSV of nothing", outputTSV, "nothing", false, list, "None\n"},
		{"TSV keeps its rows and cells", outputTSV, "", false, `["a\tb\nc\u001b[2J"]`, `a\tb\nc\x1b[2J` + "\n"},
		{"JSON of what was found", outputJSON, "rules[?used].name | [0]", false, list, "\"web\"\n"},
		{"a literal that is no JSON is a string, as az takes it", outputTSV, "rules[?name==`web`].hits", false, list, "3\n"},
		{"a literal that is JSON is what it is", outputTSV, "rules[?hits==`3` && used==`true`].name", false, list, "web\n"},
		{"a raw string is a string, and no number", outputTSV, "rules[?hits=='3'].name", false, list, ""},
		{"quotes within quotes", outputJSON, "rules[?name!='`x' && name!=`a\\`b` && name!=`\"no\"` && name!='it\\'s `no`'].\"name\"", false, list, "[\n  \"web\"\n]\n"},
		{"nothing found is null", outputJSON, "nothing", false, list, "null\n"},
		{"nothing found in one of many is left out", outputJSON, "nothing", true, list, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			a := &answers{w: &out, format: tt.format, lines: tt.lines}
			if tt.query != "" {
				a.query = jmespath.MustCompile(quoteLiterals(tt.query))
			}
			if err := a.Encode(json.RawMessage(tt.answer)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What YAML could take for something else, or can't hold as it is.
func TestYAMLIsReadAsTheSameJSON(t *testing.T) {
	words := []string{"", "no", "y", "Off", "80", "0x10", "1e3", "null", "~", "a: b", "- a", "#a", " a ", "a\nb\n", "\ta", "\u007f\u0085\u2028", "\x1b[2J",
		"2026-01-01", "é", "'", `"`, "&a", "*", "!x", "%", "@", "`", "{}", "[]", "<<", "=", "\U0001f600", "---"}
	want := map[string]any{"list": []any{}, "empty": map[string]any{}, "int": 7, "float": 1.5, "null": nil, "true": true}
	for _, w := range words {
		want["list"] = append(want["list"].([]any), w)
		want["key "+w] = w
	}
	var out strings.Builder
	if err := (&answers{w: &out, format: outputYAML}).Encode(want); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := yaml.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\n%s", diff, out.String())
	}
}
