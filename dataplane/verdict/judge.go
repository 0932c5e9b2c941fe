// Package verdict is the one decision: live packets and every question are judged here.
package verdict

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
)

// MaxStages is the number of rules that can decide between two endpoints: the
// source's admin rule, NIC and subnet, the destination's admin rule, subnet and NIC.
const MaxStages = conntrack.MaxSlots

// Verdict is the decision about a flow's first packet and how it came about.
// The zero value is a denial by nobody.
type Verdict struct {
	Access ruleset.Access
	// Stages holds, in the order of evaluation, the stages that were evaluated:
	// all of them when the access is Allow, up to the denying one when it is Deny.
	Stages [MaxStages]StageVerdict
	N      int
	// Service is the platform's service that the flow asks for: no NSG and no admin rule is
	// asked, but for rules that name that service.
	Service topology.Service
}

// StageVerdict is the decision of one NSG, or of the rule collections before them.
type StageVerdict struct {
	Stage *topology.Stage
	Rule  int // index into Stage.Table.Rules
}

// SecurityRule is the rule that decided.
func (s *StageVerdict) SecurityRule() *ruleset.Rule { return &s.Stage.Table.Rules[s.Rule] }

// Slot is the rule's slot in counters and flow records.
func (s *StageVerdict) Slot() uint32 { return s.Stage.Table.Slots[s.Rule] }

// Slots are those of the stages, and the service's where it was let pass.
func (v *Verdict) Slots() conntrack.Slots {
	slots := v.slots(0, v.N)
	if v.Service != topology.NoService && v.Access == ruleset.Allow {
		slots.Set(v.N, v.Service.Slot())
	}
	return slots
}

// sentSlots are Slots of the sender's stages, the first n.
func (v *Verdict) sentSlots(n int) conntrack.Slots {
	slots := v.slots(0, n)
	if v.Service != topology.NoService {
		slots.Set(n, v.Service.Slot())
	}
	return slots
}

func (v *Verdict) slots(first, end int) (slots conntrack.Slots) {
	for i := first; i < end; i++ {
		slots.Set(i-first, v.Stages[i].Slot())
	}
	return slots
}

func (v *Verdict) reset() { v.N, v.Access, v.Service = 0, ruleset.Allow, topology.NoService }

// send asks the outbound stages of the source: admin rules before its NSGs, and the platform's services
// before both. The first matching rule decides a stage, the first Deny ends the walk, a place without an
// NSG allows.
func (v *Verdict) send(src *topology.Endpoint, k *packet.Tuple) {
	if v.Service = src.Service(k); v.Service != topology.NoService {
		judgeService(src.Outbound, k, v)
	} else if len(src.AdminOutbound) == 0 || judgeAdmin(src.AdminOutbound, k, v) {
		judgeStages(src.Outbound, k, v)
	}
}

// receive asks the stages of the destination, behind those that have let the packet pass.
func (v *Verdict) receive(dst *topology.Endpoint, k *packet.Tuple) {
	if len(dst.AdminInbound) == 0 || judgeAdmin(dst.AdminInbound, k, v) {
		judgeStages(dst.Inbound, k, v)
	}
}

// judgeAdmin asks the rule collections of one end: of their matching rules the one with the
// lowest priority number decides. It reports whether the NSGs are still to be asked.
func judgeAdmin(stages []topology.Stage, k *packet.Tuple, v *Verdict) bool {
	var first StageVerdict
	for i := range stages {
		t := stages[i].Table
		rule := t.Match.FirstMatch(k)
		if rule >= 0 && (first.Stage == nil || t.Rules[rule].Priority < first.SecurityRule().Priority) {
			first = StageVerdict{&stages[i], rule}
		}
	}
	if first.Stage == nil {
		return true
	}
	v.Stages[v.N] = first
	v.N++
	switch first.SecurityRule().Access {
	case ruleset.Allow:
		return true
	case ruleset.AlwaysAllow:
		return false
	}
	v.Access = ruleset.Deny
	return false
}

// judgeService asks the rules that name the platform's service.
func judgeService(stages []topology.Stage, k *packet.Tuple, v *Verdict) {
	for i := range stages {
		rule := stages[i].Table.PlatformRule(k)
		if rule < 0 {
			continue
		}
		v.Stages[v.N] = StageVerdict{&stages[i], rule}
		v.N++
		if v.Access = stages[i].Table.Rules[rule].Access; v.Access == ruleset.Deny {
			return
		}
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
