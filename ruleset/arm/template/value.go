package template

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset/arm/jsonc"
)

// unresolved stands for the value of an expression that cannot be evaluated.
type unresolved struct{ problem *Problem }

// integer is a value as a whole number.
func integer(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	if i, err := strconv.ParseInt(string(n), 10, 64); err == nil {
		return i, true
	}
	f, err := n.Float64()
	if i := int64(f); err == nil && float64(i) == f && f > -1<<53 && f < 1<<53 {
		return i, true
	}
	return 0, false
}

func number[T int | int64](n T) json.Number { return json.Number(strconv.FormatInt(int64(n), 10)) }

// field is a field of an object, in any case. The exact spelling wins.
func field(object map[string]any, name string) (any, bool) {
	if v, ok := object[name]; ok {
		return v, true
	}
	found, ok := "", false
	for key := range object {
		if jsonc.SameName(key, name) && (!ok || key < found) {
			found, ok = key, true
		}
	}
	if !ok {
		return nil, false
	}
	return object[found], true
}

// foldedObject finds fields as field does, but does not walk through all names for each
// field of another case.
type foldedObject struct {
	object map[string]any
	names  map[string]string // the least name for each lower-case form; made on first use
}

func folded(object map[string]any) *foldedObject { return &foldedObject{object: object} }

func (o *foldedObject) field(name string) (any, bool) {
	if v, ok := o.object[name]; ok {
		return v, true
	}
	if o.names == nil {
		o.names = make(map[string]string, len(o.object))
		for key := range o.object {
			low := strings.ToLower(key)
			if have, ok := o.names[low]; !ok || key < have {
				o.names[low] = key
			}
		}
	}
	key, ok := o.names[strings.ToLower(name)]
	if !ok {
		return nil, false
	}
	return o.object[key], true
}

// get is a field or nil.
func get(object map[string]any, name string) any {
	v, _ := field(object, name)
	return v
}

func text(object map[string]any, name string) string {
	s, _ := get(object, name).(string)
	return s
}

func object(parent map[string]any, name string) map[string]any {
	o, _ := get(parent, name).(map[string]any)
	return o
}

// kindOf is ARM's name of a value's type.
func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "bool"
	case string:
		return "string"
	case json.Number:
		if _, ok := integer(v); ok {
			return "int"
		}
		return "float"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	case lambda:
		return "lambda"
	}
	return fmt.Sprintf("%T", v)
}

// equal compares values: numbers by value, and field names in any case.
func equal(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		if !ok {
			return false
		}
		i, whole := integer(a)
		j, also := integer(b)
		if whole || also {
			return whole && also && i == j
		}
		x, _ := a.Float64()
		y, _ := b.Float64()
		return x == y
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equal)
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		other := folded(b)
		for name, v := range a {
			if w, ok := other.field(name); !ok || !equal(v, w) {
				return false
			}
		}
		return true
	case string:
		b, ok := b.(string)
		return ok && a == b
	case bool:
		b, ok := b.(bool)
		return ok && a == b
	}
	return a == nil && b == nil
}

// asJSON writes a value on one line.
func asJSON(v any) (string, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// parseJSON reads a value with numbers as they are written. An error begins with its line and column.
func parseJSON(data string) (any, error) {
	d, err := jsonc.Parse([]byte(data), nil)
	if err != nil {
		return nil, err
	}
	return d.Value, nil
}

func sortedKeys(object map[string]any) []string { return slices.Sorted(maps.Keys(object)) }

// firstUnresolved finds an unresolved part of a value. It also charges the steps of the next
// walk through the value.
func (b *budget) firstUnresolved(v any) error {
	if err := b.step(1); err != nil {
		return err
	}
	defer b.leave()
	if err := b.enter(); err != nil {
		return err
	}
	switch v := v.(type) {
	case unresolved:
		return v.problem
	case string:
		return b.step(size(v))
	case []any:
		for _, e := range v {
			if err := b.firstUnresolved(e); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, name := range sortedKeys(v) {
			if err := b.firstUnresolved(v[name]); err != nil {
				return err
			}
		}
	}
	return nil
}

// clip keeps a value readable in an error.
func clip(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
