package flowlog

import (
	"context"
	"errors"
	"time"
)

// closePatience is how long Close waits for a disk or a reader.
const closePatience = 10 * time.Second

// Close writes the last rows of all flows and waits until they are written. Call it once, after
// the engine has stopped.
func (r *Recorder) Close() error {
	r.closeDenied()
	table := r.options.Engine.Flows()
	// Flows that have ended or timed out come first. The steps are smaller than the ring.
	for done := 0; done < table.Records()+3*endedFlows/4; done += endedFlows / 4 {
		table.Expire(r.options.Engine.Now(), endedFlows/4)
		r.drain()
	}
	deadline := time.Now().Add(closePatience)
	r.walk(true, func() {
		if time.Now().Before(deadline) {
			r.pause()
		}
	})
	return r.closeSinks(false)
}

// Leave is Close for a process that the next one follows, with Options.Slabs: live flows go on and get no last row.
func (r *Recorder) Leave() error {
	r.closeDenied()
	table := r.options.Engine.Flows()
	// The table has not told of all ended flows yet. It needs some steps until it knows that no worker holds them.
	for n, quiet := 0, 0; quiet < 4 && n < table.Records(); n++ {
		tail := r.ring.tail.Load()
		table.Expire(r.options.Engine.Now(), 0)
		r.drain()
		if quiet++; r.ring.tail.Load() != tail {
			quiet = 0
		}
	}
	r.mu.Lock()
	r.addRepeated()
	r.write()
	r.mu.Unlock()
	return r.closeSinks(true)
}

// closeDenied takes the denied packets that wait.
func (r *Recorder) closeDenied() {
	r.denied.Close()
	for r.takeDenied() {
	}
}

// closeSinks waits until all is written. What is not is lost, unless the next process finds it.
func (r *Recorder) closeSinks(next bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	lost := uint64(0)
	for _, s := range r.sinks {
		before := s.lost.Load()
		s.close(ctx, next)
		lost += s.lost.Load() - before
	}
	if lost > 0 {
		return errors.New("flow logs: rows could not be written before the end: see the log")
	}
	return nil
}
