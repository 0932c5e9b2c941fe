package ask

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// exposedBy is the figure whose VM2 has a public address, behind a group with some rules.
func exposedBy(t *testing.T, rules []ruleset.Rule) *topology.Snapshot {
	t.Helper()
	set := figure(nil, nil)
	for i := range rules {
		rules[i].Name, rules[i].Priority = fmt.Sprint("rule", i), 100+i
		if rules[i].SourcePorts == nil {
			rules[i].SourcePorts = []ruleset.PortRange{ruleset.AllPorts}
		}
		if !rules[i].Destination.Any && rules[i].Destination.Prefixes == nil {
			rules[i].Destination = ruleset.Peer{Any: true}
		}
	}
	set.NetworkSecurityGroups[0].Rules = rules
	set.NetworkInterfaces[vm2].IPConfigurations[0].PublicIPAddress = &policy.PublicIPAddress{Name: "p", ID: "/p", SKU: policy.SKUStandard, Address: netip.MustParseAddr("203.0.113.99")}
	set.PublicIPAddresses = []*policy.PublicIPAddress{set.NetworkInterfaces[vm2].IPConfigurations[0].PublicIPAddress}
	s, err := topology.Build(set, nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func from(d ruleset.Direction, first, last uint16, prefixes ...string) (r ruleset.Rule) {
	r = ruleset.Rule{Access: ruleset.Allow, Direction: d, Protocol: ruleset.TCP, DestinationPorts: []ruleset.PortRange{{First: first, Last: last}}}
	other := &r.Source
	if d == ruleset.Outbound {
		r.Source, other = ruleset.Peer{Any: true}, &r.Destination
	}
	for _, p := range prefixes {
		other.Prefixes = append(other.Prefixes, netip.MustParsePrefix(p))
	}
	return r
}

// each is a rule for each network /8 of the internet.
func each(rule func(prefix string) ruleset.Rule) (rules []ruleset.Rule) {
	for n := 1; n < 224; n++ {
		if n != 10 && n != 127 {
			rules = append(rules, rule(fmt.Sprintf("%d.0.0.0/8", n)))
		}
	}
	return rules
}

// Each rule was judged alone: two halves of the internet were no internet.
func TestLintJudgesRulesTogether(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rules []ruleset.Rule
		want  []string
	}{
		{"221 rules of a /8 each are the internet", each(func(p string) ruleset.Rule { return from(ruleset.Inbound, 22, 22, p) }),
			[]string{"NSG201 rule0: The internet reaches TCP 22 (SSH) of vm2-nic by public address p. 220 other rules have a part in it; this one has the largest."}},
		{"the rule with the largest part is named", []ruleset.Rule{from(ruleset.Inbound, 22, 22, "16.0.0.0/4"), from(ruleset.Inbound, 22, 22, "32.0.0.0/3"), from(ruleset.Inbound, 22, 22, "64.0.0.0/4")},
			[]string{"NSG201 rule1: The internet reaches TCP 22 (SSH) of vm2-nic by public address p. 2 other rules have a part in it; this one has the largest."}},
		{"a small part beside all of it is not told", []ruleset.Rule{from(ruleset.Inbound, 22, 22, "130.7.7.0/24"), from(ruleset.Inbound, 22, 22, "128.0.0.0/1")},
			[]string{"NSG201 rule1: The internet reaches TCP 22 (SSH) of vm2-nic by public address p."}},
		{"few and few are many", []ruleset.Rule{from(ruleset.Inbound, 3306, 3306, "40.1.0.0/16"), from(ruleset.Inbound, 3306, 3306, "40.2.0.0/16")},
			[]string{"NSG208 rule0: More than 65,536 public addresses reach TCP 3306 (MySQL) of vm2-nic by public address p. 1 other rule has a part in it; this one has the largest."}},
		{"a source that several rules tell apart by its ports counts once", []ruleset.Rule{
			func() ruleset.Rule {
				r := from(ruleset.Inbound, 3306, 3306, "40.1.0.0/16")
				r.SourcePorts = []ruleset.PortRange{{First: 0, Last: 1023}}
				return r
			}(), from(ruleset.Inbound, 3306, 3306, "40.1.0.0/16")}, nil},
		{"every port, by rules for a part of the internet and of the ports each", slices.Concat(
			each(func(p string) ruleset.Rule { return from(ruleset.Inbound, 0, 30000, p) }), each(func(p string) ruleset.Rule { return from(ruleset.Inbound, 30001, 65535, p) })),
			[]string{"NSG207 rule221: The internet reaches TCP 0-65535 of vm2-nic by public address p. 441 other rules have a part in it; this one has the largest."}},
		{"outbound as well", append(each(func(p string) ruleset.Rule { return from(ruleset.Outbound, 0, 65535, p) }),
			ruleset.Rule{Access: ruleset.Deny, Direction: ruleset.Outbound, Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}}),
			[]string{"NSG209 rule0: This rule lets (nearly) every TCP port out to the whole internet. 220 other rules have a part in it; this one has the largest."}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, f := range Lint(exposedBy(t, tt.rules), LintOptions{}).Findings {
				if strings.HasPrefix(f.Code, "NSG2") && strings.HasPrefix(f.Rule, "rule") {
					got = append(got, f.Code+" "+f.Rule+": "+f.Message)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// The slow reference asks for the packets to one port, and counts the addresses that they come from.
func TestLintFindsWhatIsOpenOfRandomRules(t *testing.T) {
	count := map[int]int{}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 7))
		var rules []ruleset.Rule
		for range 1 + r.IntN(20) {
			bits := 2 + r.IntN(20)
			rule := from(ruleset.Inbound, 22, uint16(22+r.IntN(2)), netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(r.IntN(256))}), bits).Masked().String())
			rule.Access = ruleset.Access(min(r.IntN(4), 1))
			if r.IntN(3) == 0 {
				rule.SourcePorts = []ruleset.PortRange{{First: uint16(r.IntN(2)) * 1000, Last: 2000}}
			}
			rules = append(rules, rule)
		}
		s := exposedBy(t, rules)
		e := s.Endpoint(s.Policy.NetworkInterfaces[vm2], netip.MustParseAddr(addr2))
		reachable := analysis.Reach(verdict.NewChains(s).Of(e, ruleset.Inbound).Lists, analysis.Options{Within: analysis.Packets{Sources: s.InternetSources(),
			Destinations: []netip.Prefix{netip.PrefixFrom(e.Address(), 32)}, Services: []analysis.Service{{Protocol: 6, Ports: []ruleset.PortRange{{First: 22, Last: 22}}}}}})
		var all []netip.Prefix
		for i := range reachable.Allowed {
			for j := range reachable.Allowed[i].Boxes {
				for _, p := range reachable.Allowed[i].Boxes[j].Sources {
					all = append(all, p.Prefixes()...)
				}
			}
		}
		want := breadth(countOf(rangesOf(all)), false)
		count[want]++
		got := fromFew
		for _, f := range Lint(s, LintOptions{}).Findings {
			if level := map[string]int{LintSSH: fromAll, LintWide: fromMany}[f.Code]; strings.Contains(f.Message, "22 (SSH)") && strings.Contains(f.Message, "of vm2-nic by public") {
				got = max(got, level)
			}
		}
		if got != want {
			t.Errorf("seed %d: lint says %d, counted are %d", seed, got, want)
		}
	}
	if count[fromFew] < 10 || count[fromMany] < 10 || count[fromAll] < 10 {
		t.Errorf("too few kinds: %v", count)
	}
}
