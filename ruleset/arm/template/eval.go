package template

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is an expression that cannot be evaluated.
type Problem struct {
	// File is the template with the expression.
	File string
	// Place is the path within the file, such as "resources[2].properties.subnets[0].name".
	Place string
	// Expression is the text with its brackets.
	Expression string
	// Message names the function, parameter or resource and what is needed.
	Message string

	origin string // the place that Message is about; empty when it is Place
}

// Error is the problem in one line: the place first, the message last.
func (p *Problem) Error() string {
	return fmt.Sprintf("%s: %s: %s: %s", p.File, p.Place, clip(p.Expression), p.Message)
}

// loop is one pass of a copy loop.
type loop struct {
	name  string
	index int64
	// property is set for loops of properties, variables and outputs. copyIndex() without a
	// name prefers the resource's loop to these.
	property bool
}

// binding is a variable of a lambda.
type binding struct {
	name  string
	value any
	outer *binding
}

// frame is the surroundings in which an expression is evaluated.
type frame struct {
	*scope
	loops []loop
	bound *binding
	// own are the parameters of a function that the template defines; it sees no others.
	own map[string]any
	of  *instance // the resource that has the expression; nil for others
}

// within adds a loop's pass.
func (f frame) within(l loop) frame {
	f.loops = append(f.loops[:len(f.loops):len(f.loops)], l)
	return f
}

// text evaluates a string of a template. Of a literal it removes the escape.
func (f frame) text(place, s string) any {
	if !isExpression(s) {
		if strings.HasPrefix(s, "[[") {
			return s[1:]
		}
		return s
	}
	n, err := f.engine.parsed(s)
	if err == nil {
		var v any
		v, err = f.eval(n)
		if _, ok := v.(lambda); ok && err == nil {
			err = errors.New("lambda(): a lambda is an argument of a function, not a value")
		}
		if err == nil {
			return v
		}
	}
	return f.problem(place, s, err)
}

// problem records a problem and makes the value that stands for it.
func (f frame) problem(place, expression string, err error) unresolved {
	p := &Problem{File: f.file, Place: place, Expression: expression, Message: err.Error()}
	var cause *Problem
	if errors.As(err, &cause) {
		p.Message, p.origin = cause.Message, cause.origin
		if p.origin == "" && (cause.Place != place || cause.File != f.file) {
			p.origin = cause.Place
			p.Message = cause.Place + ": " + cause.Message
		}
	}
	if f.budget.spent != nil && f.budget.where == nil {
		f.budget.where = p // the innermost expression is the first to be told
	}
	f.budget.alloc(128 + len(p.Place) + len(p.Message)) // an error stays in budget.spent
	return unresolved{p}
}

// tree evaluates every expression in a value.
func (f frame) tree(place string, v any) any {
	if err := f.budget.step(1); err != nil {
		return f.problem(place, "["+kindOf(v)+"]", err)
	}
	switch v := v.(type) {
	case string:
		return f.text(place, v)
	case []any:
		if err := f.made(16*len(v), len(v)/elementsOfStep); err != nil {
			return f.problem(place, "[array]", err)
		}
		list := make([]any, len(v))
		for i, e := range v {
			if list[i] = e; !literalValue(e) {
				list[i] = f.tree(place+"["+strconv.Itoa(i)+"]", e)
			}
		}
		return list
	case map[string]any:
		return f.object(place, v)
	}
	return v
}

// literalValue reports whether a value needs no evaluation, as most of a document.
func literalValue(v any) bool {
	switch v := v.(type) {
	case string:
		return v == "" || v[0] != '['
	case []any, map[string]any:
		return false
	}
	return true
}

// made charges the bytes of a list or an object, and the steps of making it.
func (f frame) made(bytes, steps int) error {
	if err := f.budget.step(steps); err != nil {
		return err
	}
	return f.budget.alloc(bytes)
}

func (f frame) object(place string, o map[string]any) any {
	if err := f.made(48*len(o), len(o)/fieldsOfStep); err != nil {
		return f.problem(place, "[object]", err)
	}
	out := make(map[string]any, len(o))
	f.result.origins.note(out, o)
	var looped []string
	for _, name := range sortedKeys(o) {
		if loops, ok := propertyLoops(name, o[name]); ok {
			for i, l := range loops {
				looped = append(looped, f.repeat(fmt.Sprintf("%s.%s[%d]", place, name, i), l, out))
			}
			continue
		}
		if malformedLoops(name, o[name]) {
			out["copy"] = f.problem(place+"."+name, countText(o[name]), errLoopFields)
			continue
		}
		key := name
		if isExpression(name) {
			if s, ok := f.text(place+"."+name, name).(string); ok {
				key = s
			}
		}
		if slices.ContainsFunc(looped, func(made string) bool { return strings.EqualFold(made, key) }) {
			out["copy"] = f.problem(place+"."+name, "["+key+"]", errMadeTwice)
			continue
		}
		if out[key] = o[name]; !literalValue(o[name]) {
			out[key] = f.tree(place+"."+name, o[name])
		}
	}
	return out
}

var (
	errMadeTwice  = errors.New("a copy loop makes the property too; allowed is one of both")
	errLoopFields = errors.New("the loops of properties are a list; each needs name, count and input")
)

// propertyLoops returns the loops of a "copy" that makes properties. A property may also
// have that name by chance; ok is then false.
func propertyLoops(name string, v any) ([]map[string]any, bool) {
	list, ok := v.([]any)
	if !ok || !strings.EqualFold(name, "copy") {
		return nil, false
	}
	loops := make([]map[string]any, len(list))
	for i, e := range list {
		l, _ := e.(map[string]any)
		_, has := field(l, "input")
		if !has || text(l, "name") == "" {
			return nil, false
		}
		loops[i] = l
	}
	return loops, true
}

// malformedLoops reports whether a "copy" looks like loops but lacks something.
func malformedLoops(name string, v any) bool {
	if !strings.EqualFold(name, "copy") {
		return false
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	return slices.ContainsFunc(list, func(e any) bool {
		l, _ := e.(map[string]any)
		_, counted := field(l, "count")
		_, has := field(l, "input")
		return counted || has
	})
}

// repeat runs a property's loop, puts the list into out and returns the property's name.
func (f frame) repeat(place string, l map[string]any, out map[string]any) (name string) {
	name, ok := f.text(place+".name", text(l, "name")).(string)
	if !ok {
		name = text(l, "name")
	}
	if _, made := field(out, name); made {
		out["copy"] = f.problem(place+".name", "["+name+"]", errMadeTwice)
		return name
	}
	count, err := f.count(place+".count", get(l, "count"))
	if err != nil {
		out["copy"] = f.problem(place+".count", countText(get(l, "count")), err)
		return name
	}
	list := make([]any, count)
	for i := range list {
		list[i] = f.within(loop{name, int64(i), true}).tree(fmt.Sprintf("%s.input(%d)", place, i), get(l, "input"))
	}
	out[name] = list
	return name
}

// count evaluates the number of passes of a loop.
func (f frame) count(place string, v any) (int, error) {
	v = f.tree(place, v)
	if u, ok := v.(unresolved); ok {
		return 0, u.problem
	}
	n, ok := integer(v)
	if !ok || n < 0 || n > maxCopies {
		shown, err := asJSON(v)
		if err != nil {
			shown = kindOf(v)
		}
		return 0, fmt.Errorf("the count of a copy loop is %s; allowed is an integer from 0 to %d, the cap", clip(shown), maxCopies)
	}
	return int(n), f.budget.step(int(n))
}

// countText is the text of a count for a problem.
func countText(v any) string {
	if s, ok := v.(string); ok && isExpression(s) {
		return s
	}
	shown, err := asJSON(v)
	if err != nil {
		shown = kindOf(v)
	}
	return "[" + shown + "]"
}

// eval evaluates a part of an expression. Parts of the result may be unresolved, but not
// the result itself.
func (f frame) eval(n node) (any, error) {
	if err := f.budget.step(1); err != nil {
		return nil, err
	}
	defer f.budget.leave()
	if err := f.budget.enter(); err != nil {
		return nil, err
	}
	var v any
	var err error
	switch n := n.(type) {
	case literal:
		return n.value, nil
	case call:
		v, err = f.call(n)
	case member:
		v, err = f.member(n)
	}
	if u, ok := v.(unresolved); ok && err == nil {
		return nil, u.problem
	}
	return v, err
}

func (f frame) member(n member) (any, error) {
	base, err := f.eval(n.base)
	if err != nil {
		return nil, err
	}
	index, err := f.eval(n.index)
	if err != nil {
		return nil, err
	}
	if base == nil && n.safe {
		return nil, nil
	}
	switch base := base.(type) {
	case map[string]any:
		name, ok := index.(string)
		if !ok {
			return nil, fmt.Errorf("an object's property is named by a string, not by an %s", kindOf(index))
		}
		if v, ok := base[name]; ok {
			return v, nil
		}
		if err := f.budget.step(len(base) / 8); err != nil {
			return nil, err
		}
		if v, ok := field(base, name); ok {
			return v, nil
		}
		err := f.missing(n.base, base, name)
		var unknown *unknownProperty
		if n.safe && !errors.As(err, &unknown) {
			return nil, nil
		}
		return nil, err
	case []any:
		i, ok := integer(index)
		switch {
		case !ok:
			return nil, fmt.Errorf("an array's element is named by an integer, not by a value of type %s", kindOf(index))
		case i >= 0 && i < int64(len(base)):
			return base[i], nil
		case n.safe:
			return nil, nil
		}
		return nil, fmt.Errorf("the array has %d elements; there is none with index %d", len(base), i)
	}
	return nil, fmt.Errorf("a value of type %s has no property %s", kindOf(base), clip(fmt.Sprint(index)))
}

// missing is the error for a field that an object lacks. If the object comes from
// reference(), Azure may know the field; of a deployment everything is known.
func (f frame) missing(base node, o map[string]any, name string) error {
	if c, ok := root(base).(call); ok && strings.EqualFold(c.name, "reference") {
		of, err := f.eval(c.args[0]) // it was evaluated before
		if err != nil {
			return err
		}
		if r, err := f.find(fmt.Sprint(of)); r == nil || err != nil || !r.isDeployment() {
			return &unknownProperty{name, fmt.Sprint(of)}
		}
	}
	keys := sortedKeys(o)
	if len(keys) > 12 {
		keys = append(keys[:12:12], "...")
	}
	return fmt.Errorf("there is no property %s; there are: %s", clip(name), clip(strings.Join(keys, ", ")))
}

// unknownProperty is a property of a resource that only Azure knows.
type unknownProperty struct{ name, of string }

func (u *unknownProperty) Error() string {
	return fmt.Sprintf("reference(): only Azure knows the property %s of %s; give it with --runtime", clip(u.name), clip(u.of))
}

// root is the innermost base of an expression's properties and elements.
func root(n node) node {
	for {
		m, ok := n.(member)
		if !ok {
			return n
		}
		n = m.base
	}
}
