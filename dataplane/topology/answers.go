package topology

import "github.com/nsgd/nsgd/dataplane/packet"

// Answers is Returns for a packet that is translated: whether what answers it comes by
// where the flow is known. to is where Way has sent it, and with which tuple it arrives there.
// Answers to an address that stands for the sender come by when they are on their way outside.
func (s *Snapshot) Answers(from *Attachment, to *Endpoint, sent, arrives *packet.Tuple) bool {
	if to.routes == s.outside.routes {
		return true
	}
	back, drop := s.Route(to, arrives.Dst, arrives.Src)
	if arrives.Src == sent.Src {
		return drop == packet.NotDropped && back.Attachment == from.Index
	}
	return back != nil && back.routes == s.outside.routes
}
