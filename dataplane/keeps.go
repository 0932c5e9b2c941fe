package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// translates reports whether a packet from an attachment would be translated, or go to
// somebody else than its addresses name.
func translates(s *topology.Snapshot, from int, t *packet.Tuple) bool {
	var way topology.Way
	src := s.Admit(s.Attachments[from], t.Src)
	return src == nil || ofTranslation(s.Way(src, t, &way)) || way.Translated || way.Floating
}

// keepsTranslation reports whether a policy still has the translation of a flow whose ends are
// where they were: the same addresses, and a port that is still to be had.
func keepsTranslation(s *topology.Snapshot, f *conntrack.FlowInfo) bool {
	if !s.Translates() {
		return false
	}
	var way topology.Way
	src := s.Admit(s.Attachments[f.Key.Zone], f.Key.Src)
	to := s.Admit(s.Attachments[f.ReplyKey.Zone], f.Receiver)
	arrives := f.ReplyKey.Reverse()
	_ = to
	if s.Way(src, &f.Key.Tuple, &way) != packet.NotDropped {
		return false
	}
	if way.Floating != (f.Marks&conntrack.Floating != 0) || way.Translated != (f.Marks&conntrack.Translated != 0) ||
		way.To.Attachment != int(f.ReplyKey.Zone) {
		return false
	}
	if way.Ports != nil {
		return has(way.Ports, arrives.Src, arrives.SrcPort) && way.Arrives.Dst == arrives.Dst && way.Arrives.DstPort == arrives.DstPort
	}
	return way.Arrives == arrives
}

// has reports whether a port is one of the ranges'.
func has(ranges []topology.PortRange, a packet.Addr, port uint16) bool {
	for i := range ranges {
		if r := &ranges[i]; r.Address == a && r.First <= port && port <= r.Last {
			return true
		}
	}
	return false
}
