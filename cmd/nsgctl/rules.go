package main

import (
	"errors"
	"fmt"
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
		Use:   "rules [--nsg NAME] [--unused] [--since 10m] [--policy PATH...]",
		Short: "List security rules in the order in which they are tried, with their counters",
		Example: `  nsgctl rules --nsg NSG1
  nsgctl rules --unused
  nsgctl rules --since 10m`,
		Args: from.args,
		RunE: func(c *cobra.Command, _ []string) error {
			if filter.Unused && len(from.policy) > 0 {
				return usageError{errors.New("rules: --unused needs the daemon's counters: leave out --policy")}
			}
			if filter.Since > 0 && len(from.policy) > 0 {
				return usageError{errors.New("rules: --since needs what the daemon remembers: leave out --policy")}
			}
			if err := checkSince(c, "rules", filter.Since); err != nil {
				return err
			}
			list, err := answer(&from, g,
				func(d *control.Client) (*inspect.RuleList, error) {
					list, err := d.Rules(c.Context(), filter)
					if err == nil && filter.Since > 0 && list.Window == nil {
						err = errors.New("rules: the daemon is older and has counted all the time since it started")
					}
					return list, err
				},
				func(p *inspect.Loaded) (*inspect.RuleList, error) { return inspect.Rules(p.Snapshot, nil, filter) })
			return show(c, g, list, err, rulesTable)
		},
	}
	c.Flags().StringVar(&filter.NetworkSecurityGroup, "nsg", "", "only this network security group, by name or resource id")
	c.Flags().BoolVar(&filter.Unused, "unused", false, "only rules that decided nothing since the daemon started, or within --since")
	c.Flags().DurationVar(&filter.Since, "since", 0, "count only what the rules decided and carried within this time")
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
	if err := table.flush(); err != nil || list.Window == nil {
		return err
	}
	text := fmt.Sprintf("counted from %s to %s", clock(list.From), clock(list.To))
	if n := list.NotListed; n != nil {
		text += fmt.Sprintf("; %d hits and %d packets are of rules that are gone, or of too many", n.Hits, n.Packets)
	}
	_, err := fmt.Fprintln(w, text)
	return err
}
