package analysis_test

import (
	"math/rand/v2"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
)

func TestEquivalenceIsWhatEnumerationFinds(t *testing.T) {
	count := map[bool]int{}
	for seed := range seedsOf(t) {
		r := rand.New(rand.NewPCG(uint64(seed), 11))
		old := smallChain(r)
		new := edited(r, old)
		before, now := old.decider(), new.decider()
		want := true
		for _, k := range world(old, new) {
			want = want && before(&k).Access == now(&k).Access
		}
		got := analysis.Equivalent(old.prepared(), new.prepared(), analysis.Options{})
		count[want]++
		if got.Holds != want || (got.Against == nil) != want || len(got.Undecided) > 0 {
			t.Fatalf("seed %d: %+v, want %v\n%s", seed, got, want, describe(old, new, &analysis.Difference{}))
		}
		if a := got.Against; a != nil && (before(&a.Packet) != a.Old || now(&a.Packet) != a.New || a.Old.Access == a.New.Access) {
			t.Fatalf("seed %d: %+v: was %+v, is %+v", seed, a, before(&a.Packet), now(&a.Packet))
		}
	}
	if min(count[true], count[false]) < seedsOf(t)/10 {
		t.Errorf("equivalent or not: %v: the test says little", count)
	}
}

func TestWhatAChainAlwaysDoesIsWhatEnumerationFinds(t *testing.T) {
	count := map[ruleset.Access]int{}
	for seed := range seedsOf(t) {
		r := rand.New(rand.NewPCG(uint64(seed), 12))
		c := smallChain(r)
		if r.IntN(2) == 0 {
			c[0] = append(c[0], analysis.Rule{Rule: denyAll.Rule, Access: ruleset.Access(r.IntN(2))})
		}
		within := analysis.Packets{Sources: smallPrefixes[r.IntN(len(smallPrefixes)):][:1], Destinations: smallPrefixes[3:4]}
		decide := c.decider()
		always := map[ruleset.Access]bool{ruleset.Allow: true, ruleset.Deny: true}
		for _, k := range world(c, chain{{{Rule: ruleOf(within)}}}) {
			if in(within.Sources, k.Src.Netip()) && in(within.Destinations, k.Dst.Netip()) {
				always[1-decide(&k).Access] = false
			}
		}
		for access, want := range always {
			got := analysis.Always(c.prepared(), access, analysis.Options{Within: within})
			if got.Holds != want || (got.Against == nil) != want {
				t.Fatalf("seed %d: always %v: %+v, want %v\n%s", seed, access, got, want, describe(c, nil, &analysis.Difference{}))
			}
			if want {
				count[access]++
			}
			if a := got.Against; a != nil && (decide(&a.Packet) != a.Old || a.New != a.Old || a.Old.Access == access) {
				t.Fatalf("seed %d: %+v, but %+v", seed, a, decide(&a.Packet))
			}
		}
	}
	if min(count[ruleset.Allow], count[ruleset.Deny]) < seedsOf(t)/20 {
		t.Errorf("always allow, always deny: %v: the test says little", count)
	}
}

func TestWithoutEnoughStatesNothingIsProven(t *testing.T) {
	rules := tangle(rand.New(rand.NewPCG(1, 1)), 200)
	// The lists differ in the field with the most classes, which is asked last.
	ports := func(first, last uint16) analysis.Rule {
		r := denyAll
		r.Protocol, r.SourcePorts, r.DestinationPorts = ruleset.TCP, []ruleset.PortRange{{First: 0, Last: 20000}}, []ruleset.PortRange{{First: first, Last: last}}
		return r
	}
	old := chain{append(rules[:200:200], ports(0, 65535))}
	new := chain{append(rules[:200:200], ports(0, 29999), ports(30000, 65535))}
	if p := analysis.Equivalent(old.prepared(), new.prepared(), analysis.Options{}); !p.Holds || p.Against != nil || len(p.Undecided) > 0 {
		t.Errorf("%+v", p)
	}
	if p := analysis.Equivalent(old.prepared(), new.prepared(), analysis.Options{MaxStates: 1}); p.Holds || p.Against != nil || len(p.Undecided) == 0 {
		t.Errorf("with few states: %+v", p)
	}
}
