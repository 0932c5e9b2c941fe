package control

import (
	"net/http"
	"strings"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// RuleFilter chooses rules; the zero value takes all.
type RuleFilter struct {
	NetworkSecurityGroup string // name or id
	// Unused leaves only rules that decided nothing and carry no flow's packets.
	Unused bool
}

// Rules lists a snapshot's rules. counts are by slot; nil leaves counters out.
func Rules(s *topology.Snapshot, counts []dataplane.RuleCount, filter RuleFilter) (*RuleList, error) {
	list := &RuleList{Generation: s.Generation, Rules: []Rule{}}
	var only *ruleset.NSG
	if filter.NetworkSecurityGroup != "" {
		nsg, err := s.Policy.NetworkSecurityGroup(filter.NetworkSecurityGroup)
		if err != nil {
			return nil, asError(err, http.StatusNotFound)
		}
		only = nsg
	}
	eachRule(s, only, func(label string, t *topology.Table, i int) {
		if r, ok := describe(label, t, i, counts, filter.Unused); ok {
			list.Rules = append(list.Rules, r)
		}
	})
	return list, nil
}

// eachRule yields every rule of a snapshot, or of one NSG.
func eachRule(s *topology.Snapshot, only *ruleset.NSG, yield func(label string, t *topology.Table, i int)) {
	seen := map[*ruleset.NSG]bool{}
	for _, g := range s.Groups {
		// An NSG is compiled once for each network that it serves, with the same slots.
		if seen[g.NSG] || only != nil && g.NSG != only {
			continue
		}
		seen[g.NSG] = true
		for _, t := range []*topology.Table{&g.Inbound, &g.Outbound} {
			for i := range t.Rules {
				yield(g.Label, t, i)
			}
		}
	}
}

func describe(label string, t *topology.Table, i int, counts []dataplane.RuleCount, unused bool) (Rule, bool) {
	var counters *RuleCounters
	if slot := int(t.Slots[i]); slot < len(counts) {
		c := counts[slot]
		if unused && (c.Hits > 0 || c.Packets > 0) {
			return Rule{}, false
		}
		counters = &RuleCounters{Hits: c.Hits, Packets: c.Packets, Bytes: c.Bytes}
	}
	r := &t.Rules[i]
	return Rule{
		NetworkSecurityGroup: label,
		Direction:            r.Direction.String(),
		Priority:             r.Priority,
		Name:                 r.Name,
		RuleName:             r.QualifiedName(),
		Access:               r.Access.String(),
		Protocol:             r.Protocol.String(),
		Sources:              peer(&r.Source),
		SourcePorts:          ports(r.SourcePorts),
		Destinations:         peer(&r.Destination),
		DestinationPorts:     ports(r.DestinationPorts),
		Counters:             counters,
	}, true
}

func peer(p *ruleset.Peer) []string {
	if p.AnyOf != nil {
		var all []string
		p.Each(func(one *ruleset.Peer) { all = append(all, peer(one)...) })
		return all
	}
	switch {
	case p.Any:
		return []string{"*"}
	case p.Tag != "":
		return []string{p.Tag}
	case len(p.ApplicationSecurityGroups) > 0:
		return p.ApplicationSecurityGroups
	case p.NetworkGroup != "":
		return []string{p.NetworkGroup}
	}
	prefixes := make([]string, len(p.Prefixes))
	for i, prefix := range p.Prefixes {
		prefixes[i] = prefix.String()
		if prefix.IsSingleIP() {
			prefixes[i] = prefix.Addr().String()
		}
	}
	return prefixes
}

func ports(list []ruleset.PortRange) []string {
	texts := make([]string, len(list))
	for i, r := range list {
		texts[i] = r.String()
	}
	return texts
}

// Effective lists the NSGs and rules that hold for a NIC, rule collections of network managers first, then
// the subnet's NSG, as Azure's list of effective security rules does: each place where an NSG stands once.
func Effective(s *topology.Snapshot, networkInterface string) (*azure.EffectiveNetworkSecurityGroupListResult, error) {
	nic, err := s.Policy.NetworkInterface(networkInterface)
	if err != nil {
		return nil, asError(err, http.StatusNotFound)
	}
	result := &azure.EffectiveNetworkSecurityGroupListResult{Value: []azure.EffectiveNetworkSecurityGroup{}}
	type place struct {
		group  *topology.Group
		subnet *policy.Subnet // nil: the NIC
	}
	seen := map[place]bool{}
	for i := range nic.IPConfigurations {
		e := s.Endpoint(nic, nic.IPConfigurations[i].Address)
		if e == nil {
			continue
		}
		for _, stage := range stages(e) {
			p := place{group: stage.Group}
			if stage.Association == topology.SubnetAssociation {
				p.subnet = e.Subnet
			}
			if seen[p] {
				continue
			}
			seen[p] = true
			result.Value = append(result.Value, azure.Effective(stage.Group.NSG, associate(e, stage), stage.Group.Expand))
		}
	}
	return result, nil
}

// stages are those of an endpoint's two directions, each once: rule collections, the subnet's
// NSG, the NIC's.
func stages(e *topology.Endpoint) (list []*topology.Stage) {
	for _, inbound := range [][]topology.Stage{e.AdminInbound, e.Inbound} {
		for i := range inbound {
			list = append(list, &inbound[i])
		}
	}
	return list
}

func associate(e *topology.Endpoint, stage *topology.Stage) azure.EffectiveAssociation {
	if stage.Association == topology.NetworkManagerAssociation {
		manager, _, _ := strings.Cut(stage.Group.NSG.ID, "/securityAdminConfigurations/")
		return azure.EffectiveAssociation{NetworkManager: &azure.SubResource{ID: manager}}
	}
	if stage.Association == topology.NetworkInterfaceAssociation {
		return azure.EffectiveAssociation{NetworkInterface: &azure.SubResource{ID: e.NetworkInterface.ID}}
	}
	return azure.EffectiveAssociation{Subnet: &azure.SubResource{ID: e.Subnet.ID}}
}
