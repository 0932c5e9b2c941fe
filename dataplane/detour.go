package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
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

// beginApart begins a record at the sender's end of a leg, once the packet has passed at
// the receiver's.
func (w *worker) beginApart(s *topology.Snapshot, from *topology.Attachment, src *topology.Endpoint, p *packet.Packet) (int, packet.Drop) {
	d := &w.decision
	there, drop := w.arrive(s, p)
	if drop != packet.NotDropped {
		if drop == packet.DropRule {
			w.countVerdict(&d.Verdict, p)
		}
		return 0, drop
	}
	if w.restarts {
		w.flows.End(w.restarted, conntrack.EndRestarted)
	}
	d.RecordSent(&w.init, w.engine.far(from.Index))
	here, drop := w.record(w.key, w.seenBy(src, p.Src, p))
	newer := w.engine.snapshot.Load()
	if drop == packet.NotDropped && newer == s { // see commit
		here.count(w, p)
		there.count(w, p)
		return d.Way.To.Attachment, packet.NotDropped
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
		d := &w.decision
		if d.Onward(s, src, p) != packet.NotDropped {
			return 0, d.Drop
		}
		there, drop := w.arrive(s, p)
		if drop == packet.DropRule {
			w.countVerdict(&d.Verdict, p)
		}
		newer := w.engine.snapshot.Load()
		if drop != packet.NotDropped || newer == s || !there.begun {
			there.count(w, p)
			return d.Way.To.Attachment, drop
		}
		there.end(w, p)
		s, from = newer, newer.Attachments[from.Index]
		if src, drop = verdict.Admit(s, from, &p.Tuple); drop != packet.NotDropped {
			return 0, drop
		}
	}
}

// knownThere reports whether the receiver's end knows of a packet.
func (w *worker) knownThere(dst *topology.Endpoint, p *packet.Packet) bool {
	_, _, ok := w.farEnd(dst, p)
	return ok
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
// by its rules, which begins a record there. On success the caller must count there.
func (w *worker) arrive(s *topology.Snapshot, p *packet.Packet) (there end, drop packet.Drop) {
	decision := &w.decision
	dst := decision.Way.To
	if f, d, ok := w.farEnd(dst, p); ok {
		if d == conntrack.Original && w.flows.Generation(f) < s.Flushed {
			if drop := w.judgeThere(s, f, p); drop != packet.NotDropped {
				return end{}, drop
			}
		}
		if drop := w.flows.Pass(f, d, p, w.now); drop != packet.NotDropped {
			return end{}, drop
		}
		return end{slots: w.flows.Slots(f)}, packet.NotDropped
	}
	decision.Receive(p)
	if dst.Has(p.Dst) { // an appliance may see the answers alone
		decision.MayBegin(p, w.strict)
	}
	if decision.Drop != packet.NotDropped {
		return end{}, decision.Drop
	}
	decision.RecordReceived(&w.init, uint16(dst.Attachment))
	key := conntrack.Key{Tuple: p.Tuple, Zone: w.engine.far(dst.Attachment)}
	return w.record(&key, w.seenBy(dst, p.Dst, p))
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

// record begins the record of w.init at one end.
func (w *worker) record(k *conntrack.Key, p *packet.Packet) (end, packet.Drop) {
	init := &w.init
	if drop := w.flows.MayBegin(k.Zone, init.ReplyZone, w.now); drop != packet.NotDropped {
		return end{}, drop
	}
	f, _, created, drop := w.flows.Insert(k, init, p, w.now)
	if !created {
		w.flows.NotBegun(k.Zone, init.ReplyZone)
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
