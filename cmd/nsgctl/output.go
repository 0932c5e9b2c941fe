package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

const (
	outputJSON  = "json"
	outputTable = "table"
)

// global are the flags of every verb.
type global struct{ socket, output string }

func (g *global) check() error {
	if g.output != outputJSON && g.output != outputTable {
		return usageError{fmt.Errorf("--output %q: allowed are %s and %s", g.output, outputJSON, outputTable)}
	}
	return nil
}

// print writes v as JSON, or what table makes of it.
func (g *global) print(w io.Writer, v any, table func(io.Writer) error) error {
	if g.output == outputTable {
		return table(w)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// grid prints aligned columns.
type grid struct{ w *tabwriter.Writer }

func newGrid(w io.Writer, header ...any) *grid {
	g := &grid{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(header) > 0 {
		g.row(header...)
	}
	return g
}

// row prints one row, without what a terminal would obey; an empty cell becomes a dash.
func (g *grid) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		if texts[i] = printable(fmt.Sprint(c)); texts[i] == "" {
			texts[i] = "-"
		}
	}
	fmt.Fprintln(g.w, strings.Join(texts, "\t"))
}

func (g *grid) flush() error { return g.w.Flush() }
