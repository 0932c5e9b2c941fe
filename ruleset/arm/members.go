package arm

import (
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// asgMembers sums up the members of an ASG.
type asgMembers struct {
	count    int
	networks []*policy.VirtualNetwork // each once, in the order of the members
}

// checkMembers checks two rules of Azure: all members of an ASG are in one virtual network,
// and so are all members of the ASGs of a rule.
func (l *loader) checkMembers() {
	members := map[string]*asgMembers{}
	for _, n := range l.out.Set.NetworkInterfaces {
		for i := range n.IPConfigurations {
			c := &n.IPConfigurations[i]
			for _, id := range c.ApplicationSecurityGroups {
				m := members[id]
				if m == nil {
					m = &asgMembers{}
					members[id] = m
				}
				m.count++
				if v := c.Subnet.VirtualNetwork; !slices.Contains(m.networks, v) {
					m.networks = append(m.networks, v)
				}
			}
		}
	}
	for _, a := range l.out.Set.ApplicationSecurityGroups {
		m := members[a.ID]
		if m == nil {
			continue
		}
		f := &fields{l: l, file: l.fileOf(a.ID), place: kindPaths[asgKind] + "/" + a.Name}
		if m.count > maxMembersPerASG {
			f.fault(CodeTooManyMembers, "", "", "an application security group has at most %d ipConfigurations, this one %d", maxMembersPerASG, m.count)
		}
		if len(m.networks) > 1 {
			f.fault(CodeMembersNetworks, "", "", "its network interfaces are in several virtual networks (%s); allowed is one", networkNames(m.networks))
		}
	}
	for _, g := range l.out.Set.NetworkSecurityGroups {
		for i := range g.Rules {
			l.checkRuleNetworks(g, &g.Rules[i], members)
		}
	}
}

// checkRuleNetworks checks one rule. The fault names the first group in another network.
func (l *loader) checkRuleNetworks(g *ruleset.NSG, r *ruleset.Rule, members map[string]*asgMembers) {
	var networks []*policy.VirtualNetwork
	var field, stray string
	collect := func(of string, ids []string) {
		for _, id := range ids {
			m := members[id]
			if m == nil {
				continue
			}
			for _, v := range m.networks {
				if slices.Contains(networks, v) {
					continue
				}
				networks = append(networks, v)
				if len(networks) == 2 {
					field, stray = of, id
				}
			}
		}
	}
	collect("sourceApplicationSecurityGroups", r.Source.ApplicationSecurityGroups)
	collect("destinationApplicationSecurityGroups", r.Destination.ApplicationSecurityGroups)
	if len(networks) > 1 {
		f := &fields{l: l, file: l.fileOf(g.ID), place: kindPaths[groupKind] + "/" + g.Name, rule: r.Name}
		f.fault(ruleset.CodeASGsOfSeveralNetworks, field, stray,
			"Security Rule %s has Application Security Groups (ASGs) from multiple virtual networks (%s). All ASGs on the Security Rule must be from the same virtual network.",
			r.Name, networkNames(networks))
	}
}

func networkNames(networks []*policy.VirtualNetwork) string {
	names := make([]string, len(networks))
	for i, v := range networks {
		names[i] = v.Name
	}
	return ruleset.Listed(names)
}

// fileOf is the document of a registered resource.
func (l *loader) fileOf(id string) string {
	if e := l.index.byID[strings.ToLower(id)]; e != nil {
		return e.file
	}
	return ""
}
