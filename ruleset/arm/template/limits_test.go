package template

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// dearSteps are expressions of templates whose steps are dear: what each evaluates is in $, of a text of 4 MiB (T), a list of 10,000 (L), and
// an object of 3,000 fields (O).
var dearSteps = map[string]string{
	"a text's prefix":               `startsWith(variables('o').T, 'y')`,
	"a text's end":                  `endsWith(variables('o').T, 'y')`,
	"a part of a text":              `substring(variables('o').T, 1, 2)`,
	"a part that is not there":      `indexOf(variables('o').T, 'z')`,
	"a text's characters":           `length(variables('o').T)`,
	"a text that is a hash":         `uniqueString(variables('o').T)`,
	"a text that is equal":          `equals(variables('o').T, variables('o').U)`,
	"a text in a list":              `contains(createArray(variables('o').T), variables('o').U)`,
	"texts in a list":               `contains(variables('o').M, variables('o').U)`,
	"a text as JSON":                `length(string(createArray(variables('o').T)))`,
	"a text that is upper case":     `length(toUpper(variables('o').T))`,
	"a list that is sorted":         `length(sort(variables('o').L, lambda('a', 'b', less(lambdaVariables('a'), lambdaVariables('b')))))`,
	"a list united":                 `length(union(variables('o').L, variables('o').L))`,
	"a list joined":                 `length(join(variables('o').L, ','))`,
	"lists in a list":               `length(flatten(variables('o').N))`,
	"an object merged":              `length(shallowMerge(variables('o').P))`,
	"an object united":              `length(union(variables('o').O, variables('o').O, variables('o').O))`,
	"an object's names":             `length(objectKeys(variables('o').O))`,
	"an object's field":             `tryGet(variables('o').O, 'not there')`,
	"a field in another case":       `contains(variables('o').O, 'NOT THERE')`,
	"an object of many small ones":  `length(createObject(` + strings.Repeat(`lambdaVariables('i'), 1, `, 1) + manyFields(800) + `))`,
	"a function of the template":    `own.same(variables('o').T)`,
	"a text that becomes an array":  `length(split(variables('o').T, 'x'))`,
	"a text with its text replaced": `length(replace(variables('o').T, 'x', ''))`,
}

func manyFields(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("'f%d', 1", i)
	}
	return strings.Join(list, ", ")
}

func dear(expression string) map[string]any {
	fields := map[string]any{}
	for i := range 3000 {
		fields[fmt.Sprintf("field%d", i)] = json.Number("1")
	}
	return map[string]any{
		"functions": []any{map[string]any{"namespace": "own", "members": map[string]any{"same": map[string]any{
			"parameters": []any{map[string]any{"name": "x"}}, "output": map[string]any{"type": "bool", "value": "[startsWith(parameters('x'), 'y')]"}}}}},
		"variables": map[string]any{
			"a": "[padLeft('x', 65536, 'y')]",
			"b": "[concat(" + strings.TrimSuffix(strings.Repeat("variables('a'),", 8), ",") + ")]",
			"o": map[string]any{
				"T": "[concat(" + strings.TrimSuffix(strings.Repeat("variables('b'),", 8), ",") + ")]",
				"U": "[concat(" + strings.Repeat("variables('b'),", 7) + "take(variables('b'), 524287), 'z')]",
				"M": "[map(range(0, 100), lambda('i', variables('a')))]",
				"L": "[range(0, 10000)]", "O": fields, "N": "[map(range(0, 100), lambda('i', range(0, 1000)))]",
				"P": "[map(range(0, 1000), lambda('i', createObject(concat('f', string(lambdaVariables('i'))), 1)))]",
			},
			"n": "[map(range(0, 10000), lambda('i', " + expression + "))]",
		},
		"resources": []any{map[string]any{"type": "x/y", "name": "[string(length(variables('n')))]"}},
	}
}

func TestHostile07TemplateCPU(t *testing.T) {
	for name, expression := range dearSteps {
		if testing.Short() && name != "a text's prefix" && name != "a text in a list" && name != "an object merged" {
			continue // each of the others takes a second
		}
		t.Run(name, func(t *testing.T) {
			r := Evaluate(dear(strings.ReplaceAll(expression, "lambdaVariables('i'), 1", "string(lambdaVariables('i')), 1")), Options{File: "bomb.json"})
			if len(r.Problems) != 1 {
				t.Fatalf("%d problems, and %v", len(r.Problems), r.Document["resources"])
			}
			p := r.Problems[0]
			if p.File != "bomb.json" || !strings.HasPrefix(p.Place, "variables.") && !strings.HasPrefix(p.Place, "functions.") || !strings.Contains(p.Message, "cap of one evaluation") {
				t.Errorf("%v", p)
			}
		})
	}
}

// Texts that look like expressions are copied where they leave the evaluation.
func TestTextsThatAreEscapedAreCharged(t *testing.T) {
	d := dear("variables('o').E")
	object(object(d, "variables"), "o")["E"] = "[concat('[', variables('b'))]"
	d["resources"] = []any{map[string]any{"type": "x/y", "name": "n", "properties": map[string]any{"list": "[variables('n')]"}}}
	if r := Evaluate(d, Options{File: "bomb.json"}); len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Message, "64 MiB") {
		t.Errorf("%d problems", len(r.Problems))
	}
}

func TestLoopsOverLiteralsAreCharged(t *testing.T) {
	list := make([]any, 100_000)
	for i := range list {
		list[i] = "literal"
	}
	d := map[string]any{
		"variables": map[string]any{"copy": []any{map[string]any{"name": "x", "count": json.Number("800"), "input": list}}},
		"resources": []any{map[string]any{"type": "x/y", "name": "[string(length(variables('x')))]"}},
	}
	if r := Evaluate(d, Options{File: "bomb.json"}); len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Message, "cap of one evaluation") {
		t.Errorf("%v", r.Problems)
	}
}

func TestAContextEndsAnEvaluation(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("a signal came"))
	d := map[string]any{
		"variables": map[string]any{"n": "[length(map(range(0, 10000), lambda('i', lambdaVariables('i'))))]"},
		"resources": []any{map[string]any{"type": "x/y", "name": "[string(variables('n'))]"}},
	}
	r := Evaluate(d, Options{File: "t.json", Context: ctx})
	if len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Error(), "t.json") || !strings.Contains(r.Problems[0].Error(), "a signal came") {
		t.Errorf("%v", r.Problems)
	}
	if r := Evaluate(d, Options{File: "t.json", Context: t.Context()}); len(r.Problems) != 0 {
		t.Errorf("%v", r.Problems)
	}
}
