package topology

import (
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Owner is who has an address, as somebody outside finds it: an endpoint of a virtual network, the
// platform, or for any other address the outside. It is nil for an address of several virtual
// networks and for one of a virtual network that nobody there can have.
func (s *Snapshot) Owner(a netip.Addr) *Endpoint {
	if isPlatform(packet.AddrFrom(a)) {
		return s.platform
	}
	if e, ok := s.all.Lookup(a); ok {
		return e
	}
	if s.space.Contains(a) {
		return nil
	}
	return s.outside
}
