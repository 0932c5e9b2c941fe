package ask

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// without is a policy that lacks the rule of a finding.
func without(t *testing.T, s *topology.Snapshot, f *Finding) *topology.Snapshot {
	t.Helper()
	set := *s.Policy
	replaced := map[*ruleset.NSG]*ruleset.NSG{}
	strip := func(g *ruleset.NSG) *ruleset.NSG {
		if g == nil || g.Name != f.Resource[strings.Index(f.Resource, "/")+1:] {
			return g
		}
		if replaced[g] == nil {
			copied := *g
			copied.Rules = slices.DeleteFunc(slices.Clone(g.Rules), func(r ruleset.Rule) bool { return r.Name == f.Rule && r.Direction.String() == f.Direction })
			if len(copied.Rules) != len(g.Rules)-1 {
				t.Fatalf("%+v is of no rule", f)
			}
			replaced[g] = &copied
		}
		return replaced[g]
	}
	set.NetworkSecurityGroups = nil
	for _, g := range s.Policy.NetworkSecurityGroups {
		set.NetworkSecurityGroups = append(set.NetworkSecurityGroups, strip(g))
	}
	set.AdminCollections = nil
	for _, c := range s.Policy.AdminCollections {
		set.AdminCollections = append(set.AdminCollections, &policy.AdminCollection{Rules: strip(c.Rules), Networks: c.Networks})
	}
	subnets := map[*policy.Subnet]*policy.Subnet{}
	for _, v := range set.VirtualNetworks { // the random policy has one, which admin collections refer to
		for _, sub := range v.Subnets {
			copied := *sub
			copied.NetworkSecurityGroup = strip(sub.NetworkSecurityGroup)
			subnets[sub] = &copied
		}
	}
	network := *set.VirtualNetworks[0]
	network.Subnets = nil
	for _, sub := range set.VirtualNetworks[0].Subnets {
		subnets[sub].VirtualNetwork = &network
		network.Subnets = append(network.Subnets, subnets[sub])
	}
	for _, c := range set.AdminCollections {
		if len(c.Networks) > 0 {
			c.Networks = []*policy.VirtualNetwork{&network}
		}
	}
	set.VirtualNetworks = []*policy.VirtualNetwork{&network}
	set.NetworkInterfaces = nil
	for _, nic := range s.Policy.NetworkInterfaces {
		copied := *nic
		copied.NetworkSecurityGroup = strip(nic.NetworkSecurityGroup)
		copied.IPConfigurations = slices.Clone(nic.IPConfigurations)
		for i := range copied.IPConfigurations {
			copied.IPConfigurations[i].Subnet = subnets[nic.IPConfigurations[i].Subnet]
		}
		set.NetworkInterfaces = append(set.NetworkInterfaces, &copied)
	}
	changed, err := topology.Build(&set, nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// randomLinted is a random policy with more of what lint finds.
func randomLinted(t *testing.T, seed uint64) *topology.Snapshot {
	t.Helper()
	set := randomSets(seed)[0]
	groups := set.NetworkSecurityGroups
	for _, g := range groups {
		if len(g.Rules) > 0 && seed%2 == 0 { // once more, where it comes too late
			again := g.Rules[0]
			again.Name, again.Priority = "again", 4000
			g.Rules = append(g.Rules, again)
		}
	}
	if len(groups) > 1 && seed%3 == 0 { // two groups everywhere
		ssh := enginetest.AllowHTTP()
		ssh.Name, ssh.Priority, ssh.DestinationPorts = "ssh", 4050, []ruleset.PortRange{{First: 22, Last: 22}}
		groups[0].Rules = append(groups[0].Rules, ssh)
		for _, sub := range set.VirtualNetworks[0].Subnets {
			sub.NetworkSecurityGroup = groups[0]
		}
		for _, nic := range set.NetworkInterfaces {
			nic.NetworkSecurityGroup = groups[1]
		}
	}
	s, err := topology.Build(set, nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// mayGo are the checks of rules that change nothing.
var mayGo = []string{LintShadowed, LintRedundant, LintEmpty, LintElsewhere, LintDefault, LintSplit}

// Whatever lint says can go, can go: no packet is treated differently without the rule. And what
// never decides never decides a packet.
func TestLintedRulesCanBeLeftOut(t *testing.T) {
	policies, count := worldsOf(300, 40), map[string]int{}
	for seed := range uint64(policies) {
		s := randomLinted(t, seed)
		result := Lint(s, LintOptions{})
		idle := map[string]bool{}
		for i := range result.Findings {
			f := &result.Findings[i]
			count[f.Code]++
			if !slices.Contains(mayGo, f.Code) {
				continue
			}
			for _, c := range Diff(s, without(t, s, f), DiffOptions{}).Changes {
				if f.Code != LintSplit || len(c.NetworkInterfaces) > 0 { // a subnet's other addresses don't count
					t.Fatalf("seed %d: without the rule of %+v: %+v", seed, f, c)
				}
			}
			if f.Code == LintShadowed || f.Code == LintEmpty || f.Code == LintElsewhere {
				idle[f.Resource[strings.Index(f.Resource, "/")+1:]+" "+f.Direction+" "+f.Rule] = true
			}
		}
		r := rand.New(rand.NewPCG(seed, 3))
		for _, e := range s.Endpoints() {
			for _, direction := range []ruleset.Direction{ruleset.Inbound, ruleset.Outbound} {
				for range 20 {
					if e.NetworkInterface != nil {
						expectNotIdle(t, s, e, direction, randomTuple(r, e, direction), idle)
					}
				}
			}
		}
	}
	for _, code := range []string{LintShadowed, LintRedundant, LintElsewhere, LintDefault, LintSplit} {
		if count[code] < 5 {
			t.Errorf("%s was found %d times: the test says little", code, count[code])
		}
	}
}

func expectNotIdle(t *testing.T, s *topology.Snapshot, e *topology.Endpoint, d ruleset.Direction, k packet.Tuple, idle map[string]bool) {
	t.Helper()
	p := packet.Packet{Tuple: k, Segments: 1}
	if k.Proto == packet.ProtoICMP || k.Proto == packet.ProtoICMPv6 {
		p.ICMPType, p.DstPort = uint8(k.DstPort), 0
	}
	var decision verdict.Decision
	if d == ruleset.Outbound {
		decision.AskSender(s, e, &p)
	} else {
		way := topology.Way{To: e, Arrives: p.Tuple}
		decision.Receives(s, &way, &p)
	}
	for i := range decision.Verdict.N {
		stage := &decision.Verdict.Stages[i]
		rule := stage.SecurityRule()
		if !rule.Default && idle[stage.Stage.Group.NSG.Name+" "+d.String()+" "+rule.Name] {
			t.Errorf("%s decides %v, and lint says that it never does", rule.Name, k)
		}
	}
}

// confirm asks verify about a witness.
func confirm(t *testing.T, s *topology.Snapshot, w *LintWitness) string {
	t.Helper()
	k := w.tuple(t)
	q := &azure.Flow{NetworkInterface: w.NetworkInterface, Direction: ruleset.Inbound, Protocol: k.Proto,
		Local: k.Dst.Netip(), LocalPort: k.DstPort, Remote: k.Src.Netip(), RemotePort: k.SrcPort}
	if w.Direction == "Outbound" {
		q.Direction, q.Local, q.Remote, q.LocalPort, q.RemotePort = ruleset.Outbound, q.Remote, q.Local, k.SrcPort, k.DstPort
	}
	if w.ICMPType != nil && *w.ICMPType != map[bool]uint16{true: packet.ICMPv4EchoRequest, false: packet.ICMPv6EchoRequest}[k.Src.Is4()] {
		return w.Access // verify knows echo requests only
	}
	got, err := Verify(s, q, false)
	switch {
	case err != nil && strings.Contains(err.Error(), "has no address"): // it forwards
		return w.Access
	case err != nil:
		t.Fatalf("%+v: %v", q, err)
	}
	return got.Access
}

func TestVerifyConfirmsTheWitnessesOfLint(t *testing.T) {
	policies, confirmed := worldsOf(600, 60), map[string]int{}
	for seed := range uint64(policies) {
		s := randomLinted(t, seed)
		for _, f := range Lint(s, LintOptions{}).Findings {
			if f.Witness == nil {
				continue
			}
			if got := confirm(t, s, f.Witness); got != f.Witness.Access {
				t.Fatalf("seed %d: %+v: verify says %s", seed, f, got)
			}
			confirmed[f.Code]++
		}
	}
	if confirmed[LintSplit] < policies/20 || confirmed[LintPlatform] == 0 && !testing.Short() {
		t.Errorf("confirmed %v: the test says little", confirmed)
	}
}

// A rule has addresses of one family, so that rules of both families are never one.
func TestRulesOfTwoFamiliesAreNotMergeable(t *testing.T) {
	from := func(name string, priority int, source string) ruleset.Rule {
		r := enginetest.AllowHTTP()
		r.Name, r.Priority, r.Source = name, priority, ruleset.Peer{Prefixes: []netip.Prefix{netip.MustParsePrefix(source)}}
		return r
	}
	for _, tt := range []struct {
		name, source string
		mergeable    int
	}{{"one family", "198.51.100.0/24", 1}, {"two families", "2001:db8::/32", 0}} {
		t.Run(tt.name, func(t *testing.T) {
			set := randomSets(1)[0]
			g := set.NetworkSecurityGroups[0]
			g.Rules = []ruleset.Rule{from("a", 100, "192.0.2.0/25"), from("b", 110, tt.source)}
			set.VirtualNetworks[0].Subnets[0].NetworkSecurityGroup = g
			s, err := topology.Build(set, nil, topology.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			found := 0
			for _, f := range Lint(s, LintOptions{}).Findings {
				if f.Code == LintMergeable && strings.HasSuffix(f.Resource, g.Name) {
					found++
				}
			}
			if found != tt.mergeable {
				t.Errorf("%d findings, want %d", found, tt.mergeable)
			}
		})
	}
}
