package ask

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// What explain says of its example is what verify says of the path, rule by rule.
func TestVerifyConfirmsTheExamplesOfExplain(t *testing.T) {
	policies, confirmed, denied := worldsOf(80, 15), 0, 0
	for seed := range uint64(policies) {
		s := randomPolicies(t, seed)[0]
		b := NewBetween(s, 0)
		r := rand.New(rand.NewPCG(seed, 8))
		ends := []string{"internet", "vm1-nic", "vm2-nic", "vm3-nic", "subnet:vnet1/Subnet3", "10.0.1.0/24"}
		for range 4 {
			q := &ExplainParameters{From: ends[r.IntN(len(ends))], To: ends[r.IntN(len(ends))]}
			result, err := Explain(t.Context(), s, q)
			if err != nil || len(result.Undecided) > 0 {
				t.Fatalf("seed %d: %+v: %v, %+v", seed, q, err, result)
			}
			for i := range result.Paths {
				x := &result.Paths[i]
				k := x.Example.tuple(t)
				senders := s.SendersFrom(k.Src.Netip())
				if len(senders) == 0 {
					t.Fatalf("seed %d: %+v: nobody sends the example of %+v", seed, q, x)
				}
				flow := asFlow(b, &k, senders[0])
				if x.Example.ICMPType != nil && *x.Example.ICMPType != 8 && *x.Example.ICMPType != 128 || k.Src == k.Dst {
					continue
				}
				want, err := Verify(s, flow, true)
				if err != nil {
					continue // a question that verify refuses
				}
				var stages []azure.VerificationStage
				for _, l := range x.Legs {
					for _, st := range l.Stages {
						stages = append(stages, st.VerificationStage)
					}
				}
				if x.Access != want.Access || x.Reason != want.Reason || x.RuleName != want.RuleName || !slices.Equal(stages, want.Stages) {
					t.Fatalf("seed %d: %+v: explain says %+v, verify %+v", seed, q, x, want)
				}
				confirmed++
				if x.Nearest != nil {
					denied++
				}
			}
		}
	}
	if confirmed < policies || denied < policies/4 {
		t.Errorf("%d examples were confirmed, %d of them denials with a nearest rule: the test says little", confirmed, denied)
	}
}

// An address of 64:ff9b::/96 embeds an IPv4 address; the first ones embed 0.0.0.0 and 0.0.0.1, which no host has.
func TestAnExampleFromTheInternetIsOfAnAddressThatAHostHas(t *testing.T) {
	s, err := topology.Build(figureOfTheSeed(), nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	result, err := Explain(t.Context(), s, &ExplainParameters{From: "64:ff9b::/96", To: "fd00:0:0:1::4"})
	if err != nil || len(result.Paths) == 0 {
		t.Fatalf("%v: %+v", err, result)
	}
	for i := range result.Paths {
		if got := result.Paths[i].Example.Source; got != "64:ff9b::cb00:710a" {
			t.Errorf("the example is of %s, want of 64:ff9b::cb00:710a, which embeds 203.0.113.10", got)
		}
	}
}

func TestTheNearestRuleIsTheOneWithTheFewestFieldsThatFail(t *testing.T) {
	rule := func(name string, priority int, access ruleset.Access, change func(*ruleset.Rule)) ruleset.Rule {
		r := ruleset.Rule{Name: name, Priority: priority, Direction: ruleset.Inbound, Access: access, Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true},
			SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}}
		if change != nil {
			change(&r)
		}
		return r
	}
	port := func(n uint16) func(*ruleset.Rule) {
		return func(r *ruleset.Rule) { r.DestinationPorts = []ruleset.PortRange{{First: n, Last: n}} }
	}
	for _, c := range []struct {
		name  string
		rules []ruleset.Rule
		want  string
	}{
		{"one field is nearer than two", []ruleset.Rule{
			rule("two", 100, ruleset.Allow, func(r *ruleset.Rule) { port(80)(r); r.Protocol = ruleset.UDP }), rule("one", 200, ruleset.Allow, port(80))}, "one destinationPort"},
		{"of equally near ones it is the first", []ruleset.Rule{rule("first", 100, ruleset.Allow, port(80)), rule("second", 200, ruleset.Allow, port(81))}, "first destinationPort"},
		{"a rule that matches stands behind the denial", []ruleset.Rule{rule("deny", 100, ruleset.Deny, nil), rule("behind", 200, ruleset.Allow, nil)}, "behind priority"},
		{"of a source", []ruleset.Rule{rule("source", 100, ruleset.Allow, func(r *ruleset.Rule) { r.Source = ruleset.Peer{Prefixes: enginetest.Prefixes[4:5]} })}, "source source"},
	} {
		set := figureOfTheSeed()
		group := &ruleset.NSG{Name: "near", ID: "/nsg/near", Rules: c.rules}
		set.NetworkSecurityGroups = append(set.NetworkSecurityGroups, group)
		for _, v := range set.VirtualNetworks {
			for _, sub := range v.Subnets {
				sub.NetworkSecurityGroup = nil
			}
		}
		for _, nic := range set.NetworkInterfaces {
			nic.NetworkSecurityGroup = nil
		}
		nic, _ := set.NetworkInterface("vm1-nic")
		nic.NetworkSecurityGroup = group
		if got := nearestOf(t, set); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func nearestOf(t *testing.T, set *policy.Set) string {
	t.Helper()
	s, err := topology.Build(set, nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	result, err := Explain(t.Context(), s, &ExplainParameters{From: world, To: "10.0.1.4:443/tcp"})
	if err != nil || len(result.Paths) != 1 || result.Paths[0].Nearest == nil {
		t.Fatalf("%v: %+v", err, result)
	}
	n := result.Paths[0].Nearest
	return n.RuleName[len("securityRules/"):] + " " + n.Fields[0].Name
}
