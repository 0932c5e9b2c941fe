package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/cmd/nsgctl/report"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/spf13/cobra"
)

func init() { addVerb(newLint) }

// failNever is the value of lint's --fail-on beside severities.
const failNever = "never"

// lintFailOn are the values of lint's --fail-on, the worst severity first.
var lintFailOn = append(slices.Clone(ask.Severities), failNever)

// lintFlags are the flags of lint.
type lintFlags struct {
	failOn, waivers string
	maxStates       int
	from            source
}

func newLint(g *global) *cobra.Command {
	f := lintFlags{from: source{emptyTags: true}}
	c := &cobra.Command{
		Use:         "lint PATH...",
		Annotations: reportFormats(),
		Short:       "Find rules that do nothing, what the internet reaches, and pitfalls of Azure",
		Long: `Find rules that do nothing, what the internet reaches, and pitfalls of Azure, exactly for all packets.

` + checkList() + `
A finding about a rule holds for every place where the rule's group stands. The exit code is 1 when something
was found; --fail-on names the severity from which on.

Waivers take findings out: a file (--waivers) with "waivers:" and a list of code, resource, reason and until (the last
day, such as 2027-01-31), and "nsgd:ignore CODE reason" in the description of a rule.`,
		Example: `  nsgctl lint policy
  nsgctl lint policy -o json --fail-on warning
  nsgctl lint policy --waivers waivers.yaml -o sarif`,
		Args: func(c *cobra.Command, paths []string) error {
			switch {
			case len(paths) == 0:
				return usageError{errors.New("lint: at least one file or folder is needed")}
			case !slices.Contains(lintFailOn, f.failOn):
				return usageError{fmt.Errorf("lint: --fail-on %q: allowed are %s", f.failOn, strings.Join(lintFailOn, ", "))}
			case f.maxStates < 0:
				return usageError{fmt.Errorf("lint: --max-states %d: allowed are numbers above 0", f.maxStates)}
			}
			return existing(c, "", paths)
		},
		RunE: func(c *cobra.Command, paths []string) error { return f.run(c, g, paths) },
	}
	c.Flags().StringVar(&f.failOn, "fail-on", ask.SeverityInfo, "exit with 1 for findings of this severity and worse: error, warning, info, never")
	c.Flags().IntVar(&f.maxStates, "max-states", 0, "bound on the work for each list of rules (default 500000)")
	c.Flags().StringVar(&f.waivers, "waivers", "", "YAML file of findings to leave out: code, resource, reason, until")
	c.Flags().StringVar(&f.from.serviceTags, "service-tags", "", "Microsoft's service tag file, for the tags that rules name")
	complete(c, "fail-on", words(lintFailOn...))
	f.from.policyFlags(c)
	return c
}

func (f *lintFlags) run(c *cobra.Command, g *global, paths []string) error {
	f.from.policy = paths
	loaded, err := interruptible(c.Context(), f.from.open)
	if err != nil {
		return refused(c, g, err)
	}
	var waivers []ask.Waiver
	if f.waivers != "" {
		if waivers, err = readWaivers(f.waivers); err != nil {
			return refused(c, g, usageError{fmt.Errorf("lint: --waivers: %w", err)})
		}
	}
	result, err := interruptible(c.Context(), func() (*ask.LintResult, error) {
		return ask.Lint(loaded.Snapshot, ask.LintOptions{MaxStates: f.maxStates, RulePosition: loaded.RulePosition,
			Position: loaded.Position, Tag: loaded.TagPrefixes, Warnings: loaded.DocumentWarnings(), Waivers: waivers, Today: time.Now().Format(time.DateOnly)}), nil
	})
	if err != nil {
		return fmt.Errorf("lint: %w", err)
	}
	if err := showReport(c, g, result, lintTable, lintEntries); err != nil {
		return err
	}
	worst := slices.Index(lintFailOn, f.failOn)
	if f.failOn != failNever && slices.ContainsFunc(result.Findings, func(f ask.Finding) bool { return slices.Index(lintFailOn, f.Severity) <= worst }) {
		return errNegative
	}
	return nil
}

// checkList lists all checks for --help.
func checkList() string {
	var b strings.Builder
	for i := range ask.Checks {
		c := &ask.Checks[i]
		fmt.Fprintf(&b, "  %s  %s (%s)\n", c.Code, c.Title, c.Severity)
	}
	return b.String()
}

// lintTable prints a block a finding: a message would not fit in one row.
func lintTable(w io.Writer, r *ask.LintResult) error {
	count := map[string]int{}
	for i := range r.Findings {
		f := &r.Findings[i]
		count[f.Severity]++
		fmt.Fprintf(w, "%s %s\n", f.Severity, f.Code)
		for _, line := range findingLines(f) {
			if line.text != "" {
				fmt.Fprintf(w, "  %-9s %s\n", line.name, printable(line.text))
			}
		}
	}
	waived := ""
	if len(r.Waived) > 0 {
		waived = fmt.Sprintf("; %d waived", len(r.Waived))
	}
	if len(r.Findings) == 0 {
		_, err := fmt.Fprintln(w, "nothing found"+waived)
		return err
	}
	var parts []string
	for _, severity := range ask.Severities {
		if n := count[severity]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, severity))
		}
	}
	_, err := fmt.Fprintf(w, "%s: %s%s\n", plural(len(r.Findings), "finding"), strings.Join(parts, ", "), waived)
	return err
}

// namedLine is a line of a block; one without a text is left out.
type namedLine struct{ name, text string }

func findingLines(f *ask.Finding) []namedLine {
	rule := f.Rule
	if rule != "" && f.Direction != "" {
		rule += ", " + strings.ToLower(f.Direction)
	}
	var related []string
	for _, r := range f.Related {
		related = append(related, fmt.Sprintf("%s (%s, %d)", r.Rule, r.Access, r.Priority))
	}
	return []namedLine{
		{"file", (&ruleset.Fault{File: f.File, Line: f.Line, Column: f.Column}).Place()}, {"resource", f.Resource}, {"rule", rule},
		{"message", f.Message}, {"such as", lintWitness(f.Witness)}, {"related", strings.Join(related, ", ")}, {"do", f.Help}, {"see", f.Reference},
	}
}

func lintWitness(w *ask.LintWitness) string {
	if w == nil {
		return ""
	}
	return fmt.Sprintf("%s, %s of %s: %s", diffWitness(&w.DiffWitness), strings.ToLower(w.Direction), w.NetworkInterface, w.Access)
}

// lintEntries are the findings for the formats of pipelines.
func lintEntries(r *ask.LintResult) (entries []report.Entry) {
	levels := map[string]report.Level{ask.SeverityError: report.Error, ask.SeverityWarning: report.Warning, ask.SeverityInfo: report.Note}
	for i := range r.Findings {
		f := &r.Findings[i]
		e := report.Entry{Name: ask.CheckOf(f.Code).Title, Code: f.Code, Level: levels[f.Severity], File: f.File, Line: f.Line, Column: f.Column,
			Resource: f.Resource, Message: f.Message, Help: f.Help + " " + f.Reference}
		if f.Rule != "" {
			e.Resource += ", rule " + f.Rule
		}
		if f.Witness != nil {
			e.Message += " Such as " + lintWitness(f.Witness) + "."
		}
		entries = append(entries, e)
	}
	return entries
}
