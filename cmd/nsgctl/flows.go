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
	var all allHosts
	c := &cobra.Command{
		Use:   "flows [--nic NAME] [--address PREFIX] [--protocol NAME] [--limit N] [--since 10m [--sum] | --follow | --all-hosts]",
		Short: "List live flows, or those that have ended of late, or show flows as they begin and end",
		Example: `  nsgctl flows --nic vm1-nic --protocol TCP
  nsgctl flows --address 10.0.1.0/24 --limit 1000 -o json
  nsgctl flows --since 10m --sum
  nsgctl flows --follow --nic vm1-nic
  nsgctl flows --all-hosts --cert me.crt --key me.key --ca ca.crt`,
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
			if bool(all) && (f.follow || f.since > 0) {
				return usageError{fmt.Errorf("flows: --%s is for live flows: without --since and --follow", allHostsFlag)}
			}
			if err := all.check(c, g); err != nil {
				return err
			}
			switch {
			case bool(all):
				list, err := flowsOfAll(c, g, filter)
				if err := show(c, g, list, err, clusterFlowsTable); err != nil {
					return err
				}
				return all.report(c, list.Unanswered)
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
	all.flag(c)
	completeNames(c, &source{}, g)
	complete(c, "protocol", words("TCP", "UDP", "ICMP", "ICMPv6", "GRE", "ESP", "AH"))
	return c
}

func flowsTable(w io.Writer, list *inspect.FlowList) error {
	flows := make([]hostFlow, len(list.Flows))
	for i := range list.Flows {
		flows[i].Flow = list.Flows[i]
	}
	return hostFlowsTable(w, flows, false, list.Truncated)
}

func clusterFlowsTable(w io.Writer, list *clusterFlows) error {
	return hostFlowsTable(w, list.Flows, true, list.Truncated)
}

// hostFlowsTable has a column of hosts, if those are wanted.
func hostFlowsTable(w io.Writer, flows []hostFlow, hosts, truncated bool) error {
	// Without translation the column would be empty.
	translated := slices.ContainsFunc(flows, func(f hostFlow) bool { return f.Arrives() != "" })
	cells := func(cells ...any) []any {
		if !translated {
			cells = slices.Delete(cells, 4, 5)
		}
		if !hosts {
			cells = cells[1:]
		}
		return cells
	}
	table := newGrid(w, cells("HOST", "PROTOCOL", "SOURCE", "DESTINATION", "ARRIVES AS", "STATE", "IDLE", "SENT", "RECEIVED", "RULE")...)
	for i := range flows {
		f := &flows[i]
		table.row(cells(printable(f.Host), f.Protocol, inspect.Endpoint(f.Source, f.SourcePort), inspect.Endpoint(f.Destination, f.DestinationPort), f.Arrives(), f.State,
			(time.Duration(f.IdleMilliseconds) * time.Millisecond).Round(100*time.Millisecond),
			f.PacketsSent, f.PacketsReceived, lastRule(&f.Flow))...)
	}
	if err := table.flush(); err != nil {
		return err
	}
	if truncated {
		fmt.Fprintf(w, "more than these %d flows match: raise --limit or choose fewer\n", len(flows))
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
