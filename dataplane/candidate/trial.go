// Package candidate judges a policy beside the one in force, without enforcing it.
//
// A Trial hears of each packet that began a flow or that the policy dropped, and decides about it again by the candidate's
// snapshot: with verdict.Decide, as the engine would. One goroutine does that, beside the packet path, which pays for a
// copy of such a packet. Packets of live flows cost nothing. Senders choose what is told, so all of it is bounded, and what
// was not looked at is counted.
package candidate

import (
	"context"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/dataplane/watch"
)

const (
	// poll is how long a packet waits to be judged.
	poll = 20 * time.Millisecond
	// perPoll bounds the packets that are judged at a time: 50,000 a second.
	perPoll = 1000
	// waitingPackets is how many packets of each worker wait for that.
	waitingPackets = 4096
)

// Engine carries the packets. Its methods are safe for concurrent use.
type Engine interface {
	Judge(packets int) (*watch.Decisions, error)
	Snapshot() *topology.Snapshot
}

// Trial is a candidate that is judged. Its methods are safe for concurrent use.
type Trial struct {
	engine     Engine
	base, next *topology.Snapshot
	decisions  *watch.Decisions
	end        context.CancelFunc
	done       chan struct{}

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

// Begin judges a candidate for the policy in force beside it, until Close. The error is that of Engine.Judge.
func Begin(engine Engine, next *topology.Snapshot) (*Trial, error) {
	t := &Trial{engine: engine, base: engine.Snapshot(), next: next, done: make(chan struct{})}
	var err error
	if t.decisions, err = engine.Judge(waitingPackets); err != nil {
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
	j.NotSeen, j.Outdated = t.decisions.Lost(), t.Outdated()
	j.Deny, j.Allow = j.Deny.clone(), j.Allow.clone()
	return j
}

func (t *Trial) run(ctx context.Context) {
	defer close(t.done)
	defer t.decisions.Close()
	decided := make([]watch.Decided, perPoll)
	ticks := time.NewTicker(poll)
	defer ticks.Stop()
	for !t.Outdated() {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
		n := t.decisions.Read(decided)
		t.mu.Lock()
		for i := range decided[:n] {
			t.judge(&decided[i])
		}
		t.mu.Unlock()
	}
}

// judge decides about a packet by the candidate. mu is held.
func (t *Trial) judge(e *watch.Decided) {
	p := &e.Packet
	switch {
	case e.Generation != t.base.Generation: // of a burst before the base came into force, or behind it
		return
	case p.Fragment.IsLater() || p.IsICMPError(): // begins no flow, whatever the policy
		return
	case int(e.From) >= len(t.next.Attachments):
		return
	}
	t.judged.Packets++
	d := &t.decision
	drop := d.DecideFrom(t.next, t.next.Attachments[e.From], p)
	switch was := e.Drop; {
	case was == packet.NotDropped && drop != packet.NotDropped:
		t.judged.Deny.add(e, drop, d, t.example)
	case was != packet.NotDropped && drop == packet.NotDropped:
		t.judged.Allow.add(e, drop, d, t.example)
	}
}

// example is a packet as watchers see it: with what the policy in force has decided about it. Its time is that of judging.
func (t *Trial) example(e *watch.Decided) watch.Event {
	shown := watch.Event{Time: time.Now().UnixNano(), Packet: e.Packet, Length: e.Packet.Len, Generation: e.Generation, From: e.From, To: -1, Drop: e.Drop}
	if e.Drop == packet.NotDropped {
		shown.Standing = watch.Begins
	}
	var d verdict.Decision
	if said := d.DecideFrom(t.base, t.base.Attachments[e.From], &e.Packet); (said == packet.NotDropped) != (e.Drop == packet.NotDropped) {
		return shown // decided by what lives: a record at the other end, or a port that was free
	}
	shown.Note(d.Verdict.Slots())
	if d.Way.To != nil {
		shown.To, shown.Translated, shown.Arrives = int32(d.Exit()), d.Way.Translated, d.Way.Arrives
	}
	return shown
}
