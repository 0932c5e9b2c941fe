package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// Options configure an engine.
type Options struct {
	// Attachments in their fixed order; a reload can change what stands behind
	// them, never the list.
	Attachments []topology.Spec
	// Workers is the number of goroutines that carry packets, each with its own
	// queue of every device. 0: one per CPU.
	Workers int
	// Flows configures the flow table; Workers, Zones, UnlimitedZones and
	// Silent are set by New.
	Flows conntrack.Options
	// TranslationIdle bounds the idle timeouts of translated flows, which are 4 minutes at least in a
	// policy; 0: nothing does.
	TranslationIdle time.Duration
	// Fragments configures the memory of fragmented datagrams; Zones is set by New.
	Fragments fragment.Options
	// Subscription decides about TCP port 25; it is a valid one.
	Subscription topology.Subscription
	// Compiled is a snapshot whose compiled rules New may use where they are what the
	// policy asks for; nil: none.
	Compiled *topology.Snapshot
	// Clock returns the time since any fixed point; nil: the monotonic clock.
	Clock func() time.Duration
	// Now is the wall clock, for the times of verdicts; nil: time.Now.
	Now func() time.Time
	// Topology chooses between ways to understand the policy. A Seed of 0 is replaced by a
	// random one.
	Topology topology.Options
	// Log receives what an operator must know; nil discards it.
	Log *slog.Logger
}

// Engine carries packets between attachments. Its methods are safe for
// concurrent use unless they say otherwise.
type Engine struct {
	options   Options
	log       *slog.Logger
	snapshot  atomic.Pointer[topology.Snapshot]
	registry  *topology.Registry
	flows     *conntrack.Table
	fragments *fragment.Table
	devices   []tun.Device
	workers   []*worker
	clock     func() time.Duration
	silent    chan conntrack.Silence // connections to reset, for the first worker

	reload sync.Mutex // one reload at a time

	watching sync.Mutex // guards changes of watchers
	watchers atomic.Pointer[watchers]
}

const (
	// zonesEach are the flow table's zones of an attachment; the second one is its far zone.
	zonesEach = 2
	// MaxAttachments is how many attachments an engine can have.
	MaxAttachments = conntrack.MaxZones / zonesEach
)

// New makes an engine for a policy. It carries nothing until Run.
func New(policy *policy.Set, o Options) (*Engine, error) {
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	e := &Engine{options: o, registry: topology.NewRegistry(), clock: o.Clock, log: o.Log}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.clock == nil {
		start := time.Now()
		e.clock = func() time.Duration { return time.Since(start) }
	}
	if e.options.Topology.Seed == 0 {
		e.options.Topology.Seed = rand.Uint64() // of one process: a reload leads a client to the backend that it had
	}
	s, err := e.options.Topology.Rebuild(o.Compiled, policy, o.Attachments, e.registry)
	if err != nil {
		return nil, err
	}
	o.Flows.Workers, o.Flows.Zones = o.Workers, zonesEach*len(o.Attachments)
	o.Flows.UnlimitedZones = func(zone uint16) bool {
		return int(zone) >= len(o.Attachments) || o.Attachments[zone].Kind != topology.NetworkInterface
	}
	e.silent = make(chan conntrack.Silence, maxSilent)
	o.Flows.Silent = e.reset
	if e.flows, err = conntrack.New(o.Flows); err != nil {
		return nil, err
	}
	o.Fragments.Zones = len(o.Attachments)
	if e.fragments, err = fragment.New(o.Fragments); err != nil {
		return nil, err
	}
	for i := range o.Workers {
		e.workers = append(e.workers, newWorker(e, i))
	}
	e.options.Compiled = nil
	e.publish(s)
	return e, nil
}

// Snapshot is the view that packets are decided by now.
func (e *Engine) Snapshot() *topology.Snapshot { return e.snapshot.Load() }

// Registry names the slots of RuleCounts.
func (e *Engine) Registry() *topology.Registry { return e.registry }

// Flows is the engine's flow table.
func (e *Engine) Flows() *conntrack.Table { return e.flows }

// Now is the flow table's clock.
func (e *Engine) Now() conntrack.Tick { return ticks(e.clock()) }

func ticks(d time.Duration) conntrack.Tick { return conntrack.Tick(d / conntrack.TickLength) }

// Fragments is the engine's memory of fragmented datagrams.
func (e *Engine) Fragments() *fragment.Table { return e.fragments }

// Workers is the number of workers.
func (e *Engine) Workers() int { return len(e.workers) }

// Prepare builds the snapshot that a policy would give, without using it. It compiles
// what differs from the snapshot that decides.
func (e *Engine) Prepare(policy *policy.Set) (*topology.Snapshot, error) {
	return e.options.Topology.Rebuild(e.Snapshot(), policy, e.options.Attachments, e.registry)
}

// Swap makes a prepared snapshot the one that decides. Live flows and counters
// are kept, except for the flows of an address that is no longer where it was, and those
// between two that no longer reach each other, or by another way.
// prepare runs first, under the same lock, and may refuse: it
// brings the devices into line.
func (e *Engine) Swap(s *topology.Snapshot, prepare func(*topology.Snapshot) error) error {
	e.reload.Lock()
	defer e.reload.Unlock()
	if prepare != nil {
		if err := prepare(s); err != nil {
			return err
		}
	}
	old := e.Snapshot()
	e.publish(s)
	e.followFlows(old, s)
	return nil
}

// followFlows ends the flows that a new snapshot leaves without their place or their way. The
// others get the timeout of their virtual networks as it is now.
func (e *Engine) followFlows(old, s *topology.Snapshot) {
	e.flows.Flows(func(f *conntrack.FlowInfo) bool {
		if !e.stays(old, s, f) {
			e.flows.End(&f.Key)
			return true
		}
		if d := e.established(s, f); f.Established != e.flows.Established(d) {
			e.flows.SetEstablished(&f.Key, d, e.Now())
		}
		return true
	})
}

// established is the timeout of a flow that stays: the longer of its two ends'. Of a flow that
// is known at one end only, the other is where that end's packets go now.
func (e *Engine) established(s *topology.Snapshot, f *conntrack.FlowInfo) time.Duration {
	from, whole := e.Attachment(f.Key.Zone)
	to, known := e.Attachment(f.ReplyKey.Zone)
	t := &f.Key.Tuple
	if !whole {
		from, t = to, &f.ReplyKey.Tuple
	}
	src := s.Admit(s.Attachments[from], t.Src)
	if f.Marks != 0 {
		var way topology.Way
		if s.Way(src, t, &way) != packet.NotDropped { // no backend is up, say
			return f.Established
		}
		return e.idle(&way, src, t.Proto)
	}
	var dst *topology.Endpoint
	if whole && known {
		dst = s.Admit(s.Attachments[to], f.ReplyKey.Src)
	} else {
		dst, _ = s.Route(src, t.Src, t.Dst)
	}
	return longer(src, dst)
}

// longer is the longer of the timeouts of two ends; dst may be nil.
func longer(src, dst *topology.Endpoint) time.Duration {
	if dst == nil {
		return src.Established
	}
	return max(src.Established, dst.Established)
}

// stays reports whether a flow's ends are where they were, and the way between them too. An
// address that is behind another attachment now, or behind none, sends spoofed packets at its old
// place, and at its new one a record of the old would stand in the way of the replies. A
// way that routes or peerings have changed must not be taken any more: the flow's next packet
// finds the new one, if the rules allow it there.
func (e *Engine) stays(old, s *topology.Snapshot, f *conntrack.FlowInfo) bool {
	from, whole := e.Attachment(f.Key.Zone)
	to, known := e.Attachment(f.ReplyKey.Zone)
	if whole && s.Admit(s.Attachments[from], f.Key.Src) == nil ||
		known && s.Admit(s.Attachments[to], f.Receiver) == nil {
		return false
	}
	if !whole || !known { // such a flow's packets are routed one by one
		return true
	}
	if f.Marks != 0 {
		return keepsTranslation(s, f)
	}
	if s.Translates() && translates(s, from, &f.Key.Tuple) {
		return false
	}
	now, returns := way(s, from, &f.Key.Tuple)
	if now != to || returns {
		return now == to
	}
	_, returned := way(old, from, &f.Key.Tuple)
	return !returned
}

// way is where a packet from an attachment goes, -1 for nowhere, and whether answers come back.
func way(s *topology.Snapshot, from int, t *packet.Tuple) (to int, returns bool) {
	a := s.Attachments[from]
	src := s.Admit(a, t.Src)
	if src == nil {
		return -1, false
	}
	dst, drop := s.Route(src, t.Src, t.Dst)
	if drop != packet.NotDropped {
		return -1, false
	}
	return dst.Attachment, s.Returns(a, dst, t)
}

func (e *Engine) publish(s *topology.Snapshot) {
	s.Follow(e.snapshot.Load())
	s.BlockSMTP = e.options.Subscription.BlocksSMTP()
	n := len(e.registry.Keys())
	for _, w := range e.workers {
		w.counters.reserve(n)
	}
	e.show(s)
}

// Attach gives the engine its devices, one for each attachment in order, each
// with at least as many queues as there are workers. Call it once, before Run.
func (e *Engine) Attach(devices []tun.Device) error {
	if len(devices) != len(e.options.Attachments) {
		return fmt.Errorf("dataplane: %d devices for %d attachments", len(devices), len(e.options.Attachments))
	}
	for _, w := range e.workers {
		w.queues, w.takes = w.queues[:0], w.takes[:0]
		for _, d := range devices {
			queues := d.Queues()
			if len(queues) < len(e.workers) {
				return fmt.Errorf("dataplane: device %s has %d queues for %d workers", d.Name(), len(queues), len(e.workers))
			}
			w.attach(queues[w.index])
		}
	}
	e.devices = devices
	return nil
}

func (e *Engine) attachmentName(i int) string { return e.Snapshot().Attachments[i].Name }

// Devices are those given to Attach.
func (e *Engine) Devices() []tun.Device { return e.devices }

// Run carries packets until ctx ends or a worker fails. The devices stay open.
func (e *Engine) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, w := range e.workers {
		if err := w.open(); err != nil {
			cancel(err)
			break
		}
		running.Go(func() {
			if err := w.run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	running.Go(func() { e.expire(ctx) })
	<-ctx.Done()
	for _, w := range e.workers {
		w.wake()
	}
	running.Wait()
	for _, w := range e.workers {
		w.close()
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

const (
	// expireEvery and expireBudget walk over a full table of a million records in
	// five seconds; a record that has timed out is absent before it is freed.
	expireEvery  = 100 * time.Millisecond
	expireBudget = 20_000
)

// expire frees what has timed out, in bounded steps.
func (e *Engine) expire(ctx context.Context) {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			e.flows.Expire(e.Now(), expireBudget)
			e.fragments.Expire(e.clock(), expireEvery)
		}
	}
}
