package ask

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// subnetsOf is a policy of some subnets with a network interface each. edit may change its groups, one for all subnets.
func subnetsOf(t *testing.T, n int, edit func(set *policy.Set)) *Between {
	t.Helper()
	vnet := &policy.VirtualNetwork{Name: "net", ID: "/net", AddressSpace: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	g := &ruleset.NSG{Name: "nsg", ID: "/nsg"}
	set := &policy.Set{VirtualNetworks: []*policy.VirtualNetwork{vnet}, NetworkSecurityGroups: []*ruleset.NSG{g}}
	for i := range n {
		sub := &policy.Subnet{Name: fmt.Sprint("s", i), ID: fmt.Sprint("/net/s", i), VirtualNetwork: vnet, NetworkSecurityGroup: g,
			Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24)}}
		vnet.Subnets = append(vnet.Subnets, sub)
		set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: fmt.Sprint("nic", i), ID: fmt.Sprint("/nic/", i),
			IPConfigurations: []policy.IPConfiguration{{Name: "a", Address: netip.AddrFrom4([4]byte{10, 0, byte(i), 4}), Subnet: sub, Primary: true}}})
	}
	if edit != nil {
		edit(set)
	}
	s, err := topology.Build(set, nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return NewBetween(s, 0)
}

// denyTo denies what a group's receivers get at a prefix.
func denyTo(set *policy.Set, prefix string) {
	g := set.NetworkSecurityGroups[0]
	g.Rules = append(g.Rules, ruleset.Rule{Name: "deny", Priority: 100, Direction: ruleset.Inbound, Access: ruleset.Deny, Source: ruleset.Peer{Any: true},
		Destination: ruleset.Peer{Prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)}}, SourcePorts: []ruleset.PortRange{ruleset.AllPorts},
		DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}})
}

// 51 subnets have more pairs than are asked about: those that are alike are asked once.
func TestSubnetsThatAreAlikeShareTheirTests(t *testing.T) {
	tests := []struct {
		name string
		edit func(set *policy.Set)
		want []string
	}{
		{"all are alike", nil, []string{"the internet does not reach net/s0", "net/s0, net/s1"}},
		{"a rule names one of them", func(set *policy.Set) { denyTo(set, "10.0.7.0/24") },
			[]string{"the internet does not reach net/s0", "net/s0, net/s1", "net/s0, net/s1", "net/s7 reaches net/s0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := subnetsOf(t, 51, tt.edit)
			got, leftOut, err := b.TestsOf()
			if err != nil || len(leftOut) > 0 || len(got) != len(tt.want) {
				t.Fatalf("%v, %q, %d tests: %+v", err, leftOut, len(got), got)
			}
			for i, test := range got {
				if !strings.HasPrefix(test.Name, tt.want[i]) || len(test.From) > mostEnds || len(test.To) > mostEnds {
					t.Errorf("%s, want %s", test.Name, tt.want[i])
				}
			}
		})
	}
}

func TestTooManyPairsAreRefusedWithWhatToNarrow(t *testing.T) {
	apart := func(set *policy.Set) { // each subnet differs from the others
		for i := range set.VirtualNetworks[0].Subnets {
			denyTo(set, fmt.Sprintf("10.0.%d.7/32", i))
			set.NetworkSecurityGroups[0].Rules[i].Priority += i
			set.NetworkSecurityGroups[0].Rules[i].Name += fmt.Sprint(i)
		}
	}
	for _, tt := range []struct {
		subnets int
		edit    func(set *policy.Set)
		want    string
	}{
		{60, apart, "3660 pairs of subnets and groups that differ: allowed are 2500; give the files of fewer virtual networks: net has 60"},
		{160, nil, "25760 pairs of subnets and groups: allowed are 25000; give the files of fewer virtual networks: net has 160"},
	} {
		if _, _, err := subnetsOf(t, tt.subnets, tt.edit).TestsOf(); err == nil || err.Error() != tt.want {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}
