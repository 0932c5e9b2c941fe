package conntrack

import (
	"sync/atomic"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Flow names a live flow. A worker may keep it until its next Quiesce or Park. Until then it
// names the same flow, even if that ends meanwhile.
type Flow uint32

// Worker is a goroutine's access to the table. It is owned by one goroutine.
type Worker struct {
	_      [64]byte // own cache lines: every worker writes its own all the time
	table  *Table
	epoch  atomic.Uint64
	random uint64 // of the generator that picks victims
	counts *workerCounts
	midway int // steps under way that must not end early
	_      [64]byte
}

// Midway reports whether the worker is inside a step that must not end early: it holds locks, or has changed a part
// of what belongs together. After a panic there the table can't be used any more.
func (w *Worker) Midway() bool { return w.midway != 0 }

func newWorker(t *Table, i uint64) *Worker {
	w := &Worker{table: t, counts: &t.counts[i], random: fold(t.secrets[0]^(i+1), 0x9e3779b97f4a7c15)}
	w.epoch.Store(parked)
	return w
}

// Lookup finds the live flow of a packet with key k. A flow whose timeout has passed is absent.
func (w *Worker) Lookup(k *Key, now Tick) (Flow, Direction, bool) {
	return w.LookupHash(k, w.Hash(k), now)
}

// Hash returns what LookupHash and Warm take for a key.
func (w *Worker) Hash(k *Key) uint64 { return w.table.secrets.hash(k) }

// LookupHash is Lookup with a known hash.
func (w *Worker) LookupHash(k *Key, hash uint64, now Tick) (Flow, Direction, bool) {
	t := w.table
	f, d, _, ok := t.find(k, hash)
	if !ok {
		return 0, 0, false
	}
	r := &t.records[f]
	if s := status(r.status.Load()); s.class().Cut() || t.expiresIn(r, s, now) == 0 {
		return 0, 0, false
	}
	return f, d, true
}

// Lives reports whether a lookup of the flow's keys would find it: one that waits in another's place is not found.
func (w *Worker) Lives(f Flow, now Tick) bool {
	r := &w.table.records[f]
	s := status(r.status.Load())
	return s&(statusLive|statusWaits) == statusLive && !s.class().Cut() && w.table.expiresIn(r, s, now) > 0
}

// Cut ends a flow that the rules deny now. For as long as it could have lived on, what would begin it again from
// its other side is Barred.
func (w *Worker) Cut(f Flow, now Tick) {
	w.midway++
	w.cut(f, now)
	w.midway--
}

func (w *Worker) cut(f Flow, now Tick) {
	t := w.table
	r := &t.records[f]
	class := cutClass(r.proto)
	for {
		s := status(r.status.Load())
		if class == NumClasses {
			w.End(f, EndDenied)
			return
		}
		if !s.live() || s.class().Cut() {
			return
		}
		r.established.Store(t.lifetime(r, s))
		if w.move(r, s, liveStatus(class)) {
			break
		}
	}
	r.see(now)
	w.counts.ended[EndDenied].Add(1)
	t.countCut(r, 1)
	w.endSuccessor(f)
}

// Barred reports whether p, a packet without a flow, would begin a flow again that was cut: it is of the side that
// did not begin that. k is a key of such a flow, and direction that of packets that come in under it. A SYN
// asks for a connection of its own.
func (w *Worker) Barred(k *Key, direction Direction, p *packet.Packet, now Tick) bool {
	t := w.table
	if t.cuts.Load() == 0 || p.Proto == packet.ProtoTCP && bareSYN(p.TCPFlags) {
		return false
	}
	f, d, _, ok := t.find(k, t.secrets.hash(k))
	if !ok || d != direction {
		return false
	}
	r := &t.records[f]
	if s := status(r.status.Load()); !s.class().Cut() || t.expiresIn(r, s, now) == 0 {
		return false
	}
	r.see(now)
	return true
}

// warmAtOnce bounds how many keys Warm works on at a time.
const warmAtOnce = 64

// Warm reads what lookups of keys with these hashes are going to read. A table of a million
// flows is in no cache, and each lookup waits for memory four times. Here the processor
// waits for many keys together, because no read depends on another key's.
//
// A fifth of a full table's flows are behind another entry of their chain. Warm follows one link for them.
func (w *Worker) Warm(hashes []uint64) {
	t := w.table
	var refs [warmAtOnce]ref
	var behind [warmAtOnce]uint8 // keys whose first entry is another key's
	for len(hashes) > 0 {
		n := min(len(hashes), warmAtOnce)
		for i, h := range hashes[:n] {
			refs[i] = ref(t.index.heads[h&t.index.mask].Load())
		}
		m := uint(0)
		for i, h := range hashes[:n] {
			e := refs[i]
			switch {
			case e.tag() == tag(h):
				t.warm(e)
			case e != 0 && e&refLast == 0:
				refs[i], behind[m%warmAtOnce] = t.warm(e), uint8(i)
				m++
			default:
				refs[i] = 0
			}
		}
		for _, i := range behind[:m] {
			if e := refs[i%warmAtOnce]; e != 0 {
				t.warm(e)
			}
		}
		for _, e := range refs[:n] {
			if e != 0 && t.records[e.flow()].proto == packet.ProtoTCP { // others have no windows
				t.sides[e.flow()][Original].sent.Load()
			}
		}
		hashes = hashes[n:]
	}
}

// warm reads both lines of an entry's record, and returns the next entry.
func (t *Table) warm(e ref) ref {
	r := &t.records[e.flow()]
	r.status.Load()
	return ref(r.links[e.direction()].Load())
}

// Restarts reports whether p, a packet of f, asks for a new flow in f's place. That is a SYN
// from either side of a connection that is closed or reset, or an ICMP request of
// another kind than the one that began f. The rules then judge p as a flow's first packet; if
// they allow it, the caller ends f with EndRestarted.
func (w *Worker) Restarts(f Flow, d Direction, p *packet.Packet) bool {
	r := &w.table.records[f]
	switch r.proto {
	case packet.ProtoTCP:
		s := status(r.status.Load())
		return bareSYN(p.TCPFlags) && !s.class().stateless() && s.tcp().restartedBy(p.TCPFlags)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return p.IsICMPRequest() && (d == Reply || p.ICMPType != r.icmpType)
	}
	return false
}

// Asks reports whether p, a packet of a live flow, may ask for a new one, or answer one that does: only then
// the caller needs Accepts, Restarts and Succeeds.
func (w *Worker) Asks(p *packet.Packet) bool {
	return p.Proto == packet.ProtoTCP && p.TCPFlags&packet.SYN != 0 || p.Proto == packet.ProtoICMP || p.Proto == packet.ProtoICMPv6
}

// Succeeds reports whether p, a packet of f, is a SYN that asks for a new connection while f lives. The rules
// judge p as a flow's first packet, and if they allow it, the caller inserts it: see Insert.
func (w *Worker) Succeeds(f Flow, d Direction, p *packet.Packet) bool {
	if p.Proto != packet.ProtoTCP || !bareSYN(p.TCPFlags) {
		return false
	}
	s := status(w.table.records[f].status.Load())
	return !s.class().stateless() && s.tcp().succeededBy(&w.table.sides[f], d, p)
}

// Pass takes a packet of a live flow: state and last-seen move on, and Segments and WireLen are
// counted. A packet that is dropped (DropTCPFlags, DropTCPState, DropICMPNoFlow) changes and
// counts nothing. A segment that does not fit the windows of its connection passes and is counted, and
// changes nothing else. Several workers may pass packets of one flow at the same time.
func (w *Worker) Pass(f Flow, d Direction, p *packet.Packet, now Tick) packet.Drop {
	drop := w.Advance(f, d, p, now)
	if drop == packet.NotDropped {
		w.table.records[f].count(d, p)
	}
	return drop
}

// Advance is Pass for a caller that counts later, by Add, and before its next Quiesce or Park.
func (w *Worker) Advance(f Flow, d Direction, p *packet.Packet, now Tick) packet.Drop {
	r := &w.table.records[f]
	refresh := true
	switch r.proto {
	case packet.ProtoTCP:
		const judged = packet.SYN | packet.ACK | packet.RST | packet.FIN
		s := status(r.status.Load())
		if s.class() == ClassTCPEstablished && p.TCPFlags&judged == packet.ACK && !p.Fragment.IsFragment() {
			if refresh = w.table.sides[f].pass(s, d, p); !refresh {
				w.counts.outOfWindow.Add(uint64(p.Segments))
			}
		} else {
			var drop packet.Drop
			if refresh, drop = w.passTCP(f, d, p); drop != packet.NotDropped {
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
	return packet.NotDropped
}

// Add counts what several packets of a flow are on a wire: segments and bytes.
func (w *Worker) Add(f Flow, d Direction, segments, bytes uint32) {
	w.table.records[f].tallies[d&1].add(segments, bytes)
}

// Count counts a later fragment of a live flow. State and last-seen stay: the first fragment
// has moved them on.
func (w *Worker) Count(f Flow, d Direction, p *packet.Packet) { w.table.records[f].count(d, p) }

// Uncount takes back what Pass counted: the packet was dropped at its other end.
func (w *Worker) Uncount(f Flow, d Direction, p *packet.Packet) {
	w.table.records[f].tallies[d].subtract(p.Segments, p.WireLen)
}

// passTCP moves a connection's state on. The state of a flow that has ended stays.
func (w *Worker) passTCP(f Flow, d Direction, p *packet.Packet) (refresh bool, drop packet.Drop) {
	r, x := &w.table.records[f], &w.table.sides[f]
	if impossibleTCP(p.TCPFlags) {
		return false, packet.DropTCPFlags
	}
	for {
		from := status(r.status.Load())
		s := from.tcp()
		switch {
		case from.class().Cut(): // since it was looked up
			return false, packet.DropFlowCut
		case from.class().stateless():
			if r.marks&Resets != 0 && p.TCPFlags&packet.ACK != 0 {
				x.passLoose(d, p)
			}
			w.passOther(r, ClassTCPOneWay, d)
			return true, packet.NotDropped
		case s.restartedBy(p.TCPFlags), s.succeededBy(x, d, p): // the caller should have asked first
			return false, packet.DropTCPState
		case s.reset: // the tail of what was under way
			return false, packet.NotDropped
		}
		flags, to, fits := x.fits(from, d, p)
		if !fits {
			w.counts.outOfWindow.Add(uint64(p.Segments))
			if from.live() && s.peers[d] == peerSilent && s.peers[1-d] == peerOpening && flags&packet.RST == 0 && flags&packet.SYN == 0 {
				// An old connection's answer to a SYN, which the opener will reset (RFC 5961 section 4).
				s.peers[d] = peerJoined
				w.move(r, from, tcpStatus(s)|from&statusKept)
			}
			return false, packet.NotDropped
		}
		s, refresh, drop := s.next(d, flags)
		if to = tcpStatus(s) | to&statusKept; p.Fragment.IsFragment() && !bareSYN(p.TCPFlags) {
			to |= statusLoose // where its datagram ends is not known
		}
		if drop != packet.NotDropped || !from.live() || w.move(r, from, to) {
			return refresh, drop
		}
	}
}

// passOther notes the first reply of a flow without states of its own.
func (w *Worker) passOther(r *record, one Class, d Direction) {
	if s := status(r.status.Load()); d == Reply && s == liveStatus(one) {
		w.move(r, s, liveStatus(one+1)) // it fails if another worker was first or the flow ended
	}
}

// move replaces a live flow's status and keeps the counts by class in step.
func (w *Worker) move(r *record, from, to status) bool {
	if from == to {
		return true
	}
	if !r.status.CompareAndSwap(uint32(from), uint32(to)) {
		return false
	}
	if from.class() != to.class() {
		w.counts.live[from.class()].Add(-1)
		w.counts.live[to.class()].Add(1)
	}
	return true
}

// End ends a flow and reports whether it had not ended before. The handle stays valid until
// the next Quiesce, but no lookup finds the flow any more.
func (w *Worker) End(f Flow, cause EndCause) bool {
	w.midway++
	ended := w.claim(f, cause)
	if ended {
		w.bury(f)
	}
	w.midway--
	return ended
}

// claim ends a flow for all workers. Of several that try one succeeds, and must bury the flow.
func (w *Worker) claim(f Flow, cause EndCause) bool {
	t := w.table
	r := &t.records[f]
	for {
		s := status(r.status.Load())
		if !s.live() {
			return false
		}
		// The class stays: a worker that still holds the flow may look at it.
		if r.status.CompareAndSwap(uint32(s), uint32(s&^statusLive)) {
			w.counts.live[s.class()].Add(-1)
			if r.marks&Translated != 0 {
				w.counts.translated.Add(-1)
			}
			if s.class().Cut() {
				t.countCut(r, -1)
			} else {
				w.counts.ended[cause].Add(1)
			}
			t.unreserve(r.zone, r.replyZone)
			return true
		}
	}
}

// bury takes a claimed flow out of the index and lets its record wait for reuse.
//
// A flow and the one that waits in its place have the same two keys. Whoever lets them know of each other,
// or forget, holds the locks of these.
func (w *Worker) bury(f Flow) {
	t := w.table
	r := &t.records[f]
	a, b := t.hashes(f)
	t.index.lock(a, b)
	next := r.successor.Swap(0)
	waits := status(r.status.Load())&statusWaits != 0
	if waits {
		t.records[r.links[Original].Load()].successor.CompareAndSwap(uint32(f+1), 0)
	} else {
		t.unpublish(f, a, b)
	}
	t.index.unlock(a, b)
	if !waits {
		t.portChanges(f, -1)
	}
	if next != 0 {
		w.End(Flow(next-1), EndRestarted)
	}
	t.retire(f)
}

// endSuccessor ends the flow that waits in a flow's place.
func (w *Worker) endSuccessor(f Flow) {
	t := w.table
	a, b := t.hashes(f)
	t.index.lock(a, b)
	next := t.records[f].successor.Swap(0)
	t.index.unlock(a, b)
	if next != 0 {
		w.End(Flow(next-1), EndRestarted)
	}
}

// Slots are the rules that allowed the flow at its last judgement.
func (w *Worker) Slots(f Flow) Slots { return w.table.records[f].loadSlots() }

// Generation is the policy's at the flow's last judgement.
func (w *Worker) Generation(f Flow) uint32 { return w.table.records[f].generation.Load() }

// Judged records a new judgement of the flow: the policy's generation and the rules. Counters
// and state go on.
func (w *Worker) Judged(f Flow, generation uint32, slots *Slots) {
	w.table.records[f].setSlots(slots)
	w.table.records[f].generation.Store(generation)
}

// Stands records that the policy of that generation has no reason to judge the flow again.
func (w *Worker) Stands(f Flow, generation uint32) { w.table.records[f].generation.Store(generation) }

// PeerZone is the zone where a packet of direction d goes.
func (w *Worker) PeerZone(f Flow, d Direction) uint16 {
	if d == Original {
		return w.table.records[f].replyZone
	}
	return w.table.records[f].zone
}

// Answered reports whether the side that did not begin the flow has been heard.
func (w *Worker) Answered(f Flow) bool {
	return status(w.table.records[f].status.Load()).answered()
}

func (s status) answered() bool {
	if s.class() == ClassTCPSynSent {
		return s.tcp().peers[Original] == peerOpen
	}
	return !s.class().unanswered()
}

// Class is the flow's protocol and state.
func (w *Worker) Class(f Flow) Class { return status(w.table.records[f].status.Load()).class() }

// OriginalKey is the key of the packet that began the flow. A new judgement is about it.
func (w *Worker) OriginalKey(f Flow) Key {
	r := &w.table.records[f]
	return Key{r.tuple(), r.zone}
}
