package topology

import (
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// KindOf is what an endpoint stands for: where it is attached, or would be.
func (s *Snapshot) KindOf(e *Endpoint) Kind {
	switch {
	case e.NetworkInterface != nil:
		return NetworkInterface
	case e.Subnet != nil:
		return Subnet
	case e == s.platform:
		return Platform
	case e.routes.network != nil:
		return Gateway
	}
	return Internet
}

// VirtualNetwork is the virtual network that an endpoint is in, or that a gateway is of; nil: none.
func (e *Endpoint) VirtualNetwork() *policy.VirtualNetwork {
	if e.routes.network == nil {
		return nil
	}
	return e.routes.network.vnet
}

// StandsFor reports an address that stands for others, or that is held to: a public one of the policy, or a
// frontend in a subnet.
func (s *Snapshot) StandsFor(a netip.Addr) bool {
	of := packet.AddrFrom(a)
	return s.public[of] != nil || slices.ContainsFunc(s.networks.list, func(n *network) bool { return n.frontends[of] != nil })
}
