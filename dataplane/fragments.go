package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/virtio"
)

// fragment carries an admitted fragment: the first one of a datagram as what it
// is, for it has all headers, and the later ones the way that the first one went.
func (x *passage) fragment() packet.Drop {
	fragments, p, v := x.w.engine.fragments, &x.packet, &x.datagram
	k := fragment.KeyOf(p, x.key.Zone)
	if p.Fragment.IsLater() {
		return x.laterFragment(&k)
	}
	reserved, drop := fragments.Reserve(&k, &p.Fragment, x.w.time)
	if drop != packet.NotDropped {
		return drop
	}
	to, drop := x.destination()
	*v = fragment.Verdict{Drop: drop, Generation: x.snapshot.Generation, To: uint16(to)}
	switch {
	case drop == packet.DropRule, drop == packet.NotDropped && x.relation == noFlow:
		v.Slots = x.decision.Verdict.Slots()
	case drop == packet.NotDropped:
		v.InFlow, v.Related, v.Flow = true, x.relation == related, *x.flowKey()
	}
	waiting := fragments.Decide(reserved, v)
	if drop == packet.NotDropped {
		if x.marks != 0 {
			x.translateFirst(k)
		}
		drop = x.send(to)
	}
	x.carryWaiting(&k, &waiting)
	return drop
}

// laterFragment carries a fragment that follows its first one, and counts it on the
// same rules and flow. A fragment that waits for its first one is neither carried nor
// dropped yet.
func (x *passage) laterFragment(k *fragment.Key) packet.Drop {
	w, v := x.w, &x.datagram
	drop, waits := w.engine.fragments.Follow(k, &x.packet.Fragment, x.frame, w.time, v)
	switch {
	case drop != packet.NotDropped || waits:
		return drop
	case v.InFlow:
		return x.followFirst(v)
	case v.Drop == packet.NotDropped && v.Generation != x.snapshot.Generation:
		return packet.DropFragmentNoFirst // allowed by another policy
	}
	if v.Generation >= x.snapshot.Reclaimed {
		x.countSlots(v.Slots, 0)
	}
	if v.Drop != packet.NotDropped {
		return v.Drop
	}
	return x.send(int(v.To))
}

// followFirst carries a later fragment in the flow of its datagram's first one.
func (x *passage) followFirst(v *fragment.Verdict) packet.Drop {
	w := x.w
	f, d, ok := w.flows.Lookup(&v.Flow, w.now)
	if !ok { // with the flow its fragments end
		return packet.DropFragmentNoFirst
	}
	to, there := int(w.flows.PeerZone(f, d)), conntrack.Slots{}
	if to >= int(w.engine.room) {
		to = int(v.To)
		if there, ok = x.slotsThere(v); !ok {
			return packet.DropFragmentNoFirst
		}
	}
	if !v.Related {
		w.flows.Count(f, d, &x.packet)
	}
	x.countSlots(w.flows.Slots(f), 0)
	x.countSlots(there, 0)
	if x.note(f, d); x.marks != 0 {
		x.translateLater()
	}
	return x.send(to)
}

// carryWaiting carries the fragments that came before the first one of their datagram. They
// were counted as received when they came.
func (x *passage) carryWaiting(k *fragment.Key, waiting *fragment.Held) {
	w := x.w
	for frame := w.engine.fragments.Next(waiting); frame != nil; frame = w.engine.fragments.Next(waiting) {
		held := &w.held
		w.heldSlot.frame = frame
		w.heldSlot.drop = virtio.Decode(&w.decoder, frame, &w.heldSlot.packet)
		held.enter(x.snapshot, x.from, &w.heldSlot)
		if w.watchers != nil {
			held.observe()
		}
		drop := held.drop
		if drop == packet.NotDropped {
			drop = held.laterFragment(k)
		}
		held.leave(drop)
	}
}

func (x *passage) send(to int) packet.Drop {
	x.to = to
	return x.w.write(to, x.frame, &x.packet, x.hash)
}
