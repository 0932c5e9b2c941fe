package conntrack

import (
	"sync/atomic"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Flow names a live flow. A worker may keep it until its next Quiesce or Park; up
// to then it is the same flow, even if that ends meanwhile.
type Flow uint32

// Worker is a goroutine's access to the table. It is owned by one goroutine.
type Worker struct {
	_      [64]byte // own cache lines: every worker writes its own all the time
	table  *Table
	epoch  atomic.Uint64
	random uint64 // state of the generator that picks victims
	counts workerCounts
	_      [64]byte
}

func newWorker(t *Table, i uint64) *Worker {
	w := &Worker{table: t, random: fold(t.secrets[0]^(i+1), 0x9e3779b97f4a7c15)}
	w.epoch.Store(parked)
	return w
}

// Lookup finds the live flow of a packet that came in under key k. A flow whose
// timeout has passed is absent.
func (w *Worker) Lookup(k *Key, now Tick) (Flow, Direction, bool) {
	return w.LookupHash(k, w.Hash(k), now)
}

// Hash is what LookupHash and Warm know a key by.
func (w *Worker) Hash(k *Key) uint64 { return w.table.secrets.hash(k) }

// LookupHash is Lookup of a key whose hash is known.
func (w *Worker) LookupHash(k *Key, hash uint64, now Tick) (Flow, Direction, bool) {
	t := w.table
	f, d, _, ok := t.find(k, hash)
	if !ok {
		return 0, 0, false
	}
	r := &t.records[f]
	if t.expiresIn(r, word(r.state.Load()), now) == 0 {
		return 0, 0, false
	}
	return f, d, true
}

// warmAtOnce bounds how many keys Warm works on at a time.
const warmAtOnce = 64

// Warm reads what lookups of keys with these hashes are going to read. One lookup after
// the other waits for memory three times, and a table of a million flows is in no
// cache; read for many keys in a row, without a look at what comes back, the processor
// waits for all of them together.
func (w *Worker) Warm(hashes []uint64) {
	t := w.table
	var refs [warmAtOnce]ref
	for len(hashes) > 0 {
		n := min(len(hashes), warmAtOnce)
		for i, h := range hashes[:n] {
			refs[i] = ref(t.index.heads[h&t.index.mask].Load())
		}
		for i, h := range hashes[:n] {
			if e := refs[i]; e != 0 && (e.tag() == tag(h) || e&refLast == 0) {
				r := &t.records[e.flow()]
				r.state.Load()
				r.links[e.direction()].Load()
			}
		}
		hashes = hashes[n:]
	}
}

// Restarts reports whether p, which Lookup found to belong to f, asks for a new
// flow in its place: a SYN from either side of a connection that is closing,
// closed or reset, or an ICMP request of another kind than the one that began
// f. The caller lets the rules judge p as the first packet of a flow whose original
// side is p's sender, and ends f with EndRestarted if they allow it.
func (w *Worker) Restarts(f Flow, d Direction, p *packet.Packet) bool {
	r := &w.table.records[f]
	switch r.proto {
	case packet.ProtoTCP:
		s := word(r.state.Load())
		return bareSYN(p.TCPFlags) && !s.class().stateless() && s.tcp().restartedBy(p.TCPFlags)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return p.IsICMPRequest() && (d == Reply || p.ICMPType != r.icmpType)
	}
	return false
}

// Pass takes a packet of a live flow: state and last-seen move on, its Segments
// and WireLen are counted. A packet that is dropped (DropTCPFlags, DropTCPState,
// DropICMPNoFlow) changes and counts nothing. Several workers may
// pass packets of one flow at the same time.
func (w *Worker) Pass(f Flow, d Direction, p *packet.Packet, now Tick) packet.Drop {
	r := &w.table.records[f]
	refresh := true
	switch r.proto {
	case packet.ProtoTCP:
		const judged = packet.SYN | packet.ACK | packet.RST | packet.FIN
		established := word(r.state.Load()).class() == ClassTCPEstablished
		if !established || p.TCPFlags&judged != packet.ACK {
			var drop packet.Drop
			if refresh, drop = w.passTCP(r, d, p.TCPFlags); drop != packet.NotDropped {
				return drop
			}
		}
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if drop := r.allowsICMP(d, p); drop != packet.NotDropped {
			return drop
		}
		w.passOther(r, oneWay(r.proto), d)
	default:
		w.passOther(r, oneWay(r.proto), d)
	}
	if refresh {
		r.see(now)
	}
	r.count(d, p)
	return packet.NotDropped
}

// Count counts a packet of a live flow without moving it on: a later fragment, of which
// the first one has passed.
func (w *Worker) Count(f Flow, d Direction, p *packet.Packet) { w.table.records[f].count(d, p) }

// Uncount takes back what Pass has counted of a packet: it was dropped at another end.
func (w *Worker) Uncount(f Flow, d Direction, p *packet.Packet) {
	r := &w.table.records[f]
	r.packets[d].Add(-uint64(p.Segments))
	r.bytes[d].Add(-uint64(p.WireLen))
}

// passTCP moves a connection's state on. Once a flow has ended its state stays.
func (w *Worker) passTCP(r *record, d Direction, flags uint8) (refresh bool, drop packet.Drop) {
	if word(r.state.Load()).class().stateless() {
		if impossibleTCP(flags) {
			return false, packet.DropTCPFlags
		}
		w.passOther(r, ClassTCPOneWay, d)
		return true, packet.NotDropped
	}
	for {
		s := word(r.state.Load())
		to, refresh, drop := s.tcp().next(d, flags)
		if drop != packet.NotDropped || !s.live() || w.move(r, s, tcpWord(to)) {
			return refresh, drop
		}
	}
}

// passOther notes the first reply of a flow without states of its own.
func (w *Worker) passOther(r *record, one Class, d Direction) {
	if s := word(r.state.Load()); d == Reply && s == liveWord(one) {
		w.move(r, s, liveWord(one+1)) // or another worker did, or the flow has ended
	}
}

// move replaces a live flow's state and keeps the counts by class in step.
func (w *Worker) move(r *record, from, to word) bool {
	if from == to {
		return true
	}
	if !r.state.CompareAndSwap(uint32(from), uint32(to)) {
		return false
	}
	if from.class() != to.class() {
		w.counts.live[from.class()].Add(-1)
		w.counts.live[to.class()].Add(1)
	}
	return true
}

// End ends a flow, if it has not ended already. The handle stays valid until the
// next Quiesce, but no lookup finds the flow any more.
func (w *Worker) End(f Flow, cause EndCause) bool {
	if !w.claim(f, cause) {
		return false
	}
	w.bury(f)
	return true
}

// Withdraw ends a flow that the caller has inserted for p and that is not to be after all: p counts
// on another.
func (w *Worker) Withdraw(f Flow, p *packet.Packet) {
	w.Uncount(f, Original, p)
	w.End(f, EndFlushed)
}

// claim ends a flow for everybody; of several who try, one succeeds and must bury it.
func (w *Worker) claim(f Flow, cause EndCause) bool {
	t := w.table
	r := &t.records[f]
	for {
		s := word(r.state.Load())
		if !s.live() {
			return false
		}
		// The class stays: whoever still holds the flow may look at it.
		if r.state.CompareAndSwap(uint32(s), uint32(s&^wordLive)) {
			w.counts.live[s.class()].Add(-1)
			if r.marks&Translated != 0 {
				w.counts.translated.Add(-1)
			}
			w.counts.ended[cause].Add(1)
			t.unreserve(r.zone, r.replyZone)
			return true
		}
	}
}

// bury takes a claimed flow out of the index and lets its record wait for reuse.
func (w *Worker) bury(f Flow) {
	w.table.unpublish(f)
	w.table.retire(f)
}

// Slots are the rules that allowed the flow when it was judged last.
func (w *Worker) Slots(f Flow) Slots { return w.table.records[f].loadSlots() }

// Generation is that of the policy under which the flow was last judged.
func (w *Worker) Generation(f Flow) uint32 { return w.table.records[f].generation.Load() }

// Judged notes that the flow was judged again: by which policy and by which rules. Its
// counters and its state go on.
func (w *Worker) Judged(f Flow, generation uint32, slots *Slots) {
	w.table.records[f].setSlots(slots)
	w.table.records[f].generation.Store(generation)
}

// Stands notes that a policy has no reason to judge the flow again.
func (w *Worker) Stands(f Flow, generation uint32) { w.table.records[f].generation.Store(generation) }

// PeerZone is the zone of the other end, where a packet of direction d goes.
func (w *Worker) PeerZone(f Flow, d Direction) uint16 {
	if d == Original {
		return w.table.records[f].replyZone
	}
	return w.table.records[f].zone
}

// Class is the flow's protocol and state.
func (w *Worker) Class(f Flow) Class { return word(w.table.records[f].state.Load()).class() }

// OriginalKey is the key of the packet that began the flow, which is what rules
// are asked about when a flow is judged again.
func (w *Worker) OriginalKey(f Flow) Key {
	r := &w.table.records[f]
	return Key{r.tuple(), r.zone}
}
