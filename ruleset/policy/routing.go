package policy

import (
	"net/netip"
	"slices"
)

// The states of a peering.
const (
	PeeringInitiated    = "Initiated"
	PeeringConnected    = "Connected"
	PeeringDisconnected = "Disconnected"
)

// Peering is one direction of a VNet's peering with another.
type Peering struct {
	Name                   string
	RemoteVirtualNetworkID string
	// Remote is the other network; nil when the policy does not hold it.
	Remote *VirtualNetwork
	// RemoteAddressSpace is the other network's address space according to the document,
	// masked. Empty when the document does not have it.
	RemoteAddressSpace []netip.Prefix
	// OfSubnets means that not the whole networks are peered: only LocalSubnets reach, and are reached
	// from, RemoteSubnets of Remote.
	OfSubnets                   bool
	LocalSubnets, RemoteSubnets []*Subnet
	// OnlyIPv6 means that no IPv4 addresses are peered.
	OnlyIPv6 bool
	// AllowVirtualNetworkAccess is true unless the document says otherwise.
	AllowVirtualNetworkAccess bool
	// AllowForwardedTraffic lets in traffic that the other network forwards for others.
	AllowForwardedTraffic bool
	// AllowGatewayTransit lends this network's gateway to the other one; UseRemoteGateways
	// borrows the other's.
	AllowGatewayTransit, UseRemoteGateways bool
	State                                  string // one of the constants; empty when not known
}

// Space is what is peered of the other network. If the policy holds that network, its own
// address space and subnets count, as if the peering were always synchronised.
func (p *Peering) Space() (space []netip.Prefix) {
	switch {
	case p.Remote == nil:
		space = p.RemoteAddressSpace
	case p.OfSubnets:
		for _, s := range p.RemoteSubnets {
			space = append(space, s.Prefixes...)
		}
	default:
		space = p.Remote.AddressSpace
	}
	if p.OnlyIPv6 {
		space = slices.DeleteFunc(slices.Clone(space), func(p netip.Prefix) bool { return p.Addr().Is4() })
	}
	return space
}

// Takes reports whether a subnet of the peering's own network is peered.
func (p *Peering) Takes(s *Subnet) bool { return !p.OfSubnets || slices.Contains(p.LocalSubnets, s) }

// Peering is the network's peering with another network; nil when there is none.
func (v *VirtualNetwork) Peering(with *VirtualNetwork) *Peering {
	for i := range v.Peerings {
		if v.Peerings[i].Remote == with && with != nil {
			return &v.Peerings[i]
		}
	}
	return nil
}

// Connected reports whether both sides of a peering of v are there. If the policy holds
// both networks, each must have its peering, in state Connected or in none. If it holds
// one, that one's state must be Connected.
func (v *VirtualNetwork) Connected(p *Peering) bool {
	if p.Remote == nil {
		return p.State == PeeringConnected
	}
	back := p.Remote.Peering(v)
	return back != nil && mayBeConnected(p) && mayBeConnected(back)
}

func mayBeConnected(p *Peering) bool { return p.State == "" || p.State == PeeringConnected }

// NextHopType says where a route leads, in Azure's words.
type NextHopType string

// The next hop types of user-defined routes.
const (
	HopVnetLocal        NextHopType = "VnetLocal"
	HopInternet         NextHopType = "Internet"
	HopVirtualAppliance NextHopType = "VirtualAppliance"
	HopNone             NextHopType = "None"
	HopGateway          NextHopType = "VirtualNetworkGateway"
)

// RouteTable is a route table.
type RouteTable struct {
	Name   string
	ID     string
	Routes []Route // in the document's order
	// DisableGatewayRoutes is disableBgpRoutePropagation: routes that the gateway has
	// learned do not count here.
	DisableGatewayRoutes bool
}

// Route is a user-defined route.
type Route struct {
	Name string
	// Exactly one of Prefix, which is masked, and Tag, a service tag, is set.
	Prefix netip.Prefix
	Tag    string
	Hop    NextHopType
	// Appliance is the address of a HopVirtualAppliance; else not valid. A HopNone may have one, which
	// only answers show.
	Appliance netip.Addr
}

// Prefixes are the destinations of a route.
func (s *Set) Prefixes(r *Route) []netip.Prefix {
	if r.Tag != "" {
		return s.ServiceTags[r.Tag]
	}
	return []netip.Prefix{r.Prefix}
}
