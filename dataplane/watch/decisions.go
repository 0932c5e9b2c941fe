package watch

import (
	"errors"
	"sync/atomic"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Decided is a packet about which the policy in force has decided: it began a flow, or the policy dropped it. It holds no pointer.
type Decided struct {
	// Packet is the packet as it came in.
	Packet packet.Packet
	// Generation is that of the policy that decided.
	Generation uint64
	// From is the attachment that the packet came from.
	From int32
	// Drop is why it was dropped, a reason of the policy; packet.NotDropped: it began a flow.
	Drop packet.Drop
}

// Decisions take packets about which the policy decides to one reader, who decides about them again. A packet that begins a flow
// pays for one copy; one of a live flow pays nothing. Nothing waits: a full ring loses the packet, and counts it.
//
// Put and Publish are for the workers, each with its own number. Read is for one reader. Lost and Close are safe for
// concurrent use.
type Decisions struct {
	rings   []decidedRing // by worker
	first   int           // of the reader: the ring that Read began with
	onClose func()
}

// decidedRing takes packets from one worker to the reader.
type decidedRing struct {
	list []Decided // a power of two

	_    [64]byte // writer and reader have cache lines of their own
	next uint64   // of the worker: where the next one goes
	free uint64   // of the worker: the places before it may be written to
	full uint64   // of the worker: counts what found no room
	tail atomic.Uint64
	lost atomic.Uint64
	_    [64]byte
	head atomic.Uint64 // places before it have been read
	_    [64]byte
}

// newDecisions makes room for so many packets of each worker, rounded up to a power of two.
func newDecisions(workers, packets int) *Decisions {
	size := 1
	for size < packets {
		size *= 2
	}
	d := &Decisions{rings: make([]decidedRing, workers)}
	for i := range d.rings {
		d.rings[i].list, d.rings[i].free = make([]Decided, size), uint64(size)
	}
	return d
}

// Put is the place for a worker's next packet, which Publish shows to the reader; nil: there is no room.
func (d *Decisions) Put(worker int) *Decided {
	r := &d.rings[worker]
	if r.next == r.free {
		if r.free = r.head.Load() + uint64(len(r.list)); r.next == r.free {
			r.full++
			return nil
		}
	}
	at := r.next
	r.next++
	return &r.list[at&uint64(len(r.list)-1)]
}

// Publish shows a worker's packets to the reader. Call it behind each burst.
func (d *Decisions) Publish(worker int) {
	r := &d.rings[worker]
	if r.tail.Load() != r.next {
		r.tail.Store(r.next)
	}
	if r.lost.Load() != r.full {
		r.lost.Store(r.full)
	}
}

// Read fills a slice with packets that wait, and returns how many. It does not wait for more. Packets of one worker are in
// their order, those of several are not.
func (d *Decisions) Read(into []Decided) (n int) {
	d.first = (d.first + 1) % len(d.rings) // a worker that fills every Read does not keep the others out
	for i := range d.rings {
		r := &d.rings[(d.first+i)%len(d.rings)]
		head := r.head.Load()
		for tail := r.tail.Load(); head != tail && n < len(into); n++ {
			into[n] = r.list[head&uint64(len(r.list)-1)]
			head++
		}
		if head != r.head.Load() {
			r.head.Store(head)
		}
	}
	return n
}

// Lost counts the packets that found no room.
func (d *Decisions) Lost() (n uint64) {
	for i := range d.rings {
		n += d.rings[i].lost.Load()
	}
	return n
}

// Close ends them. Workers put no more in after their burst.
func (d *Decisions) Close() { d.onClose() }

// ErrDecisions refuses a second reader of decisions.
var ErrDecisions = errors.New("somebody judges packets again already: one may at a time")

// Judge begins decisions, with room for so many packets of each worker. The error is ErrDecisions.
func (w *Watchers) Judge(workers, packets int) (*Decisions, error) {
	d := newDecisions(workers, packets)
	d.onClose = func() { w.decisions.CompareAndSwap(d, nil) }
	if !w.decisions.CompareAndSwap(nil, d) {
		return nil, ErrDecisions
	}
	return d, nil
}

// Decisions are those that a reader waits for; nil: nobody does.
func (w *Watchers) Decisions() *Decisions { return w.decisions.Load() }
