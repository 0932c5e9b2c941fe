package dataplane

import (
	"context"
	"os"
	"sync"
	"sync/atomic"

	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/tun"
)

// errands are what others have a worker do between two bursts.
type errands struct {
	asked atomic.Bool // there may be some

	mu      sync.Mutex
	running bool            // guarded by mu: the worker's goroutine does them
	list    []func(*worker) // guarded by mu
}

// everyWorker has every worker do something between two bursts, and waits until all have. Afterwards none is in a burst
// that had begun before.
func (e *Engine) everyWorker(do func(*worker)) {
	var all sync.WaitGroup
	all.Add(len(e.workers))
	for _, w := range e.workers {
		w.ask(func(w *worker) {
			do(w)
			all.Done()
		})
	}
	all.Wait()
}

// perform does an errand. One that panics has changed a part of what the worker writes to: the process ends.
func (w *worker) perform(do func(*worker)) {
	defer fault.End()
	do(w)
}

// ask hands the worker an errand. One that does not run has it done at once.
func (w *worker) ask(do func(*worker)) {
	w.errands.mu.Lock()
	defer w.errands.mu.Unlock()
	if !w.errands.running {
		w.perform(do)
		return
	}
	w.errands.list = append(w.errands.list, do)
	w.errands.asked.Store(true)
	w.wake()
}

// doErrands is called between two bursts.
func (w *worker) doErrands() {
	w.errands.mu.Lock()
	defer w.errands.mu.Unlock()
	w.errands.asked.Store(false)
	for _, do := range w.errands.list {
		w.perform(do)
	}
	w.errands.list = nil
}

// stopErrands leaves further errands to those who ask.
func (w *worker) stopErrands() {
	w.doErrands()
	w.errands.mu.Lock()
	defer w.errands.mu.Unlock()
	w.errands.running = false
	for _, do := range w.errands.list { // that came between the two
		w.perform(do)
	}
	w.errands.list = nil
}

// furnish lets the worker write to each device that is new at its slot.
func (w *worker) furnish(before, now []port) {
	for slot := range now {
		if slot == len(w.queues) {
			w.attach(vacant{})
		}
		p := &now[slot]
		if w.counters.Attach(slot, p.Cells[w.index]) {
			w.forgetSlow(slot) // its lane counts
		}
		if p.device != nil && (slot >= len(before) || before[slot].device != p.device) {
			w.give(slot, p.device.Queues()[w.index])
		}
	}
}

// give gives a slot a queue.
func (w *worker) give(slot int, q tun.Queue) {
	w.forgetSlow(slot)
	w.queues[slot], w.takes[slot], w.refusals[slot] = q, q.Offload(), 0
}

// Freeze has no worker read from what is attached at a slot, or write to it. What it has sent waits in its device; what
// is for it is dropped. Afterwards no worker has a packet of it under way.
func (e *Engine) Freeze(slot int) {
	e.everyWorker(func(w *worker) {
		if w.poller != nil {
			w.lost(slot, w.poller.Remove(slot))
		}
		w.give(slot, vacant{})
	})
}

// Thaw takes Freeze back. Nothing may have been attached or detached between.
func (e *Engine) Thaw(slot int) {
	d := e.setting.Load().ports[slot].device
	if d == nil {
		return
	}
	e.everyWorker(func(w *worker) {
		w.give(slot, d.Queues()[w.index])
		if w.poller != nil {
			w.lost(slot, w.poller.Add(slot, w.queues[slot]))
		}
	})
}

// settle stops watching the queues that are gone or elsewhere, and watches those that are new.
func (w *worker) settle(before, now []port) {
	for slot := range before {
		if before[slot].device == now[slot].device || before[slot].device == nil {
			continue
		}
		if now[slot].device == nil {
			w.give(slot, vacant{})
		}
		if w.poller != nil {
			w.lost(slot, w.poller.Remove(slot))
		}
	}
	if w.poller == nil {
		return
	}
	for slot := range now {
		if d := now[slot].device; d != nil && (slot >= len(before) || before[slot].device != d) {
			w.lost(slot, w.poller.Add(slot, w.queues[slot]))
		}
	}
}

// lost logs that nothing is read from an attachment; nil: nothing is wrong.
func (w *worker) lost(slot int, err error) {
	if err != nil {
		w.engine.log.Error("attachment lost", "attachment", w.engine.attachmentName(slot), "worker", w.index, "error", err)
	}
}

// vacant is the queue of a slot without a device.
type vacant struct{}

// Read implements tun.Queue; nobody watches it.
func (vacant) Read([]byte) (int, error) { return 0, os.ErrClosed }

// Write implements tun.Queue.
func (vacant) Write([]byte) error { return os.ErrClosed }

// WriteParts implements tun.Queue.
func (vacant) WriteParts([][]byte) error { return os.ErrClosed }

// SetSlow implements tun.Queue.
func (vacant) SetSlow(bool) {}

// Offload implements tun.Queue.
func (vacant) Offload() tun.Offload { return tun.Off }

// FD implements tun.Queue; it has none.
func (vacant) FD() int { return -1 }

var _ tun.Queue = vacant{}

// pulse asks every worker once to come by between two bursts.
type pulse struct {
	came []atomic.Bool // by worker
	left atomic.Int64  // workers that have not answered
	all  chan struct{} // closed when left is 0
}

// StuckWorkers waits until every worker has come by between two bursts, or until ctx ends. It returns the numbers of
// those that have not, and of those that do not run. Questions that overlap share one pulse, so that a worker that is
// stuck has one errand waiting, however often somebody asks.
func (e *Engine) StuckWorkers(ctx context.Context) (stuck []int) {
	p := e.beat()
	select {
	case <-p.all:
	case <-ctx.Done():
	}
	for i := range p.came {
		if !p.came[i].Load() {
			stuck = append(stuck, i)
		}
	}
	return stuck
}

// beat is the pulse that is under way, or a new one.
func (e *Engine) beat() *pulse {
	e.pulsing.Lock()
	defer e.pulsing.Unlock()
	if e.pulse != nil && e.pulse.left.Load() > 0 {
		return e.pulse
	}
	p := &pulse{came: make([]atomic.Bool, len(e.workers)), all: make(chan struct{})}
	p.left.Store(int64(len(e.workers)))
	for i, w := range e.workers {
		// Another errand may hold the worker's list for as long as it takes.
		go w.ask(func(w *worker) {
			p.came[i].Store(w.errands.running)
			if p.left.Add(-1) == 0 {
				close(p.all)
			}
		})
	}
	e.pulse = p
	return p
}
