package dataplane

import (
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
)

// Where subnets have route tables, what answers a packet may take another way than the
// packet came: through a virtual appliance on one way and straight on the other. One flow
// record for both would know a way that is not there. The two ends of such a leg have a
// record each instead, as in Azure each network interface keeps a state of its own: the
// sender's under the packet's key, the receiver's under an answer's. The other key of either
// is in the far zone of its attachment, where no packet comes in. What a record sends to
// a far zone goes where the routes say at that moment, and passes at the receiver's end if that has a
// record of it, or by that end's rules.

// far is the zone that stands for wherever else an attachment's flows go.
func (e *Engine) far(attachment int) uint16 { return uint16(len(e.options.Attachments) + attachment) }

// Attachment is the attachment of a flow's zone. whole is false for a far zone: the flow is
// known at this attachment only.
func (e *Engine) Attachment(zone uint16) (index int, whole bool) {
	n := len(e.options.Attachments)
	return int(zone) % n, int(zone) < n
}

// beginRouted is begin where subnets have route tables.
func (w *worker) beginRouted(s *topology.Snapshot, from *topology.Attachment, src *topology.Endpoint, p *packet.Packet) (int, packet.Drop) {
	dst, drop := s.Route(src, p.Src, p.Dst)
	if drop != packet.NotDropped {
		return 0, drop
	}
	_, _, known := w.farEnd(dst, p)
	if !known {
		if drop := w.mayCreate(s, src, p); drop != packet.NotDropped {
			return 0, drop
		}
	}
	k := p.Classification()
	if known || !s.Returns(from, dst, &p.Tuple) {
		return w.beginApart(s, from, src, dst, &k, p)
	}
	verdict.Judge(src, dst, &k, &w.verdict)
	if w.verdict.Access == ruleset.Deny {
		w.countVerdict(&w.verdict, p)
		return 0, packet.DropRule
	}
	if s.SMTPBlocked(src, dst, &k) {
		return 0, packet.DropSMTP
	}
	return w.commit(s, from, src, dst, &w.verdict, p)
}

// beginApart begins a record at the sender's end of a leg, once the packet has passed at
// the receiver's.
func (w *worker) beginApart(s *topology.Snapshot, from *topology.Attachment, src, dst *topology.Endpoint, k *packet.Tuple, p *packet.Packet) (int, packet.Drop) {
	verdict.Judge(src, nil, k, &w.verdict)
	near := w.verdict // the receiver's end may need w.verdict
	if near.Access == ruleset.Deny {
		w.countVerdict(&near, p)
		return 0, packet.DropRule
	}
	terms := termsOf(src, dst)
	there, drop := w.arrive(s, src, dst, terms, p)
	if drop != packet.NotDropped {
		if drop == packet.DropRule {
			near.Access = ruleset.Deny
			w.countVerdict(&near, p)
			w.verdict = near.And(&w.verdict) // fragments that follow count on both
		}
		return 0, drop
	}
	if w.restarts {
		w.flows.End(w.restarted, conntrack.EndRestarted)
	}
	here, drop := w.record(s, w.key, w.engine.far(from.Index), terms, &near, w.seenBy(src, p.Src, p))
	newer := w.engine.snapshot.Load()
	if drop == packet.NotDropped && newer == s { // see commit
		here.count(w, p)
		there.count(w, p)
		return dst.Attachment, packet.NotDropped
	}
	here.end(w, p)
	there.end(w, p)
	if drop != packet.NotDropped {
		return 0, drop
	}
	return w.beginAgain(newer, from.Index, p)
}

// detour carries a packet of a live flow that is known at the sender's end only.
func (w *worker) detour(s *topology.Snapshot, from *topology.Attachment, src *topology.Endpoint, p *packet.Packet) (int, packet.Drop) {
	for {
		dst, drop := s.Route(src, p.Src, p.Dst)
		if drop != packet.NotDropped {
			return 0, drop
		}
		there, drop := w.arrive(s, src, dst, termsOf(src, dst), p)
		newer := w.engine.snapshot.Load()
		if drop != packet.NotDropped || newer == s || !there.begun {
			there.count(w, p)
			return dst.Attachment, drop
		}
		there.end(w, p)
		s, from = newer, newer.Attachments[from.Index]
		if src, drop = admit(s, from, p); drop != packet.NotDropped {
			return 0, drop
		}
	}
}

// farEnd finds the record by which the receiver's end knows of a packet; d is the packet's
// direction there.
func (w *worker) farEnd(dst *topology.Endpoint, p *packet.Packet) (f conntrack.Flow, d conntrack.Direction, ok bool) {
	w.answer = conntrack.Key{Tuple: p.Reverse(), Zone: uint16(dst.Attachment)}
	f, d, ok = w.flows.Lookup(&w.answer, w.now)
	d = conntrack.Reply - d
	return f, d, ok && !w.flows.Restarts(f, d, p)
}

// arrive lets a packet pass at the receiver's end: as part of what that end knows, or
// by its rules, which begins a record there. What it counts besides a denial is in there.
func (w *worker) arrive(s *topology.Snapshot, src, dst *topology.Endpoint, terms terms, p *packet.Packet) (there end, drop packet.Drop) {
	if f, d, ok := w.farEnd(dst, p); ok {
		if d == conntrack.Original && w.flows.Generation(f) < s.Flushed {
			if drop := w.judgeEnd(s, nil, dst, f, p); drop != packet.NotDropped {
				return end{}, drop
			}
		}
		if drop := w.flows.Pass(f, d, p, w.now); drop != packet.NotDropped {
			return end{}, drop
		}
		return end{slots: w.flows.Slots(f)}, packet.NotDropped
	}
	k := p.Classification()
	if s.SMTPBlocked(src, dst, &k) {
		return end{}, packet.DropSMTP
	}
	verdict.Judge(nil, dst, &k, &w.verdict)
	if w.verdict.Access == ruleset.Deny {
		w.countVerdict(&w.verdict, p)
		return end{}, packet.DropRule
	}
	if dst.Has(p.Dst) { // an appliance may see the answers alone
		if drop := w.mayCreate(s, src, p); drop != packet.NotDropped {
			return end{}, drop
		}
	}
	key := conntrack.Key{Tuple: p.Tuple, Zone: w.engine.far(dst.Attachment)}
	return w.record(s, &key, uint16(dst.Attachment), terms, &w.verdict, w.seenBy(dst, p.Dst, p))
}

// seenBy is the packet that begins a record at an end. A virtual appliance between the two
// that talk may see one direction only: its record must not wait for an answer to a SYN, so it
// begins as one that is picked up in mid-stream does.
func (w *worker) seenBy(e *topology.Endpoint, address packet.Addr, p *packet.Packet) *packet.Packet {
	if p.Proto != packet.ProtoTCP || e.Has(address) {
		return p
	}
	w.joined = *p
	w.joined.TCPFlags = p.TCPFlags&^(packet.SYN|packet.RST) | packet.ACK
	return &w.joined
}

// terms are what the two ends of a leg give to the records of both.
type terms struct {
	established time.Duration
	stateless   bool
}

func termsOf(src, dst *topology.Endpoint) terms {
	return terms{max(src.Established, dst.Established), src.Stateless || dst.Stateless}
}

// end is how a packet passes at one end of a leg: the rules that it counts on, and the record
// that it has begun, if it has.
type end struct {
	flow  conntrack.Flow
	begun bool
	slots conntrack.Slots
}

// count counts the packet once it is certain that it passes.
func (e end) count(w *worker, p *packet.Packet) {
	hits := uint64(0)
	if e.begun {
		hits = 1
	}
	w.countSlots(e.slots, hits, p)
}

// end takes back what the packet has begun.
func (e end) end(w *worker, p *packet.Packet) {
	if e.begun {
		w.flows.Withdraw(e.flow, p)
	}
}

// record begins a record at one end.
func (w *worker) record(s *topology.Snapshot, k *conntrack.Key, replyZone uint16, terms terms, v *verdict.Verdict, p *packet.Packet) (end, packet.Drop) {
	init := &w.init
	*init = conntrack.Init{Slots: v.Slots(), Generation: uint32(s.Generation), Established: terms.established, Stateless: terms.stateless, ReplyZone: replyZone}
	if drop := w.flows.MayBegin(k.Zone, replyZone, w.now); drop != packet.NotDropped {
		return end{}, drop
	}
	f, _, created, drop := w.flows.Insert(k, init, p, w.now)
	if !created {
		w.flows.NotBegun(k.Zone, replyZone)
		if drop == packet.NotDropped { // another worker was first
			return end{slots: w.flows.Slots(f)}, drop
		}
		return end{}, drop
	}
	return end{f, true, init.Slots}, packet.NotDropped
}

// errorFrom finds where an ICMP error goes that is about a flow of which the record at its
// own end sends to the far zone: to whoever has sent what it quotes, if that end knows
// of it.
func (w *worker) errorFrom(s *topology.Snapshot, src *topology.Endpoint, p *packet.Packet) (int, bool) {
	dst, drop := s.Route(src, p.Src, p.Dst)
	if drop != packet.NotDropped {
		return 0, false
	}
	w.answer = conntrack.Key{Tuple: w.key.Reverse(), Zone: uint16(dst.Attachment)}
	_, _, ok := w.flows.Lookup(&w.answer, w.now)
	return dst.Attachment, ok
}

// followApart takes a later fragment past the receiver's end, the way that its first one went: as
// long as that end knows of the flow, and no reload can have changed the way.
func (w *worker) followApart(s *topology.Snapshot, v *fragment.Verdict, p *packet.Packet) bool {
	w.answer = conntrack.Key{Tuple: v.Flow.Reverse(), Zone: v.To}
	f, d, ok := w.flows.Lookup(&w.answer, w.now)
	if !ok || v.Generation != s.Generation {
		return false
	}
	if !v.Related {
		w.flows.Count(f, conntrack.Reply-d, p)
		w.countSlots(w.flows.Slots(f), 0, p)
	}
	return true
}
