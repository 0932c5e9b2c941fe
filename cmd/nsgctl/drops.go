package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

func init() { addVerb(newDrops) }

func newDrops(g *global) *cobra.Command {
	q := inspect.DropQuestion{}
	c := &cobra.Command{
		Use:   "drops [--since 10m] [--limit N] [FILTER]",
		Short: "List what was denied or dropped of late, by rule and pair",
		Long: `List what was denied or dropped of late, by reason, rule and pair, the pair with the most packets first. The daemon
remembers an hour in steps of 15 seconds, or what history.keep of its configuration says.

A pair has the source's address, and the destination's address and port. Where senders make up more pairs than the
daemon tells apart, the rest is summed up by rule as "others". The counts by reason are of all packets.

` + filterHelp + `
Here src port and flow are not allowed, and rule and nsg are those that denied.`,
		Example: `  nsgctl drops
  nsgctl drops --since 1h dst nic vm1-nic and tcp
  nsgctl drops -o json reason rule_deny`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkSince(c, "drops", q.Since); err != nil {
				return err
			}
			if q.Limit < 1 || q.Limit > inspect.MaxPairLimit {
				return usageError{fmt.Errorf("drops: --limit %d: allowed are 1 to %d", q.Limit, inspect.MaxPairLimit)}
			}
			q.Filter = strings.Join(args, " ")
			if err := q.Check(); err != nil {
				return usageError{fmt.Errorf("drops: %q: %w", q.Filter, err)}
			}
			list, err := g.client().Drops(c.Context(), q)
			return show(c, g, list, watchError("drops", err), dropsTable)
		},
	}
	sinceFlag(c, &q.Since, inspect.DefaultSince)
	c.Flags().IntVar(&q.Limit, "limit", inspect.DefaultPairLimit, "list at most so many pairs")
	c.ValidArgsFunction = filterWords(g)
	return c
}

// sinceFlag is that of verbs that ask what is remembered.
func sinceFlag(c *cobra.Command, since *time.Duration, byDefault time.Duration) {
	c.Flags().DurationVar(since, "since", byDefault, "only what happened within this time, rounded up to 15 seconds")
}

func checkSince(c *cobra.Command, verb string, since time.Duration) error {
	if changed := c.Flags().Changed("since"); changed && (since <= 0 || since > history.MaxKeep) {
		return usageError{fmt.Errorf("%s: --since %v: allowed are times up to %v, such as 10m", verb, since, history.MaxKeep)}
	}
	return nil
}

func dropsTable(w io.Writer, list *inspect.DropList) error {
	table := newGrid(w, "PACKETS", "REASON", "RULE", "FROM", "TO", "PROTOCOL", "SOURCE", "DESTINATION", "LAST")
	for i := range list.Pairs {
		p := &list.Pairs[i]
		source, destination := pairEnds(&p.RememberedPair)
		table.row(p.Packets, p.Reason, ruleOf(p.NetworkSecurityGroup, p.RuleName), p.From, p.To, p.Protocol, source, destination, clock(p.Last))
	}
	if len(list.Pairs) > 0 {
		if err := table.flush(); err != nil {
			return err
		}
	}
	if list.More > 0 {
		fmt.Fprintf(w, "%s more: raise --limit or choose fewer\n", plural(list.More, "pair"))
	}
	var total uint64
	var reasons []string
	for _, reason := range slices.SortedFunc(maps.Keys(list.Dropped), func(a, b string) int {
		return cmp.Or(cmp.Compare(list.Dropped[b], list.Dropped[a]), cmp.Compare(a, b))
	}) {
		total += list.Dropped[reason]
		reasons = append(reasons, fmt.Sprintf("%d %s", list.Dropped[reason], reason))
	}
	text := fmt.Sprintf("%s to %s: %d packets dropped", clock(list.From), clock(list.To), total)
	if len(reasons) > 0 {
		text += ": " + strings.Join(reasons, ", ")
	}
	if list.NotSeen > 0 {
		text += fmt.Sprintf("; %d of them came too quickly to be told apart", list.NotSeen)
	}
	_, err := fmt.Fprintln(w, printable(text))
	return err
}

func pairEnds(p *inspect.RememberedPair) (source, destination string) {
	if p.Others {
		return "others", "others"
	}
	return p.Source, inspect.Endpoint(p.Destination, p.DestinationPort)
}

// ruleOf is a rule behind its group; empty without one.
func ruleOf(group, rule string) string {
	if rule == "" {
		return ""
	}
	return lastName(group) + "/" + rule
}

// clock is a time of today.
func clock(t time.Time) string { return t.Local().Format(time.TimeOnly) }
