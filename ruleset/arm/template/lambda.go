package template

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// lambda is a function as a value, with the frame in which it stands.
type lambda struct {
	names []string
	body  node
	frame frame
}

var lambdaFunctions = map[string]function{
	"lambda":          {least: 1, most: many, lazy: makeLambda},
	"lambdaVariables": {least: 1, most: 1, call: lambdaVariable},
	"map": {least: 2, most: 2, call: func(f frame, args []any) (any, error) {
		out := []any{}
		err := f.each(args, func(v, mapped any) error {
			out = append(out, mapped)
			return nil
		})
		return out, err
	}},
	"filter": {least: 2, most: 2, call: func(f frame, args []any) (any, error) {
		out := []any{}
		err := f.each(args, func(v, kept any) error {
			keep, ok := kept.(bool)
			if !ok {
				return fmt.Errorf("the lambda gives a value of type %s; allowed is bool", kindOf(kept))
			}
			if keep {
				out = append(out, v)
			}
			return nil
		})
		return out, err
	}},
	"reduce": {least: 3, most: 3, call: func(f frame, args []any) (any, error) {
		list, err := argList(args, 0)
		if err != nil {
			return nil, err
		}
		l, err := argLambda(args, 2)
		if err != nil {
			return nil, err
		}
		sum := args[1]
		for i, v := range list {
			if sum, err = l.apply(i, sum, v); err != nil {
				return nil, err
			}
		}
		return sum, nil
	}},
	"sort": {least: 2, most: 2, call: sortList},
	"toObject": {least: 2, most: 3, call: func(f frame, args []any) (any, error) {
		list, err := argList(args, 0)
		if err != nil {
			return nil, err
		}
		out := map[string]any{}
		for i, v := range list {
			key, err := applied(args, 1, i, v)
			if err != nil {
				return nil, err
			}
			name, ok := key.(string)
			if !ok {
				return nil, fmt.Errorf("a key is of type %s; allowed is string", kindOf(key))
			}
			value := v
			if len(args) == 3 {
				if value, err = applied(args, 2, i, v); err != nil {
					return nil, err
				}
			}
			out[name] = value
		}
		return out, nil
	}},
	"groupBy": {least: 2, most: 2, call: func(f frame, args []any) (any, error) {
		out := map[string]any{}
		err := f.each(args, func(v, key any) error {
			name, ok := key.(string)
			if !ok {
				return fmt.Errorf("a key is of type %s; allowed is string", kindOf(key))
			}
			group, _ := out[name].([]any)
			out[name] = append(group, v)
			return nil
		})
		return out, err
	}},
	"mapValues": {least: 2, most: 2, call: func(f frame, args []any) (any, error) {
		o, err := argObject(args, 0)
		if err != nil {
			return nil, err
		}
		out := map[string]any{}
		for i, name := range sortedKeys(o) {
			if out[name], err = applied(args, 1, i, o[name]); err != nil {
				return nil, err
			}
		}
		return out, nil
	}},
}

func makeLambda(f frame, args []node) (any, error) {
	l := lambda{body: args[len(args)-1], frame: f}
	for _, arg := range args[:len(args)-1] {
		name, ok := arg.(literal)
		s, text := name.value.(string)
		if !ok || !text {
			return nil, errors.New("lambda(): allowed are names of variables and one expression")
		}
		l.names = append(l.names, s)
	}
	return l, nil
}

func lambdaVariable(f frame, args []any) (any, error) {
	name, err := argString(args, 0)
	if err != nil {
		return nil, err
	}
	for b := f.bound; b != nil; b = b.outer {
		if strings.EqualFold(b.name, name) {
			return b.value, nil
		}
	}
	return nil, fmt.Errorf("there is no variable %s of a lambda here", clip(name))
}

func argLambda(args []any, i int) (lambda, error) {
	l, ok := args[i].(lambda)
	if !ok {
		return lambda{}, fmt.Errorf("argument %d is of type %s; allowed is a lambda", i+1, kindOf(args[i]))
	}
	return l, nil
}

// apply calls a lambda. Its last variable may be the element's index.
func (l lambda) apply(index int, values ...any) (any, error) {
	f := l.frame
	if len(l.names) == len(values)+1 {
		values = append(values, number(index))
	}
	if len(l.names) != len(values) {
		return nil, fmt.Errorf("the lambda has %d variables; allowed are %d", len(l.names), len(values))
	}
	for i, name := range l.names {
		f.bound = &binding{name, values[i], f.bound}
	}
	return f.eval(l.body)
}

func applied(args []any, i, index int, values ...any) (any, error) {
	l, err := argLambda(args, i)
	if err != nil {
		return nil, err
	}
	return l.apply(index, values...)
}

// each calls the lambda, the second argument, with every element of the first.
func (f frame) each(args []any, take func(v, result any) error) error {
	list, err := argList(args, 0)
	if err != nil {
		return err
	}
	for i, v := range list {
		result, err := applied(args, 1, i, v)
		if err == nil {
			err = take(v, result)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sortList sorts by a lambda, which is true if its first argument comes first.
func sortList(_ frame, args []any) (any, error) {
	list, err := argList(args, 0)
	if err != nil {
		return nil, err
	}
	l, err := argLambda(args, 1)
	if err != nil {
		return nil, err
	}
	if len(l.names) != 2 {
		return nil, fmt.Errorf("the lambda has %d variables; allowed are 2", len(l.names))
	}
	list = slices.Clone(list)
	before := func(a, b any) bool {
		if err != nil {
			return false
		}
		var v any
		if v, err = l.apply(0, a, b); err != nil {
			return false
		}
		first, ok := v.(bool)
		if !ok {
			err = fmt.Errorf("the lambda gives a value of type %s; allowed is bool", kindOf(v))
		}
		return first
	}
	slices.SortStableFunc(list, func(a, b any) int {
		switch {
		case before(a, b):
			return -1
		case before(b, a):
			return 1
		}
		return 0
	})
	return list, err
}
