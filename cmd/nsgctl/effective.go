package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/spf13/cobra"
)

func init() { addVerb(newEffective) }

func newEffective(g *global) *cobra.Command {
	var of target
	from := source{of: &of}
	c := &cobra.Command{
		Use:     "effective --nic NAME [--policy PATH...]",
		Aliases: []string{"list-effective-nsg"},
		Short:   "List the security rules that hold for a network interface",
		Example: `  nsgctl effective --nic vm1-nic
  nsgctl effective --policy policy --nic vm1-nic -o json`,
		Args: from.args,
		RunE: func(c *cobra.Command, _ []string) error {
			if of.nic == "" {
				return usageError{errors.New("effective: --nic is missing")}
			}
			type result = *azure.EffectiveNetworkSecurityGroupListResult
			list, err := answer(&from, g,
				func(d *control.Client) (result, error) { return d.Effective(c.Context(), of.networkInterface()) },
				func(p *inspect.Loaded) (result, error) { return ask.Effective(p.Snapshot, of.networkInterface()) })
			return show(c, g, list, err, func(w io.Writer, r result) error { return effectiveTable(w, of.nic, r) })
		},
	}
	c.Flags().StringVar(&of.nic, "nic", "", "network interface, by name or resource id")
	c.Flags().StringVarP(&of.nic, "name", "n", "", "the same as --nic")
	of.groupFlag(c)
	from.flags(c, g)
	return c
}

func effectiveTable(w io.Writer, nic string, result *azure.EffectiveNetworkSecurityGroupListResult) error {
	if len(result.Value) == 0 {
		_, err := fmt.Fprintf(w, "no network security group stands before %s: everything is allowed\n", nic)
		return err
	}
	for i := range result.Value {
		group := &result.Value[i]
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s on %s\n", lastName(group.NetworkSecurityGroup.ID), associated(group))
		table := newGrid(w, "DIRECTION", "PRIORITY", "ACCESS", "PROTOCOL", "SOURCE", "DESTINATION", "PORTS", "RULE")
		for j := range group.EffectiveSecurityRules {
			r := &group.EffectiveSecurityRules[j]
			_, name, _ := strings.Cut(r.Name, "/")
			table.row(r.Direction, r.Priority, r.Access, r.Protocol,
				ruleSide(expanded(r.SourceAddressPrefix, r.SourceAddressPrefixes, r.ExpandedSourceAddressPrefix), r.SourceApplicationSecurityGroups, r.SourcePortRanges),
				ruleSide(expanded(r.DestinationAddressPrefix, r.DestinationAddressPrefixes, r.ExpandedDestinationAddressPrefix), r.DestinationApplicationSecurityGroups, nil),
				several(r.DestinationPortRanges), name)
		}
		if err := table.flush(); err != nil {
			return err
		}
	}
	return nil
}

func associated(g *azure.EffectiveNetworkSecurityGroup) string {
	if m := g.Association.NetworkManager; m != nil {
		return "network manager " + lastName(m.ID)
	}
	if s := g.Association.Subnet; s != nil {
		return "subnet " + lastName(s.ID)
	}
	if n := g.Association.NetworkInterface; n != nil {
		return "network interface " + lastName(n.ID)
	}
	return "-"
}

// expanded shows a tag with the number of its prefixes, and "*" once.
func expanded(one *string, prefixes, expansion []string) []string {
	switch {
	case one == nil:
		return prefixes
	case expansion == nil:
		return []string{*one}
	}
	return []string{fmt.Sprintf("%s (%d)", *one, len(expansion))}
}

// ruleSide shows one side of a rule: prefixes, a tag or names of application security groups,
// and its ports unless they are all.
func ruleSide(prefixes []string, groups []azure.SubResource, ports []string) string {
	names := slices.Clone(prefixes)
	for _, g := range groups {
		names = append(names, lastName(g.ID))
	}
	text := several(names)
	if len(ports) > 0 && !slices.Equal(ports, []string{"0-65535"}) {
		text += " port " + several(ports)
	}
	return text
}
