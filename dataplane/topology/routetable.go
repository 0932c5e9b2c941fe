package topology

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

var everywhere = ruleset.Everywhere()

// private are the ranges for which Azure's system routes have no next hop outside the
// virtual network.
var private = append(slices.Clone(ruleset.PrivateIPv4), netip.MustParsePrefix("fc00::/7"))

// unroutable are the private ranges and those that no router forwards: this host, loopback,
// link-local and reserved (RFC 6890; RFC 4291 section 2.5).
var unroutable = append(slices.Clone(private),
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"),
)

// routedSet is the attached endpoints, with routes that lead to them.
type routedSet struct {
	*attachedSet
	// byAddress finds an endpoint from outside. An address of several virtual networks maps to
	// nil, and so does a broadcast address.
	byAddress *bart.Table[*Endpoint]
	unled     []unledHop
}

// fillRoutes fills the tables that Route searches.
func fillRoutes(set *policy.Set, attached *attachedSet) *routedSet {
	s := &routedSet{attachedSet: attached, byAddress: &bart.Table[*Endpoint]{}}
	s.addHosts()
	for _, e := range []*Endpoint{s.outside, s.platform} {
		e.routes.direct = s.byAddress
		for _, p := range everywhere {
			e.routes.hops.Insert(p, &hop{hosts: s.byAddress, drop: packet.DropNoRoute})
		}
	}
	for _, n := range s.networks.list {
		for _, r := range n.routes {
			if r.table == nil {
				r.direct = &n.hosts
			}
			s.fill(set, r)
		}
		if n.gateway != nil {
			s.fillGateway(set, n)
		}
	}
	return s
}

// hidePrivate takes the routes from the internet to private addresses away, where the policy has
// public addresses. Without any the private ones are all that a laboratory has.
func (s *routedSet) hidePrivate(t *translation, reach bool) {
	if t.given && !reach {
		s.outside.routes = noRoutes()
	}
}

// addHosts enters the owner of each address.
func (s *routedSet) addHosts() {
	var owners bart.Table[*policy.VirtualNetwork] // by subnet prefix; nil where several networks have it
	for _, e := range s.subnets {
		for _, p := range e.Subnet.Prefixes {
			owner := e.Subnet.VirtualNetwork
			if first, ok := owners.Get(p); ok && first != owner {
				owner = nil
			}
			owners.Insert(p, owner)
		}
	}
	for _, e := range s.subnets {
		for _, p := range e.Subnet.Prefixes {
			s.addHost(p, e, &owners)
			if p.Addr().Is4() && p.Bits() < 31 {
				broadcast := host(netipx.PrefixLastIP(p))
				s.networks.of[e.Subnet.VirtualNetwork].hosts.Insert(broadcast, nil)
				s.byAddress.Insert(broadcast, nil)
			}
		}
	}
	for _, e := range s.nics {
		s.addHost(host(e.address.Netip()), e, &owners)
	}
}

// addHost makes e reachable at p in its own network. It is reachable from outside too, unless
// another virtual network has a subnet with p or with a range that holds p.
func (s *routedSet) addHost(p netip.Prefix, e *Endpoint, owners *bart.Table[*policy.VirtualNetwork]) {
	vnet := e.Subnet.VirtualNetwork
	s.networks.of[vnet].hosts.Insert(p, e)
	for _, owner := range owners.Supernets(p) {
		if owner != vnet {
			s.byAddress.Insert(p, nil)
			return
		}
	}
	s.byAddress.Insert(p, e)
}

// fill enters a subnet's routes. Later ones win: system routes, gateway routes, user-defined
// routes, and the platform, which no route leads away from. Azure prefers the routes within
// networks, between peers and to service endpoints even to a gateway's longer ones ("Virtual
// network traffic routing"), so fill leaves those of the gateway out.
func (s *routedSet) fill(set *policy.Set, r *routes) {
	n := r.network
	outside := &hop{kind: policy.HopInternet, endpoint: s.outside, drop: packet.DropNoRoute}
	for _, p := range everywhere {
		r.enter(RouteDefault, "", outside, p)
	}
	none := &hop{kind: policy.HopNone, drop: packet.DropNoRoute}
	for _, p := range unroutable {
		switch {
		case replacesPrivate(set, r.table, p):
		case slices.Contains(private, p):
			r.enter(RouteDefault, "", none, p)
		default:
			r.hops.Insert(p, none)
		}
	}
	for _, p := range s.networks.besides { // a private network outside
		if h, _ := r.hops.LookupPrefix(p); h == none {
			r.hops.Insert(p, outside)
		}
	}
	n.fillLocal(r)
	for i := range r.peers {
		peer := &r.peers[i]
		h := &hop{kind: HopPeering, drop: packet.DropNoRoute, senders: peer.senders(n)}
		if peer.network != nil {
			h.hosts = &peer.network.hosts
		}
		r.enter(RouteDefault, "", h, peer.space...)
	}
	s.fillServiceEndpoints(set, r)
	learns := r.table == nil || !r.table.DisableGatewayRoutes
	if learns && !n.sharesHub() {
		s.fillLearned(r)
	}
	s.fillPrivateEndpoints(set, r)
	s.fillUser(set, r)
	for _, a := range PlatformAddresses {
		r.hops.Insert(host(a), &hop{kind: policy.HopInternet, endpoint: s.platform, drop: packet.DropNoRoute})
	}
	if learns && n.sharesHub() {
		s.shareLearned(r, outside, none)
	}
}

// fillLearned enters the routes of gateways and of a virtual hub.
func (s *routedSet) fillLearned(r *routes) {
	gateway := r.network.gatewayHop()
	for _, p := range r.behindGateway {
		h := gateway
		if other := s.networks.hubNetwork(r.network, p); other != nil {
			h = &hop{kind: policy.HopGateway, hosts: &other.hosts, drop: packet.DropNoRoute}
		}
		if r.learns(p) {
			r.enter(RouteGateway, "", h, p)
		}
	}
}

// learns reports that no route of the system keeps one of a gateway out.
func (r *routes) learns(p netip.Prefix) bool {
	return !r.hasSystemRoute(p) && !r.serviced.LookupPrefix(p)
}

// fillLocal enters the network's own address space.
func (n *network) fillLocal(r *routes) {
	local := &hop{kind: policy.HopVnetLocal, hosts: &n.hosts, drop: packet.DropNoRoute}
	r.enter(RouteDefault, "", local, n.vnet.AddressSpace...)
}

// fillGateway enters the routes for packets from on-premises: to the network, to the peers
// that use its gateway, and those of the gateway subnet's route table. None leads to the
// internet by itself.
func (s *routedSet) fillGateway(set *policy.Set, n *network) {
	r := &routes{network: n, peers: n.peers, hops: &bart.Table[*hop]{}}
	n.gateway.routes = r
	for _, sub := range n.vnet.Subnets {
		if strings.EqualFold(sub.Name, gatewaySubnet) {
			r.table = sub.RouteTable
		}
	}
	n.fillLocal(r)
	for i := range n.peers {
		peer := &n.peers[i]
		if peer.network == nil {
			continue
		}
		if remote := peer.network.remoteGateway(); remote == nil || remote.network != n {
			continue
		}
		h := &hop{kind: HopPeering, hosts: &peer.network.hosts, drop: packet.DropNoRoute}
		r.enter(RouteDefault, "", h, peer.space...)
	}
	s.fillPrivateEndpoints(set, r)
	s.fillUser(set, r)
}

// fillPrivateEndpoints enters a route to each private endpoint of the network and of its peers. Being
// the longest it wins, unless a user-defined route has the same prefix, or takes its place.
func (s *routedSet) fillPrivateEndpoints(set *policy.Set, r *routes) {
	for _, e := range s.nics {
		if !e.private() {
			continue
		}
		h := &hop{kind: HopPrivateEndpoint, drop: packet.DropNoRoute}
		if own := s.networks.of[e.Subnet.VirtualNetwork]; own == r.network {
			h.hosts = &own.hosts
		} else if i := slices.IndexFunc(r.peers, func(p peer) bool { return p.network == own && contain(p.space, e.Address()) }); i >= 0 {
			h.hosts, h.senders = &own.hosts, r.peers[i].senders(r.network)
		} else {
			continue
		}
		if e.takenOver(set, r.table) {
			r.list(RouteDefault, "", h, host(e.Address()))
		} else {
			r.enter(RouteDefault, "", h, host(e.Address()))
		}
	}
}

// fillServiceEndpoints enters the routes of a subnet's service endpoints. What takes them leaves as it
// was sent, and needs no way to the internet.
func (s *routedSet) fillServiceEndpoints(set *policy.Set, r *routes) {
	for _, tag := range r.services {
		r.enter(RouteDefault, "", &hop{kind: HopServiceEndpoint, endpoint: s.services, drop: packet.DropNoRoute}, set.ServiceTags[tag]...)
		for _, p := range set.ServiceTags[tag] {
			r.serviced.Insert(p)
		}
	}
}

// takenOver reports that a route of a table takes the place of the route to a private endpoint: the
// endpoint's subnet lets routes hold for it, and the prefix is no wider than the network's own
// ("Manage network policies for private endpoints").
func (e *Endpoint) takenOver(set *policy.Set, t *policy.RouteTable) bool {
	if t == nil || !e.Subnet.EndpointPolicies.RouteTable {
		return false
	}
	a, widest := e.Address(), 0
	for _, space := range e.Subnet.VirtualNetwork.AddressSpace {
		if space.Contains(a) {
			widest = space.Bits()
		}
	}
	return slices.ContainsFunc(t.Routes, func(route policy.Route) bool {
		return slices.ContainsFunc(set.Prefixes(&route), func(p netip.Prefix) bool { return p.Bits() >= widest && p.Contains(a) })
	})
}

// replacesPrivate reports that a route table's default route also covers a private range. With
// such a route Azure removes its own routes to nowhere ("Virtual network traffic routing", the
// example's Subnet1). A default route to the internet covers none.
func replacesPrivate(set *policy.Set, t *policy.RouteTable, p netip.Prefix) bool {
	return t != nil && slices.Contains(private, p) && slices.ContainsFunc(t.Routes, func(route policy.Route) bool {
		return route.Hop != policy.HopInternet && slices.ContainsFunc(set.Prefixes(&route), func(all netip.Prefix) bool {
			return all.Bits() == 0 && all.Addr().Is4() == p.Addr().Is4()
		})
	})
}

// fillUser enters user-defined routes. A route that names a prefix wins over a service tag's
// equal prefix. None overrides the route of a service endpoint, not even with a longer prefix
// ("Virtual network traffic routing"): it is listed, and never active.
func (s *routedSet) fillUser(set *policy.Set, r *routes) {
	if r.table == nil {
		return
	}
	for _, tagged := range []bool{true, false} {
		for i := range r.table.Routes {
			route := &r.table.Routes[i]
			if (route.Tag != "") != tagged {
				continue
			}
			h, prefixes := s.userHop(r, route), set.Prefixes(route)
			r.list(RouteUser, route.Name, h, prefixes...)
			for _, p := range prefixes {
				if !r.serviced.LookupPrefix(p) {
					r.hops.Insert(p, h)
				}
			}
		}
	}
}

func (s *routedSet) userHop(r *routes, route *policy.Route) *hop {
	h := &hop{kind: route.Hop, table: r.table, address: route.Appliance, drop: packet.DropNoRoute}
	switch route.Hop {
	case policy.HopVnetLocal:
		h.hosts = &r.network.hosts
	case policy.HopInternet:
		h.endpoint = s.outside
	case policy.HopNone:
		h.drop = packet.DropRouteNone
	case policy.HopGateway:
		g := r.network.gatewayHop()
		h.endpoint, h.senders, h.drop = g.endpoint, g.senders, packet.DropNextHop
	case policy.HopVirtualAppliance:
		s.leadToAppliance(h, r)
		h.drop = packet.DropNextHop
	}
	return h
}

// leadToAppliance finds the NIC with a hop's address, in the network or with a peer. The hop leads
// nowhere unless the NIC forwards, or the address is that of a load balancer, see balance.
func (s *routedSet) leadToAppliance(h *hop, r *routes) {
	at := r.network
	for i := range r.peers {
		if peer := &r.peers[i]; peer.network != nil && contain(peer.space, h.address) {
			at, h.senders = peer.network, peer.senders(r.network)
		}
	}
	if e, _ := at.hosts.Lookup(h.address); e != nil && s.forwards(e) {
		h.endpoint = e
	} else {
		s.unled = append(s.unled, unledHop{h, at})
	}
}

// forwards reports that an endpoint sends on what is not for it. Only an attachment of its own admits
// what it sends on.
func (s *routedSet) forwards(e *Endpoint) bool {
	return e.NetworkInterface != nil && e.NetworkInterface.EnableIPForwarding &&
		(e.Attachment < 0 || e.Elsewhere || s.attachments[e.Attachment].Kind == NetworkInterface)
}

// unledHop is a hop whose address is of no appliance, and the network that has the address.
type unledHop struct {
	*hop
	at *network
}

// balance leads hops to the backends of the internal load balancers whose frontends they name. The
// load balancer needs a rule for every port (HA ports), since a route knows none.
func (s *routedSet) balance() {
	for _, h := range s.unled {
		f := h.at.frontends[packet.AddrFrom(h.address)]
		if f == nil || f.anyPort == nil {
			continue
		}
		h.balanced = f.anyPort
		for i := range f.anyPort.backends {
			b := &f.anyPort.backends[i]
			b.forwards = s.forwards(b.to)
		}
	}
}

// contain reports whether one of the prefixes holds an address.
func contain(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
