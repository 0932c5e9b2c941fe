package dataplane

import (
	"fmt"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/port"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// setting is what a reload can change of an engine besides its policy. It is replaced, never changed.
type setting struct {
	ports        port.List
	specs        []topology.Spec // of the ports
	topology     topology.Options
	subscription topology.Subscription
}

// KernelDrops are those of each attachment, by slot. Safe for concurrent use.
func (e *Engine) KernelDrops() []counter.KernelDrops {
	return e.setting.Load().ports.KernelDrops()
}

// Counters are the workers'; rules are counted by slot.
func (e *Engine) Counters() counter.Sets { return e.counters }

// Drops sums the packets that were not carried, by reason. Superpackets count
// once; a fragment that waits for its first one is not among them yet. Safe for
// concurrent use.
func (e *Engine) Drops() [packet.NumDrops]uint64 {
	sums := e.counters.Drops()
	sums[packet.DropFragmentNoFirst] += e.fragments.WaitedInVain()
	return sums
}

// AttachmentCounts sums traffic by attachment index. Safe for concurrent use.
func (e *Engine) AttachmentCounts() []counter.Attachment {
	return e.setting.Load().ports.Counts()
}

// departure says when an attachment has left its slot.
type departure struct {
	mark uint64 // of the flow table
	at   time.Duration
}

// succeed makes a snapshot that nothing uses yet the one after before.
func (t *setting) succeed(s, before *topology.Snapshot) {
	s.Follow(before)
	s.BlockSMTP = t.subscription.BlocksSMTP()
}

// Wanted is what an engine is to be.
type Wanted struct {
	Policy *policy.Set
	// Attachments in the order in which messages number them.
	Attachments []topology.Spec
	// Topology is how the policy is understood. The engine keeps its own Seed.
	Topology     topology.Options
	Subscription topology.Subscription
	// Try asks for an arrangement to look at: it leaves no trace, and Rearrange does not take it. Its Snapshot is what
	// Candidate would give.
	Try bool
}

// Candidate builds the snapshot that a policy would give if it were the next one, with more attachments, for questions
// alone. It leaves no trace: its rules are counted nowhere, and Swap must not be given it.
func (e *Engine) Candidate(policy *policy.Set, more ...topology.Spec) (*topology.Snapshot, error) {
	before, now := e.Snapshot(), e.setting.Load()
	s, err := now.topology.Rebuild(before, policy, slices.Concat(now.specs, more), e.registry.Copy())
	if err != nil {
		return nil, err
	}
	now.succeed(s, before)
	return s, nil
}

// Arrangement is a prepared change of an engine's policy and attachments.
type Arrangement struct {
	// Snapshot is the one that would decide.
	Snapshot *topology.Snapshot
	*port.Plan
	// Flows, unless it is nil, takes flows along that come or go with attachments: when nothing can refuse any more and every
	// worker can write to what is attached, before the snapshot decides. Nothing is read from what comes yet.
	Flows func()

	try        bool // to look at
	base, next *setting
}

// Arrange finds a slot for each wanted attachment and builds the snapshot, without using it. What stays attached
// keeps its slot. The slot of one that is gone is used again once nothing that is under way can mean the old one.
func (e *Engine) Arrange(w *Wanted) (*Arrangement, error) {
	base := e.setting.Load()
	a := &Arrangement{try: w.Try, base: base, next: &setting{topology: w.Topology, subscription: w.Subscription}}
	a.next.topology.Seed = base.topology.Seed
	var err error
	if a.Plan, err = e.plan(base, w); err != nil {
		return nil, err
	}
	a.next.specs = a.Specs
	registry := e.registry
	if w.Try {
		registry = registry.Copy()
	}
	before := e.Snapshot()
	if a.Snapshot, err = a.next.topology.Rebuild(before, w.Policy, a.next.specs, registry); err == nil && w.Try {
		a.next.succeed(a.Snapshot, before) // it is a candidate too
	}
	return a, err
}

// plan gives the wanted attachments their slots.
func (e *Engine) plan(base *setting, w *Wanted) (*port.Plan, error) {
	e.reload.Lock()
	defer e.reload.Unlock()
	identity := func(slot int) string { return e.Snapshot().Attachments[slot].Identity() }
	p, err := port.NewPlan(base.specs, identity, w.Attachments, w.Policy, int(e.room), func(slot int) bool { return e.free(base, slot) })
	if err != nil {
		return nil, fmt.Errorf("dataplane: %w", err)
	}
	return p, nil
}

// free reports a slot that may be used again: no worker uses its old attachment, no flow and no fragment means
// it. Watchers and flow logs tell the two apart by the generation, see topology.Attachment.Since. reload is held.
func (e *Engine) free(t *setting, slot int) bool {
	if t.specs[slot].Kind != topology.Vacant {
		return false
	}
	left, ok := e.left[slot]
	return !ok || e.flows.Passed(left.mark) && e.clock()-left.at > e.fragments.Lifetime() &&
		e.flows.ZoneFlows(uint16(slot)) == 0 && e.flows.ZoneFlows(e.room.Far(slot)) == 0
}

// Rearrange makes a prepared arrangement the one that decides. What stays attached carries on without a lost
// packet. prepare runs first and may refuse; it returns the devices of the wanted attachments, in their order, each with a
// queue for each worker. ready, which may be nil, runs when nothing can refuse any more, before the arrangement decides.
// Once Rearrange has returned, no worker uses a device that is not among them.
func (e *Engine) Rearrange(a *Arrangement, prepare func(*topology.Snapshot) ([]tun.Device, error), ready func(*topology.Snapshot)) error {
	e.reload.Lock()
	defer e.reload.Unlock()
	if a.try || e.setting.Load() != a.base {
		return ErrPrepared
	}
	return e.replace(a.Snapshot, a.next, func() error {
		devices, err := prepare(a.Snapshot)
		if err == nil {
			err = e.checkDevices(devices, len(a.Slots))
		}
		if err != nil {
			return err
		}
		if ready != nil {
			ready(a.Snapshot)
		}
		e.furnish(a, devices)
		return nil
	}, a)
}

// checkDevices holds devices against the attachments and the workers.
func (e *Engine) checkDevices(devices []tun.Device, attachments int) error {
	if len(devices) != attachments {
		return fmt.Errorf("dataplane: %d devices for %d attachments", len(devices), attachments)
	}
	for _, d := range devices {
		if n := len(d.Queues()); n < len(e.workers) {
			return fmt.Errorf("dataplane: device %s has %d queues for %d workers", d.Name(), n, len(e.workers))
		}
	}
	return nil
}

// furnish makes the ports of an arrangement, and lets every worker write to them. No worker reads from new ones yet:
// the snapshot that decides does not know them. reload is held.
func (e *Engine) furnish(a *Arrangement, devices []tun.Device) {
	defer fault.End()
	ports := slices.Clone(a.base.ports)
	for slot, identity := range a.Gone {
		if identity != "" {
			e.ledger.SetDevice(&ports[slot], nil)
			e.ledger.Leave(identity, ports[slot].Tally)
		}
	}
	for slot, identity := range a.Come {
		if identity == "" {
			continue
		}
		p := e.ledger.Port(identity)
		if slot == len(ports) {
			ports = append(ports, p)
		}
		ports[slot] = p
		delete(e.left, slot)
		e.flows.LimitZone(uint16(slot), a.Specs[slot].Kind == topology.NetworkInterface)
	}
	for i, slot := range a.Slots {
		e.ledger.SetDevice(&ports[slot], devices[i])
	}
	a.next.ports = ports
	e.options.Continuity.SetZones(e.zones(a.Snapshot))
	e.everyWorker(func(w *worker) { w.furnish(a.base.ports, ports) })
}

// settle has the workers read from new devices and leave those that are gone. reload is held.
func (e *Engine) settle(a *Arrangement) {
	e.everyWorker(func(w *worker) { w.settle(a.base.ports, a.next.ports) })
	left := departure{e.flows.Mark(), e.clock()}
	for slot, identity := range a.Gone {
		if identity != "" {
			e.left[slot] = left
		}
	}
}
