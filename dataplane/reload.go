package dataplane

import (
	"errors"
	"runtime"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Prepare builds the snapshot that a policy would give, without using it. It compiles
// what differs from the snapshot that decides.
func (e *Engine) Prepare(policy *policy.Set) (*topology.Snapshot, error) {
	now := e.setting.Load()
	return now.topology.Rebuild(e.Snapshot(), policy, now.specs, e.registry)
}

// Swap makes a prepared snapshot the one that decides. Counters go on. Flows survive unless an end
// moved to another attachment or the route between the ends changed.
// prepare runs first, under the same lock, and may refuse: it brings the devices into line.
func (e *Engine) Swap(s *topology.Snapshot, prepare func(*topology.Snapshot) error) error {
	e.reload.Lock()
	defer e.reload.Unlock()
	return e.replace(s, e.setting.Load(), func() error {
		if prepare == nil {
			return nil
		}
		return prepare(s)
	}, nil)
}

// replace puts a snapshot and the setting that it was built for in the place of those that decide; a is nil where
// the setting stays. reload is held.
func (e *Engine) replace(s *topology.Snapshot, now *setting, prepare func() error, a *Arrangement) error {
	if !e.registry.Current(s) || !s.BuiltFor(now.specs) {
		return ErrPrepared
	}
	old := e.Snapshot()
	now.succeed(s, old) // before prepare hands its probes to the prober
	if err := prepare(); err != nil {
		return err
	}
	e.commit(old, s, now, a)
	return nil
}

// commit is the part of replace that nothing refuses any more. reload is held.
func (e *Engine) commit(old, s *topology.Snapshot, now *setting, a *Arrangement) {
	defer fault.End()
	e.setting.Store(now)
	e.reclaimRules(old, s)
	arrive := a != nil && a.Flows != nil
	if arrive {
		a.Flows()
	}
	e.publish(s)
	e.replaced = e.flows.Mark()
	if d := s.Differs(old); arrive || d.Everything {
		e.followFlows(old, s, e.flows.Flows)
	} else if !d.None() {
		e.followFlows(old, s, e.flowsOf(&d))
	}
	if a != nil {
		e.settle(a)
	}
}

// ErrPrepared is a snapshot that was prepared before slots of removed rules were taken back, or for other attachments.
var ErrPrepared = errors.New("dataplane: the policy was prepared before removed rules were forgotten or attachments changed: prepare it again")

// reclaimRules forgets removed rules once there are many, in two steps. A rule that is in no snapshot and on no
// flow may still be counted on until each worker has passed a burst's boundary: by sums that a burst has gathered,
// or by a fragment of a datagram that the rule has denied. So what one reload finds unused a later one forgets.
func (e *Engine) reclaimRules(old, s *topology.Snapshot) {
	before := e.inUse
	if e.inUse = nil; !e.registry.Crowded(s) {
		return
	}
	inUse := s.MarkSlots(old.MarkSlots(make([]bool, len(e.registry.Keys()))))
	e.flows.EachSlots(func(slots conntrack.Slots) {
		for ; slots.More(); slots = slots.Rest() {
			if slot := int(slots.First()); slot < len(inUse) { // a service's is beyond
				inUse[slot] = true
			}
		}
	})
	e.inUse = inUse
	if before != nil && e.flows.Passed(e.replaced) {
		for _, slot := range e.registry.Reclaim(e.reclaimed, before, inUse) {
			for _, set := range e.counters { // those of workers that an earlier process had, too
				set.Forget(slot)
			}
		}
	}
	e.reclaimed = old.Generation
}

// followFlows ends the flows that a new snapshot leaves without their place or their way. The
// others get the timeout of their virtual networks as it is now. old is nil where another process began the flows.
// those yields the flows that can have changed.
func (e *Engine) followFlows(old, s *topology.Snapshot, those func(yield func(*conntrack.FlowInfo) bool)) {
	n := 0
	those(func(f *conntrack.FlowInfo) bool {
		if n++; n%followAtOnce == 0 {
			runtime.Gosched() // workers may wait for the processor
		}
		stays, idle := e.judge(old, s, f)
		switch {
		case !stays:
			e.flows.End(&f.Key)
		case f.Established != e.flows.Established(idle):
			e.flows.SetEstablished(&f.Key, idle, e.Now())
		}
		return true
	})
}

// flowsOf are the flows that a difference of snapshots concerns. Of all others no more is read than where they are.
func (e *Engine) flowsOf(d *topology.Difference) func(yield func(*conntrack.FlowInfo) bool) {
	zones := make([]bool, e.room.Zones())
	for _, slot := range d.Slots {
		zones[slot], zones[e.room.Far(slot)] = true, true
	}
	concerned := func(ends *conntrack.Ends) bool {
		return zones[ends.Zone] || zones[ends.ReplyZone] || d.Has(ends.Src) || d.Has(ends.Dst) || d.Has(ends.Receiver)
	}
	return func(yield func(*conntrack.FlowInfo) bool) { e.flows.FlowsOf(concerned, yield) }
}

// followAtOnce is how many flows are followed before others get the processor.
const followAtOnce = 128

// judge says whether a flow stays, and its timeout then. A flow at which it panics ends.
func (e *Engine) judge(old, s *topology.Snapshot, f *conntrack.FlowInfo) (stays bool, idle time.Duration) {
	defer func() {
		if cause := recover(); cause != nil {
			e.faults.Caught(fault.Judgement, cause)
			stays = false
		}
	}()
	if !e.room.Stays(old, s, f) {
		return false, 0
	}
	return true, e.room.Established(s, f, e.options.TranslationIdle)
}

// publish makes a snapshot that succeeds the present one the one that decides.
func (e *Engine) publish(s *topology.Snapshot) {
	s.Reclaimed = e.reclaimed
	n := len(e.registry.Keys())
	for _, set := range e.counters {
		set.Reserve(n)
	}
	e.watchers.Rename(func() *watch.Names { return e.watchNames(s) }, func() { e.snapshot.Store(s) })
}
