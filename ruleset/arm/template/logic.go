package template

import (
	"encoding/json"
	"fmt"
	"strings"
)

var logicFunctions = map[string]function{
	"true":  {call: func(frame, []any) (any, error) { return true, nil }},
	"false": {call: func(frame, []any) (any, error) { return false, nil }},
	"null":  {call: func(frame, []any) (any, error) { return nil, nil }},
	// As in Azure, if evaluates only the branch that it returns.
	"if": {least: 3, most: 3, lazy: func(f frame, args []node) (any, error) {
		v, err := f.eval(args[0])
		if err != nil {
			return nil, err
		}
		condition, ok := v.(bool)
		switch {
		case !ok:
			return nil, fmt.Errorf("if(): %w", allowed(0, v, "bool"))
		case condition:
			return f.eval(args[1])
		}
		return f.eval(args[2])
	}},
	"and":      {least: 2, most: many, lazy: func(f frame, args []node) (any, error) { return f.until("and", args, false) }},
	"or":       {least: 2, most: many, lazy: func(f frame, args []node) (any, error) { return f.until("or", args, true) }},
	"coalesce": {least: 1, most: many, lazy: coalesce},
	"not": {least: 1, most: 1, call: func(_ frame, args []any) (any, error) {
		b, err := argBool(args, 0)
		return !b, err
	}},
	"equals": {least: 2, most: 2, deep: true, call: func(_ frame, args []any) (any, error) { return equal(args[0], args[1]), nil }},
	"less": {least: 2, most: 2, call: func(_ frame, args []any) (any, error) {
		return ordered(args, func(c int) bool { return c < 0 })
	}},
	"lessOrEquals": {least: 2, most: 2, call: func(_ frame, args []any) (any, error) {
		return ordered(args, func(c int) bool { return c <= 0 })
	}},
	"greater": {least: 2, most: 2, call: func(_ frame, args []any) (any, error) {
		return ordered(args, func(c int) bool { return c > 0 })
	}},
	"greaterOrEquals": {least: 2, most: 2, call: func(_ frame, args []any) (any, error) {
		return ordered(args, func(c int) bool { return c >= 0 })
	}},
}

// until evaluates arguments up to the first that equals decides.
func (f frame) until(function string, args []node, decides bool) (any, error) {
	for i, arg := range args {
		v, err := f.eval(arg)
		if err != nil {
			return nil, err
		}
		b, ok := v.(bool)
		if !ok {
			return nil, fmt.Errorf("%s(): %w", function, allowed(i, v, "bool"))
		}
		if b == decides {
			return decides, nil
		}
	}
	return !decides, nil
}

func coalesce(f frame, args []node) (any, error) {
	for _, arg := range args {
		if v, err := f.eval(arg); v != nil || err != nil {
			return v, err
		}
	}
	return nil, nil
}

// ordered compares two numbers, or two strings by their code points.
func ordered(args []any, holds func(int) bool) (any, error) {
	switch a := args[0].(type) {
	case string:
		if b, ok := args[1].(string); ok {
			return holds(strings.Compare(a, b)), nil
		}
	case json.Number:
		if b, ok := args[1].(json.Number); ok {
			return holds(compareNumbers(a, b)), nil
		}
	}
	return nil, fmt.Errorf("the arguments are of types %s and %s; allowed are two ints or two strings", kindOf(args[0]), kindOf(args[1]))
}

func compareNumbers(a, b json.Number) int {
	i, whole := integer(a)
	j, also := integer(b)
	if whole && also {
		switch {
		case i < j:
			return -1
		case i > j:
			return 1
		}
		return 0
	}
	x, _ := a.Float64()
	y, _ := b.Float64()
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}
