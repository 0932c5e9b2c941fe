package analysis_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
)

func TestBehindFindsWhatEnumerationFinds(t *testing.T) {
	blocked := 0
	for seed := range seedsOf(t) {
		r := rand.New(rand.NewPCG(uint64(seed), 11))
		c := chain{smallList(r), smallList(r)}
		if seed%2 == 0 {
			c[1] = append(c[1], denyAll)
		}
		packets := world(c)
		lists := c.prepared()
		for i, got := range analysis.Behind(lists[0], lists[1], analysis.Options{}) {
			var want analysis.Passage
			if c[0][i].Access == ruleset.Allow {
				want = behindByEnumeration(c, i, packets)
			}
			if got.Decides != want.Decides || got.Passes != want.Passes || !slices.Equal(got.Blockers, want.Blockers) {
				t.Fatalf("seed %d, rule %d: %+v, want %+v", seed, i, got, want)
			}
			if len(got.Blockers) == 0 {
				continue
			}
			blocked++
			first, both := c[:1].decider(), c.decider()
			if d := first(&got.Witness); d.Rule != i || both(&got.Witness).Access != ruleset.Deny {
				t.Fatalf("seed %d, rule %d: the witness %v shows nothing", seed, i, got.Witness)
			}
		}
	}
	if blocked < 20 {
		t.Errorf("%d rules were blocked: the test says little", blocked)
	}
}

func smallList(r *rand.Rand) []analysis.Rule {
	rules := make([]analysis.Rule, 1+r.IntN(5))
	for i := range rules {
		rules[i] = smallRule(r)
	}
	return rules
}

func behindByEnumeration(c chain, i int, packets []packet.Tuple) (p analysis.Passage) {
	first, next := c[:1].decider(), c[1:].decider()
	for j := range packets {
		if first(&packets[j]).Rule != i {
			continue
		}
		p.Decides = true
		if d := next(&packets[j]); d.Access == ruleset.Deny {
			p.Blockers = append(p.Blockers, d.Rule)
		} else {
			p.Passes = true
		}
	}
	if slices.Sort(p.Blockers); p.Passes {
		p.Blockers = nil
	}
	p.Blockers = slices.Compact(p.Blockers)
	return p
}

// Of each pair of rules one denies what the other leaves, so that the last one has nothing left to allow: finding that out
// takes many states.
func TestBehindSaysWhatItCouldNotDecide(t *testing.T) {
	allowed := denyAll
	allowed.Access, allowed.Protocol, allowed.Sources = ruleset.Allow, ruleset.TCP, prefixes("0.0.0.0/0")
	var next []analysis.Rule
	for i := range 120 {
		rule := allowed
		rule.Access = ruleset.Deny
		rule.SourcePorts = []ruleset.PortRange{{First: uint16(300 * i), Last: uint16(300*i + 599)}}
		rule.DestinationPorts = []ruleset.PortRange{{First: 0, Last: uint16(500 * i)}}
		next = append(next, rule)
		rule.DestinationPorts = []ruleset.PortRange{{First: uint16(500*i - 200), Last: 65535}}
		if i == 0 {
			rule.DestinationPorts = []ruleset.PortRange{ruleset.AllPorts}
		}
		rule.Sources = prefixes("0.0.0.0/1")
		next = append(next, rule)
		rule.Sources = prefixes("128.0.0.0/1")
		next = append(next, rule)
	}
	rest := allowed
	rest.Access, rest.SourcePorts = ruleset.Deny, []ruleset.PortRange{{First: 36000, Last: 65535}}
	next = append(next, rest, allowed)
	first := analysis.NewList([]analysis.Rule{allowed})
	if got := analysis.Behind(first, analysis.NewList(next), analysis.Options{}); !got[0].Decides || got[0].Passes {
		t.Errorf("with enough states: %+v", got[0])
	}
	if got := analysis.Behind(first, analysis.NewList(next), analysis.Options{MaxStates: 1}); !got[0].Undecided {
		t.Errorf("with few states: %+v", got[0])
	}
}
