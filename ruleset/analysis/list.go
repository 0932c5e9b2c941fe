package analysis

import (
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// Rule is one rule of a list: what it matches, as package classifier understands it, and what it
// does.
type Rule struct {
	classifier.Rule
	Access ruleset.Access
}

// List is rules in priority order, prepared for questions. The first rule that matches a packet
// decides. A packet that no rule matches passes on, as if a last rule had allowed it. A List is
// immutable and safe for concurrent use.
type List struct{ rules []rule } // the last one is the rule that is not there

// NoRule is the index of the rule that is not there: no rule of the list matches.
const NoRule = -1

// rule is a Rule as sets.
type rule struct {
	index        int // in the list, or NoRule
	protocol     ruleset.Protocol
	access       ruleset.Access
	sources      [families]*set
	destinations [families]*set
	sourcePorts  *set
	ports        *set // of the destination
}

// Chain is lists in the order in which they are asked: security admin rules, a subnet's rules, a
// NIC's rules. Deny ends the chain, and so does AlwaysAllow. Allow asks the next list. What the last
// list allows is allowed.
type Chain []*List

// NewList prepares rules. Rules that share a slice, such as a service tag's prefixes, are
// prepared faster than rules with equal copies. The list refers to no memory of the rules.
func NewList(rules []Rule) *List {
	p := preparer{map[identity[netip.Prefix]][families]*set{}, map[identity[ruleset.PortRange]]*set{}}
	l := &List{rules: make([]rule, 0, len(rules)+1)}
	for i := range rules {
		r := &rules[i]
		l.rules = append(l.rules, rule{
			index: i, protocol: r.Protocol, access: r.Access,
			sources: p.prefixSets(r.Sources), destinations: p.prefixSets(r.Destinations),
			sourcePorts: p.portSet(r.SourcePorts), ports: p.portSet(r.DestinationPorts),
		})
	}
	l.rules = append(l.rules, rule{index: NoRule, access: ruleset.Allow,
		sources: addresses, destinations: addresses, sourcePorts: everyPort, ports: everyPort})
	return l
}

// Len is the number of rules.
func (l *List) Len() int { return len(l.rules) - 1 }

// identity tells slices apart by where they are.
type identity[E any] struct {
	first *E
	n     int
}

func identityOf[E any](list []E) (id identity[E]) {
	if len(list) > 0 {
		id = identity[E]{&list[0], len(list)}
	}
	return id
}

// preparer makes the set of each slice once.
type preparer struct {
	prefixes map[identity[netip.Prefix]][families]*set
	ports    map[identity[ruleset.PortRange]]*set
}

func (p *preparer) prefixSets(prefixes []netip.Prefix) [families]*set {
	id := identityOf(prefixes)
	sets, ok := p.prefixes[id]
	if !ok {
		sets = prefixSets(prefixes)
		p.prefixes[id] = sets
	}
	return sets
}

func (p *preparer) portSet(ranges []ruleset.PortRange) *set {
	id := identityOf(ranges)
	s := p.ports[id]
	if s == nil {
		s = portSet(ranges)
		p.ports[id] = s
	}
	return s
}

// sameContent reports whether two rules match the same packets by the same fields and do the same.
func (r *rule) sameContent(o *rule) bool {
	return r.protocol == o.protocol && r.access == o.access && r.sourcePorts.equal(o.sourcePorts) && r.ports.equal(o.ports) &&
		r.sources[ipv4].equal(o.sources[ipv4]) && r.sources[ipv6].equal(o.sources[ipv6]) &&
		r.destinations[ipv4].equal(o.destinations[ipv4]) && r.destinations[ipv6].equal(o.destinations[ipv6])
}

// contentHash is equal for rules with the same content.
func (r *rule) contentHash() uint64 {
	h := uint64(r.protocol)<<8 | uint64(r.access)
	for _, s := range [...]*set{r.sourcePorts, r.ports, r.sources[ipv4], r.sources[ipv6], r.destinations[ipv4], r.destinations[ipv6]} {
		h = mix(h, s.hash)
	}
	return h
}

// Equal reports whether two lists have rules that match and do the same, in the same order.
func (l *List) Equal(o *List) bool {
	return l == o || slices.EqualFunc(l.rules, o.rules, func(a, b rule) bool { return a.sameContent(&b) })
}
