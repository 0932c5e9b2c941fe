package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// stringFunctions count positions and lengths in characters. Azure counts UTF-16 units,
// which is the same within Unicode's basic plane.
var stringFunctions = map[string]function{
	"toLower": one(strings.ToLower),
	"toUpper": one(strings.ToUpper),
	"trim":    one(func(s string) string { return strings.TrimFunc(s, unicode.IsSpace) }),
	"concat":  {least: 1, most: many, call: concat},
	"format":  {least: 1, most: many, deep: true, call: format},
	"replace": {least: 3, most: 3, call: replace},
	"split":   {least: 2, most: 2, call: split},
	"join":    {least: 2, most: 2, deep: true, call: join},
	"substring": {least: 2, most: 3, call: func(_ frame, args []any) (any, error) {
		s, err := argString(args, 0)
		if err != nil {
			return nil, err
		}
		start, err := argInt(args, 1)
		if err != nil {
			return nil, err
		}
		r := []rune(s)
		length := int64(len(r)) - start
		if len(args) == 3 {
			if length, err = argInt(args, 2); err != nil {
				return nil, err
			}
		}
		if start < 0 || length < 0 || start > int64(len(r)) || length > int64(len(r))-start {
			return nil, fmt.Errorf("start %d and length %d are outside a string of %d characters", start, length, len(r))
		}
		return string(r[start : start+length]), nil
	}},
	"indexOf": {least: 2, most: 2, deep: true, call: func(_ frame, args []any) (any, error) { return position(args, false) }},
	"lastIndexOf": {least: 2, most: 2, deep: true, call: func(_ frame, args []any) (any, error) {
		return position(args, true)
	}},
	"startsWith": {least: 2, most: 2, call: func(_ frame, args []any) (any, error) {
		s, err := argStrings(args)
		if err != nil {
			return nil, err
		}
		return strings.HasPrefix(fold(s[0]), fold(s[1])), nil
	}},
	"endsWith": {least: 2, most: 2, call: func(_ frame, args []any) (any, error) {
		s, err := argStrings(args)
		if err != nil {
			return nil, err
		}
		return strings.HasSuffix(fold(s[0]), fold(s[1])), nil
	}},
	"padLeft":      {least: 2, most: 3, call: padLeft},
	"string":       {least: 1, most: 1, deep: true, call: func(f frame, args []any) (any, error) { return f.asText(args[0]) }},
	"uniqueString": {least: 1, most: many, call: uniqueString},
	"guid":         {least: 1, most: many, call: guid},
	"newGuid": {call: func(f frame, _ []any) (any, error) {
		return nameUUID(newGUIDNamespace, f.target.id()+"/"+f.scope.name), nil
	}},
}

func one(change func(string) string) function {
	return function{least: 1, most: 1, call: func(_ frame, args []any) (any, error) {
		s, err := argString(args, 0)
		return change(s), err
	}}
}

// fold prepares a comparison without case. It keeps the number of characters.
func fold(s string) string { return strings.Map(unicode.ToLower, s) }

func runes(s string) int { return utf8.RuneCountInString(s) }

// asText is the form of a value in string(), concat and format.
func (f frame) asText(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool:
		if v {
			return "True", nil
		}
		return "False", nil
	case json.Number:
		return v.String(), nil
	case lambda:
		return "", errors.New("a lambda is no value")
	}
	if err := f.budget.alloc(textSize(v)); err != nil {
		return "", err
	}
	return asJSON(v)
}

// textSize is a lower bound of the length of a value's JSON. The check for unresolved parts
// has charged the steps of the walk.
func textSize(v any) int {
	size := 8
	switch v := v.(type) {
	case string:
		size += len(v)
	case []any:
		for _, e := range v {
			size += textSize(e)
		}
	case map[string]any:
		for name, e := range v {
			size += len(name) + textSize(e)
		}
	}
	return size
}

// concat joins texts, or arrays.
func concat(f frame, args []any) (any, error) {
	if _, ok := args[0].([]any); ok {
		all := []any{}
		for i := range args {
			list, err := argList(args, i)
			if err != nil {
				return nil, err
			}
			if err := f.budget.alloc(16 * len(list)); err != nil {
				return nil, err
			}
			all = append(all, list...)
		}
		return all, nil
	}
	var b strings.Builder
	for i, arg := range args {
		switch arg.(type) {
		case []any, map[string]any, lambda:
			return nil, allowed(i, arg, "texts, numbers and bools, or arrays alone")
		}
		s, err := f.asText(arg)
		if err != nil {
			return nil, err
		}
		if b.Len()+len(s) > f.budget.bytes {
			return nil, f.budget.alloc(b.Len() + len(s))
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func replace(f frame, args []any) (any, error) {
	s, err := argStrings(args)
	if err != nil {
		return nil, err
	}
	if s[1] == "" {
		return nil, errors.New("the text to be replaced is empty")
	}
	n := strings.Count(s[0], s[1])
	if err := f.budget.alloc(len(s[0]) + n*len(s[2])); err != nil {
		return nil, err
	}
	return strings.ReplaceAll(s[0], s[1], s[2]), nil
}

// split cuts at every one of the delimiters.
func split(f frame, args []any) (any, error) {
	s, err := argString(args, 0)
	if err != nil {
		return nil, err
	}
	var delimiters []string
	switch d := args[1].(type) {
	case string:
		delimiters = []string{d}
	case []any:
		if delimiters, err = argStrings(d); err != nil {
			return nil, fmt.Errorf("the delimiters: %w", err)
		}
	default:
		return nil, allowed(1, d, "string and an array of strings")
	}
	if err := f.budget.alloc(16 * (len(s) + 1)); err != nil {
		return nil, err
	}
	each := 0 // bytes that one place may have compared
	for _, d := range delimiters {
		each += len(d) + 1
	}
	list := []any{}
	start, charged := 0, 0
	for i := 0; i < len(s); {
		if i >= charged { // in slices, so that the evaluation can end in between
			const slice = 4096
			if err := f.budget.step(each * slice / 16); err != nil {
				return nil, err
			}
			charged = i + slice
		}
		length := 0
		for _, d := range delimiters {
			if d != "" && strings.HasPrefix(s[i:], d) {
				length = len(d)
				break
			}
		}
		if length == 0 {
			i++
			continue
		}
		list = append(list, s[start:i])
		i += length
		start = i
	}
	return append(list, s[start:]), nil
}

func join(f frame, args []any) (any, error) {
	list, err := argList(args, 0)
	if err != nil {
		return nil, err
	}
	delimiter, err := argString(args, 1)
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(list))
	size := len(delimiter) * len(list)
	for i, v := range list {
		if texts[i], err = f.asText(v); err != nil {
			return nil, err
		}
		size += len(texts[i])
	}
	if err := f.budget.alloc(size); err != nil {
		return nil, err
	}
	return strings.Join(texts, delimiter), nil
}

// position finds a text in any case, or an element of an array; -1 when there is none.
func position(args []any, last bool) (any, error) {
	if list, ok := args[0].([]any); ok {
		found := -1
		for i, v := range list {
			if equal(v, args[1]) && (found < 0 || last) {
				found = i
			}
		}
		return number(found), nil
	}
	s, err := argStrings(args)
	if err != nil {
		return nil, err
	}
	in, of := fold(s[0]), fold(s[1])
	at := strings.Index(in, of)
	if last {
		at = strings.LastIndex(in, of)
	}
	if at < 0 {
		return number(-1), nil
	}
	return number(runes(in[:at])), nil
}

func padLeft(f frame, args []any) (any, error) {
	const most = 1 << 16
	s, err := f.asText(args[0])
	if err != nil {
		return nil, err
	}
	switch args[0].(type) {
	case string, json.Number:
	default:
		return nil, allowed(0, args[0], "string and int")
	}
	length, err := argInt(args, 1)
	if err != nil {
		return nil, err
	}
	with := " "
	if len(args) == 3 {
		if with, err = argString(args, 2); err != nil {
			return nil, err
		}
	}
	if runes(with) != 1 {
		return nil, fmt.Errorf("argument 3 is %q; allowed is one character", clip(with))
	}
	if length > most {
		return nil, fmt.Errorf("the length is %d; allowed are %d, the cap", length, most)
	}
	return strings.Repeat(with, max(0, int(length)-runes(s))) + s, nil
}

// format writes a composite format of .NET: {index[,width][:format]}, {{ and }}.
func format(f frame, args []any) (any, error) {
	s, err := argString(args, 0)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case (c == '{' || c == '}') && i+1 < len(s) && s[i+1] == c:
			b.WriteByte(c)
			i++
		case c == '{':
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return nil, fmt.Errorf("the brace at character %d of the format is not closed", runes(s[:i])+1)
			}
			item, err := f.formatItem(s[i+1:i+end], args[1:])
			if err != nil {
				return nil, err
			}
			b.WriteString(item)
			i += end
		case c == '}':
			return nil, fmt.Errorf("the brace at character %d of the format closes nothing; a brace is written }}", runes(s[:i])+1)
		default:
			b.WriteByte(c)
		}
		if b.Len() > f.budget.bytes {
			return nil, f.budget.alloc(b.Len())
		}
	}
	return b.String(), nil
}

func (f frame) formatItem(item string, values []any) (string, error) {
	item, layout, _ := strings.Cut(item, ":")
	index, width, aligned := strings.Cut(item, ",")
	i, err := strconv.Atoi(strings.TrimSpace(index))
	if err != nil || i < 0 || i >= len(values) {
		return "", fmt.Errorf("the format names {%s}; there are %d arguments, counted from 0", clip(item), len(values))
	}
	s, err := f.asText(values[i])
	if err == nil && layout != "" {
		s, err = formatNumber(values[i], layout)
	}
	if err != nil || !aligned {
		return s, err
	}
	w, err := strconv.Atoi(strings.TrimSpace(width))
	if err != nil || w < -1000 || w > 1000 {
		return "", fmt.Errorf("the width %q of the format is no integer from -1000 to 1000, the cap", clip(width))
	}
	if w < 0 {
		return s + strings.Repeat(" ", max(0, -w-runes(s))), nil
	}
	return strings.Repeat(" ", max(0, w-runes(s))) + s, nil
}

// formatNumber writes an integer with one of .NET's formats for integers, or with
// zeros for digits.
func formatNumber(v any, layout string) (string, error) {
	n, ok := integer(v)
	if !ok {
		return "", fmt.Errorf("the format %q is for integers, not for a value of type %s", clip(layout), kindOf(v))
	}
	if len(layout) <= 100 && strings.Trim(layout, "0") == "" {
		return fmt.Sprintf("%0*d", len(layout), n), nil
	}
	digits := 0
	if len(layout) > 1 {
		var err error
		if digits, err = strconv.Atoi(layout[1:]); err != nil || digits < 0 || digits > 99 {
			return "", fmt.Errorf("the format %q is not known; allowed are D, X, x, N0 and zeros", clip(layout))
		}
	}
	switch layout[0] {
	case 'D', 'd':
		if n < 0 {
			digits++ // .NET does not count the sign
		}
		return fmt.Sprintf("%0*d", digits, n), nil
	case 'X':
		return fmt.Sprintf("%0*X", digits, uint64(n)), nil
	case 'x':
		return fmt.Sprintf("%0*x", digits, uint64(n)), nil
	case 'N', 'n':
		if digits == 0 && len(layout) > 1 {
			return thousands(n), nil
		}
	}
	return "", fmt.Errorf("the format %q is not known; allowed are D, X, x, N0 and zeros", clip(layout))
}

func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}
