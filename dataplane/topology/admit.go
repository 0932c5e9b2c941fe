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
		return sentBy(a.endpoints, a.forwards, src)
	case Subnet:
		return a.admitSubnet(src)
	case Platform:
		if IsPlatform(src) {
			return s.platform
		}
		return nil
	case Gateway:
		return s.behind(a.network, src)
	case Vacant:
		return nil
	case Fabric:
		return s.admitFabric(a.fabric, src)
	}
	return s.external(src)
}

// AdmitAt is Admit for a NIC, whether something is attached to it or not. Behind its subnet's attachment
// it sends from its own addresses alone.
func (s *Snapshot) AdmitAt(nic *policy.NetworkInterface, src netip.Addr) *Endpoint {
	var own []*Endpoint
	forwards := nic.EnableIPForwarding
	for i := range nic.IPConfigurations {
		if e := s.Endpoint(nic, nic.IPConfigurations[i].Address); e != nil {
			own = append(own, e)
			forwards = forwards && (e.Attachment < 0 || s.Attachments[e.Attachment].Kind != Subnet)
		}
	}
	return sentBy(own, forwards, packet.AddrFrom(src))
}

// sentBy is the endpoint of a NIC that sends from an address. One that forwards sends for
// others, but never for the platform or from an address that no host has.
func sentBy(own []*Endpoint, forwards bool, src packet.Addr) *Endpoint {
	if IsPlatform(src) { // whatever addresses it is given
		return nil
	}
	for _, e := range own {
		if e.address == src {
			return e
		}
	}
	for _, e := range own {
		if e.hasFloating(src) {
			return e
		}
	}
	if forwards && len(own) > 0 && !src.IsReserved() {
		return own[0]
	}
	return nil
}

// admitSubnet admits the addresses that lead to the attachment, and the floating addresses of
// the backends behind it.
func (a *Attachment) admitSubnet(src packet.Addr) *Endpoint {
	if IsPlatform(src) { // a member may have been given its address
		return nil
	}
	for _, e := range a.floating {
		if e.hasFloating(src) {
			return e
		}
	}
	if e := a.network.member(src); e != nil && e.Attachment == a.Index {
		return e
	}
	return nil
}

// member is the endpoint of a network that sends from an address of it. Nothing sends from the
// frontend of a load balancer, or from a broadcast address.
func (n *network) member(src packet.Addr) *Endpoint {
	if n.frontends[src] != nil {
		return nil
	}
	e, _ := n.hosts.Lookup(src.Netip())
	return e
}

// behind is the gateway of a network if somebody behind it can have an address: one of its
// prefixes, except the addresses of the networks that on-premises reaches through it.
func (s *Snapshot) behind(n *network, src packet.Addr) *Endpoint {
	a := src.Netip()
	if s.public[src] != nil || !contain(n.behindOwn, a) || contain(n.notBehind, a) || IsPlatform(src) {
		return nil
	}
	return n.gateway
}

// external is the outside if a host on the internet can have an address.
func (s *Snapshot) external(src packet.Addr) *Endpoint {
	if s.options.Isolated && !IsPlatform(src) || !s.options.Isolated && s.boundary.admits(src) {
		return s.outside
	}
	return nil
}

// Endpoint finds a NIC's address. It is nil when the NIC has no such address.
func (s *Snapshot) Endpoint(nic *policy.NetworkInterface, addr netip.Addr) *Endpoint {
	return s.endpoints.byNIC[endpointKey{nic, addr.Unmap()}]
}

// Owner finds the endpoint with an address, as the outside sees it: in a virtual network, the
// platform, or the outside, where public addresses of the policy are too. It is nil when several
// virtual networks have the address, and when nobody can have it.
func (s *Snapshot) Owner(a netip.Addr) *Endpoint {
	src := packet.AddrFrom(a)
	if IsPlatform(src) {
		return s.platform
	}
	if e, ok := s.byAddress.Lookup(a); ok {
		return e
	}
	if s.public[src] != nil {
		return s.outside
	}
	return s.external(src)
}

// Foreign reports an address that is of no virtual network and not the platform's. If it has no
// Owner, nobody on the internet can have it.
func (s *Snapshot) Foreign(a netip.Addr) bool {
	return !s.networks.space.Contains(a) && !IsPlatform(packet.AddrFrom(a))
}

// Sender finds the endpoint that sends to another from an address, for questions: in its network
// or with a peer, behind a gateway, the platform, or outside. It is nil when none can. Admit
// decides by the same functions.
func (s *Snapshot) Sender(to *Endpoint, from netip.Addr) *Endpoint {
	return s.sender(to.routes, from)
}

// SenderInto is Sender for what is sent into a subnet, to a frontend there say.
func (s *Snapshot) SenderInto(sub *policy.Subnet, from netip.Addr) *Endpoint {
	return s.sender(s.networks.of[sub.VirtualNetwork].routesOf(sub), from)
}

func (s *Snapshot) sender(to *routes, from netip.Addr) *Endpoint {
	n, src := to.network, packet.AddrFrom(from)
	if IsPlatform(src) {
		return s.platform
	}
	if contain(n.vnet.AddressSpace, from) {
		return n.member(src)
	}
	for i := range to.peers {
		if peer := &to.peers[i]; peer.network != nil && contain(peer.space, from) {
			return peer.network.member(src)
		}
	}
	if other := s.networks.hubNetwork(n, host(from)); other != nil {
		return other.member(src)
	}
	if contain(to.behindGateway, from) {
		if remote := n.remoteGateway(); remote != nil {
			n = remote.network
		}
		return s.behind(n, src)
	}
	return s.external(src)
}

// ClosedTo reports that a NIC's endpoint lets nothing in from where an address is: the internet. It has
// a public address, or is behind a load balancer, that is closed without an NSG.
func (s *Snapshot) ClosedTo(to *Endpoint, from netip.Addr) bool {
	return to.closed && (s.public[packet.AddrFrom(from)] != nil || s.Sender(to, from) == s.outside)
}

// IsPlatform reports one of PlatformAddresses.
func IsPlatform(a packet.Addr) bool {
	return a == platformAddrs[0] || a == platformAddrs[1] || a == platformAddrs[2]
}
