package analysis_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// tangle is rules whose boxes cross in every field, so that their diagrams have many states.
func tangle(r *rand.Rand, n int) []analysis.Rule {
	rules := make([]analysis.Rule, n, n+1)
	for i := range rules {
		rules[i] = denyAll
		rules[i].Access = ruleset.Access(r.IntN(2))
		ports := func() []ruleset.PortRange {
			first := uint16(r.IntN(30000))
			return []ruleset.PortRange{{First: first, Last: first + uint16(r.IntN(30000))}}
		}
		rules[i].Protocol, rules[i].SourcePorts, rules[i].DestinationPorts = ruleset.TCP, ports(), ports()
		if r.IntN(2) == 0 {
			rules[i].Sources = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(r.IntN(256))}), r.IntN(8))}
		}
	}
	return append(rules, denyAll)
}

func TestWhatTheBoundOnStatesLeavesIsNamedAndTheRestStands(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	rules := tangle(r, 60)
	wide := denyAll
	wide.Access = ruleset.Allow
	edited := append([]analysis.Rule{}, rules[:60]...)
	edited = append(edited, wide) // the last rule allows: all that no other rule matches
	old, new := chain{rules}, chain{edited}
	d := analysis.Compare(old.prepared(), new.prepared(), analysis.Options{MaxStates: 200})
	if len(d.Undecided) == 0 {
		t.Fatal("so few states suffice: the test says nothing")
	}
	if len(d.Changes) == 0 {
		t.Fatal("nothing was decided beside what was not")
	}
	for _, c := range d.Changes {
		for _, b := range c.Boxes {
			for _, u := range d.Undecided {
				if b.Protocol == u.Box.Protocol && b.Sources[0].From().Is4() == u.Box.Sources[0].From().Is4() {
					t.Errorf("%v is an answer about what is not decided", b)
				}
			}
		}
	}
	for _, u := range d.Undecided {
		if u.Rule != 60 || u.Box.Protocol != "TCP" {
			t.Errorf("not decided: %+v; only the last rule's TCP packets cross those of others", u)
		}
	}
	full := analysis.Compare(old.prepared(), new.prepared(), analysis.Options{})
	if len(full.Undecided) > 0 {
		t.Errorf("not decided with the default bound: %+v", full.Undecided)
	}
}

func TestBoxesBeyondTheirBoundAreSaidToBeMissing(t *testing.T) {
	rules := tangle(rand.New(rand.NewPCG(1, 1)), 30)
	old, new := chain{rules}, chain{append(append([]analysis.Rule{}, rules[:30]...), analysis.Rule{Rule: denyAll.Rule, Access: ruleset.Allow})}
	all := analysis.Compare(old.prepared(), new.prepared(), analysis.Options{})
	few := analysis.Compare(old.prepared(), new.prepared(), analysis.Options{MaxBoxes: 3})
	if len(few.Changes) != len(all.Changes) {
		t.Fatalf("%d changes with few boxes, %d with all", len(few.Changes), len(all.Changes))
	}
	more := 0
	before, now := old.decider(), new.decider()
	for _, c := range few.Changes {
		if c.More {
			more++
		}
		if was, is := before(&c.Witness), now(&c.Witness); was != c.Old || is != c.New {
			t.Errorf("witness %v: was %+v, is %+v, want %+v and %+v", c.Witness, was, is, c.Old, c.New)
		}
	}
	if more == 0 {
		t.Error("no change says that boxes are missing")
	}
	for _, c := range all.Changes {
		if c.More {
			t.Errorf("%+v says that boxes are missing", c.Old)
		}
	}
}

func TestAQuestionIsOnlyAboutItsPackets(t *testing.T) {
	for seed := range seedsOf(t) {
		r := rand.New(rand.NewPCG(uint64(seed), 6))
		old := smallChain(r)
		new := edited(r, old)
		within := analysis.Packets{Sources: someOf(r, smallPrefixes, 3), Destinations: smallPrefixes[3:4]}
		if within.Sources == nil {
			within.Sources = []netip.Prefix{}
		}
		var packets []packet.Tuple
		for _, k := range world(old, new, chain{{{Rule: ruleOf(within)}}}) {
			if in(within.Sources, k.Src.Netip()) && in(within.Destinations, k.Dst.Netip()) {
				packets = append(packets, k)
			}
		}
		d := analysis.Compare(old.prepared(), new.prepared(), analysis.Options{Within: within})
		checkDifference(t, old, new, d, packets)
		for _, c := range d.Changes {
			if !in(within.Sources, c.Witness.Src.Netip()) || !in(within.Destinations, c.Witness.Dst.Netip()) {
				t.Fatalf("seed %d: witness %v is not within %v", seed, c.Witness, within)
			}
		}
	}
}

// ruleOf has the borders of packets.
func ruleOf(p analysis.Packets) (r classifier.Rule) {
	r.Sources, r.Destinations = p.Sources, p.Destinations
	return r
}

func in(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Addr().Is4In6() {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if p.Contains(a) {
			return true
		}
	}
	return false
}
