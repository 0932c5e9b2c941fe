package main

import (
	"errors"
	"io"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

func init() { addVerb(newRules) }

func newRules(g *global) *cobra.Command {
	var filter inspect.RuleFilter
	var from source
	c := &cobra.Command{
		Use:   "rules [--nsg NAME] [--unused] [--policy PATH...]",
		Short: "List security rules in the order in which they are tried, with their counters",
		Example: `  nsgctl rules --nsg NSG1
  nsgctl rules --unused`,
		Args: from.args,
		RunE: func(c *cobra.Command, _ []string) error {
			if filter.Unused && len(from.policy) > 0 {
				return usageError{errors.New("rules: --unused needs the daemon's counters: leave out --policy")}
			}
			list, err := answer(&from, g,
				func(d *control.Client) (*inspect.RuleList, error) { return d.Rules(c.Context(), filter) },
				func(p *inspect.Loaded) (*inspect.RuleList, error) { return inspect.Rules(p.Snapshot, nil, filter) })
			return show(c, g, list, err, rulesTable)
		},
	}
	c.Flags().StringVar(&filter.NetworkSecurityGroup, "nsg", "", "only this network security group, by name or resource id")
	c.Flags().BoolVar(&filter.Unused, "unused", false, "only rules that decided nothing since the daemon started")
	from.flags(c, g)
	return c
}

func rulesTable(w io.Writer, list *inspect.RuleList) error {
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
