package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/continuity"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/errand"
	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/lane"
	"github.com/nsgd/nsgd/dataplane/logring"
	"github.com/nsgd/nsgd/dataplane/port"
	"github.com/nsgd/nsgd/dataplane/sweep"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// Options configure an engine.
type Options struct {
	// Attachments of the start; see Engine.Rearrange.
	Attachments []topology.Spec
	// Room is how many attachments there may be at a time, those that are gone for a moment only among them, at most
	// MaxAttachments; 0: as many as there are at the start. The flow table reserves 64 bytes for each, and
	// 128 more where Flows.NewPerSecond is set.
	Room int
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
	// Continuity keeps flows and counters beyond the process; nil: they end with it.
	Continuity *continuity.Store
	// Clock returns the time since a fixed point, which is the machine's start where there is Continuity; nil: the
	// monotonic clock.
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
	room      verdict.Room // of slots
	log       *slog.Logger
	setting   atomic.Pointer[setting]
	snapshot  atomic.Pointer[topology.Snapshot]
	registry  *topology.Registry
	flows     *conntrack.Table
	fragments *fragment.Table
	sweeper   sweep.Sweeper
	workers   []*worker
	counters  counter.Sets // the workers'
	lanes     *lane.Lanes
	faults    *fault.Log
	clock     func() time.Duration
	busy      func() time.Duration   // processor time of the calling thread
	yield     func()                 // lets whoever waits for the processor have it
	silent    chan conntrack.Silence // connections to reset, for the first worker
	fence     atomic.Int64           // see CarryUntil

	reload    sync.Mutex        // one reload at a time; guards what follows
	replaced  uint64            // the flow table's Mark behind the last reload
	inUse     []bool            // the rule slots that were in use at the last reload, see reclaimRules; nil: not known
	reclaimed uint64            // see topology.Snapshot.Reclaimed
	left      map[int]departure // by slot: that is vacant
	ledger    port.Ledger

	desks errand.Desks // the workers'

	watchers watch.Watchers
}

// MaxAttachments is how many attachments an engine can have.
const MaxAttachments = conntrack.MaxZones / verdict.ZonesEach

// New makes an engine for a policy. It carries nothing until Run.
func New(policy *policy.Set, o Options) (*Engine, error) {
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	e := &Engine{options: o, left: map[int]departure{}, clock: o.Clock, busy: tun.ThreadTime, yield: tun.Yield, log: slog.New(slog.DiscardHandler)}
	e.fence.Store(unfenced)
	e.registry = topology.ResumeRegistry(o.Continuity.Rules(), o.Continuity.SetRule)
	if o.Log != nil {
		e.log = slog.New(logring.New(o.Log.Handler())) // workers don't wait for who reads it
	}
	if e.clock == nil {
		start, before := time.Now(), continuity.SinceBoot()
		e.clock = func() time.Duration { return before + time.Since(start) }
	}
	e.faults = fault.NewLog(e.log, e.clock)
	e.lanes = lane.NewLanes(e.faults)
	if e.options.Topology.Seed == 0 {
		e.options.Topology.Seed = o.Continuity.Seed(rand.Uint64) // a reload leads a client to the backend that it had
	}
	e.room = o.room()
	if e.room > MaxAttachments {
		return nil, fmt.Errorf("dataplane: room for %d attachments: at most %d", e.room, MaxAttachments)
	}
	first := &setting{specs: o.Attachments, topology: e.options.Topology, subscription: o.Subscription}
	s, err := first.topology.Rebuild(o.Compiled, policy, first.specs, e.registry)
	if err != nil {
		return nil, err
	}
	lost := func(err error) { e.log.Error("counters of the last process are lost", "error", err) }
	if e.counters, err = counter.OpenAll(o.Now, o.Continuity.Slabs(), o.Workers, lost); err != nil {
		return nil, err
	}
	e.ledger = port.Ledger{Counters: e.counters, Store: o.Continuity}
	e.ledger.Resume()
	for _, a := range s.Attachments {
		first.ports = append(first.ports, e.ledger.Port(a.Identity()))
	}
	e.setting.Store(first)
	e.resumeFlows(&o.Flows, s)
	o.Flows.Workers, o.Flows.Zones = o.Workers, e.room.Zones()
	o.Flows.UnlimitedZones = func(zone uint16) bool {
		return int(zone) >= len(o.Attachments) || o.Attachments[zone].Kind != topology.NetworkInterface
	}
	e.silent = make(chan conntrack.Silence, maxSilent)
	o.Flows.Silent = e.reset
	if e.flows, err = conntrack.New(o.Flows); err != nil {
		return nil, err
	}
	o.Continuity.SetZones(e.zones(s))
	o.Fragments.Zones = e.room.Zones()
	if e.fragments, err = fragment.New(o.Fragments); err != nil {
		return nil, err
	}
	e.sweeper = sweep.Sweeper{Flows: e.flows, Fragments: e.fragments, Faults: e.faults, Clock: e.clock}
	for i := range o.Workers {
		w := newWorker(e, i)
		e.workers, e.desks.Each = append(e.workers, w), append(e.desks.Each, &w.errands)
	}
	e.options.Compiled = nil
	first.succeed(s, nil)
	e.publish(s)
	return e, nil
}

// Reserve makes the memory of an engine's flow table, for Options.Flows.Reserved. It takes time that New then does not need.
func Reserve(o *Options) (*conntrack.Reserved, error) {
	flows := o.Flows
	flows.Zones = o.room().Zones()
	return conntrack.Reserve(flows)
}

// room is how many slots there are.
func (o *Options) room() verdict.Room { return verdict.Room(max(o.Room, len(o.Attachments), 1)) }

// Room says how the flow table's zones are numbered.
func (e *Engine) Room() verdict.Room { return e.room }

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

// Faults are the panics that the engine, or what is beside it, has recovered from.
func (e *Engine) Faults() *fault.Log { return e.faults }

// Workers is the number of workers.
func (e *Engine) Workers() int { return len(e.workers) }

// StuckWorkers are those that have not come by between two bursts when ctx ends, or that don't run; see errand.Desks.Stuck.
func (e *Engine) StuckWorkers(ctx context.Context) []int { return e.desks.Stuck(ctx) }

// Attach gives the engine its devices, one for each attachment in order, each
// with a queue for each worker at least. A device with two for each has those of sparse flows behind the others, as
// tun/steer fills them; they are read first. Call it once, before Run.
func (e *Engine) Attach(devices []tun.Device) error {
	now := *e.setting.Load()
	if err := e.checkDevices(devices, len(now.ports)); err != nil {
		return err
	}
	now.ports = slices.Clone(now.ports)
	for slot := range now.ports {
		now.ports[slot].Device = devices[slot]
	}
	for _, w := range e.workers {
		for slot, d := range devices {
			w.attach()
			w.give(slot, d)
		}
	}
	e.setting.Store(&now)
	return nil
}

func (e *Engine) attachmentName(i int) string { return e.Snapshot().Attachments[i].Name }

// Devices are those of the attachments, by slot; nil where there is none. Before Attach the list is empty.
func (e *Engine) Devices() []tun.Device { return e.setting.Load().ports.Devices() }

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
	running.Go(func() { e.sweeper.Run(ctx) })
	running.Go(e.followAdopted)
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

// CarryUntil has the engine carry nothing from a moment of Clock on, whatever happens to whoever would have to stop it: a
// process that was stopped for a while finds the moment passed. Every worker looks once a burst, so one that is
// stopped within a burst still finishes that. Packets are dropped under packet.DropFenced. An engine that nobody
// fences carries for ever. Safe for concurrent use.
func (e *Engine) CarryUntil(moment time.Duration) { e.fence.Store(int64(moment)) }

// Clock is the engine's: monotonic, and unless Options say otherwise the same in all processes of the machine.
func (e *Engine) Clock() time.Duration { return e.clock() }

// unfenced is a moment that does not come.
const unfenced = 1<<63 - 1

// isFenced tells of a burst that may not be carried any more.
func (e *Engine) isFenced(now time.Duration) bool { return int64(now) >= e.fence.Load() }
