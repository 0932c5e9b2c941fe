package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

func init() { addVerb(newCandidate) }

func newCandidate(g *global) *cobra.Command {
	c := &cobra.Command{
		Use:   "candidate",
		Short: "Judge a policy beside the one in force on live traffic, without enforcing it",
		Long: `Judge a policy beside the one in force on live traffic, without enforcing it. Every flow that begins and every packet
that is dropped is judged by the candidate too, and every live flow once. The daemon counts what the candidate would
deny and allow, by its rules, with examples. A reload outdates the candidate.`,
		Example: `  nsgctl candidate start policy
  nsgctl candidate status
  nsgctl candidate promote --confirm 60s`,
	}
	c.AddCommand(newCandidateStart(g), newCandidateStatus(g), newCandidateFlows(g), newCandidatePromote(g), newCandidateAbort(g))
	needCommand(c)
	return c
}

func newCandidateStart(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "start [PATH...]",
		Short: "Begin with the policy of files and folders, or of the daemon's own configuration as it is now",
		Long: `Begin with the policy of files and folders, which the daemon reads, or of its own configuration as it is now. It is read
once: promote makes exactly that the policy in force. Of a PATH a later reload returns to the configuration's policy.`,
		Example: `  nsgctl candidate start
  nsgctl candidate start new/policy`,
		RunE: func(c *cobra.Command, paths []string) error {
			if err := g.localPaths(c, paths); err != nil {
				return err
			}
			if err := existing(c, "", paths); err != nil {
				return err
			}
			q := &inspect.CandidateQuestion{}
			for _, path := range paths {
				absolute, err := filepath.Abs(path)
				if err != nil {
					return err
				}
				q.Policy = append(q.Policy, absolute)
			}
			answer, err := g.client().StartCandidate(c.Context(), q)
			if refused := g.refused(c, err, "no candidate begins", "reload"); refused != nil {
				return refused
			}
			return show(c, g, answer, err, candidateTable)
		},
	}
}

func newCandidateStatus(g *global) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Say what the candidate would deny, allow and cut, with examples",
		Example: `  nsgctl candidate status -o json`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			answer, err := g.client().Candidate(c.Context())
			return show(c, g, answer, err, candidateTable)
		},
	}
}

func newCandidateFlows(g *global) *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:     "flows [--limit N]",
		Short:   "List the live flows that the candidate would cut now",
		Example: `  nsgctl candidate flows --limit 1000`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 || limit > inspect.MaxFlowLimit {
				return usageError{fmt.Errorf("candidate flows: --limit %d: allowed are 1 to %d", limit, inspect.MaxFlowLimit)}
			}
			flows, err := g.client().CandidateFlows(c.Context(), limit)
			return show(c, g, flows, err, cutsTable)
		},
	}
	c.Flags().IntVar(&limit, "limit", inspect.DefaultCutLimit, "list at most so many flows")
	return c
}

func newCandidatePromote(g *global) *cobra.Command {
	var f changeFlags
	c := &cobra.Command{
		Use:   "promote [--confirm 60s] [--max-cut N]",
		Short: "Make the candidate the policy in force, exactly as it was read",
		Example: `  nsgctl candidate promote --confirm 60s
  nsgctl candidate promote --max-cut 0`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q, err := f.request(c)
			if err != nil {
				return err
			}
			reloaded, err := g.client().PromoteCandidate(c.Context(), q)
			if refused := g.refused(c, err, "promotion refused, everything stays as it is", "reload"); refused != nil {
				return refused
			}
			return show(c, g, reloaded, err, reloadedTable)
		},
	}
	f.flags(c)
	return c
}

func newCandidateAbort(g *global) *cobra.Command {
	return &cobra.Command{
		Use:     "abort",
		Short:   "Forget the candidate, and say what it would have done",
		Example: `  nsgctl candidate abort`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			answer, err := g.client().AbortCandidate(c.Context())
			return show(c, g, answer, err, candidateTable)
		},
	}
}

// changeFlags are those of what changes the policy in force.
type changeFlags struct {
	confirm time.Duration
	maxCut  int
}

func (f *changeFlags) flags(c *cobra.Command) {
	c.Flags().DurationVar(&f.confirm, "confirm", 0, "return to what was in force, unless nsgctl confirm comes within this time")
	c.Flags().IntVar(&f.maxCut, "max-cut", 0, "refuse a policy that would cut more live flows than so many; without it any number is cut")
}

// request is how to reload. The error is wrong use.
func (f *changeFlags) request(c *cobra.Command) (q inspect.ReloadRequest, err error) {
	if c.Flags().Changed("confirm") && (f.confirm < inspect.MinConfirm || f.confirm > inspect.MaxConfirm) {
		return q, usageError{fmt.Errorf("%s: --confirm %v: allowed are %v to %v", verbName(c), f.confirm, inspect.MinConfirm, inspect.MaxConfirm)}
	}
	q.ConfirmWithin = f.confirm
	if c.Flags().Changed("max-cut") {
		if f.maxCut < 0 || f.maxCut > conntrack.MaxFlows {
			return q, usageError{fmt.Errorf("%s: --max-cut %d: allowed are 0 to %d", verbName(c), f.maxCut, conntrack.MaxFlows)}
		}
		q.MaxCut = &f.maxCut
	}
	return q, nil
}

func candidateTable(w io.Writer, a *inspect.Candidate) error {
	what := "the daemon's configuration"
	if len(a.Policy) > 0 {
		what = strings.Join(a.Policy, ", ")
	}
	fmt.Fprintf(w, "candidate: %s, since %s beside generation %d\n", printable(what), clock(a.Began), a.Generation)
	if a.Outdated {
		fmt.Fprintln(w, "outdated: another policy has come into force, nothing is judged any more: abort it and start again")
	}
	if c := a.Attachments; c != nil {
		fmt.Fprintln(w, printable(c.String()))
	}
	fmt.Fprintf(w, "%d packets judged that began a flow or were dropped: %d would be denied, %d would be allowed", a.Judged, a.WouldDeny.Packets, a.WouldAllow.Packets)
	if a.NotSeen > 0 {
		fmt.Fprintf(w, "; %d came too quickly to be judged", a.NotSeen)
	}
	fmt.Fprintln(w)
	for _, side := range []struct {
		word string
		sums *inspect.CandidateSums
	}{{"would deny", &a.WouldDeny}, {"would allow", &a.WouldAllow}} {
		for i := range side.sums.Rules {
			r := &side.sums.Rules[i]
			by := ruleOf(r.NetworkSecurityGroup, r.RuleName)
			if by == "" {
				by = r.Reason
			}
			fmt.Fprintf(w, "%s %d by %s\n", side.word, r.Packets, printable(by))
			for _, p := range r.Examples {
				now := p.Reason
				if n := len(p.Stages); n > 0 {
					now = ruleOf(p.Stages[n-1].NetworkSecurityGroup, p.Stages[n-1].RuleName)
				}
				fmt.Fprintf(w, "    %s > %s  %s  now %s by %s\n", printable(dash(p.From)), printable(dash(p.To)), packetText(p), p.Access, printable(dash(now)))
			}
		}
		if n := side.sums.Others; n > 0 {
			fmt.Fprintf(w, "%s %d by other rules\n", side.word, n)
		}
	}
	return cutsTable(w, a.LiveFlows)
}

func cutsTable(w io.Writer, flows *inspect.LiveFlows) error {
	fmt.Fprintf(w, "%d of %s would be cut\n", flows.Cut, plural(flows.Live, "live flow"))
	for i := range flows.List {
		fmt.Fprintln(w, "    "+printable(flows.List[i].String()))
	}
	if more := flows.Cut - len(flows.List); more > 0 {
		fmt.Fprintf(w, "    and %d more: candidate flows lists them\n", more)
	}
	return nil
}
