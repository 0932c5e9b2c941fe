package cluster

import (
	"fmt"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
)

// attempt is what the daemon has refused. The same is tried again later and later, however often a step is made.
type attempt struct {
	what string        // empty: nothing was refused
	err  error         // why
	next time.Duration // by the agent's clock
	wait time.Duration
}

// isEarly tells that the same was refused a moment ago, and why.
func (t *attempt) isEarly(what string, now time.Duration) error {
	if t.what == what && now < t.next {
		return t.err
	}
	return nil
}

// note remembers how a try went.
func (t *attempt) note(what string, now time.Duration, err error) {
	if err == nil {
		*t = attempt{}
		return
	}
	if t.what != what {
		t.wait = firstWait
	}
	t.wait = min(2*t.wait, longestRetry)
	t.what, t.err, t.next = what, err, now+t.wait
}

// carry has the daemon carry a generation with network interfaces, unless it has refused just that a moment ago.
func (a *Agent) carry(u *generation.Unpacked, nics []string) error {
	what := fmt.Sprint(u.Number, u.Bundle, nics)
	if err := a.refusal.isEarly(what, a.Clock()); err != nil {
		return err
	}
	err := a.Daemon.Carry(u, nics)
	a.refusal.note(what, a.Clock(), err)
	a.placement = nil // what leads to other hosts follows from the policy too
	return err
}
