package classifier_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

func TestTableAgreesWithLinearOnRandomRules(t *testing.T) {
	tests := []struct {
		name                          string
		rules, prefixes, sets, tuples int
	}{
		{"no rule", 0, 4, 1, 200},
		{"one rule", 1, 4, 300, 200},
		{"a few rules, as most groups have", 10, 4, 200, 400},
		{"one word of rules less one", 63, 4, 30, 500},
		{"exactly one word of rules", 64, 4, 30, 500},
		{"one rule more than a word", 65, 4, 30, 500},
		{"a few hundred rules", 300, 4, 10, 1500},
		{"long lists", 40, 100, 10, 1500},
		{"exactly one summary word", 4096, 2, 1, 800},
		{"all that an NSG can hold and its default rules", 4100, 2, 1, 800},
		{"more than two summary words", 9000, 2, 1, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(tt.rules), uint64(tt.prefixes)))
			if testing.Short() {
				tt.sets, tt.tuples = (tt.sets+9)/10, tt.tuples/10
			}
			for range tt.sets {
				rules := randomRules(r, tt.rules, tt.prefixes)
				table := classifier.Compile(rules)
				for range tt.tuples {
					agree(t, rules, table, randomTuple(r))
					if len(rules) > 0 {
						agree(t, rules, table, edgeTuple(r, rules), insideTuple(r, rules))
					}
				}
			}
		})
	}
}

// sparse puts count rules that match nothing in front of each rule. Matches are then far
// apart, and most words of most bitmaps are zero.
func sparse(rules []classifier.Rule, count int) []classifier.Rule {
	out := make([]classifier.Rule, 0, len(rules)*(count+1))
	for _, r := range rules {
		for range count {
			out = append(out, classifier.Rule{Sources: anywhere, Destinations: anywhere, SourcePorts: allPorts})
		}
		out = append(out, r)
	}
	return out
}

func TestTableAgreesWithLinearWhenMatchesLieFarApart(t *testing.T) {
	gaps := []int{1, 6, 62, 63, 64, 65, 200, 4095, 4096, 4097}
	if testing.Short() {
		gaps = gaps[:6]
	}
	for _, gap := range gaps {
		t.Run(fmt.Sprintf("%d rules that match nothing before each", gap), func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, uint64(gap)))
			some := randomRules(r, 5, 3)
			rules := sparse(some, gap)
			table := classifier.Compile(rules)
			for range 100 {
				agree(t, rules, table, randomTuple(r), edgeTuple(r, some), insideTuple(r, some))
			}
		})
	}
}

// TestTableAgreesWithLinearWhenSummariesMislead has neighbouring rules that match in
// different fields. Every summary bit is then set in all five bitmaps, but only the last
// word has a common rule.
func TestTableAgreesWithLinearWhenSummariesMislead(t *testing.T) {
	host := []netip.Prefix{netip.MustParsePrefix("10.0.0.4/32")}
	other := []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}
	rules := misleading(4096, host, other)
	k := packet.Tuple{Src: packet.AddrFrom(host[0].Addr()), Dst: packet.AddrFrom(host[0].Addr()), SrcPort: 1, DstPort: 1, Proto: packet.ProtoTCP}
	agree(t, rules, classifier.Compile(rules), k)
	if got := classifier.Compile(rules).FirstMatch(&k); got != -1 {
		t.Errorf("matches rule %d, want none", got)
	}
	rules = append(rules, classifier.Rule{Sources: host, Destinations: anywhere, SourcePorts: allPorts, DestinationPorts: allPorts})
	if got := classifier.Compile(rules).FirstMatch(&k); got != 4096 {
		t.Errorf("matches rule %d, want the last, 4096", got)
	}
}

// misleading makes n rules that do not match a packet from host to host, each because of
// another field than its neighbours.
func misleading(n int, host, other []netip.Prefix) []classifier.Rule {
	rules := make([]classifier.Rule, n)
	for i := range rules {
		rules[i] = classifier.Rule{Sources: host, Destinations: host, SourcePorts: allPorts, DestinationPorts: allPorts}
		switch i % 5 {
		case 0:
			rules[i].Sources = other
		case 1:
			rules[i].Destinations = other
		case 2:
			rules[i].SourcePorts = []ruleset.PortRange{{First: 2, Last: 65535}}
		case 3:
			rules[i].DestinationPorts = []ruleset.PortRange{{First: 2, Last: 65535}}
		case 4:
			rules[i].Protocol = ruleset.UDP
		}
	}
	return rules
}

func TestTableKeepsNothingOfTheRulesItWasCompiledFrom(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	rules, copied := randomRules(r, 80, 3), randomRules(rand.New(rand.NewPCG(8, 8)), 80, 3)
	table := classifier.Compile(rules)
	for i := range rules {
		for j := range rules[i].Sources {
			if &rules[i].Sources[0] != &anywhere[0] && &rules[i].Sources[0] != &anywhere[1] {
				rules[i].Sources[j] = netip.Prefix{}
			}
		}
		rules[i] = classifier.Rule{}
	}
	for range 2000 {
		agree(t, copied, table, edgeTuple(r, copied))
	}
}

func TestTableIsSafeForConcurrentUse(t *testing.T) {
	rules := randomRules(rand.New(rand.NewPCG(5, 5)), 200, 3)
	table := classifier.Compile(rules)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(6, uint64(worker)))
			for range 500 {
				k := edgeTuple(r, rules)
				if got, want := table.FirstMatch(&k), classifier.Linear(rules).FirstMatch(&k); got != want {
					t.Errorf("table says %d, linear %d for %v", got, want, k)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestFirstMatchDoesNotAllocate(t *testing.T) {
	for _, n := range []int{0, 10, 65, 4100} {
		r := rand.New(rand.NewPCG(9, uint64(n)))
		rules := randomRules(r, n, 3)
		table, linear := classifier.Compile(rules), classifier.Linear(rules)
		tuples := make([]packet.Tuple, 64)
		for i := range tuples {
			tuples[i] = randomTuple(r)
		}
		sum := 0
		if got := testing.AllocsPerRun(10, func() {
			for i := range tuples {
				sum += table.FirstMatch(&tuples[i])
			}
		}); got != 0 {
			t.Errorf("%d rules: table allocates %v times in %d lookups", n, got, len(tuples))
		}
		if got := testing.AllocsPerRun(10, func() {
			for i := range tuples {
				sum += linear.FirstMatch(&tuples[i])
			}
		}); got != 0 {
			t.Errorf("%d rules: linear allocates %v times in %d lookups", n, got, len(tuples))
		}
		if sum == 0 {
			t.Logf("%d rules: every packet matched rule 0", n)
		}
	}
}
