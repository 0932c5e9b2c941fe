// Package yamlfile reads YAML files of people strictly: an unknown key, a key that is given twice and a
// value of another kind are faults, each with line and column.
package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"go.yaml.in/yaml/v3"
)

// MaxSize is how many bytes a file may have.
const MaxSize = 4 << 20

// Position is where a value stands, from 1. A struct that embeds it is told its own.
type Position struct {
	Line, Column int
}

// PositionOf is the position of a node.
func PositionOf(n *yaml.Node) Position { return Position{n.Line, n.Column} }

// Fault is what is wrong at a position. An UnmarshalYAML returns faults with Errorf.
type Fault struct {
	Position
	File, Message string
}

func (f *Fault) Error() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s", f.File, f.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, f.Message)
}

// Errorf is a fault at a position.
func (p Position) Errorf(format string, args ...any) *Fault {
	return &Fault{Position: p, Message: fmt.Sprintf(format, args...)}
}

// Faults are all faults of a file, one a line.
type Faults []*Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, "\n")
}

// In names the file of faults.
func (f Faults) In(file string) Faults {
	for i := range f {
		f[i].File = file
	}
	return f
}

// Read reads a file into a struct. The keys are those of the tags `yaml`. A list of one may be written
// without brackets. The error is Faults when the file's text is to blame.
func Read(file string, into any) error {
	// Opening a pipe that nobody writes to would wait.
	if info, err := os.Stat(file); err != nil {
		return err
	} else if !info.Mode().IsRegular() {
		return Faults{{File: file, Message: "neither a regular file nor a link to one"}}
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return err
	}
	return Parse(file, text, into)
}

// Parse is Read for a text.
func Parse(file string, text []byte, into any) error {
	if len(text) > MaxSize {
		return Faults{{File: file, Message: fmt.Sprintf("the file is too long: allowed are %d bytes", MaxSize)}}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var root yaml.Node
	switch err := decoder.Decode(&root); {
	case errors.Is(err, io.EOF):
		return Faults{{File: file, Message: "the file is empty"}}
	case err != nil:
		return Faults{syntaxFault(err)}.In(file)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Faults{{File: file, Message: "a second YAML document: only one is allowed"}}
	}
	r := &reader{}
	r.value(root.Content[0], reflect.ValueOf(into).Elem(), "")
	if len(r.faults) > 0 {
		return r.faults.In(file)
	}
	return nil
}

// syntaxFault takes the line out of an error of the yaml package.
func syntaxFault(err error) *Fault {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, message, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(number); err == nil {
				return Position{line, 1}.Errorf("%s", message)
			}
		}
	}
	return &Fault{Message: text}
}

// reader collects the faults of one file.
type reader struct{ faults Faults }

func (r *reader) fail(n *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, PositionOf(n).Errorf(format, args...))
}

// value reads a node. key is the path of keys to it.
func (r *reader) value(n *yaml.Node, into reflect.Value, key string) {
	if n.Kind == yaml.AliasNode {
		// Aliases of aliases multiply, and these files need none.
		r.fail(n, "%salias *%s: allowed are values that are written out", named(key), n.Value)
		return
	}
	if u, ok := into.Addr().Interface().(yaml.Unmarshaler); ok {
		r.custom(n, u, key)
		return
	}
	switch into.Kind() {
	case reflect.Struct:
		r.structure(n, into, key)
	case reflect.Slice:
		r.list(n, into, key)
	case reflect.String:
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			r.fail(n, "%s%s: allowed is a text", named(key), shown(n))
			return
		}
		into.SetString(n.Value)
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || n.Decode(into.Addr().Interface()) != nil {
			r.fail(n, "%s%s: allowed are true and false", named(key), shown(n))
		}
	default:
		panic("yamlfile: a field of type " + into.Type().String())
	}
}

// custom lets a type read itself.
func (r *reader) custom(n *yaml.Node, u yaml.Unmarshaler, key string) {
	err := u.UnmarshalYAML(n)
	var one *Fault
	var several Faults
	switch {
	case err == nil:
		return
	case errors.As(err, &several):
	case errors.As(err, &one):
		several = Faults{one}
	default:
		several = Faults{PositionOf(n).Errorf("%v", err)}
	}
	for _, f := range several {
		f.Message = named(key) + f.Message
		r.faults = append(r.faults, f)
	}
}

// list reads a sequence, or one value as a list of one.
func (r *reader) list(n *yaml.Node, into reflect.Value, key string) {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	for i, one := range nodes {
		v := reflect.New(into.Type().Elem()).Elem()
		at := key
		if n.Kind == yaml.SequenceNode {
			at = fmt.Sprintf("%s[%d]", key, i)
		}
		r.value(one, v, at)
		into.Set(reflect.Append(into, v))
	}
}

func (r *reader) structure(n *yaml.Node, into reflect.Value, key string) {
	keys := Keys(into.Type())
	if n.Kind != yaml.MappingNode {
		r.fail(n, "%s%s: allowed are the keys %s", named(key), shown(n), strings.Join(keys, ", "))
		return
	}
	if p := into.FieldByName("Position"); p.IsValid() && p.Type() == reflect.TypeFor[Position]() {
		p.Set(reflect.ValueOf(PositionOf(n)))
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		at := slices.Index(keys, name.Value)
		switch {
		case at < 0:
			near := ruleset.NewNearMiss(name.Value)
			for _, k := range keys {
				near.Try(k, strings.ToLower(k), false)
			}
			r.fail(name, "%sunknown key %q: allowed are %s%s", named(key), ruleset.Clip(name.Value), strings.Join(keys, ", "), near.Hint())
		case seen[name.Value]:
			r.fail(name, "%skey %q is given twice", named(key), name.Value)
		default:
			seen[name.Value] = true
			r.value(value, fieldOf(into, name.Value), join(key, name.Value))
		}
	}
}

// Keys lists the keys of a struct, in the order of its fields.
func Keys(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

func fieldOf(of reflect.Value, key string) reflect.Value {
	for i := range of.NumField() {
		if of.Type().Field(i).Tag.Get("yaml") == key {
			return of.Field(i)
		}
	}
	panic("yamlfile: no field has the key " + key)
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// named is a key as the beginning of a message.
func named(key string) string {
	if key == "" {
		return ""
	}
	return key + ": "
}

// shown is a value for a message.
func shown(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "no value"
	}
	return strconv.Quote(ruleset.Clip(n.Value))
}
