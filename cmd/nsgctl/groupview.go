package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/spf13/cobra"
)

func init() { addVerb(newSecurityGroupView) }

func newSecurityGroupView(g *global) *cobra.Command {
	var of target
	from := source{of: &of}
	c := &cobra.Command{
		Use:     "security-group-view --vm NAME | --nic NAME [--policy PATH...]",
		Aliases: []string{"show-security-group-view"},
		Short:   "List the rules of a virtual machine's network interfaces, as written and as they hold",
		Long: `List the rules of a virtual machine's network interfaces, as written and as they hold,
in the form of az network watcher show-security-group-view. A virtual machine is known
from the policy's network interfaces that name it.`,
		Example: `  nsgctl security-group-view --policy policy --nic vm1-nic
  nsgctl security-group-view --vm vm1 -o json`,
		Args: from.args,
		RunE: func(c *cobra.Command, _ []string) error {
			if (of.nic == "") == (of.vm == "") {
				return usageError{errors.New("security-group-view: one of --vm and --nic is needed")}
			}
			target := of.networkInterface() + of.virtualMachine()
			view, err := answer(&from, g,
				func(d *control.Client) (*azure.SecurityGroupViewResult, error) {
					return d.SecurityGroupView(c.Context(), target)
				},
				func(p *inspect.Loaded) (*azure.SecurityGroupViewResult, error) {
					return ask.SecurityGroupView(p.Snapshot, target)
				})
			return show(c, g, view, err, groupViewTable)
		},
	}
	of.flags(c)
	from.flags(c, g)
	return c
}

func groupViewTable(w io.Writer, view *azure.SecurityGroupViewResult) error {
	for i := range view.NetworkInterfaces {
		nic := &view.NetworkInterfaces[i]
		if i > 0 {
			fmt.Fprintln(w)
		}
		rules := &nic.SecurityRuleAssociations
		fmt.Fprintf(w, "%s: %s\n", lastName(nic.ID), strings.Join(associations(rules), ", "))
		if len(rules.EffectiveSecurityRules) == 0 {
			continue
		}
		table := newGrid(w, "DIRECTION", "PRIORITY", "ACCESS", "PROTOCOL", "SOURCE", "DESTINATION", "PORTS", "RULE")
		for j := range rules.EffectiveSecurityRules {
			r := &rules.EffectiveSecurityRules[j]
			table.row(r.Direction, r.Priority, r.Access, r.Protocol,
				ruleSide(viewedPrefixes(r.SourceAddressPrefix, r.SourceAddressPrefixes), r.SourceApplicationSecurityGroups, r.SourcePortRanges),
				ruleSide(viewedPrefixes(r.DestinationAddressPrefix, r.DestinationAddressPrefixes), r.DestinationApplicationSecurityGroups, nil),
				several(r.DestinationPortRanges), r.Name)
		}
		if err := table.flush(); err != nil {
			return err
		}
	}
	return nil
}

// viewedPrefixes leaves out that "*" is there for each family.
func viewedPrefixes(one string, list []string) []string {
	if one != "" {
		return []string{one}
	}
	return list
}

func associations(rules *azure.SecurityRuleAssociations) []string {
	var list []string
	for _, a := range []struct {
		kind string
		*azure.SecurityRuleAssociation
	}{{"subnet", rules.SubnetAssociation}, {"network interface", rules.NetworkInterfaceAssociation}} {
		if a.SecurityRuleAssociation != nil {
			list = append(list, fmt.Sprintf("%s on %s %s", plural(len(a.SecurityRules), "user rule"), a.kind, lastName(a.ID)))
		}
	}
	if list == nil {
		return []string{"no network security group"}
	}
	return list
}
