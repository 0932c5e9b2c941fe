package dataplane

import (
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/tun"
)

// belonging is how a packet that was carried stands to a flow.
type belonging uint8

const (
	toNoFlow     belonging = iota // the rules let it pass by itself
	toItsFlow                     // it is one of the flow's packets
	toQuotedFlow                  // it is an ICMP error about one of them
)

// fragment carries an admitted fragment: the first one of a datagram as what it
// is, for it has all headers, and the later ones the way that the first one went.
func (w *worker) fragment(s *topology.Snapshot, from *topology.Attachment, src *topology.Endpoint, b []byte, p *packet.Packet) packet.Drop {
	k := fragment.KeyOf(p, uint16(from.Index))
	if p.Fragment.IsLater() {
		return w.laterFragment(s, &k, b, p)
	}
	place, drop := w.engine.fragments.Reserve(&k, &p.Fragment, w.time)
	if drop != packet.NotDropped {
		return drop
	}
	to, drop := w.place(s, from, src, b[tun.HeaderLen:], p)
	w.first = fragment.Verdict{Drop: drop, Generation: s.Generation}
	switch {
	case drop == packet.DropRule, drop == packet.NotDropped && w.belongs == toNoFlow:
		w.first.Slots = w.decision.Verdict.Slots()
	case drop == packet.NotDropped:
		w.first.InFlow, w.first.Related, w.first.Flow = true, w.belongs == toQuotedFlow, *w.key
	}
	w.first.To = uint16(to)
	waiting := w.engine.fragments.Decide(place, &w.first)
	if drop == packet.NotDropped {
		if w.marks != 0 {
			w.translateFirst(&k, b, p)
		}
		drop = w.write(to, b, p)
	}
	w.carryWaiting(s, &k, &waiting)
	return drop
}

// laterFragment carries a fragment that follows its first one, and counts it on the
// same rules and flow. A fragment that waits for its first one is neither carried nor
// dropped yet.
func (w *worker) laterFragment(s *topology.Snapshot, k *fragment.Key, b []byte, p *packet.Packet) packet.Drop {
	v := &w.first
	drop, waits := w.engine.fragments.Follow(k, &p.Fragment, b, w.time, v)
	switch {
	case drop != packet.NotDropped || waits:
		return drop
	case v.InFlow:
		f, d, ok := w.flows.Lookup(&v.Flow, w.now)
		if !ok { // with the flow its fragments end
			return packet.DropFragmentNoFirst
		}
		to := int(w.flows.PeerZone(f, d))
		if to >= len(w.queues) {
			if to = int(v.To); !w.followApart(s, v, p) {
				return packet.DropFragmentNoFirst
			}
		}
		if !v.Related {
			w.flows.Count(f, d, p)
		}
		w.countSlots(w.flows.Slots(f), 0, p)
		if w.note(f, d); w.marks != 0 {
			w.translateLater(b, p, v.Related)
		}
		return w.write(to, b, p)
	case v.Drop == packet.NotDropped && v.Generation != s.Generation:
		return packet.DropFragmentNoFirst // allowed by another policy
	}
	w.countSlots(v.Slots, 0, p)
	if v.Drop != packet.NotDropped {
		return v.Drop
	}
	return w.write(int(v.To), b, p)
}

// carryWaiting carries the fragments that came before the first one of their datagram. They
// were counted as received when they came.
func (w *worker) carryWaiting(s *topology.Snapshot, k *fragment.Key, waiting *fragment.Held) {
	for b := w.engine.fragments.Next(waiting); b != nil; b = w.engine.fragments.Next(waiting) {
		if drop := w.carryHeldAndTell(s, k, b); drop != packet.NotDropped {
			w.counters.drop(drop)
		}
	}
}

func (w *worker) carryHeld(s *topology.Snapshot, k *fragment.Key, b []byte) packet.Drop {
	if drop := w.decode(b, &w.packet); drop != packet.NotDropped {
		return drop
	}
	return w.laterFragment(s, k, b, &w.packet)
}
