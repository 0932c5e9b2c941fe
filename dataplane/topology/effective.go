package topology

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// RouteSource says where a route comes from, in the words of Azure's effective routes.
type RouteSource string

// The sources of routes.
const (
	RouteDefault RouteSource = "Default"
	RouteUser    RouteSource = "User"
	RouteGateway RouteSource = "VirtualNetworkGateway"
)

// EffectiveRoute is a route of a subnet, whether it decides or another one has its place.
type EffectiveRoute struct {
	Source   RouteSource
	Name     string         // of a user-defined route; else empty
	Prefixes []netip.Prefix // shared; must not be changed
	Type     policy.NextHopType
	Address  netip.Addr // of a virtual appliance; else not valid
	// Active means that the route decides for one of its prefixes.
	Active bool

	hop *hop
}

// enter enters a route. Later ones win over earlier ones with the same prefix.
func (r *routes) enter(source RouteSource, name string, h *hop, prefixes ...netip.Prefix) {
	r.list(source, name, h, prefixes...)
	for _, p := range prefixes {
		r.hops.Insert(p, h)
	}
}

// list notes a route for EffectiveRoutes.
func (r *routes) list(source RouteSource, name string, h *hop, prefixes ...netip.Prefix) {
	if len(prefixes) > 0 {
		r.entered = append(r.entered, EffectiveRoute{Source: source, Name: name, Prefixes: prefixes, Type: h.kind, Address: h.address, hop: h})
	}
}

// EffectiveRoutes lists the routes of an endpoint's subnet in Azure's order: those of the system, of
// gateways, and the user-defined ones. Those to the platform's addresses, and to addresses that no
// router forwards, are not told.
func (s *Snapshot) EffectiveRoutes(of *Endpoint) []EffectiveRoute {
	var all []EffectiveRoute
	for _, r := range slices.Concat(of.routes.entered, of.routes.learned()) {
		for _, p := range r.Prefixes {
			h, _ := of.routes.hops.Get(p)
			r.Active = r.Active || h == r.hop
		}
		replaced := !r.Active && r.Source == RouteDefault && r.Type == policy.HopNone // by the network's own space
		if !replaced && of.routes.network.hasFamily(r.Prefixes[0]) {
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(a, b EffectiveRoute) int { return cmp.Compare(a.rank(), b.rank()) })
	return all
}

// RouteTable is the route table that holds for an endpoint; nil: none.
func (s *Snapshot) RouteTable(of *Endpoint) *policy.RouteTable { return of.routes.table }

// rank is the route's place among the others.
func (r *EffectiveRoute) rank() int {
	switch r.Source {
	case RouteGateway:
		return 10
	case RouteUser:
		return 11
	}
	return slices.Index([]policy.NextHopType{policy.HopVnetLocal, HopPeering, policy.HopInternet, policy.HopNone, HopServiceEndpoint, HopPrivateEndpoint}, r.Type)
}

// hasFamily reports that a network has addresses of a prefix's family.
func (n *network) hasFamily(p netip.Prefix) bool {
	return slices.ContainsFunc(n.vnet.AddressSpace, func(own netip.Prefix) bool { return own.Addr().Is4() == p.Addr().Is4() })
}
