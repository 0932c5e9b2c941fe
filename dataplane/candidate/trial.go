// Package candidate judges a policy beside the one in force, without enforcing it.
//
// A Trial hears of each packet that began a flow or was dropped as events of a subscription, and decides about it again
// by the candidate's snapshot: with verdict.Decide, as the engine would. One goroutine does that, beside the packet path.
// Packets of live flows cost nothing. Senders choose what is told, so all of it is bounded, and what was not looked at is
// counted.
package candidate

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/dataplane/watch"
)

const (
	// perSecond bounds the packets that are judged.
	perSecond = 20_000
	// poll is how long a packet waits to be judged.
	poll = 20 * time.Millisecond
	// waitingEvents is how many packets of each worker wait for that.
	waitingEvents = 4096
	eventsAtOnce  = 256
)

// Engine carries the packets. Its methods are safe for concurrent use.
type Engine interface {
	Watch(watch.Options) (*watch.Subscription, error)
	Snapshot() *topology.Snapshot
}

// Trial is a candidate that is judged. Its methods are safe for concurrent use.
type Trial struct {
	engine       Engine
	base, next   *topology.Snapshot
	subscription *watch.Subscription
	end          context.CancelFunc
	done         chan struct{}

	decision verdict.Decision // of the goroutine that judges

	mu     sync.Mutex
	judged Judged // guarded by mu
}

// Judged is what a trial has found out so far.
type Judged struct {
	// Packets are those that were judged: they began a flow, or the policy in force dropped them.
	Packets uint64
	// NotSeen counts packets that came too quickly to be judged.
	NotSeen uint64
	// Outdated says that another policy has come into force since, and that nothing is judged any more.
	Outdated bool
	// Deny are flows that began and that the candidate denies, Allow are packets that were dropped and that it allows.
	Deny, Allow Sums
}

// Begin judges a candidate for the policy in force beside it, until Close. The error is that of Engine.Watch.
func Begin(engine Engine, next *topology.Snapshot) (*Trial, error) {
	t := &Trial{engine: engine, base: engine.Snapshot(), next: next, done: make(chan struct{})}
	var err error
	if t.subscription, err = engine.Watch(watch.Options{DecidedOnly: true, PerSecond: perSecond, Events: waitingEvents, Poll: poll}); err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, t.end = context.WithCancel(context.Background())
	go t.run(ctx)
	return t, nil
}

// Close ends the trial. What was judged stays.
func (t *Trial) Close() {
	t.end()
	<-t.done
}

// Next is the candidate's snapshot.
func (t *Trial) Next() *topology.Snapshot { return t.next }

// Base is the snapshot beside which the candidate is judged.
func (t *Trial) Base() *topology.Snapshot { return t.base }

// Outdated says whether another policy has come into force since.
func (t *Trial) Outdated() bool { return t.engine.Snapshot() != t.base }

// Judged is what was found out so far. Its examples are the caller's.
func (t *Trial) Judged() Judged {
	t.mu.Lock()
	defer t.mu.Unlock()
	j := t.judged
	j.NotSeen, j.Outdated = t.subscription.Lost()+t.subscription.Skipped(), t.Outdated()
	j.Deny, j.Allow = j.Deny.clone(), j.Allow.clone()
	return j
}

func (t *Trial) run(ctx context.Context) {
	defer close(t.done)
	defer t.subscription.Close()
	events := make([]watch.Event, eventsAtOnce)
	for {
		soon, cancel := context.WithTimeout(ctx, time.Second) // to look for another policy
		n, err := t.subscription.Read(soon, events)
		cancel()
		t.mu.Lock()
		for i := range events[:n] {
			t.judge(&events[i])
		}
		t.mu.Unlock()
		if ctx.Err() != nil || t.Outdated() || err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return
		}
	}
}

// judge decides about a packet by the candidate. mu is held.
func (t *Trial) judge(e *watch.Event) {
	p := &e.Packet
	switch {
	case e.Generation != t.base.Generation: // of a burst before the base came into force, or behind it
		return
	case e.Drop != packet.NotDropped && !e.Drop.OfPolicy():
		return
	case p.Fragment.IsLater() || p.IsICMPError(): // begins no flow, whatever the policy
		return
	case e.From < 0 || int(e.From) >= len(t.next.Attachments):
		return
	}
	t.judged.Packets++
	d := &t.decision
	src, drop := verdict.Admit(t.next, t.next.Attachments[e.From], &p.Tuple)
	if drop == packet.NotDropped {
		drop = d.Decide(t.next, src, p)
	} else {
		*d = verdict.Decision{}
	}
	switch was := e.Drop; {
	case was == packet.NotDropped && drop != packet.NotDropped:
		t.judged.Deny.add(e, drop, d)
	case was != packet.NotDropped && drop == packet.NotDropped:
		t.judged.Allow.add(e, drop, d)
	}
}
