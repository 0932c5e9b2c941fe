package ask

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// largePolicy has 500 network interfaces in 50 subnets, each with a group of 40 rules. changed is how many of
// the groups open port 22 to everyone.
func largePolicy(b testing.TB, changed int) *topology.Snapshot {
	b.Helper()
	return policyOfSize(b, 50, 10, changed)
}

// policyOfSize has subnets with some network interfaces each, as largePolicy.
func policyOfSize(b testing.TB, subnets, interfaces, changed int) *topology.Snapshot {
	b.Helper()
	vnet := &policy.VirtualNetwork{Name: "large", ID: "/vnet/large", AddressSpace: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	set := &policy.Set{VirtualNetworks: []*policy.VirtualNetwork{vnet}}
	for i := range subnets {
		g := &ruleset.NSG{Name: fmt.Sprint("nsg", i), ID: fmt.Sprint("/nsg/", i)}
		for n := range 40 {
			port := uint16(1000 + 10*n)
			source := ruleset.Peer{Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n), 0, 0}), 16)}}
			if n == 39 && i < changed {
				source, port = ruleset.Peer{Any: true}, 22
			}
			g.Rules = append(g.Rules, ruleset.Rule{Name: fmt.Sprint("rule", n), Priority: 100 + n, Access: ruleset.Access((n + 1) % 3 % 2), Protocol: ruleset.TCP,
				Source: source, Destination: ruleset.Peer{Any: true}, SourcePorts: []ruleset.PortRange{ruleset.AllPorts},
				DestinationPorts: []ruleset.PortRange{{First: port, Last: port + 20}}})
		}
		g.Rules[39].Access = ruleset.Allow
		set.NetworkSecurityGroups = append(set.NetworkSecurityGroups, g)
		subnet := &policy.Subnet{Name: fmt.Sprint("s", i), ID: fmt.Sprint("/subnet/", i), VirtualNetwork: vnet, NetworkSecurityGroup: g,
			Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100, byte(i), 0}), 24)}}
		vnet.Subnets = append(vnet.Subnets, subnet)
		for n := range interfaces {
			set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: fmt.Sprint("nic", i, "-", n), ID: fmt.Sprint("/nic/", i, "/", n),
				IPConfigurations: []policy.IPConfiguration{{Name: "a", Address: netip.AddrFrom4([4]byte{10, 100, byte(i), byte(4 + n)}), Subnet: subnet, Primary: true}}})
		}
	}
	s, err := topology.Build(set, nil, topology.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func BenchmarkAnalysisDiffOfALargePolicy(b *testing.B) {
	for _, changed := range []int{0, 1, 50} {
		b.Run(fmt.Sprintf("groups=%d", changed), func(b *testing.B) {
			old, new := largePolicy(b, 0), largePolicy(b, changed)
			for b.Loop() {
				if d := Diff(old, new, DiffOptions{EndToEnd: true}); (len(d.Changes) > 0) != (changed > 0) {
					b.Fatalf("%d changes", len(d.Changes))
				}
			}
		})
	}
}

func BenchmarkAnalysisLintOfALargePolicy(b *testing.B) {
	s := largePolicy(b, 0)
	for b.Loop() {
		Lint(s, LintOptions{})
	}
}
