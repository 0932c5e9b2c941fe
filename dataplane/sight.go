package dataplane

import (
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/tun"
)

// headLen is how much of a packet the pipeline may write to: the headers, and those that an
// ICMP error quotes.
const headLen = 256

// sight is what a worker notes of a packet on its way while somebody watches. Only watchers and
// to are kept when nobody does.
type sight struct {
	watchers *watchers // of the burst; nil: nobody watches
	to       int       // the attachment that the packet was written to; -1: none

	time    int64 // wall clock, of the group, or the burst where only drops are told; 0: not taken yet
	event   watch.Event
	counted bool // that rules let it pass or drop it, be it none of them
	judged  bool // it has begun a flow, or was let pass or dropped by itself; valid when counted
	head    [headLen]byte
	headLen int
}

// look begins a burst.
func (w *worker) look() {
	w.sight.watchers, w.sight.time = w.engine.watchers.Load(), 0
}

// lookAtGroup begins a group of packets that were read. Its time is that of an instant between
// their reading and their writing, so an answer is later than what it answers, whichever worker has it.
func (w *worker) lookAtGroup() {
	n := &w.sight
	if n.watchers == nil || n.watchers.droppedOnly {
		return
	}
	for _, sub := range n.watchers.list {
		sub.Begin(w.index)
	}
	n.time = time.Now().UnixNano()
	for _, sub := range n.watchers.list {
		sub.Since(w.index, n.time)
	}
}

// lookAway ends a burst.
func (w *worker) lookAway() {
	n := &w.sight
	if n.watchers == nil || n.watchers.droppedOnly {
		return
	}
	for _, sub := range n.watchers.list {
		sub.End(w.index)
	}
}

// carryAndTell is carry, of which it tells who watches.
func (w *worker) carryAndTell(s *topology.Snapshot, from *topology.Attachment, g *slot) packet.Drop {
	if w.sight.watchers == nil {
		return w.carry(s, from, g)
	}
	w.beforeCarry(from, g.frame, &g.packet)
	drop := w.carry(s, from, g)
	w.afterCarry(s, from, g.frame, &g.packet, drop)
	return drop
}

// carryHeldAndTell is carryHeld, of which it tells who watches. It is in the middle of the
// carrying of a first fragment.
func (w *worker) carryHeldAndTell(s *topology.Snapshot, k *fragment.Key, b []byte) packet.Drop {
	if w.sight.watchers == nil {
		return w.carryHeld(s, k, b)
	}
	first := w.sight
	w.decode(b, &w.packet)
	w.beforeCarry(s.Attachments[k.Zone], b, &w.packet)
	drop := w.carryHeld(s, k, b)
	w.afterCarry(s, s.Attachments[k.Zone], b, &w.packet, drop)
	w.sight = first
	return drop
}

// beforeCarry notes what carry may change. Where only drops are told, as for flow logs, that is next to
// nothing: most packets are not dropped.
func (w *worker) beforeCarry(from *topology.Attachment, frame []byte, p *packet.Packet) {
	n := &w.sight
	n.to, n.counted, n.event.N = -1, false, 0
	n.event.Packet.Tuple = p.Tuple
	if n.watchers.snap {
		n.headLen = copy(n.head[:], frame[tun.HeaderLen:])
	}
	if !n.watchers.droppedOnly {
		w.notePacket(from, frame, p)
	}
}

// notePacket notes the packet, but for its tuple and the rules.
func (w *worker) notePacket(from *topology.Attachment, frame []byte, p *packet.Packet) {
	n, e := &w.sight, &w.sight.event
	if n.time == 0 {
		n.time = time.Now().UnixNano()
	}
	sent := e.Packet.Tuple
	e.Packet = *p
	e.Packet.Tuple = sent
	e.Time, e.From, e.Length = n.time, int32(from.Index), uint32(len(frame)-tun.HeaderLen)
	e.Standing, e.Direction, e.Translated, e.Snapped = watch.NoFlow, conntrack.Original, false, 0
}

// noteSlots notes the rules that a packet counts on.
func (w *worker) noteSlots(slots conntrack.Slots, hits uint64) {
	n := &w.sight
	if !n.counted {
		n.counted, n.judged = true, hits > 0
	}
	n.event.Note(slots)
}

// afterCarry tells the watchers, unless the packet waits for its datagram's first fragment.
func (w *worker) afterCarry(s *topology.Snapshot, from *topology.Attachment, frame []byte, p *packet.Packet, drop packet.Drop) {
	n, e := &w.sight, &w.sight.event
	if drop == packet.NotDropped && (n.to < 0 || n.watchers.droppedOnly) {
		return
	}
	if n.watchers.droppedOnly {
		w.notePacket(from, frame, p)
	}
	e.Generation, e.Drop, e.To = s.Generation, drop, int32(n.to)
	e.Packet.Segments, e.Packet.WireLen = p.Segments, p.WireLen
	if p.Tuple != e.Packet.Tuple {
		e.Translated, e.Arrives = true, p.Tuple
	}
	if drop != packet.NotDropped && n.to < 0 {
		e.To = w.wouldGo(s, e)
	}
	w.setStanding(e)
	var head, rest []byte
	if n.watchers.snap {
		head, rest = n.head[:n.headLen], frame[tun.HeaderLen+n.headLen:]
	}
	for _, sub := range n.watchers.list {
		if drop != packet.NotDropped || !sub.DroppedOnly() {
			sub.Put(w.index, e, head, rest)
		}
	}
}

// wouldGo is the attachment that a dropped packet was for, or -1 where that was not asked or
// is nowhere.
func (w *worker) wouldGo(s *topology.Snapshot, e *watch.Event) int32 {
	if e.Packet.Dst == (packet.Addr{}) {
		return -1
	}
	src, drop := verdict.Admit(s, s.Attachments[e.From], &e.Packet.Tuple)
	if drop != packet.NotDropped {
		return -1
	}
	var d verdict.Decision
	if d.Route(s, src, &e.Packet.Tuple) != packet.NotDropped || d.Way.To == nil {
		return -1
	}
	// A packet that is denied was not rewritten yet, and the addresses that were sent lead elsewhere.
	if e.Drop == packet.DropRule && d.Way.Translated && d.Way.Ports == nil {
		e.Translated, e.Arrives = true, d.Way.Arrives
	}
	return int32(d.Way.To.Attachment)
}

// setStanding says how the packet stands to a flow. It finds the direction by looking the flow up
// once more, to leave the path of what nobody watches alone.
func (w *worker) setStanding(e *watch.Event) {
	n, key := &w.sight, w.key
	switch {
	case e.Packet.Fragment.IsLater():
		if !n.counted || !w.first.InFlow {
			return
		}
		e.Standing, key = watch.InFlow, &w.first.Flow
		if w.first.Related {
			e.Standing = watch.Related
		}
	case e.Drop == packet.DropTCPState:
		e.Standing = watch.InFlow
	case !n.counted || w.belongs == toNoFlow:
		return
	case w.belongs == toQuotedFlow:
		e.Standing = watch.Related
	case !n.judged:
		e.Standing = watch.InFlow
	case e.Drop == packet.NotDropped || e.Drop == packet.DropTransmit:
		e.Standing = watch.Begins
		return
	default:
		return
	}
	if _, d, ok := w.flows.Lookup(key, w.now); ok {
		e.Direction = d
	}
}
