package topology

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// gatewaySubnet is the name of a gateway's subnet. Its route table applies to packets from
// on-premises.
const gatewaySubnet = "GatewaySubnet"

// networkSet is the virtual networks of a policy, connected by peerings and gateways.
type networkSet struct {
	list []*network // in the policy's order
	of   map[*policy.VirtualNetwork]*network
	// space holds the address spaces of all virtual networks, learned the prefixes behind
	// gateways. An address in neither is outside.
	space, learned bart.Lite
	defaultLearned bool // a gateway has a default route
	hubs           map[*policy.HubTable]*hubTable
	// besides is Options.Outside.
	besides []netip.Prefix
}

// network is one virtual network.
type network struct {
	vnet   *policy.VirtualNetwork
	hosts  bart.Table[*Endpoint] // the owner of an address; nil for a broadcast address
	routes map[routesKey]*routes // of its subnets
	peers  []peer
	// gateway is nil when none is attached. behindOwn are the prefixes behind it, and
	// behindGateway those behind it or behind the gateway of a peer.
	gateway *Endpoint
	// notBehind are the addresses of the networks that on-premises reaches through gateway, and of their peers.
	notBehind                []netip.Prefix
	hub                      *hubTable // nil: no virtual hub
	behindOwn, behindGateway []netip.Prefix
	frontends                map[packet.Addr]*frontend // of internal load balancers
	group                    *fabricGroup              // nil: the snapshot has no fabric
}

// routesKey says which subnets of a network have the same routes.
type routesKey struct {
	table    *policy.RouteTable
	services string // the tags of the service endpoints
	peered   string // the peerings of single subnets that take the subnet
}

func (n *network) keyOf(sub *policy.Subnet, table *policy.RouteTable) routesKey {
	peered := ""
	for i := range n.vnet.Peerings {
		if p := &n.vnet.Peerings[i]; p.OfSubnets && p.Takes(sub) {
			peered += p.Name + " "
		}
	}
	return routesKey{table, strings.Join(sub.ServiceEndpoints, " "), peered}
}

// routesOf are the routes of a subnet.
func (n *network) routesOf(sub *policy.Subnet) *routes { return n.routes[n.keyOf(sub, sub.RouteTable)] }

// peersOf are the peers that a subnet reaches.
func (n *network) peersOf(sub *policy.Subnet) (peers []peer) {
	for i := range n.peers {
		if n.peers[i].peering.Takes(sub) {
			peers = append(peers, n.peers[i])
		}
	}
	return peers
}

// behindGatewayOf are the prefixes behind the gateway that a subnet uses.
func (n *network) behindGatewayOf(sub *policy.Subnet) []netip.Prefix {
	if remote := n.remoteGateway(); remote != nil && !remote.peering.Takes(sub) {
		return nil
	}
	return n.behindGateway
}

// peer is a virtual network beyond a peering that carries traffic.
type peer struct {
	peering, back *policy.Peering // back is the other side; nil when the policy lacks it
	network       *network        // nil when the policy lacks it
	space         []netip.Prefix
}

// newNetworks lists the virtual networks, relates them to their peers, and finds the gateways
// among the attachments.
func newNetworks(set *policy.Set, specs []Spec) *networkSet {
	s := &networkSet{of: map[*policy.VirtualNetwork]*network{}, hubs: map[*policy.HubTable]*hubTable{}}
	for _, v := range set.VirtualNetworks {
		n := &network{vnet: v, routes: map[routesKey]*routes{}}
		s.of[v] = n
		s.list = append(s.list, n)
		for _, p := range v.AddressSpace {
			s.space.Insert(p)
		}
	}
	for _, n := range s.list {
		n.peers = s.allPeersOf(n.vnet)
	}
	s.learnFromGateways(set, specs)
	return s
}

// allPeersOf lists the peers that a network reaches: the peering is connected, and its sides
// allow access as far as the policy has them. Peering is not transitive.
func (s *networkSet) allPeersOf(v *policy.VirtualNetwork) (peers []peer) {
	for i := range v.Peerings {
		p := &v.Peerings[i]
		if !p.AllowVirtualNetworkAccess || !v.Connected(p) {
			continue
		}
		peer := peer{peering: p, space: p.Space()}
		if p.Remote != nil {
			peer.network, peer.back = s.of[p.Remote], p.Remote.Peering(v)
			if !peer.back.AllowVirtualNetworkAccess {
				continue
			}
		}
		peers = append(peers, peer)
	}
	return peers
}

// learnFromGateways finds the gateways among the attachments. A network learns the prefixes
// behind its own gateway, or behind a peer's gateway that it uses.
func (s *networkSet) learnFromGateways(set *policy.Set, specs []Spec) {
	for i, spec := range gatewaysOf(specs) {
		v, err := set.VirtualNetwork(spec.Reference)
		if err != nil {
			continue // attach reports it
		}
		n := s.of[v]
		if n.gateway != nil && spec.Kind == Fabric { // this host's own
			continue
		}
		n.gateway = &Endpoint{Attachment: i, Elsewhere: spec.Kind == Fabric}
		for _, p := range spec.Prefixes {
			p = p.Masked()
			n.behindOwn = append(n.behindOwn, p)
			if p.Bits() > 0 {
				s.learned.Insert(p)
			} else {
				s.defaultLearned = true
			}
		}
	}
	for _, n := range s.list {
		n.behindGateway = n.behindOwn
		n.notBehind = append(n.notBehind, n.reached()...)
		if remote := n.remoteGateway(); remote != nil {
			n.behindGateway = remote.network.behindOwn
			remote.network.notBehind = append(remote.network.notBehind, n.reached()...)
		}
		if fromHub := s.learnFromHub(n); len(n.behindGateway) == 0 {
			n.behindGateway = fromHub // shared
		} else {
			n.behindGateway = slices.Concat(n.behindGateway, fromHub)
		}
	}
}

// within reports that a prefix lies in another, or is it.
func within(p, other netip.Prefix) bool { return other.Bits() <= p.Bits() && other.Contains(p.Addr()) }

// reached are the address spaces of a network and of its peers.
func (n *network) reached() []netip.Prefix {
	all := slices.Clone(n.vnet.AddressSpace)
	for i := range n.peers {
		all = append(all, n.peers[i].space...)
	}
	return all
}

// remoteGateway is the peer that lends the network its gateway. It is nil when the network has
// a gateway of its own, or none at all.
func (n *network) remoteGateway() *peer {
	for i := range n.peers {
		p := &n.peers[i]
		if p.peering.UseRemoteGateways && p.back != nil && p.back.AllowGatewayTransit && n.gateway == nil && p.network.gateway != nil {
			return p
		}
	}
	return nil
}

// gatewayHop leads to the network's own gateway or to the peer's that it uses.
func (n *network) gatewayHop() *hop {
	h := &hop{kind: policy.HopGateway, endpoint: n.gateway, drop: packet.DropNoRoute}
	if remote := n.remoteGateway(); remote != nil {
		h.endpoint, h.senders = remote.network.gateway, remote.senders(n)
	}
	return h
}

// senders are the prefixes that packets from n must come from. nil allows every source: the
// other side takes forwarded traffic.
func (p *peer) senders(n *network) []netip.Prefix {
	switch {
	case p.back == nil || p.back.AllowForwardedTraffic:
		return nil
	case !p.peering.OfSubnets:
		return n.vnet.AddressSpace
	}
	senders := []netip.Prefix{}
	for _, s := range p.peering.LocalSubnets {
		senders = append(senders, s.Prefixes...)
	}
	return senders
}

// hasSystemRoute reports that a prefix lies within the network or a peer. Their routes win
// over a gateway's.
func (r *routes) hasSystemRoute(p netip.Prefix) bool {
	holds := func(space netip.Prefix) bool { return space.Bits() <= p.Bits() && space.Contains(p.Addr()) }
	return slices.ContainsFunc(r.network.vnet.AddressSpace, holds) ||
		slices.ContainsFunc(r.peers, func(peer peer) bool { return slices.ContainsFunc(peer.space, holds) })
}

// viewOf has the VirtualNetwork tag in a subnet with a route table: ownTag, and the prefixes behind the gateway unless
// the table keeps them out.
func (n *network) viewOf(set *policy.Set, sub *policy.Subnet, t *policy.RouteTable, groups *groupSet) *view {
	space := n.ownTag(set, sub, t)
	switch {
	case t != nil && t.DisableGatewayRoutes:
	case n.sharesHub() && n.hub.covers(space):
		return n.hub.viewOf(groups)
	default:
		space = append(space, n.behindGatewayOf(sub)...)
	}
	return groups.view(ruleset.VirtualNetworkPrefixes(space))
}

// ownTag is the VirtualNetwork tag in a subnet without what gateways announce: the network, the
// subnet's peers, and the prefixes of the route table's routes whatever their next hop. Only this side
// of a peering must allow access.
func (n *network) ownTag(set *policy.Set, sub *policy.Subnet, t *policy.RouteTable) (space []netip.Prefix) {
	space = append(space, n.vnet.AddressSpace...)
	for i := range n.vnet.Peerings {
		if p := &n.vnet.Peerings[i]; p.AllowVirtualNetworkAccess && p.Takes(sub) && n.vnet.Connected(p) {
			space = append(space, p.Space()...)
		}
	}
	if t != nil {
		for i := range t.Routes {
			space = append(space, set.Prefixes(&t.Routes[i])...)
		}
	}
	return space
}
