package watch

import "sync/atomic"

// ring takes events from one worker to one reader, without locks and allocations. The bytes of
// packets are in a second ring, each packet's in one piece.
type ring struct {
	events []Event // a power of two
	data   []byte  // empty without snapping

	_        [64]byte // writer and reader have cache lines of their own
	tail     atomic.Uint64
	dataTail uint64
	met      uint64 // counts events that the filter took
	lost     atomic.Uint64
	since    atomic.Int64 // no later event is earlier than this; or idle, or beginning
	_        [64]byte
	head     atomic.Uint64 // slots before it are free
	dataHead atomic.Uint64
	read     uint64 // the reader holds the slots from head to here
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

// put is for the writer: it adds an event, and its packet's bytes in two parts. Without room it
// counts the event as lost and reports false.
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

// peek is for the reader: it returns the next event, or nil.
func (r *ring) peek() *Event {
	if r.read == r.tail.Load() {
		return nil
	}
	return &r.events[r.read%uint64(len(r.events))]
}

// take moves past the event that peek returned.
func (r *ring) take(e *Event) {
	r.dataRead = e.end
	r.read++
}

// release gives the slots that were taken back to the writer.
func (r *ring) release() {
	r.dataHead.Store(r.dataRead)
	r.head.Store(r.read)
}
