package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/verdict"
)

// rejudge judges a live flow that an older policy has judged, by a packet of its original direction: see verdict.Again. The
// other direction's packets are no flow's first, so rules say nothing of them. A flow that is denied, or that would go
// elsewhere now, ends; lives is false then, and drop says whether the packet may begin another.
func (x *passage) rejudge(f conntrack.Flow) (drop packet.Drop, lives bool) {
	w, s, d := x.w, x.snapshot, &x.decision
	r := verdict.Standing{Zone: w.flows.PeerZone(f, conntrack.Original), Marks: w.flows.Marks(f), Receiver: w.flows.Receiver(f),
		Arrives: w.flows.Becomes(f, conntrack.Original), Generation: w.flows.Generation(f), Answered: w.flows.Answered(f)}
	switch d.Again(s, w.engine.room, x.from, x.src, &r, &x.packet) {
	case verdict.JudgedLost:
		w.flows.End(f, conntrack.EndFlushed)
		return packet.DropNoRoute, false
	case verdict.JudgedStands:
		w.flows.Stands(f, uint32(s.Generation))
	case verdict.JudgedDenied:
		w.flows.Cut(f, w.now)
		return x.denied(), false
	case verdict.JudgedElsewhere:
		w.flows.End(f, conntrack.EndFlushed)
		return packet.NotDropped, false
	case verdict.JudgedPasses:
		slots := d.Verdict.Slots()
		w.flows.Judged(f, uint32(s.Generation), &slots)
	}
	return packet.NotDropped, true
}

// rejudgeThere is rejudge for the record at the receiver's end of a leg. The caller counts a denial.
func (x *passage) rejudgeThere(f conntrack.Flow) packet.Drop {
	w, d := x.w, &x.decision
	r := verdict.Standing{Generation: w.flows.Generation(f), Answered: w.flows.Answered(f)}
	if r.Stands(d.Way.To.Flushed) {
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
