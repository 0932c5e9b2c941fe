package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
)

// standing is what the record of a live flow says when the flow is judged again.
type standing struct {
	zone       uint16 // where its packets of the original direction go
	marks      conntrack.Marks
	receiver   packet.Addr  // who they reach
	arrives    packet.Tuple // and as what
	generation uint32       // of the last judgement
	answered   bool
}

// stands reports that nothing asks to judge the flow again: no NSG with flushConnection has changed on its way
// since, and somebody has answered it.
func (r *standing) stands(flushed uint32) bool { return flushed <= r.generation && r.answered }

// judgement is what becomes of a flow that is judged again.
type judgement uint8

const (
	judgedStands judgement = iota
	judgedPasses
	judgedDenied
	judgedElsewhere // its packets would go elsewhere
	judgedLost      // nobody has its receiver's address
)

// again decides what becomes of a live flow that an older policy than s has judged, by a packet that src sends in
// its original direction. It changes nothing, so that it answers for a policy that is not in force too.
func (e *Engine) again(s *topology.Snapshot, from *topology.Attachment, src *topology.Endpoint, r *standing, p *packet.Packet, d *verdict.Decision) judgement {
	flushed := src.Flushed
	_, whole := e.Attachment(r.zone)
	marked := r.marks&(conntrack.Translated|conntrack.Floating) != 0
	switch {
	case !whole: // the receiver's end has a record of its own
	case marked:
		// Its receiver is the one that it was translated for, whatever would be chosen now.
		dst := s.Admit(s.Attachments[r.zone], r.receiver)
		if dst == nil {
			return judgedLost
		}
		d.Along(s, src, dst, &p.Tuple, &r.arrives)
		flushed = max(flushed, dst.Flushed)
	default:
		if d.RouteFrom(s, from, src, &p.Tuple); d.Way.To != nil {
			flushed = max(flushed, d.Way.To.Flushed)
		}
	}
	if r.stands(flushed) {
		return judgedStands
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
	switch {
	case d.Drop != packet.NotDropped:
		return judgedDenied
	case whole && uint16(d.Exit()) != r.zone:
		return judgedElsewhere
	}
	return judgedPasses
}

// rejudge judges a live flow that an older policy has judged, by a packet of its original direction: see again. The
// other direction's packets are no flow's first, so rules say nothing of them. A flow that is denied, or that would go
// elsewhere now, ends; lives is false then, and drop says whether the packet may begin another.
func (x *passage) rejudge(f conntrack.Flow) (drop packet.Drop, lives bool) {
	w, s, d := x.w, x.snapshot, &x.decision
	r := standing{zone: w.flows.PeerZone(f, conntrack.Original), marks: w.flows.Marks(f), receiver: w.flows.Receiver(f),
		arrives: w.flows.Becomes(f, conntrack.Original), generation: w.flows.Generation(f), answered: w.flows.Answered(f)}
	switch w.engine.again(s, x.from, x.src, &r, &x.packet, d) {
	case judgedLost:
		w.flows.End(f, conntrack.EndFlushed)
		return packet.DropNoRoute, false
	case judgedStands:
		w.flows.Stands(f, uint32(s.Generation))
	case judgedDenied:
		w.flows.Cut(f, w.now)
		return x.denied(), false
	case judgedElsewhere:
		w.flows.End(f, conntrack.EndFlushed)
		return packet.NotDropped, false
	case judgedPasses:
		slots := d.Verdict.Slots()
		w.flows.Judged(f, uint32(s.Generation), &slots)
	}
	return packet.NotDropped, true
}

// rejudgeThere is rejudge for the record at the receiver's end of a leg. The caller counts a denial.
func (x *passage) rejudgeThere(f conntrack.Flow) packet.Drop {
	w, d := x.w, &x.decision
	r := standing{generation: w.flows.Generation(f), answered: w.flows.Answered(f)}
	if r.stands(d.Way.To.Flushed) {
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
