package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset/arm/jsonc"
)

// Declared are the names of a template's parameters, sorted.
func Declared(document map[string]any) []string { return sortedKeys(object(document, "parameters")) }

// Parameters are the values of a parameters file.
type Parameters struct {
	// Values are by name, for Options.Parameters.
	Values   map[string]any
	document *jsonc.Document
	wrapped  bool
}

// Position is the place of a parameter's value in its file.
func (p *Parameters) Position(name string) jsonc.Place {
	if p.wrapped {
		return p.document.Position("parameters", name)
	}
	return p.document.Position(name)
}

// ParseParameters reads a parameters file: Azure's deploymentParameters document, or only
// the object inside it. Errors are of type *jsonc.Error.
func ParseParameters(data []byte) (*Parameters, error) {
	document, err := jsonc.Parse(data, nil)
	if err != nil {
		return nil, err
	}
	p := &Parameters{Values: map[string]any{}, document: document}
	list, ok := document.Value.(map[string]any)
	if !ok {
		return nil, &jsonc.Error{Place: document.Position(), Message: "a parameters file holds an object, not a value of type " + kindOf(document.Value)}
	}
	if inner := object(list, "parameters"); inner != nil {
		list, p.wrapped = inner, true
	}
	for _, name := range sortedKeys(list) {
		if !p.wrapped && (strings.HasPrefix(name, "$") || name == "contentVersion") {
			continue
		}
		entry, ok := list[name].(map[string]any)
		value, has := field(entry, "value")
		reference, hidden := field(entry, "reference")
		switch {
		case ok && has && reference == nil:
			p.Values[name] = value
		case ok && hidden && value == nil:
			p.Values[name] = secret{reference}
		default:
			return nil, &jsonc.Error{Place: p.Position(name), Message: "parameters." + name + ": allowed is an object with a value or a reference"}
		}
	}
	return p, nil
}

// takeParameters makes the cells of the root template's parameters.
func (s *scope) takeParameters(given map[string]any) {
	declared := object(s.template, "parameters")
	for _, name := range sortedKeys(declared) {
		s.declare(name, declared[name], nil)
		s.checkDefault(name, object(declared, name), given)
	}
	for _, name := range sortedKeys(given) {
		c := s.parameters[strings.ToLower(name)]
		if c == nil {
			s.frame().fault(s.place+"parameters."+name, fmt.Errorf("the template has no parameter of that name; there are: %s", clip(strings.Join(sortedKeys(declared), ", "))))
			continue
		}
		value := given[name]
		s.declare(name, get(declared, name), func() (any, error) { return value, nil })
		c = s.parameters[strings.ToLower(name)]
		_, hidden := value.(secret)
		if _, err := c.get(s.budget); err != nil && !hidden && value != nil {
			s.frame().fault(s.place+"parameters."+name, err)
		}
	}
}

// checkDefault reports a default that is in force and that the parameter's own declaration does not allow.
func (s *scope) checkDefault(name string, d map[string]any, given map[string]any) {
	d = s.definition(d)
	fallback := get(d, "defaultValue")
	if v, has := field(given, name); has && v != nil || fallback == nil || !plain(fallback) {
		return
	}
	if err := s.check(d, fallback); err != nil {
		s.frame().fault(s.place+"parameters."+name+".defaultValue", err)
	}
}

// plain reports whether a value has no expression in it.
func plain(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for name, e := range v {
			if foldEqual(name, "copy") || !plain(name) || !plain(e) {
				return false
			}
		}
		return true
	case []any:
		return !slices.ContainsFunc(v, func(e any) bool { return !plain(e) })
	}
	return literalValue(v)
}

// declare makes a parameter's cell. given is nil, or returns nil, when there is no value for it: null is as if not given.
func (s *scope) declare(name string, declaration any, given func() (any, error)) {
	d, _ := declaration.(map[string]any)
	place := s.place + "parameters." + name
	s.parameters[strings.ToLower(name)] = &cell{place: place, make: func() (any, error) {
		v, err := s.parameterValue(place, name, d, given)
		if err != nil {
			return nil, s.frame().problem(place, "["+name+"]", err).problem
		}
		return v, nil
	}}
}

func (s *scope) parameterValue(place, name string, d map[string]any, given func() (any, error)) (any, error) {
	d = s.definition(d)
	var value any
	if given != nil {
		v, err := given()
		if err != nil {
			return nil, err
		}
		value = v
	}
	fallback, has := field(d, "defaultValue")
	switch {
	case value != nil:
	case has:
		value = s.frame().tree(place+".defaultValue", fallback)
	case get(d, "nullable") == true:
		return nil, nil
	case s.caller != nil:
		return nil, fmt.Errorf("the parameter %s (%s) has no defaultValue, and the deployment at %s passes no value for it", name, text(d, "type"), s.caller.place)
	default:
		return nil, fmt.Errorf("the parameter %s (%s) has no value and no defaultValue: give it with --parameters %s=VALUE or a parameters file", name, text(d, "type"), name)
	}
	switch v := value.(type) {
	case unresolved:
		return nil, v.problem
	case secret:
		known, err := v.value(s.frame(), name, s.caller == nil)
		if err != nil {
			return nil, err
		}
		value = known
	case Text:
		converted, err := v.as(text(d, "type"))
		if err != nil {
			return nil, err
		}
		value = converted
	case nil:
		if get(d, "nullable") == true {
			return nil, nil
		}
	}
	return value, s.check(d, value)
}

// definition follows a declaration's $ref inside the template.
func (s *scope) definition(d map[string]any) map[string]any {
	for range 8 {
		name, ok := strings.CutPrefix(text(d, "$ref"), "#/definitions/")
		if !ok {
			return d
		}
		found := object(object(s.template, "definitions"), name)
		if found == nil {
			return d
		}
		merged := map[string]any{}
		for k, v := range found {
			merged[k] = v
		}
		for k, v := range d {
			if k != "$ref" {
				merged[k] = v
			}
		}
		d = merged
	}
	return d
}

// as converts a text to a declared type.
func (t Text) as(declared string) (any, error) {
	s := string(t)
	switch strings.ToLower(declared) {
	case "int":
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the value %q is no int", clip(s))
		}
		return number(n), nil
	case "bool":
		switch strings.ToLower(s) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, fmt.Errorf("the value %q is no bool; allowed are true and false", clip(s))
	case "array", "object", "secureobject":
		v, err := parseJSON(s)
		if err != nil {
			return nil, fmt.Errorf("the value %q is no JSON: %w", clip(s), err)
		}
		return v, nil
	}
	return s, nil
}

// check compares a value with its declaration. Its errors never show values of secret
// types.
func (s *scope) check(d map[string]any, value any) error {
	declared := strings.ToLower(text(d, "type"))
	kind := strings.TrimPrefix(declared, "secure")
	if kind != "" && kind != kindOf(value) {
		return fmt.Errorf("the value is of type %s; declared is %s", kindOf(value), text(d, "type"))
	}
	if err := s.budget.firstUnresolved(value); err != nil {
		return s.budget.spent // a value with an open part is checked no further
	}
	shown := func() string {
		if j, err := asJSON(value); err == nil && !strings.HasPrefix(declared, "secure") {
			return "the value " + clip(j)
		}
		return "the value"
	}
	if list, ok := get(d, "allowedValues").([]any); ok && !among(list, value) {
		j, err := asJSON(list)
		if err != nil {
			return err
		}
		return fmt.Errorf("%s is not allowed; allowed are %s", shown(), clip(j))
	}
	return bounds(d, value, shown)
}

// among reports whether a value, or each element of an array, is in a list. Texts may have
// any case.
func among(list []any, value any) bool {
	fits := func(v any) bool {
		return slices.ContainsFunc(list, func(a any) bool {
			s, text := a.(string)
			t, also := v.(string)
			return equal(a, v) || text && also && strings.EqualFold(s, t)
		})
	}
	if values, ok := value.([]any); ok {
		return fits(value) || !slices.ContainsFunc(values, func(v any) bool { return !fits(v) })
	}
	return fits(value)
}

func bounds(d map[string]any, value any, shown func() string) error {
	size, what, low, high := int64(0), "", "minLength", "maxLength"
	switch v := value.(type) {
	case string:
		size, what = int64(runes(v)), "its length"
	case []any:
		size, what = int64(len(v)), "its length"
	case json.Number:
		n, ok := integer(v)
		if !ok {
			return errors.New("the value is no int")
		}
		size, what, low, high = n, "it", "minValue", "maxValue"
	default:
		return nil
	}
	if least, ok := integer(get(d, low)); ok && size < least {
		return fmt.Errorf("%s is not allowed: %s is %d; %s is %d", shown(), what, size, low, least)
	}
	if most, ok := integer(get(d, high)); ok && size > most {
		return fmt.Errorf("%s is not allowed: %s is %d; %s is %d", shown(), what, size, high, most)
	}
	return nil
}
