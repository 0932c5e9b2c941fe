package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/spf13/cobra"
)

func newNextHop(g *global) *cobra.Command {
	var q control.NextHopQuestion
	var of target
	from := source{of: &of}
	c := &cobra.Command{
		Use:     "next-hop --nic NAME | --vm NAME --source-ip IP --dest-ip IP [--policy PATH...]",
		Aliases: []string{"show-next-hop"},
		Short:   "Say where the packets of a network interface to an address go, and by which route table",
		Long: `Say where the packets of a network interface to an address go, and by which route table,
as az network watcher show-next-hop does: the longest prefix among the routes of its subnet.
Without a daemon there are no gateways, which are in its configuration.`,
		Args: from.args,
		RunE: func(c *cobra.Command, _ []string) error {
			q.NetworkInterface, q.VirtualMachine = of.networkInterface(), of.virtualMachine()
			if err := checkNextHop(&q); err != nil {
				return usageError{fmt.Errorf("next-hop: %w", err)}
			}
			answerer, err := from.open(g)
			if err != nil {
				return err
			}
			result, err := answerer.NextHop(c.Context(), q)
			if err != nil {
				return err
			}
			return g.print(c.OutOrStdout(), result, func(w io.Writer) error { return nextHopTable(w, result) })
		},
	}
	flags := c.Flags()
	of.flags(c)
	flags.StringVar(&q.Source, "source-ip", "", "an address of the network interface")
	flags.StringVar(&q.Destination, "dest-ip", "", "where the packets go to")
	from.flags(c)
	return c
}

func checkNextHop(q *control.NextHopQuestion) error {
	if q.NetworkInterface == "" && q.VirtualMachine == "" {
		return errors.New("--nic or --vm is missing")
	}
	for _, f := range []struct{ flag, value string }{{"--source-ip", q.Source}, {"--dest-ip", q.Destination}} {
		if f.value == "" {
			return fmt.Errorf("%s is missing", f.flag)
		}
		if _, err := netip.ParseAddr(f.value); err != nil {
			return fmt.Errorf("%s %q: allowed is an IP address", f.flag, f.value)
		}
	}
	return nil
}

func nextHopTable(w io.Writer, r *azure.NextHopResult) error {
	table := newGrid(w, "NEXT HOP TYPE", "NEXT HOP IP ADDRESS", "ROUTE TABLE")
	table.row(r.NextHopType, r.NextHopIPAddress, lastName(r.RouteTableID))
	return table.flush()
}
