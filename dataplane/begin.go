package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
)

// begin decides about a packet without a flow, and records the flow that it begins. Inlined it would
// slow the packets of live flows.
//
//go:noinline
func (x *passage) begin() (int, packet.Drop) {
	d, p := &x.decision, &x.packet
	if x.w.flows.Barred(&x.key, conntrack.Reply, p, x.w.now) {
		return 0, packet.DropFlowCut
	}
	if drop := x.route(); drop != packet.NotDropped {
		return 0, drop
	}
	kept := x.keepWay()
	if d.Known = x.snapshot.Routed() && !d.Changed() && !d.Way.To.Elsewhere && x.knownThere(); !d.Known {
		d.MayBegin(p, x.w.strict)
	}
	switch {
	case d.Send(p) != packet.NotDropped:
	case d.Known || d.Apart || d.Joins:
		return x.beginApart()
	case d.Way.Ports != nil && !kept:
		return x.beginShared()
	case d.Receive(p) == packet.NotDropped:
		return x.commit()
	}
	return 0, x.denied()
}

// keepWay gives a SYN that asks for a connection in place of one that lives the way of that one, with its
// receiver and its port, whatever would be chosen now. Only who has answered the living one knows not to
// answer a SYN that somebody else has sent.
func (x *passage) keepWay() bool {
	flows, s := x.w.flows, x.snapshot
	if !x.succeeds || x.sent != conntrack.Original || flows.Marks(x.replaced)&(conntrack.Translated|conntrack.Floating) == 0 {
		return false
	}
	to := x.w.engine.room.End(s, flows.PeerZone(x.replaced, conntrack.Original), flows.Receiver(x.replaced))
	arrives := flows.Becomes(x.replaced, conntrack.Original)
	return to != nil && x.decision.Keep(to, &x.packet.Tuple, &arrives)
}

// denied counts the packet on the rules, if it is they that deny it, and says why it is dropped.
func (x *passage) denied() packet.Drop {
	if x.decision.Drop == packet.DropRule {
		x.countSlots(x.decision.Verdict.Slots(), 1)
	}
	return x.decision.Drop
}

// commit records the flow that the decision lets begin, in place of one that the packet restarts.
func (x *passage) commit() (int, packet.Drop) {
	w, p := x.w, &x.packet
	var init conntrack.Init
	x.decision.Record(&init, p.Proto, w.engine.options.TranslationIdle)
	init.ReplyZone = x.answerZone()
	if drop := w.flows.MayBegin(x.key.Zone, init.ReplyZone, w.now); drop != packet.NotDropped {
		return 0, drop
	}
	if x.restarts {
		w.flows.End(x.replaced, conntrack.EndRestarted)
	}
	f, d, created, drop := w.flows.Insert(&x.key, &init, p, w.now)
	if !created {
		w.flows.NotBegun(x.key.Zone, init.ReplyZone)
		if drop == packet.NotDropped { // another worker was first: an ordinary packet of its flow
			return x.follow(f, d)
		}
		return 0, drop
	}
	// A reload can overtake a burst. It looks for flows to end after it has
	// published its snapshot, so looking for a newer one after the flow is in the
	// table leaves no flow that neither of the two has seen.
	if newer := w.engine.snapshot.Load(); newer != x.snapshot {
		w.flows.End(f, conntrack.EndFlushed)
		w.flows.NotBegun(x.key.Zone, init.ReplyZone)
		return x.beginAnew(newer)
	}
	w.flows.Count(f, conntrack.Original, p)
	x.countSlots(init.Slots, 1)
	if w.decisions != nil {
		x.decided(packet.NotDropped)
	}
	x.note(f, conntrack.Original)
	return x.decision.Exit(), packet.NotDropped
}

// beginAnew decides a flow's first packet by a newer snapshot than its burst's.
func (x *passage) beginAnew(s *topology.Snapshot) (int, packet.Drop) {
	if drop := x.admitAnew(s); drop != packet.NotDropped {
		return 0, drop
	}
	return x.begin()
}

// admitAnew admits the packet by a newer snapshot than its burst's.
func (x *passage) admitAnew(s *topology.Snapshot) (drop packet.Drop) {
	x.snapshot, x.from = s, s.Attachments[x.from.Index]
	x.src, drop = verdict.Admit(s, x.from, &x.packet.Tuple)
	return drop
}

// portTries bounds how often a port is chosen anew that another worker took meanwhile.
const portTries = 4

// beginShared is the end of begin for a flow that shares an address: it chooses a port that no
// live flow to the destination has. Flows to different destinations may have the same one.
func (x *passage) beginShared() (int, packet.Drop) {
	d, p, s := &x.decision, &x.packet, x.snapshot
	at := s.Choose(&d.Way, &p.Tuple)
	for range portTries {
		if !x.choosePort(&at) {
			return 0, packet.DropSNATExhausted
		}
		d.Verdict.N = d.Sent // what the receiver said of another port
		if d.Receive(p) != packet.NotDropped {
			return 0, x.denied()
		}
		to, drop := x.commit()
		if drop != packet.DropFlowConflict || x.snapshot != s { // or a newer policy has decided
			return to, drop
		}
	}
	return 0, packet.DropFlowConflict
}

// choosePort completes the tuple that arrives with the next address and port, or identifier, that is
// free, beginning with the ones that are there, of the range at; false when none is.
func (x *passage) choosePort(at *int) bool {
	way := &x.decision.Way
	arrives := &way.Arrives
	for range way.Ports {
		r := &way.Ports[*at]
		reply := conntrack.Key{Tuple: arrives.Reverse(), Zone: x.answerZone()}
		if x.w.flows.FreePort(&reply, r.First, r.Last, x.key.Zone, way.Contended, x.w.now) {
			arrives.SrcPort = reply.DstPort
			return true
		}
		*at = (*at + 1) % len(way.Ports)
		r = &way.Ports[*at]
		arrives.Src, arrives.SrcPort = r.Address, min(max(arrives.SrcPort, r.First), r.Last)
	}
	return false
}
