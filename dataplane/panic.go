package dataplane

import (
	"fmt"
	"time"

	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// panicEvery is how often a worker logs a panic: a sender may repeat what causes it.
const panicEvery = time.Minute

// survive ends a burst that panicked, so that the worker goes on. The packet is dropped, and so are those that wait in trains,
// which may be half written. The other packets of its group are carried. Inside a step of the flow table the panic
// goes on and ends the process: another worker would wait for ever for a lock.
//
// A burst defers it. It costs nothing for each packet.
func (w *worker) survive() {
	fault := recover()
	if fault == nil {
		return
	}
	w.explain(fault)
	if w.flows.Midway() {
		panic(fault)
	}
	next, under, behind := w.at+1, w.under, w.behind
	w.under, w.behind = nil, nil
	prepared := w.at >= 0
	w.passage, w.held = passage{w: w}, passage{w: w}
	if prepared {
		w.counters.Drop(packet.DropPanic)
	}
	w.endStreak()
	w.discardTrains()
	for i := next; i < len(under); i++ {
		w.carryAgain(w.from, under[i:i+1], prepared)
	}
	for i := range behind {
		w.carryAgain(w.behindFrom, behind[i:i+1], false)
	}
	w.used = 0
	w.endWatch()
	w.counters.Flush()
	w.flows.Quiesce()
}

// carryAgain carries the one packet of a group from an attachment that a panic has interrupted. Another panic costs this one.
func (w *worker) carryAgain(attachment int, one []slot, prepared bool) {
	defer func() {
		fault := recover()
		if fault == nil {
			return
		}
		w.explain(fault)
		if w.flows.Midway() {
			panic(fault)
		}
		w.passage, w.held = passage{w: w}, passage{w: w}
		w.discardTrains()
		w.counters.Drop(packet.DropPanic)
	}()
	s := w.engine.snapshot.Load()
	from := s.Attachments[attachment]
	if !prepared {
		w.prepare(from, one)
	}
	one[0].follows = false // no group ends a streak here
	w.passage.carry(s, from, &one[0])
	w.sendTrains()
}

// discardTrains drops what waits for the end of the burst.
func (w *worker) discardTrains() {
	for i := range w.trains.slots {
		if w.trains.open&(1<<i) == 0 {
			continue
		}
		for range w.trains.slots[i].Len() {
			w.counters.Drop(packet.DropPanic)
		}
	}
	w.trains.open, w.trains.next = 0, 0
}

// explain logs a panic with its stack.
func (w *worker) explain(cause any) {
	now := w.engine.clock()
	if w.panicked != 0 && now-w.panicked < panicEvery {
		return
	}
	w.panicked = max(now, 1)
	w.engine.log.Error("a packet was dropped at a fault of nsgd: please report it", "worker", w.index,
		"panic", fmt.Sprint(cause), "stack", fault.Stack())
}
