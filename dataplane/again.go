package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// judgeAgain judges a live flow by a packet of its original direction, if an NSG with
// flushConnection has changed on its way since it was judged. The other direction's packets
// are no flow's first, so rules say nothing of them. A flow that is denied, or that would go
// elsewhere now, ends; lives is false then, and drop says whether the packet may begin
// another.
func (w *worker) judgeAgain(s *topology.Snapshot, src *topology.Endpoint, f conntrack.Flow, p *packet.Packet) (drop packet.Drop, lives bool) {
	d := &w.decision
	zone := w.flows.PeerZone(f, conntrack.Original)
	flushed := src.Flushed
	_, whole := w.engine.Attachment(zone)
	switch {
	case !whole: // the receiver's end is judged by itself
	case w.flows.Marks(f)&(conntrack.Translated|conntrack.Floating) != 0:
		// Its receiver is the one that it was translated for, which its addresses do not tell.
		dst := s.Admit(s.Attachments[zone], w.flows.Receiver(f))
		if dst == nil {
			w.flows.End(f, conntrack.EndFlushed)
			return packet.DropNoRoute, false
		}
		arrives := w.flows.Becomes(f, conntrack.Original)
		d.Along(s, src, dst, &p.Tuple, &arrives)
		flushed = max(flushed, dst.Flushed)
	default:
		if d.Route(s, src, &p.Tuple); d.Way.To != nil {
			flushed = max(flushed, d.Way.To.Flushed)
		}
	}
	if flushed <= w.flows.Generation(f) {
		w.flows.Stands(f, uint32(s.Generation))
		return packet.NotDropped, true
	}
	if whole {
		d.Send(p)
		d.Receive(p)
	} else {
		d.AskSender(s, src, p)
	}
	if d.Drop != packet.NotDropped {
		w.flows.End(f, conntrack.EndDenied)
		return w.denied(p), false
	}
	if whole && uint16(d.Way.To.Attachment) != zone {
		w.flows.End(f, conntrack.EndFlushed)
		return packet.NotDropped, false
	}
	slots := d.Verdict.Slots()
	w.flows.Judged(f, uint32(s.Generation), &slots)
	return packet.NotDropped, true
}

// judgeThere is judgeAgain for the record at the receiver's end of a leg.
func (w *worker) judgeThere(s *topology.Snapshot, f conntrack.Flow, p *packet.Packet) packet.Drop {
	d := &w.decision
	if d.Way.To.Flushed <= w.flows.Generation(f) {
		w.flows.Stands(f, uint32(s.Generation))
		return packet.NotDropped
	}
	if drop := d.Receive(p); drop != packet.NotDropped {
		w.flows.End(f, conntrack.EndDenied)
		return drop
	}
	slots := d.ReceivedSlots()
	w.flows.Judged(f, uint32(s.Generation), &slots)
	return packet.NotDropped
}
