package main

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// configKeys lists the keys below a struct of the configuration, spelled as faults spell them.
func configKeys(t reflect.Type, prefix string) (keys []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() { // not of the file
			continue
		}
		key, inner := prefix+f.Tag.Get("yaml"), f.Type
		list := inner.Kind() == reflect.Slice
		if list || inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		// Prefix and Address are structs too, but one value in the file.
		if inner.Kind() != reflect.Struct || reflect.PointerTo(inner).Implements(reflect.TypeFor[yaml.Unmarshaler]()) {
			keys = append(keys, key)
			continue
		}
		if list {
			key += "[]"
		}
		keys = append(keys, configKeys(inner, key+".")...)
	}
	return keys
}

func TestTheReadmeExplainsEveryKey(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-zA-Z0-9.\\[\\]]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		if slices.Contains(explained, m[1]) {
			t.Errorf("README.md explains %s twice", m[1])
		}
		explained = append(explained, m[1])
	}
	known := configKeys(reflect.TypeFor[Config](), "")
	for _, key := range known {
		if !slices.Contains(explained, key) {
			t.Errorf("README.md does not explain %s", key)
		}
	}
	for _, key := range explained {
		if !slices.Contains(known, key) {
			t.Errorf("README.md explains %s, which is not a key", key)
		}
	}
}
