package topology

import "github.com/nsgd/nsgd/dataplane/packet"

// Routed reports that replies may take another way than the request came, even to an address
// that the sender has itself.
func (s *Snapshot) Routed() bool { return s.userRoutes }

// Returns reports whether replies to a packet go back to the attachment that it came from.
// dst is where Route has sent it. The outside and the platform reply the way that they were
// asked.
func (s *Snapshot) Returns(from *Attachment, dst *Endpoint, t *packet.Tuple) bool {
	if dst.routes == s.outside.routes {
		return true
	}
	back, drop := s.Route(dst, t.Dst, t.Src)
	return drop == packet.NotDropped && back.Attachment == from.Index
}

// Answers is Returns for a translated packet: it reports whether replies pass where the flow
// is known. w is where Way has sent the packet; its port may still be open. Replies to an
// address that stands for the sender pass when they are on their way outside.
func (s *Snapshot) Answers(from *Attachment, sent *packet.Tuple, w *Way) bool {
	if w.To.routes == s.outside.routes {
		return true
	}
	seen := w.Arrives.Src
	if len(w.Ports) > 0 {
		seen = w.Ports[0].Address
	}
	back, drop := s.Route(w.To, w.Arrives.Dst, seen)
	if seen == sent.Src {
		return drop == packet.NotDropped && back.Attachment == from.Index
	}
	return back != nil && back.routes == s.outside.routes
}
