package topology

import "github.com/nsgd/nsgd/dataplane/packet"

// Answers is Returns for a packet that is translated: whether what answers it comes by
// where the flow is known. w is where Way has sent it, with or without a chosen port.
// Answers to an address that stands for the sender come by when they are on their way outside.
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
