package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A block of README.md between these two lines is written by writeBlocks. The first names the file of a run, and the
// beginnings of the names of its figures; none: all.
const (
	blockBegins = "<!-- bench-report "
	blockEnds   = "<!-- end of bench-report -->"
)

// writeReadme replaces the blocks of a document by what runs have left in the folder dir.
func writeReadme(path, dir string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	written, err := writeBlocks(string(text), func(name string) (*report, error) {
		r, err := readReport(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			fmt.Printf("%s: %v; its blocks stay as they are\n", path, err)
			return nil, nil
		}
		return r, err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(written), 0o644)
}

// readReport reads the file of a run.
func readReport(path string) (*report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(r.Rounds) == 0 || len(r.Setups) == 0 {
		return nil, fmt.Errorf("%s: no round of any setup is in it", path)
	}
	for i := range r.Rounds {
		if f := &r.Rounds[i]; f.Series == nil {
			f.Series = map[string][]point{}
		}
	}
	return &r, nil
}

// writeBlocks returns a document with new blocks. read returns nil for a run that was not made: its blocks stay.
func writeBlocks(text string, read func(name string) (*report, error)) (string, error) {
	var out bytes.Buffer
	lines := strings.SplitAfter(text, "\n")
	for i := 0; i < len(lines); i++ {
		out.WriteString(lines[i])
		begin, ok := strings.CutPrefix(strings.TrimSpace(lines[i]), blockBegins)
		if !ok {
			continue
		}
		words := strings.Fields(strings.TrimSuffix(begin, "-->"))
		if !strings.HasSuffix(begin, "-->") || len(words) == 0 || filepath.Base(words[0]) != words[0] {
			return "", fmt.Errorf("line %d: %q: allowed is %sFILE [FIGURE]... -->, a file without a folder", i+1, strings.TrimSpace(lines[i]), blockBegins)
		}
		end := slices.IndexFunc(lines[i:], func(line string) bool { return strings.TrimSpace(line) == blockEnds })
		if next := slices.IndexFunc(lines[i+1:], func(line string) bool { return strings.HasPrefix(line, blockBegins) }); end < 0 || next >= 0 && next+1 < end {
			return "", fmt.Errorf("line %d: the block has no line %q", i+1, blockEnds)
		}
		r, err := read(words[0])
		if err == nil && r != nil {
			err = r.block(&out, words[1:])
		}
		if err != nil {
			return "", fmt.Errorf("line %d: %w", i+1, err)
		}
		if r != nil {
			i += end
			out.WriteString(lines[i])
		}
	}
	return out.String(), nil
}

// block writes the figures whose names have one of the beginnings.
func (r *report) block(out *bytes.Buffer, beginnings []string) error {
	for _, b := range beginnings {
		if !slices.ContainsFunc(figures, func(f figure) bool { return strings.HasPrefix(f.name, b) }) {
			return fmt.Errorf("%q: no figure's name begins so; allowed are beginnings of %s", b, strings.Join(figureNames(), ", "))
		}
	}
	chosen := func(name string) bool {
		return len(beginnings) == 0 || slices.ContainsFunc(beginnings, func(b string) bool { return strings.HasPrefix(name, b) })
	}
	part := *r
	part.Rounds, part.Generator = nil, map[string]float64{}
	for name, v := range r.Generator {
		if chosen(name) {
			part.Generator[name] = v
		}
	}
	for _, f := range r.Rounds {
		t := newTrial(0, 0)
		for name, v := range f.Figures {
			if chosen(name) {
				t.figures[name] = v
			}
		}
		for name, s := range f.Series {
			if chosen(name) {
				t.series[name] = s
			}
		}
		if len(t.figures) > 0 {
			part.add(f.Round, f.Setup, t, nil)
		}
	}
	if len(part.Rounds) == 0 {
		return fmt.Errorf("the run has no figure that begins with %s", strings.Join(beginnings, " or "))
	}
	part.print(out)
	out.WriteString("\n")
	return nil
}

func figureNames() (names []string) {
	for _, f := range figures {
		names = append(names, f.name)
	}
	return names
}
