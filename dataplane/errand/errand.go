// Package errand has goroutines that carry packets do something else between two bursts, and tells which never come by.
package errand

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/nsgd/nsgd/dataplane/fault"
)

// Desk takes errands for one goroutine. Its zero value is ready; nothing runs at first.
type Desk struct {
	// Wake makes the goroutine look at Asked soon. Set it before the goroutine starts.
	Wake func()

	asked atomic.Bool // there may be some

	mu      sync.Mutex
	running bool     // guarded by mu: the goroutine does them
	list    []func() // guarded by mu
}

// Asked reports that there may be errands: the goroutine then calls Do between two bursts.
func (d *Desk) Asked() bool { return d.asked.Load() }

// Change runs a step of the goroutine's start or end, while nobody can ask. It says whether the goroutine does errands afterwards.
func (d *Desk) Change(step func() (running bool)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = step()
}

// Ask hands the goroutine an errand. Where it does not run, the caller does the errand at once.
func (d *Desk) Ask(do func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.running {
		perform(do)
		return
	}
	d.list = append(d.list, do)
	d.asked.Store(true)
	d.Wake()
}

// Do does what was asked. The goroutine calls it.
func (d *Desk) Do() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.do()
}

// Stop does what was asked, and leaves further errands to those who ask.
func (d *Desk) Stop() {
	d.Change(func() bool {
		d.do()
		return false
	})
}

func (d *Desk) do() {
	d.asked.Store(false)
	for _, do := range d.list {
		perform(do)
	}
	d.list = nil
}

// perform does an errand. One that panics has changed a part of what the goroutine writes to: the process ends.
func perform(do func()) {
	defer fault.End()
	do()
}

// Desks are those of all goroutines, which don't change once one runs.
type Desks struct {
	Each []*Desk

	mu    sync.Mutex
	pulse *pulse // the last one; guarded by mu
}

// Everybody has each goroutine do something between two bursts, and waits until all have. Afterwards none is in a burst
// that had begun before.
func (d *Desks) Everybody(do func(i int)) {
	var all sync.WaitGroup
	all.Add(len(d.Each))
	for i, desk := range d.Each {
		desk.Ask(func() {
			do(i)
			all.Done()
		})
	}
	all.Wait()
}

// pulse asks every goroutine once to come by between two bursts.
type pulse struct {
	came []atomic.Bool // by number
	left atomic.Int64  // that have not answered
	all  chan struct{} // closed when left is 0
}

// Stuck waits until every goroutine has come by between two bursts, or until ctx ends. It returns the numbers of
// those that have not, and of those that do not run. Questions that overlap share one pulse, so that a goroutine that is
// stuck has one errand waiting, however often somebody asks.
func (d *Desks) Stuck(ctx context.Context) (stuck []int) {
	p := d.beat()
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
func (d *Desks) beat() *pulse {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pulse != nil && d.pulse.left.Load() > 0 {
		return d.pulse
	}
	p := &pulse{came: make([]atomic.Bool, len(d.Each)), all: make(chan struct{})}
	p.left.Store(int64(len(d.Each)))
	for i, desk := range d.Each {
		// Another errand may hold the desk's list for as long as it takes.
		go desk.Ask(func() {
			p.came[i].Store(desk.running) // Ask or Do holds mu
			if p.left.Add(-1) == 0 {
				close(p.all)
			}
		})
	}
	d.pulse = p
	return p
}
