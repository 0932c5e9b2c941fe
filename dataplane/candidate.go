package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Candidate builds the snapshot that a policy would give if it were the next one, for questions alone. It leaves no
// trace: its rules are counted nowhere, and Swap must not be given it.
func (e *Engine) Candidate(policy *policy.Set) (*topology.Snapshot, error) {
	before, now := e.Snapshot(), e.setting.Load()
	s, err := now.topology.Rebuild(before, policy, now.specs, e.registry.Copy())
	if err != nil {
		return nil, err
	}
	now.succeed(s, before)
	return s, nil
}

// Cuts yields the live flows that would end if a candidate were the policy in force: at once, because an end or the
// way between the ends is not what it was, or with their next packet, which the rules deny. In the second case
// the decision's Drop says why. It walks over the flow table without stopping it, changes nothing, and returns how
// many flows live. Yield must not keep what it gets.
func (e *Engine) Cuts(candidate *topology.Snapshot, yield func(*conntrack.FlowInfo, *verdict.Decision)) (live int) {
	old := e.Snapshot()
	var d verdict.Decision
	e.flows.Flows(func(f *conntrack.FlowInfo) bool {
		if f.Class.Cut() {
			return true
		}
		live++
		if d.Ends(old, candidate, e.room, f) {
			yield(f, &d)
		}
		return true
	})
	return live
}
