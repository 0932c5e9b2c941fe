package dataplane

import (
	"context"
	"sync/atomic"
)

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
