package template

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"
)

var encodingFunctions = map[string]function{
	"base64": {least: 1, most: 1, call: func(_ frame, args []any) (any, error) {
		s, err := argString(args, 0)
		return base64.StdEncoding.EncodeToString([]byte(s)), err
	}},
	"base64ToString": {least: 1, most: 1, call: func(_ frame, args []any) (any, error) { return decode64(args) }},
	"base64ToJson": {least: 1, most: 1, call: func(f frame, args []any) (any, error) {
		s, err := decode64(args)
		if err != nil {
			return nil, err
		}
		return f.json(s)
	}},
	"json": {least: 1, most: 1, call: func(f frame, args []any) (any, error) {
		s, err := argString(args, 0)
		if err != nil {
			return nil, err
		}
		return f.json(s)
	}},
	"uri": {least: 2, most: 2, call: func(_ frame, args []any) (any, error) {
		s, err := argStrings(args)
		if err != nil {
			return nil, err
		}
		return resolve(s[0], s[1])
	}},
	"uriComponent": {least: 1, most: 1, call: func(_ frame, args []any) (any, error) {
		s, err := argString(args, 0)
		return strings.ReplaceAll(url.QueryEscape(s), "+", "%20"), err
	}},
	"uriComponentToString": {least: 1, most: 1, call: func(_ frame, args []any) (any, error) {
		s, err := argString(args, 0)
		if err != nil {
			return nil, err
		}
		return url.PathUnescape(s)
	}},
	"dataUri": {least: 1, most: 1, deep: true, call: func(f frame, args []any) (any, error) {
		s, err := f.asText(args[0])
		return "data:text/plain;charset=utf8;base64," + base64.StdEncoding.EncodeToString([]byte(s)), err
	}},
	"dataUriToString": {least: 1, most: 1, call: func(_ frame, args []any) (any, error) {
		s, err := argString(args, 0)
		if err != nil {
			return nil, err
		}
		head, data, ok := strings.Cut(s, ",")
		if !ok || !strings.HasPrefix(head, "data:") {
			return nil, fmt.Errorf("%q is no data URI", clip(s))
		}
		if strings.HasSuffix(head, ";base64") {
			return decode64([]any{data})
		}
		return url.PathUnescape(data)
	}},
}

func (f frame) json(s string) (any, error) {
	// A parsed value takes a multiple of its text.
	if err := f.budget.alloc(32 * len(s)); err != nil {
		return nil, err
	}
	v, err := parseJSON(s)
	if err != nil {
		return nil, fmt.Errorf("%q is no JSON: %w", clip(s), err)
	}
	return v, nil
}

func decode64(args []any) (string, error) {
	s, err := argString(args, 0)
	if err != nil {
		return "", err
	}
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", err
	}
	if !utf8.Valid(data) {
		return "", errors.New("the decoded text is no UTF-8")
	}
	return string(data), nil
}

// resolve combines a base and a relative URI as the web does. A base without a scheme,
// which Azure does not have, is a path: links are then files beside the template.
func resolve(base, relative string) (string, error) {
	b, err := url.Parse(base)
	if err != nil {
		return "", fmt.Errorf("the base is no URI: %w", err)
	}
	r, err := url.Parse(relative)
	if err != nil {
		return "", fmt.Errorf("the relative part is no URI: %w", err)
	}
	if b.IsAbs() || r.IsAbs() {
		return b.ResolveReference(r).String(), nil
	}
	folder := base[:strings.LastIndexByte(base, '/')+1]
	return folder + strings.TrimPrefix(relative, "/"), nil
}
