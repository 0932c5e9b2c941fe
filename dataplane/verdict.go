package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
)

// MaxStages is the number of NSGs that can stand between two endpoints: the
// source's NIC and subnet, the destination's subnet and NIC.
const MaxStages = 4

// Verdict is the decision about a flow's first packet and how it came about.
// The zero value is a denial by nobody.
type Verdict struct {
	Access ruleset.Access
	// Stages holds, in the order of evaluation, the stages that were evaluated:
	// all of them when the access is Allow, up to the denying one when it is Deny.
	Stages [MaxStages]StageVerdict
	N      int
}

// StageVerdict is the decision of one NSG.
type StageVerdict struct {
	Stage *topology.Stage
	Rule  int // index into Stage.Table.Rules
}

// SecurityRule is the rule that decided.
func (s *StageVerdict) SecurityRule() *ruleset.Rule { return &s.Stage.Table.Rules[s.Rule] }

// Slot is the rule's slot in counters and flow records.
func (s *StageVerdict) Slot() uint32 { return s.Stage.Table.Slots[s.Rule] }

var noSlots = [MaxStages]uint32{conntrack.NoSlot, conntrack.NoSlot, conntrack.NoSlot, conntrack.NoSlot}

// slots are those of the stages, conntrack.NoSlot behind the last one.
func (v *Verdict) slots() [MaxStages]uint32 {
	slots := noSlots
	for i := range v.N {
		slots[i] = v.Stages[i].Slot()
	}
	return slots
}

// Judge runs a packet's classification tuple through the outbound stages of its
// source and the inbound stages of its destination. The first matching rule
// decides a stage, the first Deny ends the walk, a place without an NSG allows.
// Either side may be nil. It allocates nothing.
func Judge(src, dst *topology.Endpoint, k *packet.Tuple, v *Verdict) {
	v.N, v.Access = 0, ruleset.Allow
	if src != nil {
		judgeStages(src.Outbound, k, v)
	}
	if dst != nil && v.Access == ruleset.Allow {
		judgeStages(dst.Inbound, k, v)
	}
}

func judgeStages(stages []topology.Stage, k *packet.Tuple, v *Verdict) {
	for i := range stages {
		t := stages[i].Table
		rule := t.Match.FirstMatch(k)
		if rule < 0 {
			// Cannot be: the last default rule matches everything. Fail closed.
			v.Access = ruleset.Deny
			return
		}
		v.Stages[v.N] = StageVerdict{&stages[i], rule}
		v.N++
		if v.Access = t.Rules[rule].Access; v.Access == ruleset.Deny {
			return
		}
	}
}
