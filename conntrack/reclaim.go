package conntrack

import (
	"math"
	"sync"
	"sync/atomic"
)

// parked is the epoch of a worker that holds no flow and will look at none.
const parked = math.MaxUint64

// reclaimer keeps the records of ended flows until no worker can still hold them.
//
// There is a global epoch. A worker that passes a quiescent point takes note of it;
// the epoch moves on by one when all have noted the present one. A record that
// was taken out of the index in epoch e can be used again once all have noted
// e+1, because each of them then was quiescent after it was taken out. So three
// lists of waiting records are enough: this epoch's, the last one's, and the one
// before, which is emptied as the epoch moves on.
type reclaimer struct {
	epoch   atomic.Uint64
	limbo   [3]atomic.Uint32 // number+1 of the first record, by epoch modulo 3
	waiting atomic.Int64     // records not yet reusable

	free atomic.Uint64 // stack: count of changes << 32 | number+1 of the first record
	used atomic.Uint32 // records ever used; all from here on are free too

	reclaiming sync.Mutex
	ready      uint32 // number+1 of the first record that nobody holds, not yet in the free list; guarded by reclaiming
	onEnd      func(*FlowInfo)
	ended      FlowInfo // for onEnd; guarded by reclaiming
}

const (
	// reserve is how many records, for each worker, a table has beyond its limit: a full table that
	// evicts needs a fresh record at once, while the evicted one waits.
	reserveMin, reserveMax = 256, 1024
	// reclaimFrom is the number of waiting records from which workers lend a hand,
	// and reclaimStep how many each puts back at a time.
	reclaimFrom = 64
	reclaimStep = 256
)

// allocate takes a record that nobody knows.
func (t *Table) allocate() (Flow, bool) {
	for {
		top := t.free.Load()
		n := uint32(top)
		if n == 0 {
			break
		}
		next := t.records[n-1].next.Load()
		// The upper half tells a stack that changed and changed back from one that did not.
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

// release puts a record that nobody knows back.
func (t *Table) release(f Flow) {
	r := &t.records[f]
	for {
		top := t.free.Load()
		r.next.Store(uint32(top))
		if t.free.CompareAndSwap(top, (top>>32+1)<<32|uint64(f+1)) {
			return
		}
	}
}

// retire lets a record wait that is no longer in the index.
func (t *Table) retire(f Flow) {
	t.waiting.Add(1)
	r := &t.records[f]
	// Being late here is harmless: a list that has come round since only waits longer.
	list := &t.limbo[t.epoch.Load()%3]
	for {
		first := list.Load()
		r.next.Store(first)
		if list.CompareAndSwap(first, uint32(f+1)) {
			return
		}
	}
}

// reclaim puts up to budget records that nobody can hold any more into the free
// list, moving the epoch on if that is needed and possible. It gives way
// if another goroutine is at it.
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
		t.endedPackets.Add(r.packets[Original].Load() + r.packets[Reply].Load())
		t.endedBytes.Add(r.bytes[Original].Load() + r.bytes[Reply].Load())
		if t.onEnd != nil {
			t.info(f, word(r.state.Load()), Tick(t.now.Load()), &t.ended)
			t.onEnd(&t.ended)
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
	t.ready = t.limbo[(epoch+2)%3].Swap(0) // that is epoch-1's
	return true
}

// Quiesce marks a burst's boundary: no Flow from before is held any more.
func (w *Worker) Quiesce() {
	t := w.table
	w.epoch.Store(t.epoch.Load())
	if t.waiting.Load() >= reclaimFrom {
		t.reclaim(reclaimStep)
	}
}

// Park says that the worker holds no Flow and uses the table no more until Unpark.
// A worker that waits for packets must be parked, or no record can be used again.
func (w *Worker) Park() { w.epoch.Store(parked) }

// Unpark ends Park.
func (w *Worker) Unpark() { w.epoch.Store(w.table.epoch.Load()) }
