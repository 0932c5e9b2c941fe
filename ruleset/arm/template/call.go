package template

import (
	"fmt"
	"strings"
)

// function is a function of the expression language. Exactly one of lazy and call is set.
type function struct {
	least, most int // number of arguments; many: no upper limit
	// deep functions look into lists and objects, so no part of these may be unresolved.
	deep bool
	call func(f frame, args []any) (any, error)
	// lazy functions evaluate their own arguments.
	lazy func(f frame, args []node) (any, error)
}

// many, as function.most, stands for any number of arguments.
const many = -1

// functions are by name in lower case. init fills the map, because functions evaluate
// expressions, which look functions up.
var functions map[string]function

func init() {
	functions = map[string]function{}
	for _, group := range []map[string]function{
		scopeFunctions, logicFunctions, stringFunctions, encodingFunctions, numberFunctions, listFunctions, objectFunctions,
		lambdaFunctions, resourceFunctions, dateFunctions, networkFunctions,
	} {
		for name, fn := range group {
			functions[strings.ToLower(name)] = fn
		}
	}
}

func (f frame) call(c call) (any, error) {
	name := strings.ToLower(c.name)
	name = strings.TrimPrefix(name, "sys.")
	if strings.Contains(name, ".") {
		return f.callOwn(c)
	}
	fn, ok := functions[name]
	if !ok {
		if strings.HasPrefix(name, "list") {
			fn = function{least: 1, most: 3, call: func(f frame, args []any) (any, error) { return f.list(c.name, args) }}
		} else {
			return nil, fmt.Errorf("the function %s is not known", c.name)
		}
	}
	if len(c.args) < fn.least || fn.most >= 0 && len(c.args) > fn.most {
		return nil, fmt.Errorf("%s(): it has %d arguments; allowed are %s", c.name, len(c.args), fn.arguments())
	}
	if fn.lazy != nil {
		return fn.lazy(f, c.args)
	}
	args := make([]any, len(c.args))
	for i, arg := range c.args {
		v, err := f.eval(arg)
		if err == nil && fn.deep {
			err = f.budget.firstUnresolved(v)
		}
		if err != nil {
			return nil, err
		}
		args[i] = v
	}
	cost := 0
	for _, v := range args {
		cost += size(v)
	}
	if err := f.budget.step(cost); err != nil {
		return nil, err
	}
	v, err := fn.call(f, args)
	if err != nil {
		return nil, f.named(c.name, err)
	}
	return v, f.charge(v)
}

// named puts the function's name before an error.
func (f frame) named(function string, err error) error {
	if _, ok := err.(*Problem); ok || err == errDepth || f.budget.spent == err {
		return err
	}
	return fmt.Errorf("%s(): %w", function, err)
}

func (fn function) arguments() string {
	switch {
	case fn.most < 0:
		return fmt.Sprintf("%d or more", fn.least)
	case fn.least == fn.most:
		return fmt.Sprint(fn.least)
	}
	return fmt.Sprintf("%d to %d", fn.least, fn.most)
}

// charge counts the memory of a function's result.
func (f frame) charge(v any) error {
	switch v := v.(type) {
	case string:
		return f.budget.alloc(len(v))
	case []any:
		return f.budget.alloc(16 * len(v))
	case map[string]any:
		return f.budget.alloc(48 * len(v))
	}
	return nil
}

// callOwn calls a function that the template defines. It sees only its own parameters.
func (f frame) callOwn(c call) (any, error) {
	fn := f.scope.ownFunction(c.name)
	if fn == nil {
		return nil, fmt.Errorf("the template has no function %s", c.name)
	}
	parameters, _ := get(fn, "parameters").([]any)
	if len(parameters) != len(c.args) {
		return nil, fmt.Errorf("%s(): it has %d arguments; allowed are %d", c.name, len(c.args), len(parameters))
	}
	own := map[string]any{}
	for i, arg := range c.args {
		v, err := f.eval(arg)
		if err != nil {
			return nil, err
		}
		declared, _ := parameters[i].(map[string]any)
		own[strings.ToLower(text(declared, "name"))] = v
	}
	return frame{scope: f.scope, own: own}.tree("functions."+c.name+".output.value", get(object(fn, "output"), "value")), nil
}

// ownFunction finds the template's function "namespace.member".
func (s *scope) ownFunction(name string) map[string]any {
	namespace, member, _ := strings.Cut(name, ".")
	list, _ := get(s.template, "functions").([]any)
	if s.budget.step(len(list)/4) != nil {
		return nil
	}
	for _, e := range list {
		if group, _ := e.(map[string]any); strings.EqualFold(text(group, "namespace"), namespace) {
			if fn := object(object(group, "members"), member); fn != nil {
				return fn
			}
		}
	}
	return nil
}

// The following functions convert arguments to the type that a function needs.

func argString(args []any, i int) (string, error) {
	s, ok := args[i].(string)
	if !ok {
		return "", fmt.Errorf("argument %d is of type %s; allowed is string", i+1, kindOf(args[i]))
	}
	return s, nil
}

func argStrings(args []any) ([]string, error) {
	list := make([]string, len(args))
	for i := range args {
		s, err := argString(args, i)
		if err != nil {
			return nil, err
		}
		list[i] = s
	}
	return list, nil
}

func argInt(args []any, i int) (int64, error) {
	n, ok := integer(args[i])
	if !ok {
		return 0, fmt.Errorf("argument %d is of type %s; allowed is int", i+1, kindOf(args[i]))
	}
	return n, nil
}

func argBool(args []any, i int) (bool, error) {
	b, ok := args[i].(bool)
	if !ok {
		return false, fmt.Errorf("argument %d is of type %s; allowed is bool", i+1, kindOf(args[i]))
	}
	return b, nil
}

func argList(args []any, i int) ([]any, error) {
	list, ok := args[i].([]any)
	if !ok {
		return nil, fmt.Errorf("argument %d is of type %s; allowed is array", i+1, kindOf(args[i]))
	}
	return list, nil
}

func argObject(args []any, i int) (map[string]any, error) {
	o, ok := args[i].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("argument %d is of type %s; allowed is object", i+1, kindOf(args[i]))
	}
	return o, nil
}

// allowed is the error for an argument of a wrong type.
func allowed(i int, v any, kinds string) error {
	return fmt.Errorf("argument %d is of type %s; allowed are %s", i+1, kindOf(v), kinds)
}
