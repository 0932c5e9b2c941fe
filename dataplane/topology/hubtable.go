package topology

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// hubTable is a route table of a virtual hub, for all networks that learn its routes.
type hubTable struct {
	first    *network // the first that learns them
	prefixes []netip.Prefix
	// networks finds the network that has a prefix; nil: what is behind the hub.
	networks bart.Table[*policy.VirtualNetwork]
}

// learnFromHub are the prefixes that a network learns from its virtual hub.
func (s *networkSet) learnFromHub(n *network) []netip.Prefix {
	if n.vnet.HubTable == nil {
		return nil
	}
	n.hub = s.hubs[n.vnet.HubTable]
	if n.hub == nil {
		n.hub = &hubTable{first: n}
		s.hubs[n.vnet.HubTable] = n.hub
		for _, r := range n.vnet.HubTable.Routes {
			n.hub.prefixes = append(n.hub.prefixes, r.Prefix)
			n.hub.networks.Insert(r.Prefix, r.Network)
			if r.Prefix.Bits() > 0 {
				s.learned.Insert(r.Prefix)
			} else {
				s.defaultLearned = true
			}
		}
	}
	return n.hub.prefixes
}

// hubNetwork is the network that a virtual hub connects to n and that has a prefix; nil when there is none, or when
// a longer route leads elsewhere: a static one of the hub, or one of the network's own gateway.
func (s *networkSet) hubNetwork(n *network, p netip.Prefix) *network {
	if n.hub == nil {
		return nil
	}
	longest, v, _ := n.hub.networks.LookupPrefixLPM(p)
	if v == nil || slices.ContainsFunc(n.behindOwn, func(own netip.Prefix) bool { return within(p, own) && own.Bits() > longest.Bits() }) {
		return nil
	}
	return s.of[v]
}
