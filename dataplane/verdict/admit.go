package verdict

import (
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// Admit finds who sent a packet that came from an attachment, and refuses what no virtual network
// carries.
func Admit(s *topology.Snapshot, from *topology.Attachment, t *packet.Tuple) (*topology.Endpoint, packet.Drop) {
	drop := Carried(t)
	if drop == packet.DropLand && from.FromFabric() {
		drop = packet.NotDropped // a backend with floating IP has asked its own frontend
	}
	if drop != packet.NotDropped {
		return nil, drop
	}
	src := s.Admit(from, t.Src)
	if src == nil {
		return nil, packet.DropSpoofed
	}
	return src, packet.NotDropped
}

// Carried is what Admit refuses whoever has sent it: by its addresses alone.
func Carried(t *packet.Tuple) packet.Drop {
	switch {
	case t.Dst.IsMulticast():
		if t.Src.IsLinkLocal() || t.Src.IsUnspecified() || t.Dst.IsLinkLocalMulticast() {
			return packet.DropKernelNoise
		}
		return packet.DropBroadcast
	case t.Dst.IsBroadcast():
		return packet.DropBroadcast
	case !t.Src.Is4() && (strayLinkLocal(t.Src) || strayLinkLocal(t.Dst)):
		return packet.DropKernelNoise
	case t.Src == t.Dst:
		return packet.DropLand
	case t.Src.IsReserved():
		return packet.DropSpoofed
	}
	return packet.NotDropped
}

// strayLinkLocal reports a link-local address that is not the one of health probes.
func strayLinkLocal(a packet.Addr) bool { return a.IsLinkLocal() && !topology.IsPlatform(a) }
