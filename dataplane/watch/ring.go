package watch

import "sync/atomic"

// ring takes events from one worker to one reader, without a lock and without memory of its own
// making. The bytes of packets are in a ring beside it, each packet's in one piece.
type ring struct {
	events []Event // a power of two
	data   []byte  // empty when nobody wants bytes

	_        [64]byte // the writer's, the reader's: lines of their own
	tail     atomic.Uint64
	dataTail uint64
	met      uint64 // events that the filter has taken
	lost     atomic.Uint64
	since    atomic.Int64 // no event will be from before; 0: the writer is idle, 1: not known yet
	_        [64]byte
	head     atomic.Uint64 // what lies before may be written again
	dataHead atomic.Uint64
	read     uint64 // what lies between head and here the reader has in its hands
	dataRead uint64
	_        [64]byte
}

func newRing(events, data int) *ring {
	size := 1
	for size < events {
		size *= 2
	}
	return &ring{events: make([]Event, size), data: make([]byte, data)}
}

// put is the writer's: an event, and its packet's bytes in two parts. It reports false, and
// counts, when there is no room.
func (r *ring) put(e *Event, head, rest []byte) bool {
	tail, n := r.tail.Load(), uint64(len(head)+len(rest))
	if tail-r.head.Load() == uint64(len(r.events)) {
		r.lost.Add(1)
		return false
	}
	at := r.dataTail
	if n > 0 {
		size := uint64(len(r.data))
		if at%size+n > size { // would be in two pieces
			at += size - at%size
		}
		if at+n-r.dataHead.Load() > size {
			r.lost.Add(1)
			return false
		}
		i := at % size
		copy(r.data[i:], head)
		copy(r.data[i+uint64(len(head)):], rest)
		e.at = uint32(i)
		r.dataTail = at + n
	}
	slot := &r.events[tail%uint64(len(r.events))]
	*slot = *e
	slot.Snapped, slot.end = uint32(n), r.dataTail
	r.tail.Store(tail + 1)
	return true
}

// peek is the reader's: the next event, or nil.
func (r *ring) peek() *Event {
	if r.read == r.tail.Load() {
		return nil
	}
	return &r.events[r.read%uint64(len(r.events))]
}

// take moves on behind the event that peek gave.
func (r *ring) take(e *Event) {
	r.dataRead = e.end
	r.read++
}

// release lets the writer have what was taken.
func (r *ring) release() {
	r.dataHead.Store(r.dataRead)
	r.head.Store(r.read)
}
