package main

import (
	"errors"
	"io"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/spf13/cobra"
)

func init() { addVerb(newEffectiveRoutes) }

func newEffectiveRoutes(g *global) *cobra.Command {
	var of target
	from := source{of: &of}
	c := &cobra.Command{
		Use:     "effective-routes --nic NAME [--policy PATH...]",
		Aliases: []string{"list-effective-route-table", "show-effective-route-table"},
		Short:   "List the routes of a network interface",
		Long: `List the routes of a network interface, as az network nic show-effective-route-table does: those of
the system, of gateways, and of the subnet's route table. A route is Invalid where another one has its place.
Without a daemon there are no gateways, which are in its configuration.`,
		Example: `  nsgctl effective-routes --nic vm1-nic
  nsgctl effective-routes --policy policy --nic vm1-nic --query "value[?state=='Active'].addressPrefix[]" -o tsv`,
		Args: from.args,
		RunE: func(c *cobra.Command, _ []string) error {
			if of.nic == "" {
				return usageError{errors.New("effective-routes: --nic is missing")}
			}
			type result = *azure.EffectiveRouteListResult
			list, err := answer(&from, g,
				func(d *control.Client) (result, error) { return d.EffectiveRoutes(c.Context(), of.networkInterface()) },
				func(p *inspect.Loaded) (result, error) { return ask.EffectiveRoutes(p.Snapshot, of.networkInterface()) })
			return show(c, g, list, err, effectiveRoutesTable)
		},
	}
	c.Flags().StringVar(&of.nic, "nic", "", "network interface, by name or resource id")
	c.Flags().StringVarP(&of.nic, "name", "n", "", "the same as --nic")
	of.groupFlag(c)
	from.flags(c, g)
	return c
}

func effectiveRoutesTable(w io.Writer, result *azure.EffectiveRouteListResult) error {
	table := newGrid(w, "SOURCE", "STATE", "ADDRESS PREFIX", "NEXT HOP TYPE", "NEXT HOP IP ADDRESS", "ROUTE")
	for i := range result.Value {
		r := &result.Value[i]
		name := ""
		if r.Name != nil {
			name = *r.Name
		}
		table.row(r.Source, r.State, several(r.AddressPrefix), r.NextHopType, several(r.NextHopIPAddress), name)
	}
	return table.flush()
}
