package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// Where several hosts share a policy, each end of a flow has its record on its own host. What an end exchanges with other
// hosts is in the end's far zone, where answers of other ways are too: packets from a fabric come in there, and what
// goes there leaves as routes say at that moment. Two fabrics are zones of their own: an inlet, and, by its far zone, the
// outlet, since answers must go back to the host with the internet, and from it to the one that asked.

// route finds where a packet without a flow goes, and who has sent it if others forward.
func (x *passage) route() packet.Drop {
	d, p := &x.decision, &x.packet
	if !x.from.FromFabric() {
		return d.Route(x.snapshot, x.src, &p.Tuple)
	}
	d.RouteFrom(x.snapshot, x.from, x.src, &p.Tuple)
	x.src = d.Source()
	if d.Drop == packet.NotDropped && x.w.engine.room.ZoneOf(x.from, p.Dst) != x.key.Zone {
		d.Drop = packet.DropNoRoute // a reload has moved the receiver since the packet was read
	}
	return d.Drop
}

// answerZone is the zone where answers come in to what the decision lets pass.
func (x *passage) answerZone() uint16 {
	d := &x.decision
	if !d.Way.To.Elsewhere {
		return uint16(d.Way.To.Attachment)
	}
	index, beyond := x.snapshot.Answers(d.Source(), &d.Way)
	if beyond {
		return x.w.engine.room.Far(index)
	}
	return uint16(index)
}

// beyond finds the attachment by which a flow's packets leave to another host, where its record decides that and no route:
// this host translates them. to is -1 if the receiver is not elsewhere any more. fixed is false if routes decide.
func (x *passage) beyond(f conntrack.Flow, d conntrack.Direction) (to int, fixed bool) {
	flows := x.w.flows
	a := x.snapshot.Attachments[int(flows.PeerZone(f, d))-int(x.w.engine.room)]
	marks := flows.Marks(f)
	switch {
	case a.Outlet() && d == conntrack.Reply:
		sent := flows.Becomes(f, d).Reverse()
		return x.snapshot.Back(a, &sent), true
	case a.Outlet() && marks&conntrack.Floating == 0:
		return a.Index, true
	case marks == 0:
		return -1, false
	case d == conntrack.Original:
		if e := x.snapshot.Beyond(a, flows.Receiver(f)); e != nil {
			return e.Attachment, true
		}
	}
	return -1, true
}

// quotedHere finds where an ICMP error goes that another host has sent, about a flow that only this end knows otherwise: it
// has sent what the error quotes, by another way than the error came. The error's host has counted it.
func (x *passage) quotedHere() (to int, ok bool) {
	if !x.from.FromFabric() {
		return 0, false
	}
	end := x.from.Receiver(x.packet.Dst)
	if end == nil || end.Elsewhere {
		return 0, false
	}
	key := conntrack.Key{Tuple: x.quoted.Reverse(), Zone: uint16(end.Attachment)}
	f, _, live := x.w.flows.Lookup(&key, x.w.now)
	if !live || x.w.flows.Marks(f) != 0 {
		return 0, false
	}
	x.decision.Arrive(x.snapshot, x.src, end, &x.packet.Tuple) // no rule is asked
	return end.Attachment, true
}
