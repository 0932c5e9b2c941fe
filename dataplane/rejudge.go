package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// rejudge judges a live flow that an older policy has judged, by a packet of its original direction: if an NSG
// with flushConnection has changed on its way since, or if nobody has answered the flow. The other direction's
// packets are no flow's first, so rules say nothing of them. A flow that is denied, or that would go elsewhere
// now, ends; lives is false then, and drop says whether the packet may begin another.
func (x *passage) rejudge(f conntrack.Flow) (drop packet.Drop, lives bool) {
	w, s, d, p := x.w, x.snapshot, &x.decision, &x.packet
	zone := w.flows.PeerZone(f, conntrack.Original)
	flushed := x.src.Flushed
	_, whole := w.engine.Attachment(zone)
	marked := w.flows.Marks(f)&(conntrack.Translated|conntrack.Floating) != 0
	switch {
	case !whole: // the receiver's end has a record of its own
	case marked:
		// Its receiver is the one that it was translated for, whatever would be chosen now.
		dst := s.Admit(s.Attachments[zone], w.flows.Receiver(f))
		if dst == nil {
			w.flows.End(f, conntrack.EndFlushed)
			return packet.DropNoRoute, false
		}
		arrives := w.flows.Becomes(f, conntrack.Original)
		d.Along(s, x.src, dst, &p.Tuple, &arrives)
		flushed = max(flushed, dst.Flushed)
	default:
		if d.Route(s, x.src, &p.Tuple); d.Way.To != nil {
			flushed = max(flushed, d.Way.To.Flushed)
		}
	}
	if flushed <= w.flows.Generation(f) && w.flows.Answered(f) {
		w.flows.Stands(f, uint32(s.Generation))
		return packet.NotDropped, true
	}
	switch {
	case !whole:
		d.AskSender(s, x.src, p)
	case marked: // its way stands, so that rules alone decide
		d.AskSender(s, x.src, p)
		d.Receive(p)
	default:
		d.Send(p)
		d.Receive(p)
	}
	if d.Drop != packet.NotDropped {
		w.flows.Cut(f, w.now)
		return x.denied(), false
	}
	if whole && uint16(d.Way.To.Attachment) != zone {
		w.flows.End(f, conntrack.EndFlushed)
		return packet.NotDropped, false
	}
	slots := d.Verdict.Slots()
	w.flows.Judged(f, uint32(s.Generation), &slots)
	return packet.NotDropped, true
}

// rejudgeThere is rejudge for the record at the receiver's end of a leg. The caller counts a denial.
func (x *passage) rejudgeThere(f conntrack.Flow) packet.Drop {
	w, d := x.w, &x.decision
	if d.Way.To.Flushed <= w.flows.Generation(f) && w.flows.Answered(f) {
		w.flows.Stands(f, uint32(x.snapshot.Generation))
		return packet.NotDropped
	}
	if drop := d.Receive(&x.packet); drop != packet.NotDropped {
		w.flows.Cut(f, w.now)
		return drop
	}
	slots := d.ReceivedSlots()
	w.flows.Judged(f, uint32(x.snapshot.Generation), &slots)
	return packet.NotDropped
}
