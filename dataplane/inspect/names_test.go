package inspect

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

func TestNamesOfAPolicyAreSortedAndThereOnce(t *testing.T) {
	network := &policy.VirtualNetwork{Name: "net", Subnets: []*policy.Subnet{{Name: "web"}, {Name: "app"}}}
	got := PolicyNames(&policy.Set{
		VirtualNetworks:       []*policy.VirtualNetwork{network},
		NetworkSecurityGroups: []*ruleset.NSG{{Name: "b", ID: "r1/b"}, {Name: "a"}, {Name: "b", ID: "r2/b"}},
		NetworkInterfaces: []*policy.NetworkInterface{
			{Name: "nic2", VirtualMachineID: "/subscriptions/s/resourceGroups/r/providers/Microsoft.Compute/virtualMachines/vm"},
			{Name: "nic1", VirtualMachineID: "/subscriptions/s/resourceGroups/r/providers/Microsoft.Compute/virtualMachines/vm"}, {Name: "nic3"}},
	})
	want := &Names{NetworkInterfaces: []string{"nic1", "nic2", "nic3"}, VirtualMachines: []string{"vm"}, VirtualNetworks: []string{"net"},
		Subnets: []string{"net/app", "net/web"}, NetworkSecurityGroups: []string{"a", "b"}, ApplicationSecurityGroups: []string{}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
