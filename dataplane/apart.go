package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// Where subnets have route tables, answers may take another way than the packet came: one way leads
// through a virtual appliance, the other does not. One flow record for both would know a way that is
// not there. The two ends of such a leg have a record each instead, as in Azure each network interface
// keeps a state of its own. The sender's record is found by the packet's key, the receiver's by an
// answer's. The other key of either is in the far zone of its attachment, where no packet comes in.
// What a record sends to a far zone goes where the routes say at that moment. It passes at the
// receiver's end if that has a record of it, or by that end's rules.

// half is how a packet passes at one end of a leg: the rules that it counts on, and the record
// that it has begun there, if it has.
type half struct {
	flow            conntrack.Flow
	begun           bool
	zone, replyZone uint16 // of the record that has begun
	slots           conntrack.Slots
	// passed says that the packet has passed in flow, which was there before.
	passed    bool
	direction conntrack.Direction
}

// count counts the packet once it is certain that it passes. A flow that is withdrawn has counted
// nothing, so flow logs never tell of it.
func (h *half) count(x *passage) {
	hits := uint64(0)
	if h.begun {
		hits = 1
		x.w.flows.Count(h.flow, conntrack.Original, &x.packet)
	}
	x.countSlots(h.slots, hits)
}

// withdraw takes back what the packet has begun, or what it has counted.
func (h *half) withdraw(x *passage) {
	switch {
	case h.begun:
		x.w.flows.End(h.flow, conntrack.EndFlushed)
		x.w.flows.NotBegun(h.zone, h.replyZone)
	case h.passed:
		x.w.flows.Uncount(h.flow, h.direction, &x.packet)
	}
}

// beginApart begins a record at the sender's end of a leg, once the packet has passed at
// the receiver's.
func (x *passage) beginApart() (int, packet.Drop) {
	w, d := x.w, &x.decision
	there, drop := half{}, packet.NotDropped
	if !d.Way.To.Elsewhere {
		there, drop = x.arrive()
	}
	if drop != packet.NotDropped {
		if drop == packet.DropRule {
			x.countSlots(d.Verdict.Slots(), 1)
		}
		return 0, drop
	}
	if x.restarts {
		w.flows.End(x.replaced, conntrack.EndRestarted)
	}
	var here half
	if !x.from.FromFabric() {
		var init conntrack.Init
		d.RecordSent(&init, w.engine.room.Far(x.from.Index))
		here, drop = x.insertHalf(&x.key, &init, x.src.Has(x.packet.Src))
	} else { // later fragments find the record there, which may be of a sender of this host who sent the same by the same appliance
		x.key.Zone = w.engine.room.Far(d.Way.To.Attachment)
		if there.passed {
			x.key.Zone = w.flows.PeerZone(there.flow, conntrack.Reply-there.direction)
		}
	}
	newer := w.engine.snapshot.Load()
	if drop == packet.NotDropped && newer == x.snapshot { // see commit
		here.count(x)
		if w.decisions != nil && (here.begun || there.begun && x.from.FromFabric()) {
			x.decided(packet.NotDropped)
		}
		there.count(x)
		return d.Exit(), packet.NotDropped
	}
	here.withdraw(x)
	there.withdraw(x)
	if drop != packet.NotDropped {
		return 0, drop
	}
	return x.beginAnew(newer)
}

// onward takes a packet of a flow that is known at the sender's end only to the receiver's. The
// packet has passed in the flow, which takes that back if the packet is dropped.
func (x *passage) onward(f conntrack.Flow, direction conntrack.Direction) (to int, drop packet.Drop) {
	w, d, p := x.w, &x.decision, &x.packet
	if to, fixed := x.beyond(f, direction); fixed {
		if to < 0 {
			w.flows.Uncount(f, direction, p)
			return 0, packet.DropNoRoute
		}
		x.countSlots(w.flows.Slots(f), 0)
		x.note(f, direction)
		return to, packet.NotDropped
	}
	var there half
	for {
		if drop = d.Onward(x.snapshot, x.src, p); drop == packet.NotDropped {
			switch {
			case !d.Way.To.Elsewhere:
				there, drop = x.arrive()
			case d.Exit() < 0:
				drop = packet.DropNoRoute
			}
		}
		newer := w.engine.snapshot.Load()
		if drop != packet.NotDropped || !there.begun || newer == x.snapshot { // see commit
			break
		}
		there.withdraw(x)
		if drop = x.admitAnew(newer); drop != packet.NotDropped {
			break
		}
	}
	if drop != packet.NotDropped {
		w.flows.Uncount(f, direction, p)
		if drop == packet.DropRule {
			x.countSlots(w.flows.Slots(f), 0)
			x.countSlots(d.Verdict.Slots(), 1)
		}
		return 0, drop
	}
	x.countSlots(w.flows.Slots(f), 0)
	there.count(x)
	return d.Exit(), packet.NotDropped
}

// knownThere reports whether the receiver's end knows of the packet.
func (x *passage) knownThere() bool {
	_, _, ok := x.farEnd(x.decision.Way.To)
	return ok
}

// farEnd finds the record by which the receiver's end knows of the packet; d is the packet's
// direction there.
func (x *passage) farEnd(dst *topology.Endpoint) (f conntrack.Flow, d conntrack.Direction, ok bool) {
	flows, p := x.w.flows, &x.packet
	answer := conntrack.Key{Tuple: p.Reverse(), Zone: uint16(dst.Attachment)}
	f, d, ok = flows.Lookup(&answer, x.w.now)
	d = conntrack.Reply - d
	if ok && flows.Accepts(f, d, p, x.w.now) {
		f, d, ok = flows.Lookup(&answer, x.w.now)
		d = conntrack.Reply - d
	}
	return f, d, ok && !flows.Restarts(f, d, p) && !flows.Succeeds(f, d, p)
}

// arrive lets the packet pass at the receiver's end: as part of what that end knows, or
// by its rules, which begins a record there. On success the caller must count there.
func (x *passage) arrive() (there half, drop packet.Drop) {
	w, d, p := x.w, &x.decision, &x.packet
	dst := d.Way.To
	if f, direction, ok := x.farEnd(dst); ok {
		if direction == conntrack.Original && w.flows.Generation(f) < uint32(x.snapshot.Generation) {
			if drop := x.rejudgeThere(f); drop != packet.NotDropped {
				return half{}, drop
			}
		}
		if drop := w.flows.Pass(f, direction, p, w.now); drop != packet.NotDropped {
			return half{}, drop
		}
		return half{flow: f, passed: true, direction: direction, slots: w.flows.Slots(f)}, packet.NotDropped
	}
	answer := conntrack.Key{Tuple: p.Reverse(), Zone: uint16(dst.Attachment)}
	if w.flows.Barred(&answer, conntrack.Original, p, w.now) {
		return half{}, packet.DropFlowCut
	}
	d.Port25(p)
	d.Receive(p)
	if dst.Has(p.Dst) { // an appliance may see the answers alone
		d.MayBegin(p, w.strict)
	}
	if d.Drop != packet.NotDropped {
		return half{}, d.Drop
	}
	var init conntrack.Init
	d.RecordReceived(&init, uint16(dst.Attachment))
	key := conntrack.Key{Tuple: p.Tuple, Zone: w.engine.room.Far(dst.Attachment)}
	return x.insertHalf(&key, &init, dst.Has(p.Dst))
}

// insertHalf begins a record at one end. A virtual appliance between the two that talk, which has not
// the end's address, may see one direction only. Its record must not wait for an answer to a SYN, so it
// begins as one that is picked up in mid-stream does.
func (x *passage) insertHalf(k *conntrack.Key, init *conntrack.Init, has bool) (half, packet.Drop) {
	w, p := x.w, &x.packet
	if p.Proto == packet.ProtoTCP && !has {
		joined := *p
		joined.TCPFlags = p.TCPFlags&^(packet.SYN|packet.RST) | packet.ACK
		p = &joined
	}
	if drop := w.flows.MayBegin(k.Zone, init.ReplyZone, w.now); drop != packet.NotDropped {
		return half{}, drop
	}
	f, _, created, drop := w.flows.Insert(k, init, p, w.now)
	if created {
		return half{flow: f, begun: true, zone: k.Zone, replyZone: init.ReplyZone, slots: init.Slots}, packet.NotDropped
	}
	w.flows.NotBegun(k.Zone, init.ReplyZone)
	if drop != packet.NotDropped {
		return half{}, drop
	}
	return half{slots: w.flows.Slots(f)}, packet.NotDropped // another worker was first
}

// quotedSender finds where an ICMP error goes whose quoted flow is known at the error's end only: to
// the sender of what it quotes, if that end knows of the flow.
func (x *passage) quotedSender() (to int, ok bool) {
	dst, drop := x.snapshot.Route(x.src, x.packet.Src, x.packet.Dst)
	if drop != packet.NotDropped {
		return 0, false
	}
	if dst.Elsewhere { // that host asks its own records
		to = x.snapshot.Exit(x.src, &topology.Way{To: dst})
		return to, to >= 0 && (dst != x.snapshot.Outside() || x.snapshot.Public(x.packet.Src) || !x.src.Has(x.packet.Src)) // floating IP, or an appliance
	}
	key := conntrack.Key{Tuple: x.quoted.Reverse(), Zone: uint16(dst.Attachment)}
	_, _, ok = x.w.flows.Lookup(&key, x.w.now)
	return dst.Attachment, ok
}

// slotsThere are the rules by which the receiver's end lets a later fragment pass, the way that its first
// one went; ok is false once that end does not know the flow any more, or a reload may have changed the
// way.
func (x *passage) slotsThere(v *fragment.Verdict) (slots conntrack.Slots, ok bool) {
	w := x.w
	if v.Generation == x.snapshot.Generation && x.snapshot.Attachments[v.To].FromFabric() {
		return conntrack.Slots{}, true
	}
	answer := conntrack.Key{Tuple: v.Flow.Reverse(), Zone: v.To}
	f, d, ok := w.flows.Lookup(&answer, w.now)
	if !ok || v.Generation != x.snapshot.Generation {
		return conntrack.Slots{}, false
	}
	if v.Related {
		return conntrack.Slots{}, true
	}
	w.flows.Count(f, conntrack.Reply-d, &x.packet)
	return w.flows.Slots(f), true
}
