package main

import (
	"fmt"
	"time"
)

const (
	// maxPause is how long this process may stand still before a trial does not count: somebody has stopped it, or the whole machine.
	maxPause = time.Second
	// pauseLook is how often it looks at the clock.
	pauseLook = 10 * time.Millisecond
)

// longestPause runs f and returns how long this process stood still meanwhile, at most.
func longestPause(f func()) time.Duration {
	stop, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		tick := time.NewTicker(pauseLook)
		defer tick.Stop()
		most, last := time.Duration(0), time.Now()
		for {
			stopped := false
			select {
			case <-tick.C:
			case <-stop:
				stopped = true
			}
			now := time.Now()
			most, last = max(most, now.Sub(last)), now
			if stopped {
				longest <- most
				return
			}
		}
	}()
	f()
	close(stop)
	return <-longest
}

// judge drops the figures of a trial during which this process stood still: what it measured is the pause.
func (t *trial) judge(pause time.Duration) error {
	if pause <= maxPause {
		return nil
	}
	clear(t.figures)
	clear(t.series)
	return fmt.Errorf("this process stood still for %v, more than %v: the trial does not count", pause.Round(time.Millisecond), maxPause)
}
