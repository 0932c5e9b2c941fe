package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/spf13/cobra"
)

func init() { addVerb(newLint) }

// failNever is the value of lint's --fail-on beside severities.
const failNever = "never"

func newLint(g *global) *cobra.Command {
	var from source
	var failOn string
	var maxStates int
	allowed := append(slices.Clone(ask.Severities), failNever)
	c := &cobra.Command{
		Use:   "lint PATH...",
		Short: "Find rules that never decide, that others make needless, or that match nothing",
		Long: `Find rules that never decide, that others make needless, or that match nothing, exactly for all packets.

  NSG100  not decided: the bound on the work was reached (info)
  NSG101  shadowed: rules before it match all of its packets (warning; error where a denial is shadowed
          by a rule that allows)
  NSG102  redundant: without it other rules would do the same (info)
  NSG103  matches no packet, such as one for an empty application security group (warning)
  NSG104  is for addresses that nobody has where its group stands (warning)
  NSG105  a default rule would do the same (info)

A finding holds for every place where the rule's group stands. The exit code is 1 when something was found;
--fail-on names the severity from which on.`,
		Example: `  nsgctl lint policy
  nsgctl lint policy -o json --fail-on warning`,
		Args: func(c *cobra.Command, paths []string) error {
			switch {
			case len(paths) == 0:
				return usageError{errors.New("lint: at least one file or folder is needed")}
			case !slices.Contains(allowed, failOn):
				return usageError{fmt.Errorf("lint: --fail-on %q: allowed are %s", failOn, strings.Join(allowed, ", "))}
			case maxStates < 0:
				return usageError{fmt.Errorf("lint: --max-states %d: allowed are numbers above 0", maxStates)}
			}
			return existing(c, "", paths)
		},
		RunE: func(c *cobra.Command, paths []string) error {
			from.policy = paths
			loaded, err := from.open()
			if err != nil {
				return err
			}
			result := ask.Lint(loaded.Snapshot, maxStates, loaded.RulePosition)
			if err := show(c, g, result, nil, lintTable); err != nil {
				return err
			}
			worst := slices.Index(allowed, failOn)
			if failOn != failNever && slices.ContainsFunc(result.Findings, func(f ask.Finding) bool { return slices.Index(allowed, f.Severity) <= worst }) {
				return errNegative
			}
			return nil
		},
	}
	c.Flags().StringVar(&failOn, "fail-on", ask.SeverityInfo, "exit with 1 for findings of this severity and worse: error, warning, info, never")
	c.Flags().IntVar(&maxStates, "max-states", 0, "bound on the work for each list of rules (default 500000)")
	c.Flags().StringVar(&from.serviceTags, "service-tags", "", "Microsoft's service tag file, for the tags that rules name")
	complete(c, "fail-on", words(allowed...))
	from.policyFlags(c)
	return c
}

// lintTable prints a block a finding: a message would not fit in one row.
func lintTable(w io.Writer, r *ask.LintResult) error {
	count := map[string]int{}
	for i := range r.Findings {
		f := &r.Findings[i]
		count[f.Severity]++
		fmt.Fprintf(w, "%s %s\n", f.Severity, f.Code)
		switch {
		case f.Line > 0:
			fmt.Fprintf(w, "  file      %s:%d:%d\n", printable(f.File), f.Line, f.Column)
		case f.File != "":
			fmt.Fprintf(w, "  file      %s\n", printable(f.File))
		}
		fmt.Fprintf(w, "  resource  %s\n  rule      %s, %s\n  message   %s\n", printable(f.Resource), printable(f.Rule), strings.ToLower(f.Direction), printable(f.Message))
		if len(f.Related) == 0 {
			continue
		}
		var related []string
		for _, rule := range f.Related {
			related = append(related, fmt.Sprintf("%s (%s, %d)", rule.Rule, rule.Access, rule.Priority))
		}
		fmt.Fprintf(w, "  related   %s\n", printable(strings.Join(related, ", ")))
	}
	if len(r.Findings) == 0 {
		_, err := fmt.Fprintln(w, "nothing found")
		return err
	}
	var parts []string
	for _, severity := range ask.Severities {
		if n := count[severity]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, severity))
		}
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", plural(len(r.Findings), "finding"), strings.Join(parts, ", "))
	return err
}
