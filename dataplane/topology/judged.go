package topology

import (
	"net/netip"

	"go4.org/netipx"
)

// Endpoints are all endpoints of virtual networks: NICs in the policy's order, then the other addresses
// of subnets.
func (s *Snapshot) Endpoints() []*Endpoint { return s.endpoints.all() }

// Judged are the addresses of its own for which an endpoint's stages are asked: a NIC's address and the
// frontends that are delivered to it without a rewrite, all addresses where it forwards, and a subnet's
// prefixes.
func (e *Endpoint) Judged() []netip.Prefix {
	switch {
	case e.Subnet == nil:
		return everywhere
	case e.NetworkInterface == nil:
		return e.Subnet.Prefixes
	case e.NetworkInterface.EnableIPForwarding:
		for _, p := range everywhere {
			if p.Contains(e.Address()) {
				return []netip.Prefix{p}
			}
		}
	}
	own := []netip.Prefix{host(e.Address())}
	for _, a := range e.floating {
		own = append(own, host(a.Netip()))
	}
	return own
}

// Closed reports that nothing from the internet reaches a network interface's address, by whatever way it comes.
func (e *Endpoint) Closed() bool { return e.closed }

// ClosedSources are the addresses from which nothing comes in to an endpoint, as ClosedTo says of
// each. IPv6 addresses that embed an address which the internet cannot have are among them.
func (s *Snapshot) ClosedSources(to *Endpoint) []netip.Prefix {
	if !to.closed {
		return nil
	}
	var b netipx.IPSetBuilder
	for _, p := range everywhere {
		b.AddPrefix(p)
	}
	remove := func(prefixes []netip.Prefix) {
		for _, p := range prefixes {
			b.RemovePrefix(p)
		}
	}
	n := to.routes.network
	remove(n.vnet.AddressSpace)
	for i := range n.peers {
		remove(n.peers[i].space)
	}
	remove(n.behindGateway)
	for p := range s.boundary.refused.All() {
		b.RemovePrefix(p)
	}
	for a := range s.public {
		b.Add(a.Netip())
	}
	set, _ := b.IPSet() // only an invalid prefix is an error
	return set.Prefixes()
}

// InternetSources are the addresses that a host on the internet can send from. IPv6 addresses that embed an
// address which the internet cannot have are among them.
func (s *Snapshot) InternetSources() []netip.Prefix {
	var b netipx.IPSetBuilder
	for _, p := range everywhere {
		b.AddPrefix(p)
	}
	for p := range s.boundary.refused.All() {
		b.RemovePrefix(p)
	}
	set, _ := b.IPSet() // only an invalid prefix is an error
	return set.Prefixes()
}
