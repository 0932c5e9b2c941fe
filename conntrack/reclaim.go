package conntrack

import (
	"math"
	"sync"
	"sync/atomic"
)

// parked is the epoch of a worker that holds no flow and looks at none.
const parked = math.MaxUint64

// reclaimer keeps the records of ended flows until no worker can still hold them.
//
// There is a global epoch. A worker notes it at each quiescent point, and it moves on by one
// when all workers have noted the present one. A record that left the index in epoch e is
// free once all have noted e+1: each worker was quiescent after the record left.
//
// So three lists of waiting records are enough: those of this epoch, of the last one, and of
// the one before, which is emptied as the epoch moves on.
type reclaimer struct {
	epoch   atomic.Uint64
	limbo   [3]atomic.Uint32 // number+1 of the first record, by epoch modulo 3
	waiting atomic.Int64     // records not yet reusable

	free atomic.Uint64 // stack: count of changes << 32 | number+1 of the first record

	reclaiming sync.Mutex
	ready      uint32 // number+1 of the first record that no worker holds and that is not in free yet; guarded by reclaiming
	onEnd      []func(*FlowInfo)
	ended      FlowInfo // for onEnd; guarded by reclaiming
}

const (
	// A table has that many records for each worker beyond its limit: one that is full and
	// evicts needs a fresh record at once, while the evicted one waits.
	reserveMin, reserveMax = 256, 1024
	// From reclaimFrom waiting records on workers lend a hand: each puts reclaimStep back
	// at a time.
	reclaimFrom = 64
	reclaimStep = 256
)

// allocate takes a free record.
func (t *Table) allocate() (Flow, bool) {
	for {
		top := t.free.Load()
		n := uint32(top)
		if n == 0 {
			break
		}
		next := t.records[n-1].next.Load()
		// The count in the upper half shows that the stack changed and changed back meanwhile.
		if t.free.CompareAndSwap(top, (top>>32+1)<<32|uint64(next)) {
			return Flow(n - 1), true
		}
	}
	for {
		n := t.used.Load()
		if n == uint32(len(t.records)) {
			return 0, false
		}
		if t.used.CompareAndSwap(n, n+1) {
			return Flow(n), true
		}
	}
}

// blank makes a record that only the caller knows one without a flow.
func (t *Table) blank(f Flow) {
	r := &t.records[f]
	r.setSlots(&Slots{}) // see EachSlots
	r.status.Store(0)    // see bequeathed
}

// release frees a record that only the caller knows.
func (t *Table) release(f Flow) {
	t.blank(f)
	r := &t.records[f]
	for {
		top := t.free.Load()
		r.next.Store(uint32(top))
		if t.free.CompareAndSwap(top, (top>>32+1)<<32|uint64(f+1)) {
			return
		}
	}
}

// retire makes a record that has left the index wait.
func (t *Table) retire(f Flow) {
	t.waiting.Add(1)
	r := &t.records[f]
	// The epoch may move on before the record is in the list: then it only waits longer.
	list := &t.limbo[t.epoch.Load()%3]
	for {
		first := list.Load()
		r.next.Store(first)
		if list.CompareAndSwap(first, uint32(f+1)) {
			return
		}
	}
}

// reclaim puts up to budget records that no worker can hold any more into the free list. It moves
// the epoch on if needed and possible. While another goroutine reclaims, it does nothing.
func (t *Table) reclaim(budget int) {
	if !t.reclaiming.TryLock() {
		return
	}
	defer t.reclaiming.Unlock()
	if t.ready == 0 && !t.advance() {
		return
	}
	for ; budget > 0 && t.ready != 0; budget-- {
		f := Flow(t.ready - 1)
		r := &t.records[f]
		t.ready = r.next.Load()
		packets, bytes := r.counted()
		t.endedPackets.Add(packets)
		t.endedBytes.Add(bytes)
		if len(t.onEnd) > 0 {
			t.info(f, status(r.status.Load()), Tick(t.now.Load()), &t.ended)
			for _, hear := range t.onEnd {
				hear(&t.ended)
			}
		}
		t.release(f)
		t.waiting.Add(-1)
	}
}

// advance moves the epoch on if every worker has noted it; reclaiming is held.
func (t *Table) advance() bool {
	epoch := t.epoch.Load()
	for _, w := range t.workers {
		if w.epoch.Load() < epoch {
			return false
		}
	}
	t.epoch.Store(epoch + 1)
	t.ready = t.limbo[(epoch+2)%3].Swap(0) // the list of epoch-1
	return true
}

// Mark marks a moment, for Passed. A worker that notes this epoch was quiescent after it.
func (t *Table) Mark() uint64 {
	next := t.epoch.Load() + 1
	t.moveOn(next)
	return next
}

// Passed reports that every worker has been quiescent since a Mark: what was replaced before it, none
// uses any more. It is false as long as it does not know.
func (t *Table) Passed(mark uint64) bool {
	t.moveOn(mark)
	for _, w := range t.workers {
		if w.epoch.Load() < mark {
			return false
		}
	}
	return true
}

// moveOn moves the epoch on to one, if workers allow it.
func (t *Table) moveOn(epoch uint64) {
	for range 2 { // records that are ready first, then the epoch
		if t.epoch.Load() < epoch {
			t.reclaim(len(t.records))
		}
	}
}

// EachSlots yields the slots of every record that may still count, those of ended flows that a worker
// may hold too.
func (t *Table) EachSlots(yield func(Slots)) {
	for f := range t.used.Load() {
		if s := t.records[f].loadSlots(); s.More() {
			yield(s)
		}
	}
}

// Quiesce marks a burst's boundary: the worker holds no Flow from before.
func (w *Worker) Quiesce() {
	t := w.table
	w.epoch.Store(t.epoch.Load())
	if t.waiting.Load() >= reclaimFrom {
		t.reclaim(reclaimStep)
	}
}

// Park says that the worker holds no Flow and does not use the table until Unpark. Park a
// worker that waits for packets: otherwise no record can be used again.
func (w *Worker) Park() { w.epoch.Store(parked) }

// Unpark ends Park.
func (w *Worker) Unpark() { w.epoch.Store(w.table.epoch.Load()) }
