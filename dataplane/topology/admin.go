package topology

import (
	"net/netip"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// adminStages are the rule collections of a virtual network, which stand before the NSGs of
// all that is in it, as the subnets of a route table see them: one stage a collection, in
// the policy's order.
func (b *builder) adminStages(r *routes) (inbound, outbound []Stage) {
	for _, c := range b.s.Policy.AdminCollections {
		for _, v := range c.Networks {
			if v != r.network.vnet {
				continue
			}
			g := b.group(c.Rules, r.view)
			inbound = append(inbound, Stage{NetworkManagerAssociation, ruleset.Inbound, g, &g.Inbound})
			outbound = append(outbound, Stage{NetworkManagerAssociation, ruleset.Outbound, g, &g.Outbound})
		}
	}
	return inbound, outbound
}

// networkGroups are the address spaces of network groups, by id in lower case.
func (b *builder) networkGroups() {
	for _, g := range b.s.Policy.NetworkGroups {
		var space []netip.Prefix
		for _, v := range g.Members {
			space = append(space, v.AddressSpace...)
		}
		b.spaces[strings.ToLower(g.ID)] = space
	}
}
