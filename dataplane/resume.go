package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/continuity"
	"github.com/nsgd/nsgd/dataplane/topology"
)

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
