package dataplane

import (
	"errors"
	"runtime"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
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
	if a != nil && a.Flows != nil {
		a.Flows()
	}
	e.publish(s)
	e.replaced = e.flows.Mark()
	e.followFlows(old, s)
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
func (e *Engine) followFlows(old, s *topology.Snapshot) {
	n := 0
	e.flows.Flows(func(f *conntrack.FlowInfo) bool {
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
	if !e.stays(old, s, f) {
		return false, 0
	}
	return true, e.established(s, f)
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
	d := verdict.Decision{Here: true}
	switch {
	case src == nil: // translated between two hosts
		return f.Established
	case f.Marks != 0:
		if d.Route(s, src, t) != packet.NotDropped || d.Refused() { // no backend is up, say
			return f.Established
		}
	case whole && known:
		d.Along(s, src, s.Admit(s.Attachments[to], f.ReplyKey.Src), t, t)
	default:
		d.Onward(s, src, &packet.Packet{Tuple: *t})
	}
	return d.Idle(t.Proto, e.options.TranslationIdle)
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
	if f.Marks != 0 {
		src, dst, arrives := e.end(s, f.Key.Zone, f.Key.Src), e.end(s, f.ReplyKey.Zone, f.Receiver), f.ReplyKey.Reverse()
		return src != nil && dst != nil && s.KeepsTranslation(src, dst, &f.Key.Tuple, &arrives)
	}
	if !whole || !known { // such a flow's packets are routed one by one
		return true
	}
	d := verdict.Decision{Here: true}
	way(s, from, &f.Key.Tuple, &d)
	if s.Attachments[to].Inlet() && d.Drop == packet.NotDropped && !d.Refused() && d.Way.To == s.Outside() {
		return true // another host translates it, whichever would be chosen now
	}
	if d.Drop != packet.NotDropped || d.Refused() || d.Rewrites() || d.Way.Closed || d.Way.To == nil || d.Exit() != to {
		return false
	}
	if d.Answered() || old == nil {
		return d.Answered()
	}
	way(old, from, &f.Key.Tuple, &d)
	return d.Drop != packet.NotDropped || d.Way.To == nil || !d.Answered()
}

// way finds where a packet from an attachment goes.
func way(s *topology.Snapshot, from int, t *packet.Tuple, d *verdict.Decision) {
	if from >= len(s.Attachments) { // came later
		*d = verdict.Decision{Here: true}
	} else if src := s.Admit(s.Attachments[from], t.Src); src != nil {
		d.RouteFrom(s, s.Attachments[from], src, t)
	} else {
		*d = verdict.Decision{Here: true}
	}
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
