package dataplane

import (
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Each end of a flow that takes two ways is judged again by its own rules.
func TestFlushConnectionWhereAnswersGoAnotherWay(t *testing.T) {
	deny := func(d ruleset.Direction) []ruleset.Rule { return []ruleset.Rule{anyRule("d", 100, d, ruleset.Deny)} }
	flush := func(s *policy.Set) {
		for _, g := range s.NetworkSecurityGroups {
			g.FlushConnection = true
		}
	}
	left := byFW("10.2.0.0/24")
	allow := []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Allow)}
	before := hubWorld{left: left, a: allow, b: allow, fw: allow, edit: flush}
	begun := []step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}, {atB, ba("SA"), atA, ""}}
	for _, tt := range []struct {
		name  string
		after hubWorld
		then  []step
	}{
		{"nothing changes", before, []step{{atA, ab("A"), atFW, ""}, {atFW, ab("A"), atB, ""}, {atB, ba("A"), atA, ""}}},
		{"the sender's end denies", hubWorld{left: left, a: deny(ruleset.Outbound), b: allow, fw: allow, edit: flush},
			[]step{{atA, ab("A"), 0, "rule_deny"}}},
		{"the appliance denies what comes in", hubWorld{left: left, a: allow, b: allow, fw: deny(ruleset.Inbound), edit: flush},
			[]step{{atA, ab("A"), 0, "rule_deny"}, {atFW, ab("A"), atB, ""}}},
		{"the receiver's end denies", hubWorld{left: left, a: allow, b: deny(ruleset.Inbound), fw: allow, edit: flush},
			[]step{{atA, ab("A"), atFW, ""}, {atFW, ab("A"), 0, "rule_deny"}}},
		{"a denial without flushConnection ends nothing", hubWorld{left: left, a: allow, b: deny(ruleset.Inbound), fw: allow},
			[]step{{atA, ab("A"), atFW, ""}, {atFW, ab("A"), atB, ""}, {atB, ba("A"), atA, ""}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := hubRig(t, before)
			r.play(begun)
			swap(t, r, tt.after.policy())
			r.play(tt.then)
		})
	}
}

// The longer of the timeouts of the two ends of a leg holds, after a reload too.
func TestAReloadGivesItsTimeoutToAFlowThatTakesTwoWays(t *testing.T) {
	world := func(timeout time.Duration) *policy.Set {
		return hubWorld{left: byFW("10.2.0.0/24"), b: []ruleset.Rule{anyRule("out", 100, ruleset.Outbound, ruleset.Deny)}, edit: func(s *policy.Set) {
			for _, v := range s.VirtualNetworks {
				v.FlowTimeout = timeout
			}
		}}.policy()
	}
	r := newRigWith(t, world(4*time.Minute), Options{Attachments: hubSpecs, Flows: conntrack.Options{Max: 64}})
	r.play([]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}, {atB, ba("SA"), atA, ""}, {atA, ab("A"), atFW, ""}, {atFW, ab("A"), atB, ""}})
	swap(t, r, world(20*time.Minute))
	r.clock += 10 * time.Minute
	r.play([]step{{atB, ba("A"), atA, ""}}) // b may begin nothing itself
}

// A NIC that wants no TCP states has that where subnets have route tables too, and at each end
// of a flow that takes two ways.
func TestStatelessWhereSubnetsHaveRoutes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		left  []policy.Route
		steps []step
	}{
		{"one way", byFW("10.9.0.0/24"), []step{{atA, ab("A"), atB, ""}, {atB, ba("A"), atA, ""}, {atA, ab("R"), atB, ""}, {atB, ba("A"), atA, ""}}},
		{"two ways", byFW("10.2.0.0/24"), []step{{atA, ab("A"), atFW, ""}, {atFW, ab("A"), atB, ""}, {atB, ba("A"), atA, ""}, {atA, ab("R"), atFW, ""}, {atFW, ab("R"), atB, ""}, {atB, ba("A"), atA, ""}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			world := hubWorld{left: tt.left, edit: func(s *policy.Set) {
				for _, nic := range s.NetworkInterfaces {
					nic.DisableTCPStateTracking = true
				}
			}}
			r := newRigWith(t, world.policy(), Options{Attachments: hubSpecs, Flows: conntrack.Options{Max: 64, TCPStrict: true}})
			r.play(tt.steps)
			flows := 0
			r.engine.Flows().Flows(func(f *conntrack.FlowInfo) bool {
				flows++
				if f.Class != conntrack.ClassTCPOneWay && f.Class != conntrack.ClassTCPTwoWay {
					t.Errorf("the flow of %v is %s", f.Key, f.State())
				}
				return true
			})
			if flows == 0 {
				t.Error("no flow")
			}
		})
	}
}
