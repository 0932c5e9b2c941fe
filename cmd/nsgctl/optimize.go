package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/spf13/cobra"
)

func init() { addVerb(newOptimize) }

// optimizeFlags are the flags of optimize.
type optimizeFlags struct {
	rewriting
	maxStates int
}

func newOptimize(g *global) *cobra.Command {
	f := optimizeFlags{rewriting: rewriting{from: source{emptyTags: true}}}
	c := &cobra.Command{
		Use:         "optimize PATH...",
		Short:       "Write fewer rules with the same meaning, proved for all packets",
		Annotations: map[string]string{moreFormats: strings.Join(documentFormats, " ")},
		Long: `Write fewer rules with the same meaning, proved for all packets.

Rules go that never decide, or that others do without; rules that differ in one field become one, with prefixes and ports as
lists and ranges. Each step is proved, whatever the members of application security groups and the addresses of service tags
are, and the whole by what diff says of the rules as they are written. Rules for services of the platform stay.

Hits and flow logs name other rules then: those that are left.

The groups that get fewer rules are printed as an ARM template (-o arm, the default), as -o bicep or as -o terraform, and the steps
to standard error. -o table prints the steps alone, -o json all about them. Tags and other fields of the groups are not written.`,
		Example: `  nsgctl optimize policy
  nsgctl optimize policy -o table
  nsgctl optimize policy --nsg web-nsg -o bicep`,
		Args: func(c *cobra.Command, paths []string) error {
			switch {
			case len(paths) == 0:
				return usageError{errors.New("optimize: at least one file or folder is needed")}
			case f.maxStates < 0:
				return usageError{fmt.Errorf("optimize: --max-states %d: allowed are numbers above 0", f.maxStates)}
			}
			return existing(c, "", paths)
		},
		RunE: func(c *cobra.Command, paths []string) error { return f.run(c, g, paths) },
	}
	c.Flags().IntVar(&f.maxStates, "max-states", 0, "bound on the work for each list of rules (default 500000)")
	f.flags(c)
	return c
}

func (f *optimizeFlags) run(c *cobra.Command, g *global, paths []string) error {
	f.from.policy = paths
	result, err := interruptible(c.Context(), f.optimize)
	if err != nil {
		return refused(c, g, err)
	}
	document, err := f.document(c, g, result.NSGs)
	if err != nil {
		return err
	}
	if err := f.print(c, g, document, result, func(w io.Writer) error { return optimizeTable(w, result) }); err != nil {
		return err
	}
	if len(result.Diff.Changes)+len(result.Diff.Undecided) > 0 {
		return errNegative
	}
	return nil
}

func (f *optimizeFlags) optimize() (*ask.OptimizeResult, error) {
	before, err := f.from.open()
	if err != nil {
		return nil, err
	}
	groups, err := f.chosen(before.Snapshot.Policy)
	if err != nil {
		return nil, err
	}
	result := ask.Optimize(before.Snapshot, ask.OptimizeOptions{MaxStates: f.maxStates, Groups: groups, OpenRules: before.OpenRules(), RulePosition: before.RulePosition})
	after, err := f.after(result.NSGs, nil)
	if err != nil {
		return nil, err
	}
	result.Diff = inspect.Diff(before, after, f.maxStates)
	return result, nil
}

// optimizeTable prints each step, as nft -o prints merges: the rules with their places, and what they become.
func optimizeTable(w io.Writer, r *ask.OptimizeResult) error {
	before, after := 0, 0
	for i := range r.Groups {
		g := &r.Groups[i]
		before, after = before+g.RulesBefore, after+g.RulesAfter
		fmt.Fprintf(w, "%s: %s became %d\n", printable(g.NetworkSecurityGroup), plural(g.RulesBefore, "rule"), g.RulesAfter)
		for k := range g.Steps {
			s := &g.Steps[k]
			switch {
			case s.Kind == "merged":
				fmt.Fprintf(w, "  merged, %s: the %s of all in %s\n", strings.ToLower(s.Direction), s.Field, printable(s.Into))
			case s.Shadowed && len(s.Because) > 0:
				fmt.Fprintf(w, "  removed, %s: never decided, behind %s\n", strings.ToLower(s.Direction), printable(ruleset.Listed(s.Because)))
			case len(s.Because) > 0:
				fmt.Fprintf(w, "  removed, %s: %s would do the same\n", strings.ToLower(s.Direction), printable(ruleset.Listed(s.Because)))
			default:
				fmt.Fprintf(w, "  removed, %s: it matched no packet\n", strings.ToLower(s.Direction))
			}
			for _, p := range s.Rules {
				line := p.Name
				if p.File != "" {
					line = (&ruleset.Fault{File: p.File, Line: p.Line, Column: p.Column}).Place() + ": " + p.Name
				}
				fmt.Fprintf(w, "    %s\n", printable(line))
			}
		}
		for _, d := range g.Undecided {
			fmt.Fprintf(w, "  not decided, %s: these rules stay as they are: not all are known, or --max-states is too small\n", strings.ToLower(d))
		}
	}
	if after == before {
		_, err := fmt.Fprintln(w, "no rule can go")
		return err
	}
	proof := "proved: no packet is treated differently"
	if len(r.Diff.Changes)+len(r.Diff.Undecided) > 0 {
		proof = "not proved: " + diffSummary(r.Diff)
	}
	_, err := fmt.Fprintf(w, "%d rules became %d; %s\nhits and flow logs name the rules that are left\n", before, after, proof)
	return err
}
