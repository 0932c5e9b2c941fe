package topology

import (
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Admit finds the endpoint of a packet's source. It is nil when the address does not belong
// to the attachment: the source is spoofed. A load balancer's floating address also belongs
// to its backends, for replies; Way lets no flow begin from it.
func (s *Snapshot) Admit(a *Attachment, src packet.Addr) *Endpoint {
	switch a.Kind {
	case NetworkInterface:
		for _, e := range a.endpoints {
			if e.address == src {
				return e
			}
		}
		for _, e := range a.endpoints {
			if e.hasFloating(src) {
				return e
			}
		}
		if a.forwards && len(a.endpoints) > 0 && !isPlatform(src) {
			return a.endpoints[0]
		}
		return nil
	case Subnet:
		return s.admitSubnet(a, src)
	case Platform:
		if isPlatform(src) {
			return s.platform
		}
		return nil
	case Gateway:
		return s.admitGateway(a, src.Netip())
	}
	if s.public[src] != nil || isPlatform(src) {
		return nil
	}
	if !s.isolated && (s.networks.space.Contains(src.Netip()) || s.networks.learned.Contains(src.Netip())) {
		return nil
	}
	return s.outside
}

// admitSubnet admits the addresses that lead to the attachment, and the floating addresses of
// the backends behind it.
func (s *Snapshot) admitSubnet(a *Attachment, src packet.Addr) *Endpoint {
	for _, e := range a.floating {
		if e.hasFloating(src) {
			return e
		}
	}
	if a.network.frontends[src] != nil {
		return nil
	}
	if e, ok := a.network.hosts.Lookup(src.Netip()); ok && e != nil && e.Attachment == a.Index {
		return e
	}
	return nil
}

// admitGateway admits the prefixes of the gateway, except the addresses of the networks that
// on-premises reaches through it.
func (s *Snapshot) admitGateway(a *Attachment, src netip.Addr) *Endpoint {
	n := a.network
	if s.public[packet.AddrFrom(src)] != nil || !contain(a.prefixes, src) || contain(n.vnet.AddressSpace, src) || isPlatform(packet.AddrFrom(src)) {
		return nil
	}
	for i := range n.peers {
		if contain(n.peers[i].space, src) {
			return nil
		}
	}
	return n.gateway
}

// Endpoint finds a NIC's address. It is nil when the NIC has no such address.
func (s *Snapshot) Endpoint(nic *policy.NetworkInterface, addr netip.Addr) *Endpoint {
	return s.endpoints.byNIC[endpointKey{nic, addr.Unmap()}]
}

// Owner finds the endpoint with an address, as the outside sees it: in a virtual network, the
// platform, or the outside for any other address. It is nil when several virtual networks have
// the address, or when one of them contains it but no host there can have it.
func (s *Snapshot) Owner(a netip.Addr) *Endpoint {
	if isPlatform(packet.AddrFrom(a)) {
		return s.platform
	}
	if e, ok := s.byAddress.Lookup(a); ok {
		return e
	}
	if s.networks.space.Contains(a) {
		return nil
	}
	return s.outside
}

// Sender finds the endpoint that sends to another from an address, for questions: in its network
// or with a peer, behind a gateway, the platform, or outside. It is nil when none can.
func (s *Snapshot) Sender(to *Endpoint, from netip.Addr) *Endpoint {
	n := to.routes.network
	if isPlatform(packet.AddrFrom(from)) {
		return s.platform
	}
	if contain(n.vnet.AddressSpace, from) {
		e, _ := n.hosts.Lookup(from)
		return e
	}
	for i := range n.peers {
		if peer := &n.peers[i]; peer.network != nil && contain(peer.space, from) {
			e, _ := peer.network.hosts.Lookup(from)
			return e
		}
	}
	if contain(n.behindGateway, from) {
		if remote := n.remoteGateway(); remote != nil {
			return remote.network.gateway
		}
		return n.gateway
	}
	if s.networks.space.Contains(from) || contain(unroutable, from) {
		return nil
	}
	return s.outside
}

func isPlatform(a packet.Addr) bool { return a == platformAddrs[0] || a == platformAddrs[1] }
