package optimize

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"github.com/nsgd/nsgd/ruleset/classifier/classifiertest"
)

var every = []ruleset.PortRange{ruleset.AllPorts}

// world gives peers without prefixes their addresses.
type world map[string][]netip.Prefix

func (w world) view(rules []ruleset.Rule) View {
	side := func(p *ruleset.Peer) (list []netip.Prefix) {
		switch {
		case p.Any:
			return ruleset.Everywhere()
		case p.Tag != "":
			return w[p.Tag]
		case len(p.ApplicationSecurityGroups) > 0:
			for _, id := range p.ApplicationSecurityGroups {
				list = append(list, w[id]...)
			}
			return list
		}
		return p.Prefixes
	}
	v := make(View, len(rules))
	for i := range rules {
		v[i] = classifier.Resolved(&rules[i], side(&rules[i].Source), side(&rules[i].Destination))
	}
	return v
}

// withDefaults are rules with Azure's default rules behind them.
func withDefaults(rules []ruleset.Rule) []ruleset.Rule {
	for _, r := range ruleset.DefaultRules() {
		if r.Direction == ruleset.Inbound {
			rules = append(rules, r)
		}
	}
	return rules
}

var unknownPeers = []string{"Storage", "asg/web", "asg/db"}

func randomPrefix(r *rand.Rand) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(8))}), 29+r.IntN(4)).Masked()
}

func randomPeer(r *rand.Rand) ruleset.Peer {
	switch r.IntN(8) {
	case 0:
		return ruleset.Peer{Any: true}
	case 1:
		return ruleset.Peer{Tag: "Storage"}
	case 2:
		return ruleset.Peer{ApplicationSecurityGroups: [][]string{{"asg/web"}, {"asg/db"}, {"asg/db", "asg/web"}}[r.IntN(3)]}
	case 3:
		return ruleset.Peer{Tag: ruleset.TagVirtualNetwork}
	}
	return ruleset.Peer{Prefixes: []netip.Prefix{randomPrefix(r)}}
}

func randomPorts(r *rand.Rand) []ruleset.PortRange {
	if r.IntN(3) == 0 {
		return every
	}
	first := uint16(r.IntN(6))
	return []ruleset.PortRange{{First: first, Last: first + uint16(r.IntN(3))}}
}

func randomRules(r *rand.Rand) (rules []ruleset.Rule) {
	for i := range 2 + r.IntN(10) {
		rules = append(rules, ruleset.Rule{Name: fmt.Sprintf("r%d", i), Priority: 100 + i, Access: ruleset.Access(r.IntN(2)), Protocol: []ruleset.Protocol{0, ruleset.TCP, ruleset.UDP}[r.IntN(3)],
			Source: randomPeer(r), Destination: randomPeer(r), SourcePorts: every, DestinationPorts: randomPorts(r)})
		if one := &rules[i]; i > 0 && r.IntN(2) == 0 { // like an earlier one but for a field
			like := rules[r.IntN(i)]
			one.Access, one.Protocol, one.Source, one.Destination = like.Access, like.Protocol, like.Source, like.Destination
			if r.IntN(2) == 0 {
				one.Source, one.DestinationPorts = randomPeer(r), like.DestinationPorts
			}
		}
	}
	return withDefaults(rules)
}

func randomWorld(r *rand.Rand) world {
	w := world{ruleset.TagVirtualNetwork: {netip.MustParsePrefix("10.0.0.0/30")}, ruleset.TagAzureLoadBalancer: {netip.MustParsePrefix("168.63.129.16/32")}}
	for _, peer := range unknownPeers {
		for range r.IntN(3) {
			w[peer] = append(w[peer], randomPrefix(r))
		}
	}
	return w
}

// sameMeaning asks the linear reference about every packet of a small world, and some others.
func sameMeaning(t *testing.T, old, new []ruleset.Rule, w world) {
	t.Helper()
	before, after := classifier.Linear(w.view(old)), classifier.Linear(w.view(new))
	for _, protocol := range []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoESP} {
		for source := range byte(8) {
			for destination := range byte(9) {
				for port := range uint16(9) {
					k := packet.Tuple{Src: packet.AddrFrom4([4]byte{10, 0, 0, source}), Dst: packet.AddrFrom4([4]byte{10, 0, 0, destination}), Proto: protocol, DstPort: port}
					if a, b := old[before.FirstMatch(&k)].Access, new[after.FirstMatch(&k)].Access; a != b {
						t.Fatalf("%v: %v before, %v behind it", k, a, b)
					}
				}
			}
		}
	}
}

func optimized(r *Result) []ruleset.Rule { return withDefaults(slices.Clone(r.Rules)) }

// Fewer rules mean the same, in the worlds that they were made for and in any other.
func TestOptimizedRulesMeanTheSame(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	removed, merged := 0, 0
	for n := range 400 {
		rules := randomRules(random)
		worlds := []world{randomWorld(random)}
		if n%3 == 0 { // the group stands in two networks
			worlds = append(worlds, randomWorld(random))
			worlds[1][ruleset.TagVirtualNetwork] = []netip.Prefix{netip.MustParsePrefix("10.0.0.4/30")}
		}
		var views []View
		for _, w := range worlds {
			views = append(views, w.view(rules))
		}
		nowhere := n%5 == 0
		result := Rules(rules, views, Options{Nowhere: nowhere, Together: func([]string) bool { return true }})
		if result.Undecided || len(result.Rules) > len(rules)-3 {
			t.Fatalf("%d rules of %d, undecided %v", len(result.Rules), len(rules)-3, result.Undecided)
		}
		for _, s := range result.Steps {
			if s.Kind == Removed {
				removed++
			} else {
				merged++
			}
		}
		for range 4 {
			other := randomWorld(random)
			other[ruleset.TagVirtualNetwork] = worlds[0][ruleset.TagVirtualNetwork]
			if nowhere {
				other[ruleset.TagVirtualNetwork] = []netip.Prefix{randomPrefix(random)}
			}
			worlds = append(worlds, other)
		}
		for _, w := range worlds {
			sameMeaning(t, rules, optimized(result), w)
		}
	}
	if removed < 100 || merged < 50 {
		t.Errorf("%d rules were removed and %d merges made: too few to prove anything", removed, merged)
	}
}

func prefixes(texts ...string) ruleset.Peer {
	var p ruleset.Peer
	for _, text := range texts {
		p.Prefixes = append(p.Prefixes, netip.MustParsePrefix(text))
	}
	return p
}

func port(n uint16) []ruleset.PortRange { return []ruleset.PortRange{{First: n, Last: n}} }

func asgs(ids ...string) ruleset.Peer { return ruleset.Peer{ApplicationSecurityGroups: ids} }

// together lets one rule name groups, but for one that is far.
func together(ids []string) bool { return !slices.Contains(ids, "far") }

// describe is a result in a line: rules that go, merges and what is left.
func describe(r *Result) string {
	var parts []string
	for _, s := range r.Steps {
		parts = append(parts, s.Kind+" "+strings.Join(s.Rules, "+"))
	}
	for i := range r.Rules {
		rule := &r.Rules[i]
		parts = append(parts, fmt.Sprintf("%s %v %v", rule.Name, rule.Source.Texts(), rule.DestinationPorts))
	}
	return strings.Join(parts, "; ")
}

func TestSteps(t *testing.T) {
	rule := func(name string, priority int, a ruleset.Access, source ruleset.Peer, ports []ruleset.PortRange) ruleset.Rule {
		return ruleset.Rule{Name: name, Priority: priority, Access: a, Protocol: ruleset.TCP, Source: source, Destination: ruleset.Peer{Any: true}, SourcePorts: every, DestinationPorts: ports}
	}
	const allow, deny = ruleset.Allow, ruleset.Deny
	for _, tt := range []struct {
		name  string
		rules []ruleset.Rule
		want  string
	}{
		{"ports become a range", []ruleset.Rule{rule("a", 100, allow, prefixes("192.0.2.1/32"), port(80)), rule("b", 110, allow, prefixes("192.0.2.1/32"), port(81))},
			"merged a+b; a [192.0.2.1] [80-81]"},
		{"prefixes become a shorter one", []ruleset.Rule{rule("a", 100, allow, prefixes("192.0.2.0/25"), port(80)), rule("b", 110, allow, prefixes("192.0.2.128/25"), port(80))},
			"merged a+b; a [192.0.2.0/24] [80]"},
		{"not over a rule that would decide", []ruleset.Rule{rule("a", 100, allow, prefixes("192.0.2.0/25"), port(80)), rule("no", 105, deny, prefixes("192.0.2.200/32"), port(80)),
			rule("b", 110, allow, prefixes("192.0.2.128/25"), port(80))}, "a [192.0.2.0/25] [80]; no [192.0.2.200] [80]; b [192.0.2.128/25] [80]"},
		{"families stay apart", []ruleset.Rule{rule("a", 100, allow, prefixes("192.0.2.0/25"), port(80)), rule("b", 110, allow, prefixes("2001:db8::/32"), port(80))},
			"a [192.0.2.0/25] [80]; b [2001:db8::/32] [80]"},
		{"a shadowed rule goes", []ruleset.Rule{rule("a", 100, deny, prefixes("192.0.2.0/24"), every), rule("b", 110, allow, prefixes("192.0.2.7/32"), port(80)), rule("c", 120, allow, ruleset.Peer{Any: true}, port(80))},
			"removed b; a [192.0.2.0/24] [*]; c [*] [80]"},
		{"what the default rules deny anyway goes", []ruleset.Rule{rule("a", 100, deny, prefixes("192.0.2.0/24"), port(22))}, "removed a"},
		{"the same rule for a group twice", []ruleset.Rule{rule("a", 100, allow, asgs("web"), port(80)), rule("b", 110, allow, asgs("WEB"), port(80))}, "removed b; a [web] [80]"},
		{"ports of a group become a list", []ruleset.Rule{rule("a", 100, allow, asgs("web"), port(80)), rule("b", 110, allow, asgs("web"), port(443))}, "merged a+b; a [web] [80 443]"},
		{"a group may have other members tomorrow", []ruleset.Rule{rule("a", 100, allow, prefixes("192.0.2.4/32"), port(80)), rule("no", 110, deny, asgs("web"), port(80)), rule("b", 120, allow, ruleset.Peer{Any: true}, port(80))},
			"a [192.0.2.4] [80]; no [web] [80]; b [*] [80]"},
		{"groups become a list", []ruleset.Rule{rule("a", 100, allow, asgs("web"), port(80)), rule("b", 110, allow, asgs("db"), port(80))}, "merged a+b; a [web db] [80]"},
		{"groups that may not stand together stay", []ruleset.Rule{rule("a", 100, allow, asgs("web"), port(80)), rule("b", 110, allow, asgs("far"), port(80))}, "a [web] [80]; b [far] [80]"},
		{"a group is not moved over a rule for addresses that it may have", []ruleset.Rule{rule("a", 100, allow, asgs("web"), port(80)), rule("no", 105, deny, prefixes("192.0.2.0/25"), port(80)), rule("b", 110, allow, asgs("db"), port(80))},
			"a [web] [80]; no [192.0.2.0/25] [80]; b [db] [80]"},
		{"a rule that a list of groups has goes", []ruleset.Rule{rule("a", 100, allow, asgs("web", "db"), port(80)), rule("b", 110, allow, asgs("DB"), port(80))}, "removed b; a [web db] [80]"},
		{"a list of groups goes where each has a rule", []ruleset.Rule{rule("a", 100, allow, asgs("web"), every), rule("b", 110, allow, asgs("db"), every), rule("c", 120, allow, asgs("web", "db"), port(80))},
			"removed c; merged a+b; a [web db] [*]"},
		{"a rule for a service of the platform stays", []ruleset.Rule{{Name: "dns", Priority: 100, Access: deny, Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Tag: "AzurePlatformDNS"}, SourcePorts: every, DestinationPorts: every}},
			"dns [*] [*]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules := withDefaults(tt.rules)
			w := world{ruleset.TagVirtualNetwork: {netip.MustParsePrefix("10.0.0.0/16")}, ruleset.TagAzureLoadBalancer: {netip.MustParsePrefix("168.63.129.16/32")}}
			if got := describe(Rules(rules, []View{w.view(rules)}, Options{Together: together})); got != tt.want {
				t.Errorf("\ngot  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// Where the proof is not finished nothing has changed.
func TestWithoutAProofNothingChanges(t *testing.T) {
	rules := randomRules(rand.New(rand.NewPCG(3, 1)))
	w := randomWorld(rand.New(rand.NewPCG(3, 2)))
	result := &Result{Rules: rules[:len(rules)-3]}
	if got := Rules(rules, []View{w.view(rules)}, Options{MaxStates: 1}); len(got.Rules) > len(result.Rules) {
		t.Errorf("%d rules of %d", len(got.Rules), len(result.Rules))
	}
}

// TestClassBench makes fewer rules of sets that were made like those of real firewalls.
func TestClassBench(t *testing.T) {
	for _, set := range classifiertest.ClassBenchSets {
		if testing.Short() && set.Rules > 1000 {
			continue
		}
		t.Run(set.Name, func(t *testing.T) {
			var rules []ruleset.Rule
			for i, r := range classifiertest.ReadClassBench(t, set.Name) {
				rules = append(rules, ruleset.Rule{Name: fmt.Sprint(i), Priority: i, Access: ruleset.Allow, Protocol: r.Protocol, Source: ruleset.Peer{Prefixes: r.Sources},
					Destination: ruleset.Peer{Prefixes: r.Destinations}, SourcePorts: r.SourcePorts, DestinationPorts: r.DestinationPorts})
				if i%3 == 0 {
					rules[i].Access = ruleset.Deny
				}
			}
			all := withDefaults(rules)
			w := world{ruleset.TagVirtualNetwork: {netip.MustParsePrefix("10.0.0.0/16")}, ruleset.TagAzureLoadBalancer: {netip.MustParsePrefix("168.63.129.16/32")}}
			began := time.Now()
			result := Rules(all, []View{w.view(all)}, Options{})
			merges := 0
			for _, s := range result.Steps {
				if s.Kind == Merged {
					merges++
				}
			}
			t.Logf("%d rules became %d by %d merges and %d removals, in %v", len(rules), len(result.Rules), merges, len(result.Steps)-merges, time.Since(began).Round(time.Millisecond))
			if result.Undecided || len(result.Rules) >= len(rules) {
				t.Errorf("%d rules of %d, undecided %v", len(result.Rules), len(rules), result.Undecided)
			}
		})
	}
}
