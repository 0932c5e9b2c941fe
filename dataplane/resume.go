package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/continuity"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// openCounters opens the workers' sets, and those that an earlier process has left beyond them.
func (e *Engine) openCounters() (sets counter.Sets, err error) {
	slabs, now := e.options.Continuity.Slabs(), e.options.Now
	lost := func(err error) { e.log.Error("counters of the last process are lost", "error", err) }
	for i := range e.options.Workers {
		set := counter.New(now)
		if slabs != nil {
			if set, err = counter.Open(now, slabs, i, lost); err != nil {
				return nil, err
			}
		}
		sets = append(sets, set)
	}
	if slabs == nil {
		return sets, nil
	}
	rest, err := counter.Rest(now, slabs, len(sets), lost)
	return append(sets, rest...), err
}

// resumeCells makes the counters of the last process's attachments those of attachments that are gone.
func (e *Engine) resumeCells() {
	for identity, n := range e.options.Continuity.Cells() {
		if !e.cells.Claim(n) {
			e.options.Continuity.ForgetCell(identity)
			continue
		}
		counted := e.counters.ResumeTally(n)
		counted.SetBefore(e.options.Continuity.KernelDrops(identity))
		e.leave(identity, counted)
	}
}

// leave keeps the counters of an attachment that is gone.
func (e *Engine) leave(identity string, counted counter.Tally) {
	if forgotten := e.departed.Keep(identity, counted); forgotten.Cells != nil {
		e.cells.Give(forgotten.Number)
		e.options.Continuity.ForgetCell(forgotten.Identity)
	}
}

// resumeFlows has the flow table take over the flows of the last process.
func (e *Engine) resumeFlows(o *conntrack.Options, s *topology.Snapshot) {
	if e.options.Continuity == nil {
		return
	}
	o.Later = ticks(e.options.Continuity.Later())
	before, now := e.options.Continuity.Zones(), e.zones(s)
	o.Images = e.options.Continuity.Images()
	o.OldZones = before.In(&now, conntrack.NoZone)
	keys := e.registry.Keys()
	o.Slot = func(slot uint32) bool {
		return int(slot) < len(keys) && keys[slot] != topology.RuleKey{} || topology.ServiceOfSlot(slot) != topology.NoService
	}
	e.options.Continuity.PlanZones(now)
}

// followAdopted holds the flows of the last process against the policy of this one, as a reload would, while workers carry.
func (e *Engine) followAdopted() {
	e.reload.Lock()
	defer e.reload.Unlock()
	if e.flows.Adoption().Flows > 0 {
		e.followFlows(nil, e.Snapshot())
	}
}

// zones are what the flow table's zones mean.
func (e *Engine) zones(s *topology.Snapshot) continuity.Zones {
	return continuity.Zones{Room: int(e.room), Attachments: s.Identities()}
}
