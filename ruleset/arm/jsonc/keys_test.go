package jsonc

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func check(data []byte, anyCase bool) error {
	_, err := Parse(data, func(any) bool { return !anyCase })
	return err
}

// many are keys of one object.
func many(n int, last ...string) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`"key%d": %d`, i, i))
	}
	return "{" + strings.Join(append(list, last...), ", ") + "}"
}

func TestAKeyTwiceIsFound(t *testing.T) {
	for _, tt := range []struct {
		text           string
		exact, anyCase string // of the error; empty: none
	}{
		{`{"a": 1, "b": {"a": 1}, "c": [{"a": 1}, {"a": 2}]}`, "", ""},
		{`{"a": "a", "b": ["a", "b", "b"]}`, "", ""},
		{"{\n \"a\": 1,\n  \"a\": 2}", `line 3, column 3: the object has the key "a" twice: line 2, column 2`, `line 3, column 3: the object has the key "a" twice: line 2, column 2`},
		{`{"properties": {}, "Properties": {}}`, "", `line 1, column 20: the object has the key "Properties" twice: line 1, column 2 as "properties"; case does not count`},
		{`{"properties": {}, "propertie\u0073": {}}`, `key "properties" twice`, `key "properties" twice`},
		{`{"properties": {}, "propertieſ": {}}`, "", ""}, // which Azure does not fold
		{`{"ü": {}, "Ü": {}}`, "", `as "ü"`},
		{`{"a\"": 1, "b\\": {"c": "d\\\""}, "a\"": 2}`, `key "a\"" twice`, `key "a\"" twice`},
		{`[[{"x": [1, {"y": 2}], "x": 3}]]`, `key "x" twice`, `key "x" twice`},
		{`{"a": {"b": 1}, "b": 2, "A": 3}`, "", `key "A" twice`},
		{many(100), "", ""},
		{many(100, `"key3": 0`), `key "key3" twice`, `key "key3" twice`},
		{many(100, `"KEY3": 0`), "", `key "KEY3" twice`},
		{many(100, `"\u212aey3": 0`), "", ""}, // the sign for Kelvin
		{many(100, `"ü": 0`, `"Ü": 0`), "", `as "ü"`},
		{many(20, `"KEY3": 0`), "", `key "KEY3" twice`},
		{`"a"`, "", ""}, {`1 `, "", ""}, {`{}`, "", ""}, {`[]`, "", ""}, {`{"": 1, "": 2}`, `key "" twice`, `key "" twice`},
	} {
		for anyCase, want := range map[bool]string{false: tt.exact, true: tt.anyCase} {
			err := check([]byte(tt.text), anyCase)
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%.60s, any case %v: %v, want %q", tt.text, anyCase, err, want)
			}
		}
	}
}

// A document that was written from Go values has no key twice; with one more it has.
func TestRandomDocuments(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var make func(depth int) any
	make = func(depth int) any {
		switch n := r.IntN(5); {
		case depth == 0 || n == 0:
			return strings.Repeat(`\"{[,]}`, r.IntN(3))
		case n == 1:
			list := []any{}
			for range r.IntN(5) {
				list = append(list, make(depth-1))
			}
			return list
		}
		o := map[string]any{}
		for range r.IntN(40) {
			o[fmt.Sprintf("k\\\"%d", r.IntN(100))] = make(depth - 1)
		}
		return o
	}
	for range 300 {
		text, err := json.Marshal(make(3))
		if err != nil {
			t.Fatal(err)
		}
		if err := check(text, true); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if err := check([]byte(`{"x": `+string(text)+`, "X": 1}`), true); err == nil {
			t.Fatalf("not found behind %s", text)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	rule := `{"name": "allow", "properties": {"protocol": "Tcp", "sourcePortRange": "*", "destinationPortRange": "443", "sourceAddressPrefix": "10.0.0.0/8", "destinationAddressPrefix": "*", "access": "Allow", "priority": 100, "direction": "Inbound"}},`
	text := []byte("[" + strings.Repeat(rule, 1000) + "1]")
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if err := check(text, true); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	rule := `{"name": "allow", "properties": {"protocol": "Tcp", "sourcePortRange": "*", "destinationPortRange": "443", "sourceAddressPrefix": "10.0.0.0/8", "destinationAddressPrefix": "*", "access": "Allow", "priority": 100, "direction": "Inbound"}},`
	text := []byte("[" + strings.Repeat(rule, 1000) + "1]")
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			b.Fatal(err)
		}
	}
}
