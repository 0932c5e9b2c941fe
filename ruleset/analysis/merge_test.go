package analysis_test

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier/classifiertest"
)

// apply makes all merges.
func apply(rules []analysis.Rule, merges []analysis.Merge) []analysis.Rule {
	out := slices.Clone(rules)
	gone := map[int]bool{}
	for _, m := range merges {
		one := &out[m.Rules[0]]
		for _, i := range m.Rules[1:] {
			gone[i] = true
			switch m.Field {
			case analysis.Sources:
				one.Sources = slices.Concat(one.Sources, rules[i].Sources)
			case analysis.Destinations:
				one.Destinations = slices.Concat(one.Destinations, rules[i].Destinations)
			case analysis.SourcePorts:
				one.SourcePorts = slices.Concat(one.SourcePorts, rules[i].SourcePorts)
			case analysis.DestinationPorts:
				one.DestinationPorts = slices.Concat(one.DestinationPorts, rules[i].DestinationPorts)
			}
		}
	}
	var left []analysis.Rule
	for i := range out {
		if !gone[i] {
			left = append(left, out[i])
		}
	}
	return left
}

func TestAllMergesTogetherChangeNothing(t *testing.T) {
	merges, passed := 0, 0
	for seed := range seedsOf(t) {
		r := rand.New(rand.NewPCG(uint64(seed), 8))
		kinds := []analysis.Rule{smallRule(r), smallRule(r), smallRule(r)}
		rules := make([]analysis.Rule, 12)
		for i := range rules {
			rules[i] = kinds[r.IntN(len(kinds))]
			switch r.IntN(3) {
			case 0:
				rules[i].Sources = someOf(r, smallPrefixes[2:], 2)
			case 1:
				rules[i].DestinationPorts = someOf(r, smallRanges[1:], 2)
			}
			rules[i].Access = ruleset.Access(r.IntN(3))
		}
		found := analysis.Mergeable(analysis.NewList(rules), nil, analysis.Options{})
		for _, m := range found {
			merges++
			for i := m.Rules[0] + 1; i < m.Rules[len(m.Rules)-1]; i++ {
				if rules[i].Access != rules[m.Rules[0]].Access {
					passed++
					break
				}
			}
		}
		d := analysis.Compare(chain{rules}.prepared(), chain{apply(rules, found)}.prepared(), analysis.Options{})
		if len(d.Changes)+len(d.Undecided) > 0 {
			t.Fatalf("seed %d: %v changes %v\n%v", seed, found, d.Changes, describe(chain{rules}, chain{apply(rules, found)}, d))
		}
	}
	if merges < seedsOf(t)/3 || passed < seedsOf(t)/4 {
		t.Errorf("%d merges, %d past rules of the other access: the test says little", merges, passed)
	}
}

func TestMergesOfClassBenchChangeNothing(t *testing.T) {
	for _, set := range classifiertest.ClassBenchSets {
		t.Run(set.Name, func(t *testing.T) {
			rules := classBench(t, set.Name)
			found := analysis.Mergeable(analysis.NewList(rules), nil, analysis.Options{})
			fewer := apply(rules, found)
			if len(found) == 0 || len(fewer) == len(rules) {
				t.Fatal("nothing was merged: the test says nothing")
			}
			d := analysis.Compare(chain{rules}.prepared(), chain{fewer}.prepared(), analysis.Options{})
			if len(d.Changes)+len(d.Undecided) > 0 {
				t.Errorf("%d changes, %d not decided", len(d.Changes), len(d.Undecided))
			}
			t.Logf("%d rules, %d with %d merges", len(rules), len(fewer), len(found))
		})
	}
}

func TestRulesThatCouldBeOne(t *testing.T) {
	deny := func(from string, port uint16) analysis.Rule {
		r := allow(from, port)
		r.Access = ruleset.Deny
		return r
	}
	to := func(to string, r analysis.Rule) analysis.Rule {
		r.Destinations = prefixes(to)
		return r
	}
	ports := func(first, last uint16, p ruleset.Protocol) analysis.Rule {
		r := denyAll
		r.Protocol, r.DestinationPorts = p, []ruleset.PortRange{{First: first, Last: last}}
		return r
	}
	noMerge := func(int, int, analysis.Field) bool { return false }
	for _, tt := range []struct {
		name  string
		rules []analysis.Rule
		may   func(a, b int, f analysis.Field) bool
		want  []analysis.Merge
	}{
		{"two sources with the same port", []analysis.Rule{allow("10.0.0.0/24", 80), allow("10.0.2.0/24", 80), denyAll}, nil,
			[]analysis.Merge{{Rules: []int{0, 1}, Field: analysis.Sources}}},
		{"a denial of other packets between them", []analysis.Rule{allow("10.0.0.0/24", 80), deny("0.0.0.0/0", 22), allow("10.0.2.0/24", 80), denyAll}, nil,
			[]analysis.Merge{{Rules: []int{0, 2}, Field: analysis.Sources}}},
		{"a denial of the second one's packets between them", []analysis.Rule{allow("10.0.0.0/24", 80), deny("10.0.2.1/32", 80), allow("10.0.2.0/24", 80)}, nil, nil},
		{"that denial without effect", []analysis.Rule{allow("10.0.0.0/24", 80), deny("10.0.3.0/24", 22), deny("10.0.3.0/25", 22), allow("10.0.3.0/24", 22), allow("10.0.4.0/24", 80)}, nil,
			[]analysis.Merge{{Rules: []int{0, 4}, Field: analysis.Sources}}},
		{"the larger of two merges", []analysis.Rule{allow("10.0.0.0/24", 80), allow("10.0.0.0/24", 443), allow("10.0.1.0/24", 443), allow("10.0.2.0/24", 443)}, nil,
			[]analysis.Merge{{Rules: []int{1, 2, 3}, Field: analysis.Sources}}},
		{"two destinations", []analysis.Rule{to("10.1.0.0/24", allow("10.0.0.0/24", 80)), to("10.3.0.0/24", allow("10.0.0.0/24", 80))}, nil,
			[]analysis.Merge{{Rules: []int{0, 1}, Field: analysis.Destinations}}},
		{"two ports", []analysis.Rule{allow("10.0.0.0/24", 80), allow("10.0.0.0/24", 443)}, nil, []analysis.Merge{{Rules: []int{0, 1}, Field: analysis.DestinationPorts}}},
		{"unlike in two fields", []analysis.Rule{allow("10.0.0.0/24", 80), allow("10.0.1.0/24", 443)}, nil, nil},
		{"unlike in access", []analysis.Rule{allow("10.0.0.0/24", 80), deny("10.0.1.0/24", 80)}, nil, nil},
		{"the second is part of the first", []analysis.Rule{allow("10.0.0.0/23", 80), allow("10.0.1.0/24", 80)}, nil, nil},
		{"the first is part of the second", []analysis.Rule{allow("10.0.1.0/24", 80), allow("10.0.0.0/23", 80)}, nil, nil},
		{"two ranges that are all ports together", []analysis.Rule{ports(0, 1023, ruleset.TCP), ports(1024, 65535, ruleset.TCP)}, nil,
			[]analysis.Merge{{Rules: []int{0, 1}, Field: analysis.DestinationPorts}}},
		{"the same of all protocols, since ESP needs a rule for all ports", []analysis.Rule{ports(0, 1023, ruleset.AnyProtocol), ports(1024, 65535, ruleset.AnyProtocol)}, nil, nil},
		{"the caller forbids it", []analysis.Rule{allow("10.0.0.0/24", 80), allow("10.0.2.0/24", 80)}, noMerge, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := analysis.Mergeable(analysis.NewList(tt.rules), tt.may, analysis.Options{})
			if len(got) > 0 || len(tt.want) > 0 {
				if !reflect.DeepEqual(got, tt.want) {
					t.Errorf("%v, want %v", got, tt.want)
				}
			}
		})
	}
	for _, options := range []analysis.Options{{}, {Within: analysis.Packets{Sources: []netip.Prefix{netip.MustParsePrefix("10.0.9.0/24")}}}} {
		rules := []analysis.Rule{allow("10.0.0.0/24", 80), deny("10.0.2.1/32", 80), allow("10.0.2.0/24", 80)}
		if got := analysis.Mergeable(analysis.NewList(rules), nil, options); (len(got) > 0) != (options.Within.Sources != nil) {
			t.Errorf("within %v: %v", options.Within, got)
		}
	}
}
