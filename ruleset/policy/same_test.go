package policy_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// fleet is a policy of so many network interfaces in one subnet.
func fleet(nics int) *policy.Set {
	subnet := &policy.Subnet{Name: "subnet", ID: "/vnet/subnets/subnet", NetworkSecurityGroup: &ruleset.NSG{Name: "nsg", ID: "/nsg"}}
	v := &policy.VirtualNetwork{Name: "vnet", ID: "/vnet", Subnets: []*policy.Subnet{subnet}}
	subnet.VirtualNetwork = v
	set := &policy.Set{VirtualNetworks: []*policy.VirtualNetwork{v}, NetworkSecurityGroups: []*ruleset.NSG{subnet.NetworkSecurityGroup}}
	for n := range nics {
		id := fmt.Sprintf("/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/lab/providers/Microsoft.Network/networkInterfaces/nic%d", n)
		set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: fmt.Sprint("nic", n), ID: id, IPConfigurations: []policy.IPConfiguration{
			{Name: "ip", ID: id + "/ipConfigurations/ip", Address: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), Subnet: subnet, Primary: true}}})
	}
	return set
}

// The order in which policies list network interfaces says nothing.
func TestDifferentInterfacesInAnyOrder(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*policy.Set)
		want   []int
	}{
		{"none", func(*policy.Set) {}, nil},
		{"turned round", func(s *policy.Set) { slices.Reverse(s.NetworkInterfaces) }, nil},
		{"its id in other letters", func(s *policy.Set) { s.NetworkInterfaces[4].ID = strings.ToUpper(s.NetworkInterfaces[4].ID) }, []int{4}},
		{"the first one has another address", func(s *policy.Set) {
			s.NetworkInterfaces[0].IPConfigurations[0].Address = netip.MustParseAddr("10.9.9.9")
		}, []int{0}},
		{"turned round, and the last one forwards", func(s *policy.Set) {
			slices.Reverse(s.NetworkInterfaces)
			s.NetworkInterfaces[0].EnableIPForwarding = true
		}, []int{9}},
		{"the first one is gone", func(s *policy.Set) { s.NetworkInterfaces = s.NetworkInterfaces[1:] }, []int{0}},
		{"the last one is gone", func(s *policy.Set) { s.NetworkInterfaces = s.NetworkInterfaces[:9] }, []int{9}},
		{"two more", func(s *policy.Set) { s.NetworkInterfaces = fleet(12).NetworkInterfaces }, []int{10, 11}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, after, want := fleet(10), fleet(10), map[string]bool{}
			tt.change(after)
			for _, n := range tt.want {
				want[strings.ToLower(fleet(12).NetworkInterfaces[n].ID)] = true
			}
			for _, d := range []policy.Difference{after.Differs(before), before.Differs(after)} {
				if d.Elsewhere || !maps.Equal(d.Interfaces, want) {
					t.Errorf("%+v, want %v", d, want)
				}
			}
		})
	}
}

func BenchmarkWithGroups(b *testing.B) {
	set := fleet(5000)
	groups := map[*ruleset.NSG]*ruleset.NSG{set.NetworkSecurityGroups[0]: {Name: "nsg", ID: "/nsg"}}
	for b.Loop() {
		set.WithGroups(groups)
	}
}

func BenchmarkDiffers(b *testing.B) {
	before, after := fleet(5000), fleet(5000)
	for b.Loop() {
		if d := after.Differs(before); d.Elsewhere || len(d.Interfaces) > 0 {
			b.Fatal(d)
		}
	}
}
