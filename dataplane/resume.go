package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/continuity"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/topology"
)

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
		e.followFlows(nil, e.Snapshot(), e.flows.Flows)
	}
}

// zones are what the flow table's zones mean.
func (e *Engine) zones(s *topology.Snapshot) continuity.Zones {
	return continuity.Zones{Room: int(e.room), Attachments: s.Identities()}
}
