package topology

import (
	"net/netip"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// HopPeering is the next hop type of a peered network's address space. No user-defined route
// can have it.
const HopPeering policy.NextHopType = "VirtualNetworkPeering"

// HopServiceEndpoint is the next hop type of a service endpoint's addresses. No user-defined route
// can have it.
const HopServiceEndpoint policy.NextHopType = "VirtualNetworkServiceEndpoint"

// HopPrivateEndpoint is the next hop type of a private endpoint's address. No user-defined route
// can have it.
const HopPrivateEndpoint policy.NextHopType = "InterfaceEndpoint"

// routes are what a virtual network's subnets share that have the same route table, or none, the
// same service endpoints and the same peers: where packets go from there, and what tags mean there.
type routes struct {
	network *network           // nil for the outside and the platform
	table   *policy.RouteTable // nil: none
	// services are the service tags of the subnets' service endpoints.
	services []string
	serviced bart.Lite // the prefixes of services
	// peers are the peers that the subnets reach, behindGateway the prefixes behind the gateway that they
	// use.
	peers         []peer
	behindGateway []netip.Prefix
	view          *view
	hops          *bart.Table[*hop] // by destination; not nil
	entered       []EffectiveRoute  // in the order of their entry, without those of hub
	hub           *hubTable         // whose nodes hops shares; nil: none
	// adminInbound and adminOutbound are the rule collections that apply to the network.
	adminInbound, adminOutbound []Stage
	hasDefault                  bool // the table or a gateway has a route for 0.0.0.0/0
	// direct holds the destinations that only the network's own routes can lead to. It saves
	// most packets the search for a hop; nil: every packet searches.
	direct *bart.Table[*Endpoint]
}

// noRoutes leads nowhere.
func noRoutes() *routes { return &routes{hops: &bart.Table[*hop]{}} }

// hop is where a route leads.
type hop struct {
	kind    policy.NextHopType
	table   *policy.RouteTable // of a user-defined route; nil: a system route
	address netip.Addr         // of a virtual appliance
	// hosts finds the destination itself. If hosts is nil, endpoint is the next hop, or nil
	// for none.
	hosts    *bart.Table[*Endpoint]
	endpoint *Endpoint
	// balanced is the rule for every port of the load balancer that is the next hop; nil: none is.
	balanced *frontendRule
	// senders are the prefixes that a packet must come from when the network beyond a peering
	// takes nothing forwarded; nil: any.
	senders []netip.Prefix
	// drop is the reason when there is no endpoint, or nothing is attached to it.
	drop packet.Drop
}

// Route finds where a packet with these addresses goes that src sends. The longest prefix of
// src's routes leads to the endpoint that has the destination, or to a virtual appliance on
// the way. Without a route the endpoint is nil; if nothing is attached to the endpoint, it
// comes with the reason to drop.
func (s *Snapshot) Route(src *Endpoint, from, to packet.Addr) (*Endpoint, packet.Drop) {
	return s.route(src, from, to, nil)
}

func (s *Snapshot) route(src *Endpoint, from, to packet.Addr, c *choices) (*Endpoint, packet.Drop) {
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
	if h.senders != nil && !contain(h.senders, from.Netip()) {
		return nil, packet.DropForwarded
	}
	e := h.endpoint
	switch {
	case h.hosts != nil:
		e, _ = h.hosts.Lookup(to.Netip())
	case h.balanced != nil:
		e = h.balanced.forwarder(s.options.Seed, from, to, c)
	}
	if e == nil || e.Attachment < 0 {
		return e, h.drop
	}
	return e, packet.NotDropped
}

// RouteFrom is Route for questions: a NIC or a subnet sends from its own address, or a host
// outside when from is nil.
func (s *Snapshot) RouteFrom(from *Endpoint, to netip.Addr) *Endpoint {
	if from == nil {
		from = s.outside
	}
	e, _ := s.Route(from, from.address, packet.AddrFrom(to))
	return e
}

// NextHop is what a subnet's routes say about an address.
type NextHop struct {
	Type    policy.NextHopType
	Address netip.Addr         // of a virtual appliance; else not valid
	Table   *policy.RouteTable // of a user-defined route; nil: a system route
}

// NextHop is what the routes of an endpoint's subnet say about a destination.
func (s *Snapshot) NextHop(from *Endpoint, to netip.Addr) NextHop {
	h, _ := from.routes.hops.Lookup(to.Unmap())
	if h == nil {
		return NextHop{Type: policy.HopNone}
	}
	return NextHop{h.kind, h.address, h.table}
}
