package topology

import (
	"net/netip"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// view is what tags mean in some subnets: all those where VirtualNetwork is the same.
type view struct {
	key string // the prefixes of VirtualNetwork: equal for equal views of any snapshot
	// virtualNetwork is the tag of that name.
	virtualNetwork []netip.Prefix
	// tags are the expansions of the tags that rules name here: every rule that names
	// a tag has the same slice, which compiling needs to do a tag's work only once.
	tags map[string][]netip.Prefix
}

// viewOf makes the view of a VirtualNetwork tag once.
func (b *builder) viewOf(virtualNetwork []netip.Prefix) *view {
	var key strings.Builder
	for _, p := range virtualNetwork {
		key.WriteString(p.String())
		key.WriteByte(' ')
	}
	v := b.views[key.String()]
	if v == nil {
		v = &view{key: key.String(), virtualNetwork: virtualNetwork, tags: map[string][]netip.Prefix{}}
		b.views[v.key] = v
	}
	return v
}

// virtualNetworkTag is the VirtualNetwork tag as the subnets of a network with a route
// table see it: the network, the peers that it reaches by its own side of the peering, what a
// gateway has learned unless the table keeps it out, and the prefixes of the table's routes,
// whatever their next hop.
func (b *builder) virtualNetworkTag(n *network, t *policy.RouteTable) []netip.Prefix {
	space := append([]netip.Prefix(nil), n.vnet.AddressSpace...)
	for i := range n.vnet.Peerings {
		if p := &n.vnet.Peerings[i]; p.AllowVirtualNetworkAccess && n.vnet.Connected(p) {
			space = append(space, p.Space()...)
		}
	}
	if t == nil || !t.DisableGatewayRoutes {
		space = append(space, n.known...)
	}
	if t != nil {
		for i := range t.Routes {
			space = append(space, b.s.Policy.Prefixes(&t.Routes[i])...)
		}
	}
	return ruleset.VirtualNetworkPrefixes(space)
}
