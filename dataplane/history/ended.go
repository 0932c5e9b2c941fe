package history

import (
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
)

const (
	// waitingEnded is how many ended flows wait to be summed up: more than end within poll in a sweep of the table.
	waitingEnded = 16_384
	// newestEnded is how many of them are remembered one by one.
	newestEnded = 8192
)

// Ended is a flow that has ended. It holds no pointer.
type Ended struct {
	// At is when that was noticed, in nanoseconds since 1970; the last packet was Flow.Idle before.
	At int64
	// Generation is that of the policy by which rules and attachments have names.
	Generation uint64
	// From and To are the attachments of both ends; -1 where the record was of the other end alone.
	From, To int32
	Flow     conntrack.FlowInfo
}

// endedRing takes flows from the flow table, whose calls never overlap, to one reader. It never waits.
type endedRing struct {
	flows []conntrack.FlowInfo
	tail  atomic.Uint64
	lost  atomic.Uint64
	_     [64]byte // keeps reader and writer on cache lines of their own
	head  atomic.Uint64
}

func newEndedRing() *endedRing { return &endedRing{flows: make([]conntrack.FlowInfo, waitingEnded)} }

// push takes a flow; it is for conntrack.Table.OnEnd.
func (r *endedRing) push(f *conntrack.FlowInfo) {
	tail := r.tail.Load()
	if tail-r.head.Load() == uint64(len(r.flows)) {
		r.lost.Add(1)
		return
	}
	r.flows[tail%uint64(len(r.flows))] = *f
	r.tail.Store(tail + 1)
}

// newest are the last flows that have ended, a ring.
type newest struct {
	list  []Ended
	count uint64 // of all that were in it
}

func (n *newest) add() *Ended {
	e := &n.list[n.count%uint64(len(n.list))]
	n.count++
	return e
}

// takeEnded sums up the flows that wait. mu is held.
func (h *History) takeEnded(now time.Time) {
	r := h.ended
	generation := h.engine.Snapshot().Generation
	head, tail := r.head.Load(), r.tail.Load()
	for ; head != tail; head++ {
		e := h.newest.add()
		e.At, e.Generation, e.Flow = now.UnixNano(), generation, r.flows[head%uint64(len(r.flows))]
		r.head.Store(head + 1)
		e.From, e.To = h.attachment(e.Flow.Key.Zone), h.attachment(e.Flow.ReplyKey.Zone)
		h.current.ended.add(e.key(), &Sums{Count: 1, Packets: e.Flow.Packets, Bytes: e.Flow.Bytes, Last: e.At})
	}
}

// attachment is that of a zone, or -1 for a far one.
func (h *History) attachment(zone uint16) int32 {
	if index, whole := h.engine.Room().Attachment(zone); whole {
		return int32(index)
	}
	return -1
}

// Rule is the slot of the last rule that allowed the flow; conntrack.NoSlot: there was none.
func (e *Ended) Rule() uint32 {
	last := conntrack.NoSlot
	for slots := e.Flow.Slots; slots.More(); slots = slots.Rest() {
		last = slots.First()
	}
	return last
}

func (e *Ended) key() Key {
	t := &e.Flow.Key.Tuple
	k := Key{Source: t.Src, Destination: t.Dst, Generation: e.Generation, Slot: e.Rule(), From: e.From, To: e.To, Protocol: t.Proto}
	if t.Proto == packet.ProtoTCP || t.Proto == packet.ProtoUDP {
		k.Port = t.DstPort
	}
	return k
}

// EndedSince gives the flows that have ended from the cursor on to yield, the oldest first, and returns the next cursor and
// how many the ring does not hold any more. A cursor of 0 begins with the oldest.
func (h *History) EndedSince(cursor uint64, yield func(*Ended)) (next, missed uint64) {
	h.mu.Lock()
	count, size := h.newest.count, uint64(len(h.newest.list))
	first := max(cursor, count-min(count, size))
	list := make([]Ended, 0, count-min(first, count))
	for i := first; i < count; i++ {
		list = append(list, h.newest.list[i%size])
	}
	h.mu.Unlock()
	for i := range list {
		yield(&list[i])
	}
	return count, first - min(cursor, first)
}

// Cursor is that of the next flow that ends.
func (h *History) Cursor() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.newest.count
}
