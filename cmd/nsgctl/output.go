package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/jmespath/go-jmespath"
	"github.com/nsgd/nsgd/cmd/nsgctl/report"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/spf13/cobra"
)

const (
	outputJSON  = "json"
	outputTable = "table"
	// outputMarkdown is for a comment of a pull request.
	outputMarkdown = report.Markdown
)

// global are the flags of every verb.
type global struct {
	output, query string
	daemon        daemonFlags

	compiled *jmespath.JMESPath // of query; nil without one
}

// parametersFlag takes files and values.
const parametersFlag = "parameters"

// fileFlags are the flags whose values must be there.
var fileFlags = []string{"policy", "against", "service-tags", "runtime", "terraform-plan", "waivers", parametersFlag}

// check refuses a format that the verb does not have.
func (g *global) check(c *cobra.Command) error {
	formats := formatsOf(c)
	if !slices.Contains(formats, g.output) {
		last := len(formats) - 1
		return usageError{fmt.Errorf("--output %q: allowed are %s and %s", g.output, strings.Join(formats[:last], ", "), formats[last])}
	}
	for _, flag := range fileFlags {
		if f := c.Flags().Lookup(flag); f != nil && f.Changed {
			paths, err := c.Flags().GetStringArray(flag)
			if err != nil {
				paths = []string{f.Value.String()}
			}
			if flag == parametersFlag {
				paths = slices.DeleteFunc(slices.Clone(paths), arm.IsAssignment)
			}
			if err := existing(c, "--"+flag+" ", paths); err != nil {
				return err
			}
		}
	}
	if err := g.daemon.check(c); err != nil {
		return err
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

// reportFormats are those of a verb that has them all.
func reportFormats() map[string]string {
	return map[string]string{moreFormats: strings.Join(report.Formats, " ")}
}

// showReport prints an answer as show does, or its entries in one of the formats of reports.
func showReport[T any](c *cobra.Command, g *global, answer T, table func(io.Writer, T) error, entries func(T) []report.Entry) error {
	if !slices.Contains(report.Formats, g.output) {
		return show(c, g, answer, nil, table)
	}
	directory, err := os.Getwd()
	if err != nil {
		return err
	}
	r := report.Report{Verb: verbName(c), Version: version, Directory: directory, Entries: entries(answer)}
	return r.Write(c.OutOrStdout(), g.output)
}

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

// printable keeps text from steering the terminal.
func printable(text string) string { return report.Printable(text) }

// printableLines is printable for text of several lines, as errors are.
// Runners of pipelines take commands out of what a step prints, also of messages with names that somebody chose.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = harmless.Replace(printable(strings.ReplaceAll(lines[i], "\t", "  ")))
		if strings.HasPrefix(strings.TrimSpace(lines[i]), "::") {
			lines[i] = strings.Replace(lines[i], "::", ": :", 1)
		}
	}
	return strings.Join(lines, "\n")
}

func plural(n int, singular string) string {
	if n == 1 {
		return "1 " + singular
	}
	return fmt.Sprintf("%d %ss", n, singular)
}

var harmless = strings.NewReplacer("##vso[", "## vso[", "##[", "## [")
