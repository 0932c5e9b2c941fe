package topology

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// HopPeering is the next hop type of a peered network's address space, which no
// user-defined route can have.
const HopPeering policy.NextHopType = "VirtualNetworkPeering"

// routes are what the subnets of a virtual network with one route table, or with none,
// have in common: where packets go from there, and what tags mean there.
type routes struct {
	network *network           // nil for the outside and the platform
	table   *policy.RouteTable // nil: none
	view    *view
	hops    bart.Table[*hop] // by destination
	// adminInbound and adminOutbound are the rule collections that hold for the network.
	adminInbound, adminOutbound []Stage
	everything                  bool // the table or a gateway has a route for 0.0.0.0/0
	// direct, if not nil, has whom no route but the network's own can lead to: it saves
	// most packets the search for a hop.
	direct *bart.Table[*Endpoint]
}

// hop is where a route leads.
type hop struct {
	kind    policy.NextHopType
	table   *policy.RouteTable // of a user-defined route; nil: a system route
	address netip.Addr         // of a virtual appliance
	// hosts finds the destination itself; when it is nil, endpoint is the next hop, nil for
	// none.
	hosts    *bart.Table[*Endpoint]
	endpoint *Endpoint
	// senders is the address space of the sender's network where the network beyond a
	// peering takes nothing that is forwarded; else nil.
	senders []netip.Prefix
	// drop is for what finds no endpoint, or one that nothing is attached to.
	drop packet.Drop
}

// Route finds where a packet goes that src sends, and that bears these addresses: the
// longest prefix of src's routes leads to the endpoint that has the destination, or to a
// virtual appliance on the way there. When nothing is attached there, the reason comes with the
// endpoint; when there is no way, with nil.
func (s *Snapshot) Route(src *Endpoint, from, to packet.Addr) (*Endpoint, packet.Drop) {
	if src.routes.direct != nil {
		if e, ok := src.routes.direct.Lookup(to.Netip()); ok {
			if e == nil || e.Attachment < 0 {
				return e, packet.DropNoRoute
			}
			return e, packet.NotDropped
		}
	}
	h, _ := src.routes.hops.Lookup(to.Netip())
	if h == nil {
		return nil, packet.DropNoRoute
	}
	if h.senders != nil && !within(h.senders, from.Netip()) {
		return nil, packet.DropForwarded
	}
	e := h.endpoint
	if h.hosts != nil {
		e, _ = h.hosts.Lookup(to.Netip())
	}
	if e == nil || e.Attachment < 0 {
		return e, h.drop
	}
	return e, packet.NotDropped
}

// RouteFrom is Route for questions: what a NIC's or subnet's endpoint sends from its own address, or, when
// from is nil, somebody outside.
func (s *Snapshot) RouteFrom(from *Endpoint, to netip.Addr) *Endpoint {
	if from == nil {
		from = s.outside
	}
	e, _ := s.Route(from, from.address, packet.AddrFrom(to))
	return e
}

// Routed reports that what answers a packet may take another way than the packet came,
// even one that its sender has the address of.
func (s *Snapshot) Routed() bool { return s.routed }

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// private are the ranges for which Azure's default routes have no next hop outside the
// virtual network.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("fc00::/7"),
}

// unroutable are those, and what no router forwards: this host, loopback, link-local and
// reserved (RFC 6890; RFC 4291 section 2.5).
var unroutable = append(slices.Clone(private),
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"),
)

// routesOf makes the routes of a network's subnets with a route table once; addRoutes
// fills them.
func (b *builder) routesOf(n *network, t *policy.RouteTable) *routes {
	r := n.routes[t]
	if r == nil {
		r = &routes{network: n, table: t, view: b.viewOf(b.virtualNetworkTag(n, t))}
		r.adminInbound, r.adminOutbound = b.adminStages(r)
		r.everything = t != nil && slices.ContainsFunc(t.Routes, func(route policy.Route) bool {
			return slices.Contains(b.s.Policy.Prefixes(&route), everywhere[0])
		}) || (t == nil || !t.DisableGatewayRoutes) && slices.Contains(n.known, everywhere[0])
		n.routes[t] = r
		b.s.routed = b.s.routed || t != nil
	}
	return r
}

// addRoutes fills the tables that Route searches.
func (b *builder) addRoutes() {
	b.addHosts()
	b.s.outside.routes.direct = &b.s.all
	for _, p := range everywhere {
		b.s.outside.routes.hops.Insert(p, &hop{hosts: &b.s.all, drop: packet.DropNoRoute})
	}
	for _, n := range b.s.networks {
		for _, r := range n.routes {
			if r.table == nil {
				r.direct = &n.hosts
			}
			b.fill(r)
		}
		if n.gateway != nil {
			b.fillGateway(n)
		}
	}
}

// fill enters a subnet's routes, those that win last: system routes, what gateways have
// learned, user-defined routes, and the platform, which no route leads away from. Azure
// prefers the routes within networks and between peers even to longer ones of a gateway
// ("Virtual network traffic routing"), so what a gateway learned of these is left out.
func (b *builder) fill(r *routes) {
	n := r.network
	outside := &hop{kind: policy.HopInternet, endpoint: b.s.outside, drop: packet.DropNoRoute}
	for _, p := range everywhere {
		r.hops.Insert(p, outside)
	}
	none := &hop{kind: policy.HopNone, drop: packet.DropNoRoute}
	for _, p := range unroutable {
		if !b.takesPrivate(r.table, p) {
			r.hops.Insert(p, none)
		}
	}
	local := &hop{kind: policy.HopVnetLocal, hosts: &n.hosts, drop: packet.DropNoRoute}
	for _, p := range n.vnet.AddressSpace {
		r.hops.Insert(p, local)
	}
	for i := range n.peers {
		peer := &n.peers[i]
		h := &hop{kind: HopPeering, drop: packet.DropNoRoute, senders: peer.senders(n)}
		if peer.network != nil {
			h.hosts = &peer.network.hosts
		}
		for _, p := range peer.space {
			r.hops.Insert(p, h)
		}
	}
	if gateway := b.gatewayHop(n); r.table == nil || !r.table.DisableGatewayRoutes {
		for _, p := range n.known {
			if !n.prefers(p) {
				r.hops.Insert(p, gateway)
			}
		}
	}
	b.fillTable(r)
	for _, a := range PlatformAddresses {
		r.hops.Insert(host(a), &hop{kind: policy.HopInternet, endpoint: b.s.platform, drop: packet.DropNoRoute})
	}
}

// takesPrivate reports that a route for everything takes a private range's place too: with one,
// Azure removes its own routes to nowhere ("Virtual network traffic routing", the example's
// Subnet1). The internet takes none of these addresses.
func (b *builder) takesPrivate(t *policy.RouteTable, p netip.Prefix) bool {
	return t != nil && slices.Contains(private, p) && slices.ContainsFunc(t.Routes, func(route policy.Route) bool {
		return route.Hop != policy.HopInternet && slices.ContainsFunc(b.s.Policy.Prefixes(&route), func(all netip.Prefix) bool {
			return all.Bits() == 0 && all.Addr().Is4() == p.Addr().Is4()
		})
	})
}

// fillTable enters user-defined routes. Of equal prefixes the one that a route names wins
// over a service tag's.
func (b *builder) fillTable(r *routes) {
	if r.table == nil {
		return
	}
	for _, tagged := range []bool{true, false} {
		for i := range r.table.Routes {
			route := &r.table.Routes[i]
			if (route.Tag != "") != tagged {
				continue
			}
			h := b.userHop(r, route)
			for _, p := range b.s.Policy.Prefixes(route) {
				r.hops.Insert(p, h)
			}
		}
	}
}

func (b *builder) userHop(r *routes, route *policy.Route) *hop {
	h := &hop{kind: route.Hop, table: r.table, address: route.Appliance, drop: packet.DropNoRoute}
	switch route.Hop {
	case policy.HopVnetLocal:
		h.hosts = &r.network.hosts
	case policy.HopInternet:
		h.endpoint = b.s.outside
	case policy.HopNone:
		h.drop = packet.DropRouteNone
	case policy.HopGateway:
		g := b.gatewayHop(r.network)
		h.endpoint, h.senders, h.drop = g.endpoint, g.senders, packet.DropNextHop
	case policy.HopVirtualAppliance:
		h.endpoint, h.senders = b.appliance(r.network, route.Appliance)
		h.drop = packet.DropNextHop
	}
	return h
}

// appliance finds who has a next hop's address, in the network or with a peer: a NIC that
// forwards, or nobody.
func (b *builder) appliance(n *network, a netip.Addr) (e *Endpoint, senders []netip.Prefix) {
	hosts := &n.hosts
	for i := range n.peers {
		if peer := &n.peers[i]; peer.network != nil && within(peer.space, a) {
			hosts, senders = &peer.network.hosts, peer.senders(n)
		}
	}
	e, _ = hosts.Lookup(a)
	if e == nil || e.NetworkInterface == nil || !e.NetworkInterface.EnableIPForwarding {
		return nil, nil
	}
	// What it sends on is admitted at an attachment of its own only.
	if e.Attachment >= 0 && b.s.Attachments[e.Attachment].Kind != NetworkInterface {
		return nil, nil
	}
	return e, senders
}

// addHosts enters who has which address.
func (b *builder) addHosts() {
	for _, e := range b.subnets {
		for _, p := range e.Subnet.Prefixes {
			owner := e.Subnet.VirtualNetwork
			if first, ok := b.owners.Get(p); ok && first != owner {
				owner = nil
			}
			b.owners.Insert(p, owner)
		}
	}
	for _, e := range b.subnets {
		for _, p := range e.Subnet.Prefixes {
			b.insert(p, e)
			if p.Addr().Is4() && p.Bits() < 31 {
				broadcast := host(lastOf(p))
				b.networks[e.Subnet.VirtualNetwork].hosts.Insert(broadcast, nil)
				b.s.all.Insert(broadcast, nil)
			}
		}
	}
	for _, e := range b.nics {
		b.insert(host(e.address.Netip()), e)
	}
}

// lastOf is the highest address of an IPv4 prefix.
func lastOf(p netip.Prefix) netip.Addr {
	last := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(last)
}

// insert makes e reachable at p in its own network, and from outside unless
// another virtual network has p, or a range that holds it, for a subnet.
func (b *builder) insert(p netip.Prefix, e *Endpoint) {
	vnet := e.Subnet.VirtualNetwork
	b.networks[vnet].hosts.Insert(p, e)
	for _, owner := range b.owners.Supernets(p) {
		if owner != vnet {
			b.s.all.Insert(p, nil)
			return
		}
	}
	b.s.all.Insert(p, e)
}

// peer is a virtual network beyond a peering that carries.
type peer struct {
	peering, back *policy.Peering // back is nil when the policy has not got the other side
	network       *network        // nil when the policy has not got it
	space         []netip.Prefix
}

// senders is the space that packets from n must come from: everything (nil) when the other
// side takes forwarded traffic.
func (p *peer) senders(n *network) []netip.Prefix {
	if p.back != nil && !p.back.AllowForwardedTraffic {
		return n.vnet.AddressSpace
	}
	return nil
}

// addPeers relates networks to those that they reach: peerings that are connected and whose
// sides, as far as the policy has them, both allow access. Peers of peers are not among them.
func (b *builder) addPeers() {
	for _, n := range b.s.networks {
		for i := range n.vnet.Peerings {
			p := &n.vnet.Peerings[i]
			if !p.AllowVirtualNetworkAccess || !n.vnet.Connected(p) {
				continue
			}
			peer := peer{peering: p, space: p.Space()}
			if p.Remote != nil {
				peer.network, peer.back = b.networks[p.Remote], p.Remote.Peering(n.vnet)
				if !peer.back.AllowVirtualNetworkAccess {
					continue
				}
			}
			n.peers = append(n.peers, peer)
		}
	}
}

// prefers reports that a prefix lies within the network or a peer, whose own routes win
// over a gateway's.
func (n *network) prefers(p netip.Prefix) bool {
	holds := func(space netip.Prefix) bool { return space.Bits() <= p.Bits() && space.Contains(p.Addr()) }
	if slices.ContainsFunc(n.vnet.AddressSpace, holds) {
		return true
	}
	return slices.ContainsFunc(n.peers, func(peer peer) bool { return slices.ContainsFunc(peer.space, holds) })
}

// NextHop is what a subnet's routes say of an address.
type NextHop struct {
	Type    policy.NextHopType
	Address netip.Addr         // of a virtual appliance; else not valid
	Table   *policy.RouteTable // of a user-defined route; nil: a system route
}

// NextHop is what the routes of an endpoint's subnet say of a destination.
func (s *Snapshot) NextHop(from *Endpoint, to netip.Addr) NextHop {
	h, _ := from.routes.hops.Lookup(to.Unmap())
	if h == nil {
		return NextHop{Type: policy.HopNone}
	}
	return NextHop{h.kind, h.address, h.table}
}

// Sender is who sends to an endpoint from an address, for questions: in its network or with a peer,
// behind a gateway, the platform, or outside; nil when nobody can.
func (s *Snapshot) Sender(to *Endpoint, from netip.Addr) *Endpoint {
	n := to.routes.network
	if isPlatform(packet.AddrFrom(from)) {
		return s.platform
	}
	if within(n.vnet.AddressSpace, from) {
		e, _ := n.hosts.Lookup(from)
		return e
	}
	for i := range n.peers {
		if peer := &n.peers[i]; peer.network != nil && within(peer.space, from) {
			e, _ := peer.network.hosts.Lookup(from)
			return e
		}
	}
	if within(n.known, from) {
		if lender := n.lender(); lender != nil {
			return lender.network.gateway
		}
		return n.gateway
	}
	if s.space.Contains(from) || within(unroutable, from) {
		return nil
	}
	return s.outside
}
