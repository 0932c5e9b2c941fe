// Package schematest holds the JSON schemas of files to the structs that read them.
package schematest

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// Validate checks a YAML document against a schema's file.
func Validate(schema string, document []byte) error {
	compiled, err := jsonschema.NewCompiler().Compile(schema)
	if err != nil {
		return err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return err
	}
	daysAsTexts(&root)
	var value any
	if err := root.Decode(&value); err != nil {
		return err
	}
	return compiled.Validate(value)
}

// daysAsTexts makes days texts, which they are to editors: YAML 1.2 has no dates.
func daysAsTexts(n *yaml.Node) {
	if n.ShortTag() == "!!timestamp" {
		n.Tag = "!!str"
	}
	for _, inner := range n.Content {
		daysAsTexts(inner)
	}
}

// Compare lists the keys that a schema lacks, and those that the struct lacks. Types that read
// themselves have no keys.
func Compare(schema string, of reflect.Type) (problems []string) {
	text, err := os.ReadFile(schema)
	if err != nil {
		return []string{err.Error()}
	}
	var root map[string]any
	if err := json.Unmarshal(text, &root); err != nil {
		return []string{err.Error()}
	}
	inSchema, inStruct := map[string]bool{}, map[string]bool{}
	schemaKeys(root, root, "", inSchema)
	structKeys(of, "", inStruct)
	for key := range inStruct {
		if !inSchema[key] {
			problems = append(problems, fmt.Sprintf("%s has no key %s", schema, key))
		}
	}
	for key := range inSchema {
		if _, own := inStruct[key]; !own && !belowLeaf(key, inStruct) {
			problems = append(problems, fmt.Sprintf("%s has the key %s, which no struct has", schema, key))
		}
	}
	slices.Sort(problems)
	return problems
}

// belowLeaf reports a key of a type that reads itself.
func belowLeaf(key string, inStruct map[string]bool) bool {
	for i := strings.LastIndexByte(key, '.'); i > 0; i = strings.LastIndexByte(key[:i], '.') {
		if leaf, known := inStruct[key[:i]]; known {
			return leaf
		}
	}
	return false
}

// structKeys collects the keys of a struct's tags. A value is true for a type that reads itself.
func structKeys(t reflect.Type, prefix string, keys map[string]bool) {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		if reads(t) {
			break
		}
		t = t.Elem()
	}
	if prefix != "" {
		keys[prefix] = reads(t)
	}
	if t.Kind() != reflect.Struct || reads(t) {
		return
	}
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" {
			structKeys(t.Field(i).Type, strings.TrimPrefix(prefix+"."+key, "."), keys)
		}
	}
}

func reads(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[yaml.Unmarshaler]())
}

// schemaKeys collects the keys of a schema's properties. The schemas have no circles.
func schemaKeys(root, s map[string]any, prefix string, keys map[string]bool) {
	if prefix != "" {
		keys[prefix] = true
	}
	if ref, ok := s["$ref"].(string); ok {
		at := root
		for _, step := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
			at = at[step].(map[string]any)
		}
		schemaKeys(root, at, prefix, keys)
	}
	if items, ok := s["items"].(map[string]any); ok {
		schemaKeys(root, items, prefix, keys)
	}
	if choices, ok := s["anyOf"].([]any); ok {
		for _, c := range choices {
			schemaKeys(root, c.(map[string]any), prefix, keys)
		}
	}
	properties, _ := s["properties"].(map[string]any)
	for key, p := range properties {
		schemaKeys(root, p.(map[string]any), strings.TrimPrefix(prefix+"."+key, "."), keys)
	}
}
