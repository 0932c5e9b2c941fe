package suggest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

func mustRules(t testing.TB, c *Collector) []Group {
	t.Helper()
	groups, err := c.Rules()
	if err != nil {
		t.Fatal(err)
	}
	return groups
}

func inbound(name string, priority int, a ruleset.Access, source string, ports ...uint16) ruleset.Rule {
	r := ruleset.Rule{Name: name, Priority: priority, Access: a, Protocol: ruleset.TCP, Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true}, SourcePorts: everyPort, DestinationPorts: everyPort}
	if source != "" {
		r.Source = ruleset.Peer{Prefixes: []netip.Prefix{netip.MustParsePrefix(source)}}
	}
	if len(ports) > 0 {
		r.DestinationPorts = nil
	}
	for _, p := range ports {
		r.DestinationPorts = append(r.DestinationPorts, ruleset.PortRange{First: p, Last: p})
	}
	return r
}

// Rules stay, and what they deny has a rule before the one that denies it.
func TestRulesAreAddedBeforeTheOneThatDenies(t *testing.T) {
	own := []ruleset.Rule{inbound("web", 100, ruleset.Allow, "", 80), inbound("bad", 200, ruleset.Deny, "8.8.8.0/24"), inbound("ssh", 201, ruleset.Allow, "8.8.4.0/24", 22)}
	c := NewCollector(world(t, map[string][]ruleset.Rule{"web-nsg": own}), Options{Keep: true})
	see(t, c, packet.ProtoTCP, "8.8.8.8", "10.0.1.4", 80)  // allowed by web
	see(t, c, packet.ProtoTCP, "8.8.8.8", "10.0.1.4", 443) // denied by bad
	see(t, c, packet.ProtoTCP, "8.8.4.4", "10.0.1.4", 443) // denied by a default rule
	see(t, c, packet.ProtoTCP, "8.8.4.4", "10.0.1.4", 22)  // allowed by ssh
	groups := mustRules(t, c)
	want := []string{
		"web-nsg Inbound 100 Allow Tcp *>* [80] seen 0",
		"web-nsg Inbound 101 Allow Tcp 8.8.8.8>web [443] seen 1",
		"web-nsg Inbound 200 Deny Tcp 8.8.8.0/24>* [*] seen 0",
		"web-nsg Inbound 201 Allow Tcp 8.8.4.0/24>* [22] seen 0",
		"web-nsg Inbound 202 Allow Tcp 8.8.4.4>web [443] seen 1",
	}
	if diff := cmp.Diff(want, lines(groups)); diff != "" {
		t.Error(diff)
	}
	if r := groups[0].Rules; !r[0].Kept || r[1].Kept || !r[2].Kept || r[1].Name != groups[0].NSG.Rules[1].Name {
		t.Errorf("%+v", r)
	}
}

func TestWithoutAFreePriorityNothingIsAdded(t *testing.T) {
	c := NewCollector(world(t, map[string][]ruleset.Rule{"web-nsg": {inbound("bad", 100, ruleset.Deny, "")}}), Options{Keep: true})
	see(t, c, packet.ProtoTCP, "8.8.8.8", "10.0.1.4", 443)
	if _, err := c.Rules(); err == nil || !strings.Contains(err.Error(), "web-nsg, inbound: no rule can be added before the one of priority 100") {
		t.Errorf("got %v", err)
	}
}

// A rule that is added must not stand before an earlier Deny: here it would allow all of the internet, and the Deny is for one
// address there.
func TestNothingIsAddedBeforeAnEarlierDeny(t *testing.T) {
	for _, tt := range []struct {
		name  string
		own   []ruleset.Rule
		added int // priority; 0: refused
	}{
		{"a deny just before", []ruleset.Rule{inbound("bad", 200, ruleset.Deny, "8.8.8.8/32"), inbound("all", 201, ruleset.Deny, "")}, 0},
		{"a deny before allows", []ruleset.Rule{inbound("bad", 200, ruleset.Deny, "8.8.8.8/32"), inbound("ssh", 201, ruleset.Allow, "", 22), inbound("all", 202, ruleset.Deny, "")}, 0},
		{"a gap between them", []ruleset.Rule{inbound("bad", 200, ruleset.Deny, "8.8.8.8/32"), inbound("all", 202, ruleset.Deny, "")}, 201},
		{"an allow just before", []ruleset.Rule{inbound("ssh", 200, ruleset.Allow, "", 22), inbound("all", 201, ruleset.Deny, "")}, 100},
		{"nothing before", []ruleset.Rule{inbound("all", 200, ruleset.Deny, "")}, 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCollector(world(t, map[string][]ruleset.Rule{"web-nsg": tt.own}), Options{Keep: true})
			for i := range 12 {
				see(t, c, packet.ProtoTCP, fmt.Sprintf("9.%d.1.1", i), "10.0.1.4", 443)
			}
			groups, err := c.Rules()
			if tt.added == 0 {
				last := tt.own[len(tt.own)-1].Priority
				if want := fmt.Sprintf("web-nsg, inbound: no rule can be added before the one of priority %d", last); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q; %v", err, want, lines(groups))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range groups[0].Rules {
				if priority := groups[0].NSG.Rules[i].Priority; !r.Kept && priority != tt.added {
					t.Errorf("added at %d, want %d: %v", priority, tt.added, lines(groups))
				}
			}
			if len(groups[0].Rules) != len(tt.own)+1 {
				t.Errorf("want one more: %v", lines(groups))
			}
		})
	}
}

// A Deny that can't meet what is added does not stop it.
func TestRulesAreAddedBeforeADenyThatTheyCantMeet(t *testing.T) {
	all := inbound("all", 201, ruleset.Deny, "")
	udp := inbound("bad", 200, ruleset.Deny, "")
	udp.Protocol = ruleset.UDP
	toOther, tag := inbound("bad", 200, ruleset.Deny, ""), inbound("bad", 200, ruleset.Deny, "")
	toOther.Destination = ruleset.Peer{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24")}}
	tag.Source = ruleset.Peer{Tag: ruleset.TagVirtualNetwork}
	for _, tt := range []struct {
		name  string
		deny  ruleset.Rule
		seen  []string // address>port
		most  int      // Options.MaxRules
		added bool
	}{
		{"of another port", inbound("bad", 200, ruleset.Deny, "", 22), []string{"8.8.4.4>443"}, 0, true},
		{"of another port in its subnet", inbound("bad", 200, ruleset.Deny, "10.0.1.77/32", 22), []string{"10.0.1.71>443", "10.0.1.72>443"}, 0, true},
		{"of its port in its subnet", inbound("bad", 200, ruleset.Deny, "10.0.1.77/32", 400, 443), []string{"10.0.1.71>443", "10.0.1.72>443"}, 0, false},
		{"of another protocol", udp, []string{"8.8.4.4>443"}, 0, true},
		{"of another source", inbound("bad", 200, ruleset.Deny, "8.8.8.0/24"), []string{"8.8.4.4>443"}, 0, true},
		{"of a group's addresses, which change", toOther, []string{"8.8.4.4>443"}, 0, false},
		{"of a tag, which changes", tag, []string{"8.8.4.4>443"}, 0, false},
		{"of what wider rules would allow", inbound("bad", 200, ruleset.Deny, "8.8.4.4/32", 443), []string{"8.8.4.4>80", "9.9.9.9>443"}, 1, false},
		{"of what narrow rules don't allow", inbound("bad", 200, ruleset.Deny, "8.8.4.4/32", 443), []string{"8.8.4.4>80", "9.9.9.9>443"}, 2, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCollector(world(t, map[string][]ruleset.Rule{"web-nsg": {tt.deny, all}}), Options{Keep: true, MaxRules: tt.most})
			for _, s := range tt.seen {
				address, port, _ := strings.Cut(s, ">")
				n, err := strconv.ParseUint(port, 10, 16)
				if err != nil {
					t.Fatal(err)
				}
				see(t, c, packet.ProtoTCP, address, "10.0.1.4", uint16(n))
			}
			groups, err := c.Rules()
			if (err == nil) != tt.added {
				t.Fatalf("%v: %v", err, lines(groups))
			}
			if err == nil && groups[0].Rules[0].Kept {
				t.Errorf("%v", lines(groups))
			}
		})
	}
}

// Whatever rules a group has: they stay, what they allow stays allowed, and all that was seen passes.
func TestKeptRulesAllowWhatTheyDidAndWhatWasSeen(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 4))
	added := 0
	for range 100 {
		before := map[string][]ruleset.Rule{}
		for _, name := range []string{"web-nsg", "db-nsg", "nic-nsg"} {
			for i := range r.IntN(6) {
				source := []string{"", "8.8.8.0/25", "10.0.0.0/16", "10.0.1.4/32"}[r.IntN(4)]
				rule := inbound(string(rune('a'+i)), 150+i*(1+r.IntN(300)), ruleset.Access(r.IntN(2)), source, []uint16{22, 80, 443}[r.IntN(3)])
				if r.IntN(3) == 0 {
					rule.DestinationPorts = everyPort
				}
				rule.Direction = ruleset.Direction(r.IntN(2))
				if !slices.ContainsFunc(before[name], func(o ruleset.Rule) bool { return o.Priority == rule.Priority }) {
					before[name] = append(before[name], rule)
				}
			}
		}
		c := NewCollector(world(t, before), Options{Keep: true, MaxRules: []int{0, 2}[r.IntN(2)]})
		random(t, r, c)
		groups, err := c.Rules()
		if err != nil {
			continue // no room for so few rules
		}
		after := map[string][]ruleset.Rule{}
		for name, rules := range before {
			after[name] = rules
		}
		for name, rules := range readBack(t, groups) {
			for _, kept := range before[name] {
				if i := slices.IndexFunc(rules, func(o ruleset.Rule) bool { return o.Name == kept.Name }); i < 0 || rules[i].Priority != kept.Priority || rules[i].Access != kept.Access {
					t.Fatalf("%s has no %+v any more", name, kept)
				}
			}
			added += len(rules) - len(before[name])
			after[name] = rules
		}
		s := world(t, after)
		if p := c.Prove(s, groups); p.Allowed != p.Judged {
			t.Fatalf("%d of %d pass: %+v", p.Allowed, p.Judged, p.NotAllowed)
		}
		other := NewCollector(c.snapshot, Options{Denied: true})
		random(t, r, other)
		for k := range other.keys {
			tuple := k.tuple()
			if end := s.Endpoints()[k.end]; c.allowed(c.snapshot, c.ends[k.end], k.outbound, &tuple) && !c.allowed(s, end, k.outbound, &tuple) {
				t.Fatalf("%v was allowed", tuple)
			}
		}
	}
	if added < 100 {
		t.Errorf("%d rules were added: too few to prove anything", added)
	}
}
