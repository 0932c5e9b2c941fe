package policy

import "net/netip"

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
	// Remote is the other network, nil when the policy does not hold it.
	Remote *VirtualNetwork
	// RemoteAddressSpace is what the document says of the other's address space,
	// masked; empty when it says nothing.
	RemoteAddressSpace []netip.Prefix
	// AllowVirtualNetworkAccess is true when the document doesn't say.
	AllowVirtualNetworkAccess bool
	// AllowForwardedTraffic lets in what the other network forwards from elsewhere.
	AllowForwardedTraffic bool
	// AllowGatewayTransit lends the other network this one's gateway, UseRemoteGateways
	// borrows the other's.
	AllowGatewayTransit, UseRemoteGateways bool
	State                                  string // one of the constants; empty when not known
}

// Space is the address space of the other network: its own when the policy holds it,
// as if the peering were always synchronised, else what the peering says.
func (p *Peering) Space() []netip.Prefix {
	if p.Remote != nil {
		return p.Remote.AddressSpace
	}
	return p.RemoteAddressSpace
}

// Peering is the network's peering with another; nil when there is none.
func (v *VirtualNetwork) Peering(with *VirtualNetwork) *Peering {
	for i := range v.Peerings {
		if v.Peerings[i].Remote == with && with != nil {
			return &v.Peerings[i]
		}
	}
	return nil
}

// Connected reports whether both sides of a peering of v are there. Where the policy
// holds both networks each must have its peering, and neither may say another state; where it
// holds one, that one must say so.
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
	// DisableGatewayRoutes is disableBgpRoutePropagation: what the gateway has learned is
	// no route here.
	DisableGatewayRoutes bool
}

// Route is a user-defined route.
type Route struct {
	Name string
	// Exactly one of the two is set: Prefix is masked, Tag a service tag.
	Prefix netip.Prefix
	Tag    string
	Hop    NextHopType
	// Appliance is the address of HopVirtualAppliance; else not valid.
	Appliance netip.Addr
}

// Prefixes are those that a route is for.
func (s *Set) Prefixes(r *Route) []netip.Prefix {
	if r.Tag != "" {
		return s.ServiceTags[r.Tag]
	}
	return []netip.Prefix{r.Prefix}
}
