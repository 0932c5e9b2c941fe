package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/spf13/cobra"
)

func init() { addVerb(newNextHop) }

func newNextHop(g *global) *cobra.Command {
	var sender, destination string
	var of target
	from := source{of: &of}
	c := &cobra.Command{
		Use:     "next-hop --nic NAME | --vm NAME --source-ip IP --dest-ip IP [--policy PATH...]",
		Aliases: []string{"show-next-hop"},
		Short:   "Say where the packets of a network interface to an address go, and by which route table",
		Long: `Say where the packets of a network interface to an address go, and by which route table,
as az network watcher show-next-hop does: the longest prefix among the routes of its subnet.
Without a daemon there are no gateways, which are in its configuration.`,
		Example: `  nsgctl next-hop --policy policy --nic vm1-nic --source-ip 10.0.1.4 --dest-ip 203.0.113.10`,
		Args:    from.args,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			q := ask.NextHopQuestion{NetworkInterface: of.networkInterface(), VirtualMachine: of.virtualMachine()}
			if q.NetworkInterface == "" && q.VirtualMachine == "" {
				return usageError{errors.New("next-hop: --nic or --vm is missing")}
			}
			if q.Source, err = addressFlag("source-ip", sender); err != nil {
				return err
			}
			if q.Destination, err = addressFlag("dest-ip", destination); err != nil {
				return err
			}
			hop, err := answer(&from, g,
				func(d *control.Client) (*azure.NextHopResult, error) { return d.NextHop(c.Context(), q) },
				func(p *inspect.Loaded) (*azure.NextHopResult, error) { return ask.NextHop(p.Snapshot, q) })
			return show(c, g, hop, err, nextHopTable)
		},
	}
	flags := c.Flags()
	of.flags(c)
	flags.StringVar(&sender, "source-ip", "", "an address of the network interface")
	flags.StringVar(&destination, "dest-ip", "", "where the packets go to")
	from.flags(c, g)
	return c
}

func addressFlag(name, text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, usageError{fmt.Errorf("next-hop: --%s is missing", name)}
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return a, usageError{fmt.Errorf("next-hop: --%s %q: allowed is an IP address", name, text)}
	}
	return a.Unmap(), nil
}

func nextHopTable(w io.Writer, r *azure.NextHopResult) error {
	table := newGrid(w, "NEXT HOP TYPE", "NEXT HOP IP ADDRESS", "ROUTE TABLE")
	table.row(r.NextHopType, r.NextHopIPAddress, lastName(r.RouteTableID))
	return table.flush()
}
