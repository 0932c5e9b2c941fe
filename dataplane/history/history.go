// Package history remembers what an engine denied, dropped and ended of late, in buckets of BucketLength.
//
// Nothing here makes the packet path wait. Dropped packets come as events of a subscription, ended flows from the flow
// table's listener through a ring without a lock, and hits as differences of counters. One goroutine, Run, sums them up.
// Senders choose what is summed, so each bucket is bounded: what has no room is summed by rule, and what was not looked
// at is counted.
package history

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/dataplane/watch"
)

const (
	// BucketLength is what one bucket spans.
	BucketLength = 15 * time.Second
	// DefaultKeep is used when Options.Keep is 0.
	DefaultKeep = time.Hour
	// MinKeep and MaxKeep bound Options.Keep.
	MinKeep = time.Minute
	MaxKeep = 24 * time.Hour

	// MaxPairs is how many different pairs of denied packets, and as many of ended flows, a bucket tells apart.
	MaxPairs = 512
	// maxOthers is how many rules and reasons a bucket sums up beyond them.
	maxOthers = 128
	// MaxHits is how many rules' hits a bucket tells apart.
	MaxHits = 1024

	// perSecond bounds the dropped packets that are looked at.
	perSecond = 10_000
	// poll is how long a dropped packet or an ended flow waits to be summed up.
	poll = 50 * time.Millisecond
	// waitingEvents is how many dropped packets of each worker wait for that.
	waitingEvents = 2048
	eventsAtOnce  = 256
)

// Engine carries the packets. Its methods are safe for concurrent use.
type Engine interface {
	Watch(watch.Options) (*watch.Subscription, error)
	Registry() *topology.Registry
	Snapshot() *topology.Snapshot
	Counters() counter.Sets
	Drops() [packet.NumDrops]uint64
	Flows() *conntrack.Table
	Room() verdict.Room
}

// Options say what is remembered.
type Options struct {
	Engine Engine
	// Keep is how long, in whole buckets; 0: DefaultKeep.
	Keep time.Duration
	// Now is the wall clock; nil: time.Now.
	Now func() time.Time
}

// History is what was remembered. Its methods are safe for concurrent use; Run is for one goroutine.
type History struct {
	engine  Engine
	keep    int // buckets
	now     func() time.Time
	ended   *endedRing
	dropped *watch.Subscription

	mu      sync.Mutex
	past    []*bucket // closed, the oldest first; never changed
	current *open     // guarded by mu, as all that follows
	before  counted   // at the current bucket's begin
	newest  newest
}

// New begins to remember. Call it before the engine carries packets, and then Run.
func New(o Options) (*History, error) {
	if o.Keep == 0 {
		o.Keep = DefaultKeep
	}
	if o.Keep < MinKeep || o.Keep > MaxKeep {
		return nil, fmt.Errorf("history: keep %v: allowed are %v to %v", o.Keep, MinKeep, MaxKeep)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	h := &History{engine: o.Engine, keep: int((o.Keep + BucketLength - 1) / BucketLength), now: o.Now, ended: newEndedRing()}
	var err error
	if h.dropped, err = o.Engine.Watch(watch.Options{DroppedOnly: true, PerSecond: perSecond, Events: waitingEvents, Poll: poll}); err != nil {
		return nil, err
	}
	h.current = newOpen(o.Now())
	h.before = h.count()
	h.newest.list = make([]Ended, newestEnded)
	o.Engine.Flows().OnEnd(h.ended.push)
	return h, nil
}

// Keep is how long is remembered at most.
func (h *History) Keep() time.Duration { return time.Duration(h.keep) * BucketLength }

// Run sums up until ctx ends.
func (h *History) Run(ctx context.Context) error {
	defer h.dropped.Close()
	events := make([]watch.Event, eventsAtOnce)
	for {
		soon, cancel := context.WithTimeout(ctx, poll)
		n, err := h.dropped.Read(soon, events)
		cancel()
		if h.take(events[:n]); ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// take sums up dropped packets and the flows that have ended, and closes the bucket when it is full.
func (h *History) take(events []watch.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	if age := now.Sub(h.current.from); age >= BucketLength || age < 0 { // or the clock was set back
		h.close(now)
	}
	for i := range events {
		h.current.drop(h.denied(&events[i]), &events[i])
	}
	h.takeEnded(now)
}

// close makes the current bucket one of the past. mu is held.
func (h *History) close(now time.Time) {
	after := h.count()
	end := h.current.from.Add(BucketLength) // also of a machine that slept
	if now.Before(end) {
		end = now
	}
	h.past = append(h.past, h.current.close(end, &h.before, &after))
	if drop := len(h.past) - h.keep; drop > 0 {
		h.past = append([]*bucket(nil), h.past[drop:]...)
	}
	h.before, h.current = after, newOpen(now)
}

// count reads the counters. mu is held.
func (h *History) count() counted {
	unseen := h.dropped.Lost() + h.dropped.Skipped()
	lost := h.ended.lost.Load()
	return counted{generation: h.engine.Snapshot().Generation, rules: h.engine.Counters().Rules(len(h.engine.Registry().Keys())),
		drops: h.engine.Drops(), unseen: unseen, lost: lost}
}

// denied is the slot of the rule that denied a packet; conntrack.NoSlot: another reason has dropped it, or the rule is
// forgotten.
func (h *History) denied(e *watch.Event) uint32 {
	if e.Drop != packet.DropRule {
		return conntrack.NoSlot
	}
	// A denial ends the evaluation, so that there is one.
	return DeniedBy(h.engine.Registry(), e)
}
