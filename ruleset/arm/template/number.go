package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

var errOverflow = errors.New("the result does not fit an integer of 64 bits")

var numberFunctions = map[string]function{
	"add": arithmetic(func(a, b int64) (int64, error) {
		if c := a + b; (c > a) == (b > 0) {
			return c, nil
		}
		return 0, errOverflow
	}),
	"sub": arithmetic(func(a, b int64) (int64, error) {
		if c := a - b; (c < a) == (b > 0) {
			return c, nil
		}
		return 0, errOverflow
	}),
	"mul": arithmetic(multiply),
	"div": arithmetic(func(a, b int64) (int64, error) {
		switch {
		case b == 0:
			return 0, errors.New("division by zero")
		case a == math.MinInt64 && b == -1:
			return 0, errOverflow
		}
		return a / b, nil
	}),
	"mod": arithmetic(func(a, b int64) (int64, error) {
		switch b {
		case 0:
			return 0, errors.New("division by zero")
		case -1:
			return 0, nil
		}
		return a % b, nil
	}),
	"int":   {least: 1, most: 1, call: toInt},
	"float": {least: 1, most: 1, call: toFloat},
	"bool":  {least: 1, most: 1, call: toBool},
	"min":   {least: 1, most: many, deep: true, call: func(_ frame, args []any) (any, error) { return extreme(args, -1) }},
	"max":   {least: 1, most: many, deep: true, call: func(_ frame, args []any) (any, error) { return extreme(args, 1) }},
}

func arithmetic(of func(a, b int64) (int64, error)) function {
	return function{least: 2, most: 2, call: func(_ frame, args []any) (any, error) {
		a, err := argInt(args, 0)
		if err != nil {
			return nil, err
		}
		b, err := argInt(args, 1)
		if err != nil {
			return nil, err
		}
		c, err := of(a, b)
		if err != nil {
			return nil, err
		}
		return number(c), nil
	}}
}

func multiply(a, b int64) (int64, error) {
	abs := func(n int64) uint64 {
		if n < 0 {
			return -uint64(n)
		}
		return uint64(n)
	}
	high, low := bits.Mul64(abs(a), abs(b))
	negative := (a < 0) != (b < 0)
	if high != 0 || low > 1<<63 || low == 1<<63 && !negative {
		return 0, errOverflow
	}
	if negative {
		return int64(-low), nil
	}
	return int64(low), nil
}

func toInt(_ frame, args []any) (any, error) {
	switch v := args[0].(type) {
	case json.Number:
		if n, ok := integer(v); ok {
			return number(n), nil
		}
		f, err := v.Float64()
		if err != nil || math.Abs(f) >= 1<<63 {
			return nil, errOverflow
		}
		return number(int64(f)), nil
	case string:
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no integer of 64 bits", clip(v))
		}
		return number(n), nil
	}
	return nil, allowed(0, args[0], "string and int")
}

func toFloat(_ frame, args []any) (any, error) {
	switch v := args[0].(type) {
	case json.Number:
		return v, nil
	case string:
		f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%q is no number", clip(v))
		}
		return json.Number(strconv.FormatFloat(f, 'g', -1, 64)), nil
	}
	return nil, allowed(0, args[0], "string and number")
}

func toBool(_ frame, args []any) (any, error) {
	switch v := args[0].(type) {
	case bool:
		return v, nil
	case json.Number:
		f, err := v.Float64()
		return f != 0, err
	case string:
		switch strings.ToLower(strings.TrimSpace(v)) {
		case "true", "1":
			return true, nil
		case "false", "0":
			return false, nil
		}
		return nil, fmt.Errorf("%q is no bool; allowed are true, false, 1 and 0", clip(v))
	}
	return nil, allowed(0, args[0], "string, int and bool")
}

// extreme is the least or the greatest of the arguments, or of one array.
func extreme(args []any, sign int) (any, error) {
	if list, ok := args[0].([]any); ok && len(args) == 1 {
		args = list
	}
	if len(args) == 0 {
		return nil, errors.New("the array is empty")
	}
	var best json.Number
	for i := range args {
		n, ok := args[i].(json.Number)
		if !ok {
			return nil, allowed(i, args[i], "ints, or one array of them")
		}
		if i == 0 || compareNumbers(n, best)*sign > 0 {
			best = n
		}
	}
	return best, nil
}
