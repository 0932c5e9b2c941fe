package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

func init() { addVerb(newFlows) }

func newFlows(g *global) *cobra.Command {
	var filter inspect.FlowFilter
	var f flowFlags
	c := &cobra.Command{
		Use:   "flows [--nic NAME] [--address PREFIX] [--protocol NAME] [--limit N] [--since 10m [--sum] | --follow]",
		Short: "List live flows, or those that have ended of late, or show flows as they begin and end",
		Example: `  nsgctl flows --nic vm1-nic --protocol TCP
  nsgctl flows --address 10.0.1.0/24 --limit 1000 -o json
  nsgctl flows --since 10m --sum
  nsgctl flows --follow --nic vm1-nic`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if filter.Limit < 1 || filter.Limit > inspect.MaxFlowLimit {
				return usageError{fmt.Errorf("flows: --limit %d: allowed are 1 to %d", filter.Limit, inspect.MaxFlowLimit)}
			}
			if err := filter.Check(); err != nil {
				return usageError{fmt.Errorf("flows: --%w", err)}
			}
			if err := f.check(c); err != nil {
				return err
			}
			switch {
			case f.follow:
				show := followTable(c.OutOrStdout(), c.ErrOrStderr())
				if g.output != outputTable {
					lines := g.lines(c.OutOrStdout())
					show = func(f *inspect.FlowChange) error { return lines.Encode(f) }
				}
				return g.client().FollowFlows(c.Context(), filter, show)
			case f.since > 0:
				list, err := g.client().EndedFlows(c.Context(), inspect.EndedQuestion{FlowFilter: filter, Since: f.since})
				table := endedTable
				if f.sum {
					table = endedSums
				}
				return show(c, g, list, err, table)
			}
			list, err := g.client().Flows(c.Context(), filter)
			return show(c, g, list, err, flowsTable)
		},
	}
	c.Flags().StringVar(&filter.NetworkInterface, "nic", "", "only flows of this network interface, by name or resource id")
	c.Flags().StringVar(&filter.Address, "address", "", "only flows with this address, or an address of this prefix, at either end")
	c.Flags().StringVar(&filter.Protocol, "protocol", "", "only flows of this protocol: TCP, UDP, ICMP, ... or a number")
	c.Flags().IntVar(&filter.Limit, "limit", inspect.DefaultFlowLimit, "list at most so many flows")
	f.flags(c)
	completeNames(c, &source{}, g)
	complete(c, "protocol", words("TCP", "UDP", "ICMP", "ICMPv6", "GRE", "ESP", "AH"))
	return c
}

func flowsTable(w io.Writer, list *inspect.FlowList) error {
	// Without translation the column would be empty.
	translated := slices.ContainsFunc(list.Flows, func(f inspect.Flow) bool { return f.Arrives() != "" })
	cells := func(cells ...any) []any {
		if translated {
			return cells
		}
		return slices.Delete(cells, 3, 4)
	}
	table := newGrid(w, cells("PROTOCOL", "SOURCE", "DESTINATION", "ARRIVES AS", "STATE", "IDLE", "SENT", "RECEIVED", "RULE")...)
	for i := range list.Flows {
		f := &list.Flows[i]
		table.row(cells(f.Protocol, inspect.Endpoint(f.Source, f.SourcePort), inspect.Endpoint(f.Destination, f.DestinationPort), f.Arrives(), f.State,
			(time.Duration(f.IdleMilliseconds) * time.Millisecond).Round(100*time.Millisecond),
			f.PacketsSent, f.PacketsReceived, lastRule(f))...)
	}
	if err := table.flush(); err != nil {
		return err
	}
	if list.Truncated {
		fmt.Fprintf(w, "more than these %d flows match: raise --limit or choose fewer\n", len(list.Flows))
	}
	return nil
}

func lastRule(f *inspect.Flow) string {
	if len(f.Rules) == 0 {
		return ""
	}
	last := f.Rules[len(f.Rules)-1]
	return last.NetworkSecurityGroup + "/" + last.Name
}
