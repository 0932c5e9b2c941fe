package jsonc

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf16"
)

// in16 is a text in UTF-16 with its byte order mark.
func in16(text string, order binary.AppendByteOrder) string {
	var out []byte
	for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
		out = order.AppendUint16(out, unit)
	}
	return string(out)
}

func TestWhatAzureTakesIsRead(t *testing.T) {
	for _, tt := range []struct{ name, text, standard string }{
		{"a comment to the end of a line", "// a\n{\"a\": 1, // b \"c\n\"b\": 2}//", `{"a": 1, "b": 2}`},
		{"a comment of its own end", "/* a\n// */{\"a\"/**/:/***/1/* \" */}/*/ */", `{"a": 1}`},
		{"comments in strings are none", `{"a": "/* // */", "b\"/*": "//"}`, `{"a": "/* // */", "b\"/*": "//"}`},
		{"a string over several lines", "{\"a\": \"b\r\n\t\\\"c\x01\"}", `{"a": "b\r\n\t\"c\u0001"}`},
		{"a key over several lines", "{\"a\nb\": 1}", `{"a\nb": 1}`},
		{"a comma behind the last", `{"a": [1, 2, ], "b": {"c": [{},],},}`, `{"a": [1, 2], "b": {"c": [{}]}}`},
		{"a comment behind the comma", "{\"a\": [1, // one\n], \"b\": \"]\",/**/}", `{"a": [1], "b": "]"}`},
		{"a byte order mark", "\ufeff{}", `{}`},
		{"UTF-16, little end first", in16(`{"a": "ä€😀"}`, binary.LittleEndian), `{"a": "ä€😀"}`},
		{"UTF-16, big end first", in16(`{"a": "ä€😀"}`, binary.BigEndian), `{"a": "ä€😀"}`},
		{"a number as it is written", `[1.50, 12345678901234567890]`, `[1.50, 12345678901234567890]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			decoder := json.NewDecoder(strings.NewReader(tt.standard))
			decoder.UseNumber()
			var want any
			if err := decoder.Decode(&want); err != nil {
				t.Fatal(err)
			}
			d, err := Parse([]byte(tt.text), nil)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(d.Value, want) {
				t.Errorf("%#v, want %#v", d.Value, want)
			}
		})
	}
}

func TestWhatIsNoJSONIsAnErrorWithItsPlace(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "line 1, column 1: unexpected end"},
		{"{\n  \"a\": tru }", "line 2, column 11: invalid character ' ' in literal true"},
		{"[,]", "line 1, column 2: invalid character ','"},
		{"[1,,]", "line 1, column 4: invalid character ','"},
		{"{,}", "line 1, column 2: invalid character ','"},
		{`{"a":,}`, "line 1, column 6: invalid character ','"},
		{"[1 /* 2]", "line 1, column 4: the comment has no end"},
		{"[1] 2", "line 1, column 5: invalid character '2' after top-level value"},
		{"[1], ", "line 1, column 4: invalid character ','"},
		{"{'a': 1}", "line 1, column 2: invalid character '\\'' looking for beginning of object key string: names and strings stand in double quotes"},
		{`{"a": 'b'}`, "line 1, column 7: invalid character '\\'' looking for beginning of value: names and strings stand in double quotes"},
		{`{"a": 1, b: 2}`, "line 1, column 10: invalid character 'b' looking for beginning of object key string: names and strings stand in double quotes"},
		{"[/]", "line 1, column 2: invalid character '/'"},
		{"{\"a\": \"b\n\nc\", // d\n x}", "line 4, column 2: invalid character 'x'"},
		{"{\"a\": \"b\nc\", \"a\": 1}", `line 2, column 5: the object has the key "a" twice: line 1, column 2`},
		{"{\"a\": 1, /* a\n */ \"A\": 1}", `line 2, column 5: the object has the key "A" twice: line 1, column 2 as "a"`},
		{"{\"a\":\n \"\xe4\"}", "line 2, column 3: the byte 0xe4 is not UTF-8"},
		{"\xef\xbb\xbf\xef\xbb\xbf{}", "line 1, column 1: invalid character"},
		{"\xff\xfe{\x00\n\x00\"\x00\x00\xd8\"\x00}\x00", "line 2, column 2: 0xd800 is half of a character"},
		{"\xfe\xff\x00{\x00}\x00", "line 1, column 3: the file is UTF-16 and ends within a character"},
		{"[\"\x00\"]", "line 1, column 3: invalid character '\\x00' in string"},
		{"{\"a\": \"b", "line 1, column 8: unexpected end"},
		{"{\"a\": \"b\\", "line 1, column 9: "},
	} {
		if _, err := Parse([]byte(tt.text), nil); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %s", tt.text, err, tt.want)
		}
	}
}

func TestThePositionOfAValue(t *testing.T) {
	d, err := Parse([]byte("{ // a\n \"a\": \"1\n2\", \"B\": [1,\n  {\"c\":\n   2}]}"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, want string }{
		{"", "line 1, column 1"},
		{"a", "line 2, column 7"},
		{"A", "line 2, column 7"},
		{"b", "line 3, column 10"},
		{"b 0", "line 3, column 11"},
		{"b 1", "line 4, column 3"},
		{"b 1 c", "line 5, column 4"},
		{"b 1 d", "line 4, column 3"},
		{"b 2", "line 3, column 10"},
		{"a 0", "line 2, column 7"},
	} {
		if got := d.Position(strings.Fields(tt.path)...).String(); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.path, got, tt.want)
		}
	}
}

// relaxed writes a value with what Azure takes besides standard JSON.
func relaxed(r *rand.Rand, v any) string {
	noise := func() string {
		return []string{"", "", " ", "\n", "// ,]}\"\n", "/* ,]}\"/ **/"}[r.IntN(6)]
	}
	wrap := func(open string, parts []string, end string) string {
		text := open + noise() + strings.Join(parts, ","+noise())
		if len(parts) > 0 && r.IntN(2) == 0 {
			text += noise() + ","
		}
		return text + noise() + end
	}
	var parts []string
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			parts = append(parts, relaxed(r, e)+noise())
		}
		return wrap("[", parts, "]")
	case map[string]any:
		for k, e := range v {
			parts = append(parts, relaxed(r, k)+noise()+":"+noise()+relaxed(r, e)+noise())
		}
		return wrap("{", parts, "}")
	case string:
		text, _ := json.Marshal(v)
		if r.IntN(2) == 0 {
			return strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\r`, "\r", `\\`, `\\`).Replace(string(text))
		}
		return string(text)
	}
	return fmt.Sprint(v)
}

// A document in every relaxed form holds what encoding/json wrote.
func TestRandomRelaxedDocuments(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	texts := []string{"", "a\nb", "//", "/*", `\n"`, "\t", "é", "\r\n"}
	var make func(depth int) any
	make = func(depth int) any {
		switch r.IntN(3 + min(depth, 2)) {
		case 0:
			return json.Number(fmt.Sprint(r.IntN(100)))
		case 1:
			return texts[r.IntN(len(texts))]
		case 2:
			return true
		case 3:
			list := []any{}
			for range r.IntN(4) {
				list = append(list, make(depth-1))
			}
			return list
		}
		o := map[string]any{}
		for range r.IntN(4) {
			o[texts[r.IntN(len(texts))]] = make(depth - 1)
		}
		return o
	}
	for range 5000 {
		want := make(4)
		text := relaxed(r, want)
		d, err := Parse([]byte(text), nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !reflect.DeepEqual(d.Value, want) {
			t.Fatalf("%#v, want %#v of\n%s", d.Value, want, text)
		}
		checkPlaces(t, d, text)
	}
}

// checkPlaces checks that each value of the document begins where its place says. Its objects are told apart by theirs.
func checkPlaces(t *testing.T, d *Document, text string) {
	t.Helper()
	lines, seen := strings.Split(text, "\n"), map[Place]bool{}
	check := func(at Place, v any) {
		kinds := map[string]string{"map[string]interface {}": "{", "[]interface {}": "[", "string": "\"", "json.Number": "0123456789", "bool": "t"}
		if begin := kinds[fmt.Sprintf("%T", v)]; at.Line == 0 || !strings.ContainsAny(lines[at.Line-1][at.Column-1:at.Column], begin) {
			t.Fatalf("%#v is at %s of\n%s", v, at, text)
		}
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			at := d.PlaceOf(v, "")
			check(at, v)
			if seen[at] {
				t.Fatalf("two objects are at %s of\n%s", at, text)
			}
			seen[at] = true
			for k, e := range v {
				if k != "" {
					check(d.PlaceOf(v, k), e)
				}
				walk(e)
			}
		}
	}
	walk(d.Value)
}

// What encoding/json reads is read with the same value, and nothing panics.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{"a": [{"b": "\""}], "A": 1}`, "[1, // a\n/* */]", "{\"a\n\": 1,}", "\xff\xfe[\x00]\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Parse(data, func(any) bool { return true })
		if err != nil && !strings.HasPrefix(err.Error(), "line ") {
			t.Errorf("an error without a place: %v", err)
		}
		if err == nil {
			d.Position("a", "0", "b")
		}
		decoder := json.NewDecoder(strings.NewReader(string(data)))
		decoder.UseNumber()
		var want any
		if err == nil && json.Valid(data) && decoder.Decode(&want) == nil && !reflect.DeepEqual(d.Value, want) {
			t.Errorf("%#v, want %#v", d.Value, want)
		}
	})
}
