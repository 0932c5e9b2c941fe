package topology

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// hubTable is a route table of a virtual hub, for all networks that learn its routes.
type hubTable struct {
	first    *network // the first that learns them
	prefixes []netip.Prefix
	// networks finds the network that has a prefix; nil: what is behind the hub.
	networks bart.Table[*policy.VirtualNetwork]
	hops     *bart.Table[*hop] // of networks without a gateway; nil until one needs it
	view     *view             // of prefixes; nil until one needs it
}

// sharesHub reports that all routes of gateways that the network learns are those of its hub, and lead where they lead
// for others. Thousands of networks may share thousands of routes.
func (n *network) sharesHub() bool {
	return n.hub != nil && n.gateway == nil && n.remoteGateway() == nil
}

// covers reports that each of some prefixes lies within one of the table's.
func (t *hubTable) covers(prefixes []netip.Prefix) bool {
	return !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
		_, ok := t.networks.LookupPrefix(p)
		return !ok
	})
}

// viewOf is the view of networks whose VirtualNetwork tag is the table's prefixes.
func (t *hubTable) viewOf(groups *groupSet) *view {
	if t.view == nil {
		t.view = groups.view(ruleset.VirtualNetworkPrefixes(t.prefixes))
	}
	return t.view
}

// shareLearned adds the routes of the hub to those of a subnet, as fillLearned does. They win over weak hops of the same
// prefix, and all others win over them.
func (s *routedSet) shareLearned(r *routes, weak ...*hop) {
	r.hub = r.network.hub
	learned := s.hopsOf(r.hub)
	leaveOut := func(space netip.Prefix) {
		for p := range learned.Subnets(space) {
			learned = learned.DeletePersist(p)
		}
	}
	for _, p := range r.network.vnet.AddressSpace {
		leaveOut(p)
	}
	for i := range r.peers {
		for _, p := range r.peers[i].space {
			leaveOut(p)
		}
	}
	for p := range r.serviced.All() {
		leaveOut(p)
	}
	for _, p := range slices.Concat(everywhere, unroutable, s.networks.besides) {
		h, _ := r.hops.Get(p)
		if _, ok := learned.Get(p); ok && slices.Contains(weak, h) {
			r.hops.Delete(p)
		}
	}
	r.hops = learned.UnionPersist(r.hops)
}

// hopsOf are the hops of a hub's routes for networks without a gateway.
func (s *routedSet) hopsOf(t *hubTable) *bart.Table[*hop] {
	if t.hops == nil {
		t.hops = &bart.Table[*hop]{}
		gateway := &hop{kind: policy.HopGateway, drop: packet.DropNoRoute}
		for p, v := range t.networks.All() {
			h := gateway
			if v != nil {
				h = &hop{kind: policy.HopGateway, hosts: &s.networks.of[v].hosts, drop: packet.DropNoRoute}
			}
			t.hops.Insert(p, h)
		}
	}
	return t.hops
}

// learned are the routes of hub, which entered lacks.
func (r *routes) learned() (list []EffectiveRoute) {
	if r.hub == nil {
		return nil
	}
	for i, p := range r.hub.prefixes {
		if h, _ := r.hub.hops.Get(p); r.learns(p) {
			list = append(list, EffectiveRoute{Source: RouteGateway, Prefixes: r.hub.prefixes[i : i+1 : i+1], Type: h.kind, hop: h})
		}
	}
	return list
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
