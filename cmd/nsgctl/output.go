package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/jmespath/go-jmespath"
	"github.com/spf13/cobra"
)

const (
	outputJSON  = "json"
	outputTable = "table"
	// outputMarkdown is for a comment of a pull request.
	outputMarkdown = "markdown"
)

// global are the flags of every verb.
type global struct {
	socket, output, query string

	compiled *jmespath.JMESPath // of query; nil without one
}

// check refuses a format that the verb does not have.
func (g *global) check(c *cobra.Command) error {
	formats := formatsOf(c)
	if !slices.Contains(formats, g.output) {
		last := len(formats) - 1
		return usageError{fmt.Errorf("--output %q: allowed are %s and %s", g.output, strings.Join(formats[:last], ", "), formats[last])}
	}
	for _, flag := range []string{"policy", "service-tags", "runtime"} {
		if f := c.Flags().Lookup(flag); f != nil && f.Changed {
			paths, err := c.Flags().GetStringArray(flag)
			if err != nil {
				paths = []string{f.Value.String()}
			}
			if err := existing(c, "--"+flag+" ", paths); err != nil {
				return err
			}
		}
	}
	return g.compile(c)
}

// existing refuses paths that lead nowhere as wrong use: exit code 1 is for what was found in a policy. Patterns are
// left to whoever reads them.
func existing(c *cobra.Command, flag string, paths []string) error {
	for _, path := range paths {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(path, "*?[") {
			return usageError{fmt.Errorf("%s: %s%q: there is no such file or folder", verbName(c), flag, path)}
		}
	}
	return nil
}

// formatsOf are the formats that a verb has.
func formatsOf(c *cobra.Command) []string {
	return append([]string{outputJSON, outputTable, outputYAML, outputTSV}, strings.Fields(c.Annotations[moreFormats])...)
}

// moreFormats is the annotation of a verb that has formats of its own too, with spaces between them.
const moreFormats = "output"

// show prints an answer as a table or for programs, unless there is an error instead.
func show[T any](c *cobra.Command, g *global, answer T, err error, table func(io.Writer, T) error) error {
	if err != nil {
		return err
	}
	if g.output == outputTable {
		return table(c.OutOrStdout(), answer)
	}
	return g.answer(c.OutOrStdout()).Encode(answer)
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

// row prints one row, printable; an empty cell becomes a dash.
func (g *grid) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		texts[i] = dash(printable(fmt.Sprint(c)))
	}
	fmt.Fprintln(g.w, strings.Join(texts, "\t"))
}

func (g *grid) flush() error { return g.w.Flush() }

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// lastName is the name at the end of an id.
func lastName(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

// several keeps a list narrow: json shows all of it.
func several(list []string) string {
	switch len(list) {
	case 0:
		return ""
	case 1:
		return list[0]
	}
	return fmt.Sprintf("%s +%d", list[0], len(list)-1)
}

// printable escapes what would move a terminal's cursor, or begin a line that looks like one
// of nsgctl's. Names come from documents that anybody may have written.
func printable(text string) string {
	if !strings.ContainsFunc(text, unprintable) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unprintable(r) {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// printableLines is printable for text of several lines, as errors are.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(strings.ReplaceAll(lines[i], "\t", "  "))
	}
	return strings.Join(lines, "\n")
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

func plural(n int, singular string) string {
	if n == 1 {
		return "1 " + singular
	}
	return fmt.Sprintf("%d %ss", n, singular)
}
