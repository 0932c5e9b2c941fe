package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// guard is an entry of the list: how to break one guard, and which tests must notice.
type guard struct {
	// Name says in words what is guarded; no two are the same.
	Name string
	// File is relative to the module's folder. Find occurs exactly once in it and Replace
	// takes its place; the result must compile.
	File, Find, Replace string
	// Package is that of the tests, such as ./conntrack; absent: the file's own.
	Package string
	// Run is what go test -run takes. The tests must be green while the guard is whole.
	Run string
	// Race runs them under the race detector.
	Race bool
	// Hangs accepts tests that don't end, as a lost wake-up or a deadlock causes.
	Hangs bool
	// Tags are build tags, Env further environment variables, NAME=VALUE.
	Tags, Env []string
}

// load reads all lists of a folder.
func load(folder string) ([]*guard, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var all []*guard
	names := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var list []*guard
		decoder := yaml.NewDecoder(bytes.NewReader(data))
		decoder.KnownFields(true)
		if err := decoder.Decode(&list); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, g := range list {
			if err := g.complete(); err != nil {
				return nil, fmt.Errorf("%s: %q: %w", file, g.Name, err)
			}
			if names[g.Name] {
				return nil, fmt.Errorf("%s: %q: the name is taken", file, g.Name)
			}
			names[g.Name] = true
		}
		all = append(all, list...)
	}
	return all, nil
}

// complete puts the defaults in and checks what needs no other file.
func (g *guard) complete() error {
	if g.Name == "" || g.File == "" || g.Find == "" || g.Run == "" {
		return errors.New("name, file, find and run are needed")
	}
	if g.Find == g.Replace {
		return errors.New("find and replace are the same")
	}
	if g.Package == "" {
		g.Package = "./" + filepath.Dir(g.File)
	}
	return nil
}

// broken is the text of the guard's file without the guard.
func (g *guard) broken(root string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(root, g.File))
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(data), g.Find); n != 1 {
		return nil, fmt.Errorf("%s has %d times, not once: %s", g.File, n, g.Find)
	}
	return []byte(strings.Replace(string(data), g.Find, g.Replace, 1)), nil
}
