package template

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

var listFunctions = map[string]function{
	"createArray": {least: 0, most: many, call: func(_ frame, args []any) (any, error) { return slices.Clone(args), nil }},
	"array": {least: 1, most: 1, call: func(_ frame, args []any) (any, error) {
		if list, ok := args[0].([]any); ok {
			return list, nil
		}
		return []any{args[0]}, nil
	}},
	"length":   {least: 1, most: 1, call: length},
	"empty":    {least: 1, most: 1, call: empty},
	"contains": {least: 2, most: 2, deep: true, call: contains},
	"first":    {least: 1, most: 1, call: func(_ frame, args []any) (any, error) { return end(args[0], false) }},
	"last":     {least: 1, most: 1, call: func(_ frame, args []any) (any, error) { return end(args[0], true) }},
	"take": {least: 2, most: 2, call: func(_ frame, args []any) (any, error) {
		return cut(args, func(n, size int) (int, int) { return 0, n })
	}},
	"skip": {least: 2, most: 2, call: func(_ frame, args []any) (any, error) {
		return cut(args, func(n, size int) (int, int) { return n, size })
	}},
	"range":        {least: 2, most: 2, call: rangeOf},
	"flatten":      {least: 1, most: 1, call: flatten},
	"union":        {least: 1, most: many, deep: true, call: union},
	"intersection": {least: 1, most: many, deep: true, call: intersection},
	"indexFromEnd": {least: 2, most: 2, call: func(_ frame, args []any) (any, error) {
		list, err := argList(args, 0)
		if err != nil {
			return nil, err
		}
		i, err := argInt(args, 1)
		if err != nil {
			return nil, err
		}
		if i < 1 || i > int64(len(list)) {
			return nil, fmt.Errorf("the array has %d elements; there is none with index %d from its end", len(list), i)
		}
		return list[int64(len(list))-i], nil
	}},
	"tryIndexFromEnd": {least: 2, most: 2, call: func(_ frame, args []any) (any, error) {
		list, _ := args[0].([]any)
		i, err := argInt(args, 1)
		switch {
		case err != nil:
			return nil, err
		case list == nil && args[0] != nil:
			return nil, allowed(0, args[0], "array and null")
		case i < 1 || i > int64(len(list)):
			return nil, nil
		}
		return list[int64(len(list))-i], nil
	}},
}

func length(_ frame, args []any) (any, error) {
	switch v := args[0].(type) {
	case string:
		return number(runes(v)), nil
	case []any:
		return number(len(v)), nil
	case map[string]any:
		return number(len(v)), nil
	}
	return nil, allowed(0, args[0], "string, array and object")
}

func empty(_ frame, args []any) (any, error) {
	switch v := args[0].(type) {
	case nil:
		return true, nil
	case string:
		return v == "", nil
	case []any:
		return len(v) == 0, nil
	case map[string]any:
		return len(v) == 0, nil
	}
	return nil, allowed(0, args[0], "string, array, object and null")
}

// contains searches a text for a part, with case, an array for an element, or an object for
// a key in any case.
func contains(f frame, args []any) (any, error) {
	switch v := args[0].(type) {
	case string:
		s, err := f.asText(args[1])
		return strings.Contains(v, s), err
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { return equal(e, args[1]) }), nil
	case map[string]any:
		name, err := f.asText(args[1])
		_, ok := field(v, name)
		return ok, err
	}
	return nil, allowed(0, args[0], "string, array and object")
}

// end is the first or the last element. It is null for an empty array, as in Azure.
func end(v any, last bool) (any, error) {
	switch v := v.(type) {
	case []any:
		switch {
		case len(v) == 0:
			return nil, nil
		case last:
			return v[len(v)-1], nil
		}
		return v[0], nil
	case string:
		r, _ := utf8.DecodeRuneInString(v)
		if last {
			r, _ = utf8.DecodeLastRuneInString(v)
		}
		if v == "" {
			return "", nil
		}
		return string(r), nil
	}
	return nil, allowed(0, v, "string and array")
}

// cut takes a part of a text or an array. bounds turns a number from 0 to the size into the
// part's bounds.
func cut(args []any, bounds func(n, size int) (int, int)) (any, error) {
	n, err := argInt(args, 1)
	if err != nil {
		return nil, err
	}
	within := func(size int) (int, int) { return bounds(int(max(0, min(n, int64(size)))), size) }
	switch v := args[0].(type) {
	case []any:
		from, to := within(len(v))
		return v[from:to:to], nil
	case string:
		r := []rune(v)
		from, to := within(len(r))
		return string(r[from:to]), nil
	}
	return nil, allowed(0, args[0], "string and array")
}

func rangeOf(f frame, args []any) (any, error) {
	start, err := argInt(args, 0)
	if err != nil {
		return nil, err
	}
	count, err := argInt(args, 1)
	if err != nil {
		return nil, err
	}
	if count < 0 || count > maxRange || start > math.MaxInt32 || start < math.MinInt32 || start+count-1 > math.MaxInt32 {
		return nil, fmt.Errorf("start %d and count %d; allowed are at most %d numbers, none beyond %d", start, count, maxRange, math.MaxInt32)
	}
	if err := f.budget.alloc(24 * int(count)); err != nil {
		return nil, err
	}
	list := make([]any, count)
	for i := range list {
		list[i] = number(start + int64(i))
	}
	return list, nil
}

func flatten(f frame, args []any) (any, error) {
	list, err := argList(args, 0)
	if err != nil {
		return nil, err
	}
	out := []any{}
	for _, e := range list {
		switch e := e.(type) {
		case unresolved:
			return nil, e.problem
		case []any:
			if err := f.budget.alloc(16 * len(e)); err != nil {
				return nil, err
			}
			out = append(out, e...)
		default:
			out = append(out, e)
		}
	}
	return out, nil
}

// union unites arrays, with each element once, or objects. If objects share a field, the
// last value wins, except that inner objects are united too.
func union(f frame, args []any) (any, error) {
	switch args[0].(type) {
	case []any:
		out := []any{}
		for i := range args {
			list, err := argList(args, i)
			if err != nil {
				return nil, err
			}
			for _, e := range list {
				if out, err = f.add(out, e); err != nil {
					return nil, err
				}
			}
		}
		return out, nil
	case map[string]any:
		var out map[string]any
		for i := range args {
			o, err := argObject(args, i)
			if err != nil {
				return nil, err
			}
			if err := f.budget.alloc(48 * len(o)); err != nil {
				return nil, err
			}
			if out, err = f.unite(out, o); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return nil, allowed(0, args[0], "arrays alone and objects alone")
}

func (f frame) unite(a, b map[string]any) (map[string]any, error) {
	if err := f.budget.step(len(a) + len(b)); err != nil {
		return nil, err
	}
	out := overlay(a, b)
	first := folded(a)
	for name, v := range b {
		below, _ := first.field(name)
		o, ok := below.(map[string]any)
		if p, also := v.(map[string]any); ok && also {
			var err error
			if out[name], err = f.unite(o, p); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// add appends an element unless the list has it.
func (f frame) add(list []any, v any) ([]any, error) {
	known, err := f.has(list, v)
	if err != nil || known {
		return list, err
	}
	return append(list, v), nil
}

// has searches for an element and charges the steps.
func (f frame) has(list []any, v any) (bool, error) {
	// Each comparison may walk through all of v.
	if err := f.budget.step((1 + len(list)/4) * (1 + textSize(v)/bytesOfStep/8)); err != nil {
		return false, err
	}
	return slices.ContainsFunc(list, func(e any) bool { return equal(e, v) }), nil
}

func intersection(f frame, args []any) (any, error) {
	switch first := args[0].(type) {
	case []any:
		out := []any{}
	elements:
		for _, e := range first {
			for i := range args {
				list, err := argList(args, i)
				if err != nil {
					return nil, err
				}
				known, err := f.has(list, e)
				if err != nil {
					return nil, err
				}
				if !known {
					continue elements
				}
			}
			var err error
			if out, err = f.add(out, e); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		out := map[string]any{}
		objects := make([]*foldedObject, len(args))
		for i := range args {
			o, err := argObject(args, i)
			if err != nil {
				return nil, err
			}
			objects[i] = folded(o)
		}
	fields:
		for name, v := range first {
			for _, o := range objects {
				if w, ok := o.field(name); !ok || !equal(v, w) {
					continue fields
				}
			}
			out[name] = v
		}
		return out, nil
	}
	return nil, allowed(0, args[0], "arrays alone and objects alone")
}

var objectFunctions = map[string]function{
	"createObject": {least: 0, most: many, call: func(f frame, args []any) (any, error) {
		if len(args)%2 != 0 {
			return nil, fmt.Errorf("it has %d arguments; allowed are names and values in turn", len(args))
		}
		out := map[string]any{}
		for i := 0; i < len(args); i += 2 {
			name, err := argString(args, i)
			if err != nil {
				return nil, err
			}
			if err := f.budget.step(len(out)); err != nil {
				return nil, err
			}
			out = overlay(out, map[string]any{name: args[i+1]})
		}
		return out, nil
	}},
	"objectKeys": {least: 1, most: 1, call: func(_ frame, args []any) (any, error) {
		o, err := argObject(args, 0)
		if err != nil {
			return nil, err
		}
		out := []any{}
		for _, name := range sortedKeys(o) {
			out = append(out, name)
		}
		return out, nil
	}},
	"items": {least: 1, most: 1, call: func(_ frame, args []any) (any, error) {
		o, err := argObject(args, 0)
		if err != nil {
			return nil, err
		}
		out := []any{}
		for _, name := range sortedKeys(o) {
			out = append(out, map[string]any{"key": name, "value": o[name]})
		}
		return out, nil
	}},
	"shallowMerge": {least: 1, most: 1, call: func(f frame, args []any) (any, error) {
		list, err := argList(args, 0)
		if err != nil {
			return nil, err
		}
		out := map[string]any{}
		for i, e := range list {
			switch o := e.(type) {
			case unresolved:
				return nil, o.problem
			case map[string]any:
				if err := f.budget.step(len(out) + len(o)); err != nil {
					return nil, err
				}
				out = overlay(out, o)
			default:
				return nil, fmt.Errorf("element %d is of type %s; allowed is object", i, kindOf(e))
			}
		}
		return out, nil
	}},
	"tryGet": {least: 2, most: many, call: func(f frame, args []any) (any, error) {
		v := args[0]
		for _, key := range args[1:] {
			switch of := v.(type) {
			case unresolved:
				return nil, of.problem
			case map[string]any:
				if err := f.budget.step(size(of)); err != nil {
					return nil, err
				}
				name, _ := key.(string)
				v = get(of, name)
			case []any:
				i, ok := integer(key)
				if !ok || i < 0 || i >= int64(len(of)) {
					return nil, nil
				}
				v = of[i]
			default:
				return nil, nil
			}
		}
		return v, nil
	}},
	"fail": {least: 1, most: 1, call: func(_ frame, args []any) (any, error) {
		s, err := argString(args, 0)
		if err != nil {
			return nil, err
		}
		return nil, errors.New(clip(s))
	}},
}
