package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
)

// rejudge judges a live flow again that was judged by an older policy: at a packet of its original
// direction, if an NSG with flushConnection has changed on its way since, and at any packet, if nobody has
// answered the flow. Packets of the other direction are no flow's first, so rules say nothing of them: it is
// the first packet that is judged. A flow that is denied, or that would go elsewhere now, ends; lives is false
// then, and drop says whether the packet may begin another.
func (x *passage) rejudge(f conntrack.Flow, direction conntrack.Direction) (drop packet.Drop, lives bool) {
	w, s, d, p, src := x.w, x.snapshot, &x.decision, &x.packet, x.src
	zone := w.flows.PeerZone(f, conntrack.Original)
	if direction == conntrack.Reply {
		from := w.flows.First(f, &x.first)
		if attachment, whole := w.engine.Attachment(from); !whole { // the sender's end has a record of its own
			d.Receives(s, &topology.Way{To: src, Arrives: x.first.Tuple}, &x.first)
			slots := d.ReceivedSlots()
			return x.judged(f, d, &slots)
		} else if src = s.Admit(s.Attachments[attachment], x.first.Src); src == nil {
			w.flows.End(f, conntrack.EndFlushed)
			return packet.DropNoRoute, false
		}
		p = &x.first
	}
	flushed := src.Flushed
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
		d.Along(s, src, dst, &p.Tuple, &arrives)
		flushed = max(flushed, dst.Flushed)
	default:
		if d.Route(s, src, &p.Tuple); d.Way.To != nil {
			flushed = max(flushed, d.Way.To.Flushed)
		}
	}
	if flushed <= w.flows.Generation(f) && w.flows.Answered(f) {
		w.flows.Stands(f, uint32(s.Generation))
		return packet.NotDropped, true
	}
	switch {
	case !whole:
		d.AskSender(s, src, p)
	case marked: // its way stands, so that rules alone decide
		d.AskSender(s, src, p)
		d.Receive(p)
	default:
		d.Send(p)
		d.Receive(p)
	}
	if d.Drop == packet.NotDropped && whole && uint16(d.Way.To.Attachment) != zone {
		w.flows.End(f, conntrack.EndFlushed)
		return packet.NotDropped, false
	}
	slots := d.Verdict.Slots()
	return x.judged(f, d, &slots)
}

// judged ends a flow that was judged again and is denied, or records the rules that allow it now.
func (x *passage) judged(f conntrack.Flow, d *verdict.Decision, slots *conntrack.Slots) (drop packet.Drop, lives bool) {
	if d.Drop != packet.NotDropped {
		x.w.flows.Cut(f, x.w.now)
		if d.Drop == packet.DropRule {
			x.countSlots(d.Verdict.Slots(), 1)
		}
		return d.Drop, false
	}
	x.w.flows.Judged(f, uint32(x.snapshot.Generation), slots)
	return packet.NotDropped, true
}

// rejudgeThere is rejudge for the record at the receiver's end of a leg. The caller counts a denial by that end's
// rules.
func (x *passage) rejudgeThere(f conntrack.Flow, direction conntrack.Direction) packet.Drop {
	w, d := x.w, &x.decision
	if direction == conntrack.Reply { // that end has begun the flow
		w.flows.First(f, &x.first)
		x.again.AskSender(x.snapshot, d.Way.To, &x.first)
		slots := x.again.Verdict.Slots()
		drop, _ := x.judged(f, &x.again, &slots)
		return drop
	}
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
