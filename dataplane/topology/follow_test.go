package topology

import (
	"slices"
	"strconv"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

func TestWhoseFlowsAreJudgedAgain(t *testing.T) {
	registry := NewRegistry()
	var running *Snapshot
	follow := func(edit func(*policy.Set)) *Snapshot {
		set := rebuildSet()
		set.NetworkSecurityGroups[0].FlushConnection = true // "tags", of vnet1's subnet a
		if edit != nil {
			edit(set)
		}
		next := mustBuild(t, running, set, registry)
		next.Follow(running)
		running = next
		return next
	}
	flushed := func(s *Snapshot) [2]uint32 {
		return [2]uint32{s.nicEndpoint(t, "vnet1a").Flushed, s.nicEndpoint(t, "vnet2a").Flushed}
	}
	rule := func(s *policy.Set) {
		g := s.NetworkSecurityGroups[0]
		g.Rules = append(g.Rules, allow("more", 200, ruleset.Outbound, ruleset.Peer{Any: true}, ruleset.Peer{Any: true}))
	}
	for _, tt := range []struct {
		name string
		edit func(*policy.Set)
		want [2]uint32
	}{
		{"the first snapshot", nil, [2]uint32{1, 0}},
		{"nothing changes, and what is due stays due", nil, [2]uint32{1, 0}},
		{"a rule", rule, [2]uint32{3, 0}},
		{"the same rule", rule, [2]uint32{3, 0}},
		{"a rule's access, which compiles to the same table", func(s *policy.Set) {
			rule(s)
			s.NetworkSecurityGroups[0].Rules[1].Access = ruleset.Deny
		}, [2]uint32{5, 0}},
		{"a rule of an NSG without flushConnection", func(s *policy.Set) {
			rule(s)
			s.NetworkSecurityGroups[0].Rules[1].Access = ruleset.Deny
			g := s.NetworkSecurityGroups[1]
			g.Rules = slices.Delete(g.Rules, 0, 1)
		}, [2]uint32{5, 0}},
		{"flushConnection is switched off", func(s *policy.Set) { s.NetworkSecurityGroups[0].FlushConnection = false }, [2]uint32{5, 0}},
		{"and on", nil, [2]uint32{8, 0}},
		{"the NSG is taken away", func(s *policy.Set) { s.VirtualNetworks[0].Subnets[0].NetworkSecurityGroup = nil }, [2]uint32{9, 0}},
		{"and given to another subnet", func(s *policy.Set) {
			s.VirtualNetworks[0].Subnets[0].NetworkSecurityGroup = nil
			s.VirtualNetworks[1].Subnets[0].NetworkSecurityGroup = s.NetworkSecurityGroups[0]
		}, [2]uint32{9, 10}},
	} {
		s := follow(tt.edit)
		if got := flushed(s); got != tt.want || s.Flushed != max(tt.want[0], tt.want[1]) {
			t.Errorf("generation %d, %s: judged again since %v and %d, want %v", s.Generation, tt.name, got, s.Flushed, tt.want)
		}
	}
}

func TestARegistryIsBounded(t *testing.T) {
	r := NewRegistry()
	if _, err := r.reserve([]RuleKey{{Rule: "known"}}); err != nil {
		t.Fatal(err)
	}
	for i := range MaxRules - 2 {
		r.take(RuleKey{Rule: strconv.Itoa(i)})
	}
	if _, err := r.reserve([]RuleKey{{Rule: "known"}, {Rule: "a"}, {Rule: "b"}}); err == nil || len(r.Keys()) != MaxRules-1 {
		t.Errorf("two rules too many: %v, %d rules", err, len(r.Keys()))
	}
	slots, err := r.reserve([]RuleKey{{Rule: "a"}, {Rule: "known"}, {Rule: "a"}})
	if err != nil || !slices.Equal(slots, []uint32{MaxRules - 1, 0, MaxRules - 1}) {
		t.Errorf("the last slot: %v, %v", slots, err)
	}
	if keys := r.Keys(); cap(keys) != len(keys) {
		t.Error("whoever appends to the keys writes to the registry")
	}
}
