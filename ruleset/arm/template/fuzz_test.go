package template

import "testing"

// No text panics, and a result is a value of JSON.
func FuzzExpression(f *testing.F) {
	for _, seed := range []string{
		"[concat('a', parameters('p'))]", "[variables('list')[1].?x]", "[map(range(0, 3), lambda('i', add(lambdaVariables('i'), 1)))]",
		"[format('{0:D3}{{', 5)]", "[reference('store', '1', 'Full').id]", "[sort(createArray(2, 1), lambda('a', 'b', less(lambdaVariables('a'), lambdaVariables('b'))))]",
		"[utcNow('yyyy''x')]", "[cidrSubnet('::/0', 128, 9223372036854775807)]", "[union(createObject(), json('{}'))]", "[split('', '')]",
		"[dateTimeAdd('2026-01-01', 'P9999Y')]", "[substring('a', -1, 9223372036854775807)]", "[own.twice(own.twice(1))]",
		"[take('a', -9223372036854775808)]", "[indexFromEnd(createArray(), -1)]", "[padLeft('', -1, 'é')]", "[[x", "[']",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		if _, err := evaluateIn(t, expression); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}

// No template panics, and every evaluation ends within its budget.
func FuzzTemplate(f *testing.F) {
	for _, seed := range bombs {
		f.Add(seed.template)
	}
	for _, tt := range templates {
		f.Add(tt.template)
	}
	f.Fuzz(func(t *testing.T, data string) {
		v, err := parseJSON(data)
		document, ok := v.(map[string]any)
		if err != nil || !ok {
			return
		}
		// A small budget finds the same faults sooner.
		b := &budget{steps: 20_000, bytes: 1 << 20, ctx: t.Context()}
		r := evaluate(document, Options{File: "fuzz.json", ReadFile: func(string) ([]byte, error) { return []byte(data), nil }}, b)
		if _, err := asJSON(r.Document); err != nil {
			t.Errorf("the result is no JSON: %v", err)
		}
		for _, p := range r.Problems {
			if p.Message == "" || p.Expression == "" {
				t.Errorf("a problem without words: %+v", p)
			}
		}
	})
}
