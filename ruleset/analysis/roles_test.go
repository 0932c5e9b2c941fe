package analysis_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"github.com/nsgd/nsgd/ruleset/classifier/classifiertest"
)

// seedsOf is how many random worlds a test enumerates.
func seedsOf(t *testing.T) int {
	if testing.Short() {
		return 60
	}
	return 400
}

func TestReachFindsWhatEnumerationFinds(t *testing.T) {
	for seed := range seedsOf(t) {
		r := rand.New(rand.NewPCG(uint64(seed), 2))
		c := smallChain(r)
		got := analysis.Reach(c.prepared(), analysis.Options{})
		decide := c.decider()
		for _, k := range world(c) {
			d := decide(&k)
			var in []analysis.Decision
			for _, a := range got.Allowed {
				for i := range a.Boxes {
					if holds(&a.Boxes[i], &k) {
						in = append(in, a.By)
					}
				}
			}
			if want := d.Access == ruleset.Allow; want != (len(in) == 1) || want && in[0] != d || len(in) > 1 {
				t.Fatalf("seed %d: %v (ports %d, %d): %+v, reachable by %+v", seed, k, k.SrcPort, k.DstPort, d, in)
			}
		}
		for _, a := range got.Allowed {
			if d := decide(&a.Witness); d != a.By {
				t.Fatalf("seed %d: witness %v: %+v, want %+v", seed, a.Witness, d, a.By)
			}
		}
	}
}

// roleByEnumeration finds out about a rule by asking about every packet.
func roleByEnumeration(rules []analysis.Rule, i int, packets []packet.Tuple) (empty, decides, needed bool, instead []int) {
	alone := classifier.Linear{rules[i].Rule}
	with := chain{rules}.decider()
	without := chain{slices.Delete(slices.Clone(rules), i, i+1)}.decider()
	empty = true
	for j := range packets {
		k := &packets[j]
		if alone.FirstMatch(k) < 0 {
			continue
		}
		empty = false
		d := with(k)
		if d.Rule != i {
			continue
		}
		decides = true
		other := without(k)
		if other.Rule >= i {
			other.Rule++
		}
		does := ruleset.Allow // which lets the next list decide
		if other.Rule != analysis.NoRule {
			does = rules[other.Rule].Access
		}
		needed = needed || does != rules[i].Access
		instead = append(instead, other.Rule)
	}
	slices.Sort(instead)
	return empty, decides, needed, slices.Compact(instead)
}

func TestRolesAreThoseThatEnumerationFinds(t *testing.T) {
	count := map[string]int{}
	for seed := range seedsOf(t) {
		r := rand.New(rand.NewPCG(uint64(seed), 3))
		rules := make([]analysis.Rule, 2+r.IntN(6))
		for i := range rules {
			rules[i] = smallRule(r)
			if r.IntN(8) == 0 {
				rules[i].Access = ruleset.AlwaysAllow
			}
		}
		packets := world(chain{rules})
		for i, role := range analysis.Roles(analysis.NewList(rules), analysis.Options{}) {
			empty, decides, needed, instead := roleByEnumeration(rules, i, packets)
			if role.Empty != empty || role.Decides != decides || role.Needed != needed || role.Undecided {
				t.Fatalf("seed %d, rule %d: %+v, want empty %v, decides %v, needed %v", seed, i, role, empty, decides, needed)
			}
			switch {
			case empty:
				count["empty"]++
			case !decides:
				count["shadowed"]++
				checkBlockers(t, rules, i, role.Blockers, packets)
			case !needed:
				count["redundant"]++
				if !slices.Equal(role.Instead, instead) {
					t.Fatalf("seed %d, rule %d: instead %v, want %v", seed, i, role.Instead, instead)
				}
			}
			if decides && (chain{rules}).decider()(&role.Witness).Rule != i {
				t.Fatalf("seed %d, rule %d does not decide its witness %v", seed, i, role.Witness)
			}
		}
	}
	for _, kind := range []string{"empty", "shadowed", "redundant"} {
		if count[kind] < seedsOf(t)/20 {
			t.Errorf("only %d rules were %s: the test says little", count[kind], kind)
		}
	}
}

// checkBlockers expects that the blockers cover the rule, and that one has the other access if any
// earlier rule has that overlaps it.
func checkBlockers(t *testing.T, rules []analysis.Rule, i int, blockers []int, packets []packet.Tuple) {
	t.Helper()
	alone := classifier.Linear{rules[i].Rule}
	var cover classifier.Linear
	opposed := false
	for _, b := range blockers {
		if b >= i {
			t.Fatalf("rule %d is blocked by the later rule %d", i, b)
		}
		cover = append(cover, rules[b].Rule)
		opposed = opposed || rules[b].Access != rules[i].Access
	}
	for j := range packets {
		k := &packets[j]
		if alone.FirstMatch(k) < 0 {
			continue
		}
		if cover.FirstMatch(k) < 0 {
			t.Fatalf("rule %d: blockers %v leave %v", i, blockers, k)
		}
		for e := range rules[:i] {
			if !opposed && rules[e].Access != rules[i].Access && (classifier.Linear{rules[e].Rule}).FirstMatch(k) >= 0 {
				t.Fatalf("rule %d: rule %d overlaps it with the other access, and no blocker has it: %v", i, e, blockers)
			}
		}
	}
}

func TestFewStatesLeaveRolesUndecidedAndNeverWrong(t *testing.T) {
	var rules []analysis.Rule // tiles that cover the last rule together
	for i := range 512 {
		tile := denyAll
		tile.Protocol, tile.Access = ruleset.TCP, ruleset.Access(i%2)
		from, to := uint16(i/8%8*8192), uint16(i%8*8192)
		tile.Sources = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(i / 64 * 32)}), 3)}
		tile.SourcePorts = []ruleset.PortRange{{First: from, Last: from + 8191}}
		tile.DestinationPorts = []ruleset.PortRange{{First: to, Last: to + 8191}}
		rules = append(rules, tile)
	}
	rules = append(rules, denyAll)
	rules[512].Sources = ruleset.Everywhere()[:1]
	rules[512].Protocol = ruleset.TCP
	undecided := 0
	all := analysis.Roles(analysis.NewList(rules), analysis.Options{})
	for i, role := range analysis.Roles(analysis.NewList(rules), analysis.Options{MaxStates: 1}) {
		if role.Undecided {
			undecided++
			continue
		}
		want := all[i]
		if role.Blockers, want.Blockers = nil, nil; !reflect.DeepEqual(role, want) {
			t.Errorf("rule %d: %+v with few states, %+v with many", i, role, want)
		}
	}
	if undecided == 0 || undecided == len(rules) {
		t.Errorf("%d of %d rules are not decided: the test says nothing", undecided, len(rules))
	}
}

// The roles of large lists are held to Compare, which finds them another way.
func TestRolesOfClassBenchAreWhatCompareSays(t *testing.T) {
	for _, set := range classifiertest.ClassBenchSets {
		t.Run(set.Name, func(t *testing.T) {
			rules := classBench(t, set.Name)
			list := analysis.NewList(rules)
			compare := func(old, new []analysis.Rule) int {
				d := analysis.Compare(chain{old}.prepared(), chain{new}.prepared(), analysis.Options{})
				if len(d.Undecided) > 0 {
					t.Fatalf("not decided: %v", d.Undecided)
				}
				return len(d.Changes)
			}
			decide, asked := chain{rules}.decider(), map[string]int{}
			for i, role := range analysis.Roles(list, analysis.Options{}) {
				kind := fmt.Sprintf("decides %v, needed %v", role.Decides, role.Needed)
				if asked[kind]++; asked[kind] > 10 {
					continue
				}
				without := slices.Delete(slices.Clone(rules), i, i+1)
				if changes := compare(rules, without); (changes > 0) != role.Needed {
					t.Errorf("rule %d: %s, but %d changes without it", i, kind, changes)
				}
				if d := decide(&role.Witness); role.Decides && d.Rule != i {
					t.Errorf("rule %d does not decide its witness %v: %+v", i, role.Witness, d)
				}
				if role.Decides {
					continue
				}
				opposite := slices.Clone(rules)
				if opposite[i].Access = 1 - opposite[i].Access; compare(rules, opposite) > 0 {
					t.Errorf("rule %d decides nothing, but it matters what it does", i)
				}
				only := []analysis.Rule{}
				for _, b := range role.Blockers {
					only = append(only, analysis.Rule{Rule: rules[b].Rule, Access: ruleset.Deny})
				}
				allow := analysis.Rule{Rule: rules[i].Rule}
				if len(role.Blockers) < 20 && compare(append(slices.Clone(only), denyAll), append(only, allow, denyAll)) > 0 {
					t.Errorf("rule %d: %v leave some of it", i, role.Blockers)
				}
			}
			t.Log(asked)
		})
	}
}

// The first packet that is looked at would be allowed by the second rule.
func TestToALaterListAlwaysAllowIsNotAllow(t *testing.T) {
	rules := []analysis.Rule{allow("10.0.0.0/24", 80), allow("10.0.0.0/25", 80), allow("10.0.0.0/24", 80), denyAll}
	rules[2].Access = ruleset.AlwaysAllow
	if role := analysis.Roles(analysis.NewList(rules), analysis.Options{})[0]; !role.Needed {
		t.Errorf("%+v: without the rule a later list is no longer asked about the packets of the third", role)
	}
}
