package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/spf13/cobra"
)

func init() { addVerb(newReach) }

func newReach(g *global) *cobra.Command {
	var q ask.ReachParameters
	var from source
	c := &cobra.Command{
		Use:   "reach [--from END] [--to END[:PORT][/PROTOCOL]]",
		Short: "Say who can reach what, for all packets",
		Long: `Say who can reach what, for all packets that begin a flow: by routes, translation,
the rules of both ends and of appliances between them.

An end is ` + endForms + `.
Without --from it is anybody, and so without --to. PORT is a port, a range, a list of these,
or a service such as https; without it, all protocols and ports are in question.

A public address or a load balancer's frontend counts for those that it leads to, and is shown.`,
		Example: `  nsgctl reach --from internet --to subnet:web
  nsgctl reach --to nic:sql-nic:1433`,
		Args: from.args,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkReach(c, &q, &from); err != nil {
				return err
			}
			result, err := answer(&from, g,
				func(d *control.Client) (*ask.ReachResult, error) { return d.Reach(c.Context(), &q) },
				func(p *inspect.Loaded) (*ask.ReachResult, error) { return ask.Reach(c.Context(), p.Snapshot, &q) })
			return show(c, g, result, err, reachTable)
		},
	}
	c.Flags().StringVar(&q.From, "from", "", "who sends")
	c.Flags().StringVar(&q.To, "to", "", "who receives, and by which ports")
	c.Flags().IntVar(&q.MaxStates, "max-states", 0, "bound on the work for each pair of ends (default 500000); what it leaves is listed as not decided")
	from.flags(c, g)
	from.subscriptionFlags(c)
	return c
}

// endForms is ask.EndForms in lines of a terminal.
var endForms = strings.Replace(ask.EndForms, "tag:NAME, ", "tag:NAME,\n", 1)

func checkReach(c *cobra.Command, q *ask.ReachParameters, from *source) error {
	if err := from.checkSubscription(verbName(c)); err != nil {
		return err
	}
	if ask.CheckMaxStates(q.MaxStates) != nil {
		return usageError{fmt.Errorf("%s: --max-states %d: allowed are 1 to %d", verbName(c), q.MaxStates, ask.MaxStatesLimit)}
	}
	if q.To == "" {
		return nil
	}
	if _, err := ask.ParseTarget(q.To); err != nil {
		return usageError{fmt.Errorf("%s: --to %w", verbName(c), err)}
	}
	return nil
}

// reachTable prints the packets that pass, those of one sender together.
func reachTable(w io.Writer, r *ask.ReachResult) error {
	rows := slices.Clone(r.Allowed)
	slices.SortStableFunc(rows, func(a, b ask.Reached) int {
		first := func(from []string) int {
			return slices.IndexFunc(r.Allowed, func(o ask.Reached) bool { return slices.Equal(o.From, from) })
		}
		return first(a.From) - first(b.From)
	})
	if len(rows) > 0 {
		table := newGrid(w, "FROM", "TO", "PORTS", "BY")
		for i := range rows {
			from := reachEnds(rows[i].From)
			if i > 0 && slices.Equal(rows[i-1].From, rows[i].From) {
				from = `"`
			}
			table.row(from, reachTo(&rows[i]), reachPorts(&rows[i]), reachBy(&rows[i]))
		}
		if err := table.flush(); err != nil {
			return err
		}
	}
	undecidedTable(w, r.Undecided)
	if len(r.Allowed)+len(r.Undecided) == 0 {
		fmt.Fprintln(w, "nothing passes")
	}
	if len(r.Forwarders) > 0 {
		fmt.Fprintf(w, "not looked at: what is forwarded for others by %s\n", reachEnds(r.Forwarders))
	}
	return nil
}

// reachEnds keeps a list of names narrow: json shows all of them.
func reachEnds(names []string) string {
	if len(names) == 0 {
		return "nobody"
	}
	const width = 26
	n := 1
	for text := names[0]; n < len(names) && len(text) < width; n++ {
		if text += ", " + names[n]; len(text) > width {
			break
		}
	}
	text := strings.Join(names[:n], ", ")
	if n < len(names) {
		text += fmt.Sprintf(" +%d", len(names)-n)
	}
	return text
}

func reachTo(r *ask.Reached) string {
	text := reachEnds(r.To)
	if r.At != nil {
		text += " at " + reachEnds(r.At)
	}
	if r.Via != nil {
		text += " via " + strings.Join(r.Via, ", ")
	}
	return text
}

// reachPorts is such as "TCP 80,443", "ICMP type 8" or "*".
func reachPorts(r *ask.Reached) string {
	text := r.Protocol
	switch {
	case strings.HasPrefix(r.Protocol, "ICMP"):
		text += " type " + someOf(r.Ports)
	case some(r.Ports):
		text += " " + someOf(r.Ports)
	}
	if r.SourcePorts != nil {
		text += " from port " + someOf(r.SourcePorts)
	}
	if r.IPVersion != "" {
		text += " (" + r.IPVersion + ")"
	}
	return text
}

// reachBy names the rules that let the packets pass: the receivers', or where these have none the senders'.
func reachBy(r *ask.Reached) string {
	var in, out []string
	for i := range r.Rules {
		name := lastName(r.Rules[i].RuleName) + " of " + r.Rules[i].NetworkSecurityGroup
		if r.Rules[i].Direction == ruleset.Inbound.String() {
			in = append(in, name)
		} else {
			out = append(out, name)
		}
	}
	switch {
	case len(in) > 0:
		return several(in)
	case len(out) > 0:
		return several(out)
	}
	return map[string]string{ask.ReasonNoGroup: "no NSG", ask.ReasonPlatform: "the platform"}[r.Reason]
}
