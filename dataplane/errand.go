package dataplane

import (
	"github.com/nsgd/nsgd/dataplane/port"
	"github.com/nsgd/nsgd/tun"
)

// What a reload has every worker do between two bursts.

func (e *Engine) everyWorker(do func(*worker)) { e.desks.Everybody(func(i int) { do(e.workers[i]) }) }

// furnish lets the worker write to each device that is new at its slot.
func (w *worker) furnish(before, now port.List) {
	for slot := range now {
		if slot == len(w.queues) {
			w.attach()
		}
		p := &now[slot]
		if w.counters.Attach(slot, p.Cells[w.index]) {
			w.forgetSlow(slot) // its lane counts
		}
		if p.Device != nil && (slot >= len(before) || before[slot].Device != p.Device) {
			w.give(slot, p.Device)
		}
	}
}

// give gives a slot the worker's queues of a device; nil: none.
func (w *worker) give(slot int, d tun.Device) {
	w.forgetSlow(slot)
	w.queues[slot], w.sparse[slot] = tun.ClosedQueue{}, nil
	if d != nil {
		queues, workers := d.Queues(), len(w.engine.workers)
		if w.queues[slot] = queues[w.index]; len(queues) >= 2*workers {
			w.sparse[slot] = queues[workers+w.index]
		}
	}
	w.takes[slot], w.refusals[slot] = w.queues[slot].Offload(), 0
	w.lone = lone{} // another device's flows begin as sparse ones
}

// Freeze has no worker read from what is attached at a slot, or write to it. What it has sent waits in its device; what
// is for it is dropped. Afterwards no worker has a packet of it under way.
func (e *Engine) Freeze(slot int) {
	e.everyWorker(func(w *worker) {
		if w.poller != nil {
			w.lost(slot, w.poller.Remove(slot))
		}
		w.give(slot, nil)
	})
}

// Thaw takes Freeze back. Nothing may have been attached or detached between.
func (e *Engine) Thaw(slot int) {
	d := e.setting.Load().ports[slot].Device
	if d == nil {
		return
	}
	e.everyWorker(func(w *worker) {
		w.give(slot, d)
		if w.poller != nil {
			w.lost(slot, w.poller.Add(slot, w.queues[slot], w.sparse[slot]))
		}
	})
}

// settle stops watching the queues that are gone or elsewhere, and watches those that are new.
func (w *worker) settle(before, now port.List) {
	for slot := range before {
		if before[slot].Device == now[slot].Device || before[slot].Device == nil {
			continue
		}
		if now[slot].Device == nil {
			w.give(slot, nil)
		}
		if w.poller != nil {
			w.lost(slot, w.poller.Remove(slot))
		}
	}
	if w.poller == nil {
		return
	}
	for slot := range now {
		if d := now[slot].Device; d != nil && (slot >= len(before) || before[slot].Device != d) {
			w.lost(slot, w.poller.Add(slot, w.queues[slot], w.sparse[slot]))
		}
	}
}

// lost logs that nothing is read from an attachment; nil: nothing is wrong.
func (w *worker) lost(slot int, err error) {
	if err != nil {
		w.engine.log.Error("attachment lost", "attachment", w.engine.attachmentName(slot), "worker", w.index, "error", err)
	}
}
