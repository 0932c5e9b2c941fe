package conntrack

import (
	"math/bits"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Init is what the record of a new flow gets besides its key.
type Init struct {
	// Slots are the rules that allowed the flow.
	Slots Slots
	// Generation is the judging policy's.
	Generation uint32
	// Established is the timeout in ClassTCPEstablished and ClassTCPTwoWay: the virtual
	// network's flowTimeoutInMinutes, or the translation's; 0: the table's. With Translated
	// it is UDP's too, answered or not: the port belongs to the flow for that long.
	Established time.Duration
	// Stateless makes a TCP flow one like UDP's: any segment begins it or passes, none
	// closes it.
	Stateless bool
	// ReplyZone is the zone of the destination, where replies come in.
	ReplyZone uint16
	Marks     Marks
	// Arrives is read when there are Marks. With Translated it is the packet's tuple as its
	// receiver sees it; replies come with the reverse.
	Arrives *packet.Tuple
	// Receiver is the receiver's own address, with Floating.
	Receiver packet.Addr
}

// MayBegin takes a token of Options.NewPerSecond in the zones of a flow that is about to be
// inserted; DropFlowRate: none is left. When Insert then creates no flow, call NotBegun.
func (w *Worker) MayBegin(zone, replyZone uint16, now Tick) packet.Drop {
	if !w.table.rates.take(zone, replyZone, now) {
		return w.refuse(RefusedRate)
	}
	return packet.NotDropped
}

// NotBegun refunds what MayBegin took.
func (w *Worker) NotBegun(zone, replyZone uint16) { w.table.rates.give(zone, replyZone) }

// Insert records the flow that p begins; created is then true. If p is a SYN that succeeds a live flow (see
// Succeeds), both live on: the new one waits, and no lookup finds it, until it is accepted (see Accepts) or times out. The caller counts p once it is
// certain that the flow stays: one that has counted nothing is in no flow log. The rules must allow
// the flow, and MayCreate and MayBegin must have said NotDropped. If another worker was first, p
// passes as a packet of that worker's flow, and drop is what Pass said.
//
// DropFlowLimit: the table or a zone is full and no flow was fit to be evicted.
//
// DropFlowConflict: the replies would belong to another live flow. That happens when two
// zones use the same addresses towards a third, when an address moved to another zone, or
// when two flows are translated to one tuple. In a shared record one sender could end the
// other's connection. A SYN that succeeds a live flow, but would go another way, is refused too.
func (w *Worker) Insert(k *Key, init *Init, p *packet.Packet, now Tick) (f Flow, d Direction, created bool, drop packet.Drop) {
	w.midway++
	f, d, created, drop = w.insert(k, init, p, now)
	w.midway--
	return f, d, created, drop
}

func (w *Worker) insert(k *Key, init *Init, p *packet.Packet, now Tick) (f Flow, d Direction, created bool, drop packet.Drop) {
	t := w.table
	why, ok := w.reserve(k.Zone, init.ReplyZone, now)
	if ok {
		if f, ok = t.allocate(); !ok {
			why = RefusedTable
			t.unreserve(k.Zone, init.ReplyZone)
		}
	}
	if !ok { // there is no room, but p may need none
		if f, d, ok := w.Lookup(k, now); ok && !w.Restarts(f, d, p) && !w.Succeeds(f, d, p) {
			return f, d, false, w.Pass(f, d, p, now)
		}
		return 0, 0, false, w.refuse(why)
	}
	t.fill(f, k, init, p, now)
	other, od, why, verdict := w.publish(f, k, init, p, now)
	switch verdict {
	case publishDone:
		w.counts.created.Add(1)
		return f, Original, true, packet.NotDropped
	case publishFound:
		t.release(f)
		t.unreserve(k.Zone, init.ReplyZone)
		return other, od, false, w.Pass(other, od, p, now)
	}
	t.release(f)
	t.unreserve(k.Zone, init.ReplyZone)
	return 0, 0, false, w.refuse(why)
}

type publishVerdict uint8

const (
	publishDone publishVerdict = iota
	publishFound
	publishRefused
)

// publish puts a filled record into the index, unless its key has a live flow. A flow with
// one of its keys ends here if it is over or if p restarts it.
func (w *Worker) publish(f Flow, k *Key, init *Init, p *packet.Packet, now Tick) (other Flow, od Direction, why Refusal, verdict publishVerdict) {
	t := w.table
	r := &t.records[f]
	reply := init.replyKey(k)
	a, b := t.secrets.hash(k), t.secrets.hash(&reply)
	var over [2]Flow // they end if p's flow begins
	var causes [2]EndCause
	n := 0
	waits, late := false, uint32(0) // number+1 of the flow that r's flow waits in place of
	t.index.lock(a, b)
	other, od, depth, found := t.find(k, a)
	if found {
		cause, ends := w.gone(other, od, p, now)
		succeeds := !ends && w.Succeeds(other, od, p)
		waits = succeeds && t.keysOf(other, k, &reply)
		switch {
		case ends:
			over[n], causes[n] = other, cause
			n++
		case waits:
			if next := Flow(t.records[other].successor.Load()); next != 0 && t.sameAttempt(next-1, k, init, p, now) {
				other, od, verdict = next-1, Original, publishFound
			}
		case succeeds: // it can't wait in the place of a flow with another way, and ends nothing itself
			verdict, why = publishRefused, RefusedConflict
		default:
			verdict = publishFound
		}
	}
	if verdict == publishDone && !waits && reply != *k {
		other, _, replyDepth, found := t.find(&reply, b)
		depth = max(depth, replyDepth)
		if found && (n == 0 || other != over[0]) {
			s := status(t.records[other].status.Load())
			if !s.class().Cut() && t.expiresIn(&t.records[other], s, now) > 0 {
				verdict, why = publishRefused, RefusedConflict
			} else {
				over[n], causes[n] = other, t.timedOut(other)
				n++
			}
		}
	}
	if verdict == publishDone && depth >= maxChain {
		verdict, why = publishRefused, RefusedTable
	}
	if verdict == publishDone && waits {
		s := t.firstStatus(p, init.Stateless) | statusWaits
		w.counts.live[s.class()].Add(1)
		if r.marks&Translated != 0 {
			w.counts.translated.Add(1)
		}
		r.links[Original].Store(uint32(other))
		late = t.records[other].successor.Swap(uint32(f + 1))
		r.status.Store(uint32(s))
	} else if verdict == publishDone {
		for i, cause := range causes[:n] {
			if !w.claim(over[i], cause) { // another worker has, and buries it
				over[i] = f
			}
		}
		s := t.firstStatus(p, init.Stateless)
		w.counts.live[s.class()].Add(1)
		if r.marks&Translated != 0 {
			w.counts.translated.Add(1)
		}
		t.portChanges(f, 1)
		r.status.Store(uint32(s))
		if reply != *k {
			t.link(f, Reply, b)
		}
		t.link(f, Original, a)
	}
	t.index.unlock(a, b)
	if verdict == publishDone {
		for _, other := range over[:n] {
			if other != f {
				w.bury(other)
			}
		}
	}
	if late != 0 {
		w.End(Flow(late-1), EndRestarted)
	}
	return other, od, why, verdict
}

// keysOf reports whether two keys are those of a flow, whichever is the original one.
func (t *Table) keysOf(f Flow, k, reply *Key) bool {
	a, b := t.keys(f)
	return a == *k && b == *reply || a == *reply && b == *k
}

// sameAttempt reports whether the flow that p begins waits already: p is its SYN, sent once more, and was
// judged by the same policy.
func (t *Table) sameAttempt(f Flow, k *Key, init *Init, p *packet.Packet, now Tick) bool {
	original, _ := t.keys(f)
	return original == *k && t.expiresIn(&t.records[f], status(t.records[f].status.Load()), now) > 0 && t.records[f].generation.Load() == init.Generation && t.sides[f].repeats(Original, p)
}

// Accepts reports whether p, a packet of f, is a SYN+ACK that acknowledges the SYN of a flow that waits for that in f's place.
// Then f has ended, and the other flow has its place: a lookup finds it.
func (w *Worker) Accepts(f Flow, d Direction, p *packet.Packet, now Tick) bool {
	t := w.table
	old := &t.records[f]
	if old.successor.Load() == 0 || p.TCPFlags&(packet.SYN|packet.ACK|packet.RST) != packet.SYN|packet.ACK {
		return false
	}
	w.midway++
	ha, hb := t.hashes(f)
	t.index.lock(ha, hb)
	took, claimed := false, false
	if n := old.successor.Load(); n != 0 {
		next := Flow(n - 1)
		if took = t.accepts(f, next, d, p, now) && w.joins(next); took {
			old.successor.Store(0)
			claimed = w.claim(f, EndRestarted) // or another worker has ended it, and buries it
			t.portChanges(next, 1)
			a, b := t.hashes(next)
			t.link(next, Reply, b)
			t.link(next, Original, a)
		}
	}
	t.index.unlock(ha, hb)
	if claimed {
		w.bury(f)
	}
	w.midway--
	return took
}

// accepts reports whether p, a packet of f, acknowledges the SYN of the flow that waits.
func (t *Table) accepts(f, next Flow, d Direction, p *packet.Packet, now Tick) bool {
	k, _ := t.keys(f)
	a, _ := t.keys(next)
	r := &t.records[next]
	return (a == k) == (d == Reply) && t.sides[next].answers(Reply, p.Ack) && t.expiresIn(r, status(r.status.Load()), now) > 0
}

// joins ends a flow's waiting. It is false when the flow has ended.
func (w *Worker) joins(f Flow) bool {
	r := &w.table.records[f]
	for {
		s := status(r.status.Load())
		if !s.live() {
			return false
		}
		if w.move(r, s, s&^statusWaits) {
			return true
		}
	}
}

// gone reports whether a flow with p's key is over at now, or ends because of p.
func (w *Worker) gone(f Flow, d Direction, p *packet.Packet, now Tick) (EndCause, bool) {
	r := &w.table.records[f]
	if w.table.expiresIn(r, status(r.status.Load()), now) == 0 {
		return w.table.timedOut(f), true
	}
	return EndRestarted, w.Restarts(f, d, p) || status(r.status.Load()).class().Cut()
}

// fill writes a record that only the caller knows.
func (t *Table) fill(f Flow, k *Key, init *Init, p *packet.Packet, now Tick) {
	r := &t.records[f]
	r.src, r.dst, r.srcPort, r.dstPort = k.Src, k.Dst, k.SrcPort, k.DstPort
	r.zone, r.replyZone, r.proto, r.icmpType = k.Zone, init.ReplyZone, k.Proto, p.ICMPType
	if r.marks = init.Marks; r.marks != 0 {
		t.translations[f].set(init)
	}
	if k.Proto == packet.ProtoTCP {
		t.sides[f].begin(p)
	}
	r.successor.Store(0)
	r.created = now
	r.setSlots(&init.Slots)
	r.established.Store(t.establishedTicks(init.Established))
	r.generation.Store(init.Generation)
	r.lastSeen.Store(uint32(now))
	for d := range r.tallies {
		r.tallies[d].reset()
		r.links[d].Store(0)
	}
}

// establishedTicks converts Init.Established.
func (t *Table) establishedTicks(d time.Duration) uint32 {
	if d > 0 {
		return ticks(d)
	}
	return t.established
}

func (t *Table) firstStatus(p *packet.Packet, stateless bool) status {
	switch {
	case p.Proto != packet.ProtoTCP:
		return liveStatus(oneWay(p.Proto))
	case stateless:
		return liveStatus(ClassTCPOneWay)
	}
	s := tcpStatus(firstTCP(p.TCPFlags)).withScale(Original, p)
	if p.TCPFlags&packet.SYN == 0 {
		s |= statusPicked
	}
	if t.loose || p.Fragment.IsFragment() {
		s |= statusLoose
	}
	return s
}

// pick draws a number below n.
func (w *Worker) pick(n uint32) uint32 {
	w.random += 0x9e3779b97f4a7c15
	hi, _ := bits.Mul64(fold(w.random, w.random^0xd6e8feb86659fd93), uint64(n))
	return uint32(hi)
}

func (w *Worker) refuse(why Refusal) packet.Drop {
	w.counts.refused[why].Add(1)
	switch why {
	case RefusedConflict:
		return packet.DropFlowConflict
	case RefusedRate:
		return packet.DropFlowRate
	}
	return packet.DropFlowLimit
}
