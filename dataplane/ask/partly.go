package ask

import (
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// partly are the rules before the one at match that decide a part of the profile. A rule whose part
// belongs to rules before it is not among them. asked says which rules count.
func (p *profile) partly(t *topology.Table, match int, asked func(rule int) bool) map[int]bool {
	resolved := t.Resolved()
	var rules []analysis.Rule
	var at []int
	names := false
	for j := range min(match, len(resolved)) {
		f := p.fields(&resolved[j])
		if !asked(j) || f.least() == nothing {
			continue
		}
		names = names || f.least() == some
		at = append(at, j)
		rules = append(rules, analysis.Rule{Rule: p.clip(resolved[j]), Access: t.Rules[j].Access})
	}
	if !names {
		return nil
	}
	decides := map[int]bool{}
	for i, role := range analysis.Roles(analysis.NewList(rules), p.within()) {
		decides[at[i]] = role.Decides || role.Undecided
	}
	return decides
}

// otherwise reports whether a part of the profile has the other access. Where that is not decided it is
// said to have: nobody may rely on the access then.
func (p *profile) otherwise(c *verdict.Chain, a ruleset.Access) bool {
	every := classifier.Rule{Sources: everyAddress, SourcePorts: allPorts, Destinations: everyAddress, DestinationPorts: allPorts}
	rules := []analysis.Rule{{Rule: p.clip(every), Access: ruleset.Allow}, {Rule: every, Access: ruleset.Deny}}
	if !p.AnyProtocol && rules[0].Protocol == ruleset.AnyProtocol { // rules can't name it: it is none of those that they can
		for _, named := range namedProtocols {
			other := every
			other.Protocol = named
			rules = slices.Insert(rules, 0, analysis.Rule{Rule: other, Access: ruleset.Deny})
		}
	}
	asked := analysis.NewList(rules)
	chain := append(analysis.Chain{asked}, c.Lists...)
	if a == ruleset.Deny {
		r := analysis.Reach(chain, p.within())
		return len(r.Allowed)+len(r.Undecided) > 0
	}
	d := analysis.Compare(analysis.Chain{asked}, chain, p.within())
	return len(d.Changes)+len(d.Undecided) > 0
}

func (p *profile) within() analysis.Options {
	return analysis.Options{Within: analysis.Packets{Sources: p.source.Prefixes(), Destinations: p.destination.Prefixes()}}
}

// clip is a rule that holds some of the profile, for the protocol and the ports of the profile alone.
func (p *profile) clip(r classifier.Rule) classifier.Rule {
	if r.Protocol == ruleset.AnyProtocol && !p.AnyProtocol {
		r.Protocol = p.named()
	}
	if p.hasPorts() && !p.AnyProtocol {
		r.SourcePorts = []ruleset.PortRange{{}}
	}
	switch {
	case p.hasPorts() && !p.AnyPort:
		r.DestinationPorts = []ruleset.PortRange{{First: p.Port, Last: p.Port}}
	case p.protocol == packet.ProtoICMP && !p.ipv6:
		r.DestinationPorts = []ruleset.PortRange{{First: packet.ICMPv4EchoRequest, Last: packet.ICMPv4EchoRequest}}
	case p.protocol == packet.ProtoICMPv6 && p.ipv6:
		r.DestinationPorts = []ruleset.PortRange{{First: packet.ICMPv6EchoRequest, Last: packet.ICMPv6EchoRequest}}
	}
	return r
}

var namedProtocols = []ruleset.Protocol{ruleset.TCP, ruleset.UDP, ruleset.ICMP, ruleset.ESP, ruleset.AH}

// named is the profile's protocol as rules name it; any for one that they can't name.
func (p *profile) named() ruleset.Protocol {
	for _, named := range namedProtocols {
		if protocolNumber(named, p.ipv6) == p.protocol {
			return named
		}
	}
	return ruleset.AnyProtocol
}
