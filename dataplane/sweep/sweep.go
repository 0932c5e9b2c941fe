// Package sweep frees flows and fragments that have timed out, in bounded steps: by a ticker beside workers, or by the times of
// packets where nobody waits.
package sweep

import (
	"context"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/fragment"
)

// Every and Budget walk over a full table of a million records in five seconds; a record that has timed out is absent before
// it is freed.
const (
	Every  = 100 * time.Millisecond
	Budget = 20_000 // records
)

// Sweeper frees what has timed out. Its fields must not change while it runs.
type Sweeper struct {
	Flows     *conntrack.Table
	Fragments *fragment.Table
	Faults    *fault.Log
	// Clock is the engine's.
	Clock func() time.Duration
}

// Run takes a step every Every, until ctx ends.
func (s *Sweeper) Run(ctx context.Context) {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.Step()
		}
	}
}

// Step frees some of what has timed out. A panic at a flow costs the rest of the step, and the next one begins behind it.
// Inside a step of a table the process ends: another worker would wait for ever for a lock.
func (s *Sweeper) Step() {
	s.Faults.Try(fault.Expiry, func() {
		defer fault.EndIf(s.Flows.SweepMidway)
		s.Flows.Expire(ticks(s.Clock()), Budget)
	})
	s.Fragments.Expire(s.Clock(), Every)
}

func ticks(d time.Duration) conntrack.Tick { return conntrack.Tick(d / conntrack.TickLength) }

// Clock is a clock that only goes on when it is told to, and never back. The zero value has not begun. It is owned by one
// goroutine.
type Clock struct {
	Now     time.Duration
	swept   time.Duration // when what is over was last looked for
	started bool
}

// longestPause is a time in which ticks cannot be mistaken, whatever the timeouts.
const longestPause = 30 * 24 * time.Hour

// Advance moves the clock on, and frees what is over by then, as a Sweeper that runs would have.
func (c *Clock) Advance(to time.Duration, flows *conntrack.Table, fragments *fragment.Table) {
	if !c.started {
		c.started, c.Now, c.swept = true, to, to
		flows.Expire(ticks(to), 0)
		return
	}
	if to = max(to, c.Now); to-c.swept < Every {
		c.Now = to
		return
	}
	for to-c.Now > longestPause && flows.Stats().Flows > 0 {
		c.Now += longestPause
		flows.Expire(ticks(c.Now), conntrack.MaxFlows)
	}
	c.Now = to
	rounds := (to - c.swept) / Every
	c.swept = to
	budget := conntrack.MaxFlows
	if rounds < conntrack.MaxFlows/Budget {
		budget = int(rounds) * Budget
	}
	flows.Expire(ticks(to), budget)
	fragments.Expire(to, rounds*Every)
}
