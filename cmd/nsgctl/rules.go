package main

import (
	"errors"
	"io"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/spf13/cobra"
)

func newRules(g *global) *cobra.Command {
	var filter control.RuleFilter
	var from source
	c := &cobra.Command{
		Use:   "rules [--nsg NAME] [--unused] [--policy PATH...]",
		Short: "List security rules in the order in which they are tried, with their counters",
		Args:  from.args,
		RunE: func(c *cobra.Command, _ []string) error {
			if filter.Unused && len(from.policy) > 0 {
				return usageError{errors.New("rules: --unused needs the daemon's counters: leave out --policy")}
			}
			answerer, err := from.open(g)
			if err != nil {
				return err
			}
			list, err := answerer.Rules(c.Context(), filter)
			if err != nil {
				return err
			}
			return g.print(c.OutOrStdout(), list, func(w io.Writer) error { return rulesTable(w, list) })
		},
	}
	c.Flags().StringVar(&filter.NetworkSecurityGroup, "nsg", "", "only this network security group, by name or resource id")
	c.Flags().BoolVar(&filter.Unused, "unused", false, "only rules that decided nothing since the daemon started")
	from.flags(c)
	return c
}

func rulesTable(w io.Writer, list *control.RuleList) error {
	table := newGrid(w, "NSG", "DIRECTION", "PRIORITY", "ACCESS", "PROTOCOL", "RULE", "HITS", "PACKETS", "BYTES")
	for i := range list.Rules {
		r := &list.Rules[i]
		hits, packets, bytes := any(""), any(""), any("")
		if n := r.Counters; n != nil {
			hits, packets, bytes = n.Hits, n.Packets, n.Bytes
		}
		table.row(lastName(r.NetworkSecurityGroup), r.Direction, r.Priority, r.Access, r.Protocol, r.Name, hits, packets, bytes)
	}
	return table.flush()
}
