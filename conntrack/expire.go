package conntrack

import "time"

// sweepStep is how many records a sweep looks at between two quiescent points.
const sweepStep = 256

// Expire ends the flows among the next budget records whose timeout has passed. It also puts
// records back that no worker can hold any more. Call it regularly: it bounds how long a flow
// that is over takes up room, and Flows and the ticks' range rely on it.
func (t *Table) Expire(now Tick, budget int) (ended int) {
	t.sweeper.mu.Lock()
	defer t.sweeper.mu.Unlock()
	t.now.Store(uint32(now))
	t.rates.refresh(now)
	w := t.sweeper.worker
	used := t.used.Load()
	budget = min(budget, int(used))
	w.Unpark()
	for i := range budget {
		if t.cursor >= used {
			t.cursor = 0
		}
		f := Flow(t.cursor)
		t.cursor++
		r := &t.records[f]
		if s := status(r.status.Load()); s.live() && t.expiresIn(r, s, now) == 0 && w.End(f, t.timedOut(f)) {
			ended++
			t.tellSilent(f, s.class())
		}
		if i%sweepStep == sweepStep-1 {
			w.Quiesce()
		}
	}
	w.Park()
	// Twice: what ended here is free after the second move of the epoch, and with all workers
	// parked the two can follow each other.
	w.midway++
	t.reclaim(max(budget, sweepStep))
	t.reclaim(max(budget, sweepStep))
	w.midway--
	return ended
}

// SweepMidway is Worker.Midway of Expire. Ask it where Expire has panicked.
func (t *Table) SweepMidway() bool {
	t.sweeper.mu.Lock()
	defer t.sweeper.mu.Unlock()
	return t.sweeper.worker.Midway()
}

// timedOut is the cause that a flow's timeout counts under: a connection that both sides had
// closed did not just fall silent.
func (t *Table) timedOut(f Flow) EndCause {
	switch status(t.records[f].status.Load()).class() {
	case ClassTCPTimeWait, ClassTCPReset:
		return EndClosed
	}
	return EndExpired
}

// End ends the flow that k, of either direction, belongs to.
func (t *Table) End(k *Key) bool { return t.EndAs(k, EndFlushed) }

// EndAs is End for a cause.
func (t *Table) EndAs(k *Key, cause EndCause) bool {
	t.control.mu.Lock()
	defer t.control.mu.Unlock()
	w := t.control.worker
	w.Unpark()
	defer w.Park()
	f, _, _, ok := t.find(k, t.secrets.hash(k))
	return ok && w.End(f, cause)
}

// Established is what FlowInfo.Established becomes when Init.Established is d.
func (t *Table) Established(d time.Duration) time.Duration {
	return time.Duration(t.establishedTicks(d)) * TickLength
}

// SetEstablished changes the Init.Established of the flow with original key k. A flow that is
// over at now is not revived.
func (t *Table) SetEstablished(k *Key, d time.Duration, now Tick) {
	t.control.mu.Lock()
	defer t.control.mu.Unlock()
	w := t.control.worker
	w.Unpark()
	defer w.Park()
	if f, _, ok := w.Lookup(k, now); ok {
		t.records[f].established.Store(t.establishedTicks(d))
	}
}

// Flush ends all flows that it meets on a walk through the table and returns their number.
// Packets that come in meanwhile can begin new flows.
func (t *Table) Flush() (ended int) {
	used := t.used.Load()
	for first := uint32(0); first < used; first += sweepStep {
		ended += t.flush(first, min(first+sweepStep, used))
	}
	return ended
}

func (t *Table) flush(first, end uint32) (ended int) {
	t.control.mu.Lock()
	defer t.control.mu.Unlock()
	w := t.control.worker
	w.Unpark()
	for f := Flow(first); f < Flow(end); f++ {
		if w.End(f, EndFlushed) {
			ended++
		}
	}
	w.Park()
	t.reclaim(sweepStep)
	return ended
}
