package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
)

// judgeAgain judges a live flow by a packet of its original direction, if an NSG with
// flushConnection has changed on its way since it was judged. The other direction's packets
// are no flow's first, so rules say nothing of them. A flow that is denied, or that would go
// elsewhere now, ends; lives is false then, and drop says whether the packet may begin
// another.
func (w *worker) judgeAgain(s *topology.Snapshot, src *topology.Endpoint, f conntrack.Flow, p *packet.Packet) (drop packet.Drop, lives bool) {
	if _, whole := w.engine.Attachment(w.flows.PeerZone(f, conntrack.Original)); !whole {
		drop = w.judgeEnd(s, src, nil, f, p)
		return drop, drop == packet.NotDropped
	}
	if w.flows.Marks(f)&(conntrack.Translated|conntrack.Floating) != 0 {
		drop = w.judgeTranslatedAgain(s, src, f, p)
		return drop, drop == packet.NotDropped
	}
	dst, _ := s.Route(src, p.Src, p.Dst)
	flushed := src.Flushed
	if dst != nil {
		flushed = max(flushed, dst.Flushed)
	}
	if flushed <= w.flows.Generation(f) {
		w.flows.Stands(f, uint32(s.Generation))
		return packet.NotDropped, true
	}
	if dst, drop = w.judge(s, src, p); drop != packet.NotDropped {
		w.flows.End(f, conntrack.EndDenied)
		return drop, false
	}
	if uint16(dst.Attachment) != w.flows.PeerZone(f, conntrack.Original) {
		w.flows.End(f, conntrack.EndFlushed)
		return packet.NotDropped, false
	}
	slots := w.verdict.Slots()
	w.flows.Judged(f, uint32(s.Generation), &slots)
	return packet.NotDropped, true
}

// judgeEnd is judgeAgain for the record at one end of a leg: src or dst is nil.
func (w *worker) judgeEnd(s *topology.Snapshot, src, dst *topology.Endpoint, f conntrack.Flow, p *packet.Packet) packet.Drop {
	end := src
	if src == nil {
		end = dst
	}
	if end.Flushed <= w.flows.Generation(f) {
		w.flows.Stands(f, uint32(s.Generation))
		return packet.NotDropped
	}
	k := p.Classification()
	verdict.Judge(src, dst, &k, &w.verdict)
	return w.judged(s, f, p)
}

// judgeTranslatedAgain is judgeAgain for a flow whose receiver is not whom the packet's
// addresses name: the one that it was translated for. A reload ends flows of which the
// receiver or the translation has gone.
func (w *worker) judgeTranslatedAgain(s *topology.Snapshot, src *topology.Endpoint, f conntrack.Flow, p *packet.Packet) packet.Drop {
	to := s.Attachments[w.flows.PeerZone(f, conntrack.Original)]
	dst := s.Admit(to, w.flows.Receiver(f))
	if dst == nil {
		w.flows.End(f, conntrack.EndFlushed)
		return packet.DropNoRoute
	}
	if max(src.Flushed, dst.Flushed) <= w.flows.Generation(f) {
		w.flows.Stands(f, uint32(s.Generation))
		return packet.NotDropped
	}
	arrives := w.flows.Becomes(f, conntrack.Original)
	k, there := p.Classification(), p.ClassificationOf(&arrives)
	verdict.Judge(src, nil, &k, &w.verdict)
	if sent := w.verdict; sent.Access == ruleset.Allow {
		verdict.Judge(nil, dst, &there, &w.verdict)
		w.verdict = sent.And(&w.verdict)
	}
	return w.judged(s, f, p)
}

// judged ends a flow that the verdict denies; another goes on under the rules that allow it now.
func (w *worker) judged(s *topology.Snapshot, f conntrack.Flow, p *packet.Packet) packet.Drop {
	if w.verdict.Access == ruleset.Deny {
		w.countVerdict(&w.verdict, p)
		w.flows.End(f, conntrack.EndDenied)
		return packet.DropRule
	}
	slots := w.verdict.Slots()
	w.flows.Judged(f, uint32(s.Generation), &slots)
	return packet.NotDropped
}
