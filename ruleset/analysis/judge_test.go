package analysis

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// judgedRule is a rule for TCP from a prefix to a port; port 0 is all.
func judgedRule(access ruleset.Access, from string, port uint16) Rule {
	r := Rule{Access: access, Rule: classifier.Rule{Protocol: ruleset.TCP, Sources: []netip.Prefix{netip.MustParsePrefix(from)}, Destinations: ruleset.Everywhere(),
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{{First: port, Last: port}}}}
	if port == 0 {
		r.DestinationPorts = r.SourcePorts
	}
	return r
}

func TestJudgeAsksChainsOneBehindTheOther(t *testing.T) {
	const all = "0.0.0.0/0"
	chain := func(lists ...[]Rule) (c Chain) {
		for _, rules := range lists {
			c = append(c, NewList(rules))
		}
		return c
	}
	deny, allow, always := judgedRule(ruleset.Deny, all, 0), judgedRule(ruleset.Allow, all, 0), judgedRule(ruleset.AlwaysAllow, all, 0)
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, p := range list {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	for _, c := range []struct {
		name  string
		asked []Asked
		want  string
	}{
		{"no chain allows", nil, "Allow by []: 0-65535"},
		{"a denial ends the way", []Asked{{Chain: chain([]Rule{deny})}, {Chain: chain([]Rule{allow})}}, "Deny by [{Deny 0 0}]: 0-65535"},
		{"AlwaysAllow ends one chain only", []Asked{{Chain: chain([]Rule{always}, []Rule{deny})}, {Chain: chain([]Rule{deny})}},
			"Deny by [{Allow 0 0} {Deny 0 0}]: 0-65535"},
		{"each chain divides", []Asked{{Chain: chain([]Rule{judgedRule(ruleset.Deny, all, 80)})}, {Chain: chain([]Rule{judgedRule(ruleset.Deny, all, 443)})}},
			"Allow by [{Allow -1 -1} {Allow -1 -1}]: all except 80,443; Deny by [{Deny 0 0}]: 80; Deny by [{Allow -1 -1} {Deny 0 0}]: 443"},
		{"a chain sees the translated port", []Asked{{Chain: chain([]Rule{judgedRule(ruleset.Deny, all, 80)}), Sees: Seen{DestinationPorts: []ruleset.PortRange{{First: 80, Last: 80}}}}},
			"Deny by [{Deny 0 0}]: 0-65535"},
		{"and not the one that was sent", []Asked{{Chain: chain([]Rule{judgedRule(ruleset.Deny, all, 80)}), Sees: Seen{DestinationPorts: []ruleset.PortRange{{First: 81, Last: 81}}}}},
			"Allow by [{Allow -1 -1}]: 0-65535"},
		{"a rule may hold for all addresses that are chosen between", []Asked{{Chain: chain([]Rule{judgedRule(ruleset.Deny, "198.51.100.0/24", 0)}),
			Sees: Seen{Sources: prefixes("198.51.100.1/32", "198.51.100.2/32")}}}, "Deny by [{Deny 0 0}]: 0-65535"},
		{"or for some of them, and then nothing is known", []Asked{{Chain: chain([]Rule{judgedRule(ruleset.Deny, "198.51.100.1/32", 0)}),
			Sees: Seen{Sources: prefixes("198.51.100.1/32", "198.51.100.2/32")}}}, "undecided 0-65535"},
	} {
		answer := Judge(c.asked, Options{Within: Packets{Sources: prefixes("10.0.0.4/32"), Destinations: prefixes("10.0.0.5/32"), Services: []Service{{Protocol: 6}}}})
		var texts []string
		for i := range answer.Judged {
			j := &answer.Judged[i]
			texts = append(texts, fmt.Sprintf("%s by %v: %s", j.Access(), j.By, portsText(j.Boxes[0].DestinationPorts, everyPort)))
			if !j.Boxes[0].Has(&j.Witnesses[0]) {
				t.Errorf("%s: witness %v is not in its box", c.name, j.Witnesses[0])
			}
		}
		for i := range answer.Undecided {
			texts = append(texts, "undecided "+portsText(answer.Undecided[i].DestinationPorts, everyPort))
		}
		if got := strings.Join(texts, "; "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// What a chain denies is not divided by the chains behind it: that would use up the bound on states.
func TestJudgeDividesNoPacketsBehindADenial(t *testing.T) {
	deny := NewList([]Rule{judgedRule(ruleset.Deny, "0.0.0.0/0", 0)})
	var rules []Rule
	for n := range byte(100) {
		rules = append(rules, judgedRule(ruleset.Allow, netip.AddrFrom4([4]byte{10, 0, 0, n}).String()+"/32", uint16(n)+1))
	}
	within := Packets{Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, Destinations: []netip.Prefix{netip.MustParsePrefix("10.0.1.4/32")}, Services: []Service{{Protocol: 6}}}
	answer := Judge([]Asked{{Chain: Chain{deny}}, {Chain: Chain{NewList(rules)}}}, Options{MaxStates: 50, Within: within})
	if len(answer.Undecided) > 0 || len(answer.Judged) != 1 || len(answer.Judged[0].By) != 1 {
		t.Errorf("%+v, want one denial of all", answer)
	}
}

func TestJudgeAsksAboutTheServicesInQuestion(t *testing.T) {
	answer := Judge(nil, Options{Within: Packets{Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.4/32")}, Destinations: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")},
		Services: []Service{{Protocol: 17, Ports: []ruleset.PortRange{{First: 53, Last: 53}, {First: 123, Last: 123}}}, {Protocol: 1, Ports: []ruleset.PortRange{{First: 8, Last: 8}}}, {Protocol: 50}}}})
	want := "[UDP 10.0.0.4 -> 10.0.0.5 port 53,123 ICMP 10.0.0.4 -> 10.0.0.5 type 8 ESP 10.0.0.4 -> 10.0.0.5]"
	if got := fmt.Sprint(answer.Judged[0].Boxes); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
