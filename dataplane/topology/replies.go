package topology

import "github.com/nsgd/nsgd/dataplane/packet"

// Routed reports that replies may take another way than the request came, even to an address
// that the sender has itself.
func (s *Snapshot) Routed() bool { return s.userRoutes }

// RepliesReturn reports whether replies to a packet come back where the packet came from. There its
// flow is known, and its addresses are translated back. w is where Way has sent the packet; its
// port may still be open. The outside and the platform reply the way that they were asked.
// Replies to an address that stands for the sender come back when they are on their way outside.
func (s *Snapshot) RepliesReturn(src *Endpoint, sent *packet.Tuple, w *Way) bool {
	if w.To.routes == s.outside.routes {
		return true
	}
	seen := w.Arrives.Src
	if len(w.Ports) > 0 {
		seen = w.Ports[0].Address
	}
	back, _ := s.Route(w.To, w.Arrives.Dst, seen)
	if seen == sent.Src {
		return back != nil && back.sharesAttachment(src)
	}
	return back != nil && back.routes == s.outside.routes
}

// sharesAttachment reports that two endpoints are behind one attachment. Endpoints without one
// share it when they are the same, or belong to one NIC.
func (e *Endpoint) sharesAttachment(other *Endpoint) bool {
	if e.Attachment >= 0 || other.Attachment >= 0 {
		return e.Attachment == other.Attachment
	}
	return e == other || e.NetworkInterface != nil && e.NetworkInterface == other.NetworkInterface
}
