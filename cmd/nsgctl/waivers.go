package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/ruleset"
	"go.yaml.in/yaml/v3"
)

// Bounds of a file of waivers.
const (
	maxWaiverBytes = 1 << 20
	maxWaivers     = 10_000
)

// waiverKeys are the keys of a waiver.
var waiverKeys = func() (keys []string) {
	t := reflect.TypeFor[ask.Waiver]()
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" && key != "-" {
			keys = append(keys, key)
		}
	}
	return keys
}()

// readWaivers reads a file of waivers. The error names each fault with its line.
func readWaivers(path string) ([]ask.Waiver, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: neither a regular file nor a link to one", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxWaiverBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxWaiverBytes:
		return nil, fmt.Errorf("%s: more than %d bytes", path, maxWaiverBytes)
	}
	return parseWaivers(path, text)
}

func parseWaivers(path string, text []byte) ([]ask.Waiver, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	r := waiverReader{path: path}
	root := &yaml.Node{}
	if len(document.Content) > 0 {
		root = document.Content[0]
	}
	r.mapping(root, []string{"waivers"}, func(_ string, list *yaml.Node) {
		switch {
		case list.Kind != yaml.SequenceNode:
			r.fault(list, "waivers: allowed is a list")
		case len(list.Content) > maxWaivers:
			r.fault(list, "waivers: %d of them; allowed are %d", len(list.Content), maxWaivers)
		default:
			for i, n := range list.Content {
				r.waiver(i, n)
			}
		}
	})
	return r.waivers, errors.Join(r.faults...)
}

// waiverReader collects waivers and faults.
type waiverReader struct {
	path    string
	waivers []ask.Waiver
	faults  []error
}

func (r *waiverReader) fault(n *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf("%s:%d:%d: %s", r.path, max(n.Line, 1), max(n.Column, 1), fmt.Sprintf(format, args...)))
}

// mapping calls f for each allowed key.
func (r *waiverReader) mapping(n *yaml.Node, allowed []string, f func(key string, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.fault(n, "allowed is a mapping with the keys %s", strings.Join(allowed, ", "))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, near := n.Content[i], ruleset.NewNearMiss(n.Content[i].Value)
		known := false
		for _, name := range allowed {
			known = known || name == key.Value
			near.Try(name, name, false)
		}
		switch {
		case !known:
			r.fault(key, "unknown key %q: allowed are %s%s", ruleset.Clip(key.Value), strings.Join(allowed, ", "), near.Hint())
		case seen[key.Value]:
			r.fault(key, "key %q is given twice", key.Value)
		default:
			seen[key.Value] = true
			f(key.Value, n.Content[i+1])
		}
	}
}

func (r *waiverReader) waiver(i int, n *yaml.Node) {
	w := ask.Waiver{File: r.path, Line: n.Line, Column: n.Column}
	fields := map[string]*string{"code": &w.Code, "resource": &w.Resource, "reason": &w.Reason, "until": &w.Until}
	before := len(r.faults)
	r.mapping(n, waiverKeys, func(key string, value *yaml.Node) {
		if value.Kind != yaml.ScalarNode {
			r.fault(value, "waivers[%d].%s: allowed is a text", i, key)
			return
		}
		*fields[key] = strings.TrimSpace(value.Value)
	})
	if len(r.faults) > before {
		return
	}
	for _, key := range []string{"code", "resource", "reason"} {
		if *fields[key] == "" {
			r.fault(n, "waivers[%d].%s: missing: each waiver has a code, a resource and a reason", i, key)
		}
	}
	if w.Code != "" && ask.CheckOf(w.Code) == nil {
		r.fault(n, "waivers[%d].code %q: allowed are the codes that nsgctl lint --help lists", i, ruleset.Clip(w.Code))
	}
	if _, err := time.Parse(time.DateOnly, w.Until); w.Until != "" && err != nil {
		r.fault(n, "waivers[%d].until %q: allowed is a day such as 2027-01-31", i, ruleset.Clip(w.Until))
	}
	if len(r.faults) == before {
		r.waivers = append(r.waivers, w)
	}
}
