package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/spf13/cobra"
)

func newFlows(g *global) *cobra.Command {
	var filter control.FlowFilter
	c := &cobra.Command{
		Use:   "flows [--nic NAME] [--address PREFIX] [--protocol NAME] [--limit N]",
		Short: "List live flows",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if filter.Limit < 1 || filter.Limit > control.MaxFlowLimit {
				return usageError{fmt.Errorf("flows: --limit %d: allowed are 1 to %d", filter.Limit, control.MaxFlowLimit)}
			}
			list, err := control.NewClient(g.socket).Flows(c.Context(), filter)
			if err != nil {
				return err
			}
			return g.print(c.OutOrStdout(), list, func(w io.Writer) error { return flowsTable(w, list) })
		},
	}
	c.Flags().StringVar(&filter.NetworkInterface, "nic", "", "only flows of this network interface, by name or resource id")
	c.Flags().StringVar(&filter.Address, "address", "", "only flows with this address, or an address of this prefix, at either end")
	c.Flags().StringVar(&filter.Protocol, "protocol", "", "only flows of this protocol: TCP, UDP, ICMP, ... or a number")
	c.Flags().IntVar(&filter.Limit, "limit", control.DefaultFlowLimit, "list at most so many flows")
	return c
}

func flowsTable(w io.Writer, list *control.FlowList) error {
	// Where nothing is translated nobody needs the column.
	translated := slices.ContainsFunc(list.Flows, func(f control.Flow) bool { return f.Arrives() != "" })
	cells := func(cells ...any) []any {
		if translated {
			return cells
		}
		return slices.Delete(cells, 3, 4)
	}
	table := newGrid(w, cells("PROTOCOL", "SOURCE", "DESTINATION", "ARRIVES AS", "STATE", "IDLE", "SENT", "RECEIVED", "RULE")...)
	for i := range list.Flows {
		f := &list.Flows[i]
		table.row(cells(f.Protocol, control.Endpoint(f.Source, f.SourcePort), control.Endpoint(f.Destination, f.DestinationPort), f.Arrives(), f.State,
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

func lastRule(f *control.Flow) string {
	if len(f.Rules) == 0 {
		return ""
	}
	last := f.Rules[len(f.Rules)-1]
	return last.NetworkSecurityGroup + "/" + last.Name
}
