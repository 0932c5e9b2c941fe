package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
)

func TestFind(t *testing.T) {
	const azure = "/subscriptions/S/resourceGroups/rg/providers/Microsoft.Network/"
	network := func(name string, subnets ...string) *VirtualNetwork {
		v := &VirtualNetwork{Name: name, ID: azure + "virtualNetworks/" + name}
		for _, s := range subnets {
			v.Subnets = append(v.Subnets, &Subnet{Name: s, ID: v.ID + "/subnets/" + s, VirtualNetwork: v})
		}
		return v
	}
	set := &Set{
		VirtualNetworks:       []*VirtualNetwork{network("vnet1", "a", "b", "c")},
		NetworkSecurityGroups: []*ruleset.NSG{{Name: "nsg1", ID: azure + "networkSecurityGroups/nsg1"}},
		NetworkInterfaces:     []*NetworkInterface{{Name: "nic1", ID: azure + "networkInterfaces/nic1"}, {Name: "nic2", ID: azure + "networkInterfaces/nic2"}},
	}
	many := &Set{}
	for i := range 30 {
		many.NetworkInterfaces = append(many.NetworkInterfaces, &NetworkInterface{Name: fmt.Sprintf("nic%d", i), ID: fmt.Sprintf("/nic/%d", i)})
	}
	twins := &Set{VirtualNetworks: []*VirtualNetwork{network("v", "s"), network("w", "s")}}
	tests := []struct {
		name string
		find func() (any, error)
		want any    // nil: an error
		err  string // contained in it
	}{
		{"a network interface by name, in any case", func() (any, error) { return set.NetworkInterface("NIC1") }, set.NetworkInterfaces[0], ""},
		{"a network interface by id, in any case", func() (any, error) {
			return set.NetworkInterface(strings.ToUpper(azure) + "NETWORKINTERFACES/nic2")
		}, set.NetworkInterfaces[1], ""},
		{"a group by name", func() (any, error) { return set.NetworkSecurityGroup("nsg1") }, set.NetworkSecurityGroups[0], ""},
		{"a subnet by name", func() (any, error) { return set.Subnet("b") }, set.VirtualNetworks[0].Subnets[1], ""},
		{"a subnet by network and name", func() (any, error) { return set.Subnet("vnet1/C") }, set.VirtualNetworks[0].Subnets[2], ""},
		{"a subnet by id", func() (any, error) { return set.Subnet(azure + "virtualNetworks/vnet1/subnets/a") }, set.VirtualNetworks[0].Subnets[0], ""},
		{"an unknown name lists the candidates", func() (any, error) { return set.Subnet("z") }, nil, `subnet "z" not found: the policy has vnet1/a, vnet1/b, vnet1/c`},
		{"but no endless list", func() (any, error) { return many.NetworkInterface("z") }, nil, "nic9 and 20 more"},
		{"an ambiguous name lists ids", func() (any, error) { return twins.Subnet("s") }, nil, "is ambiguous: " + twins.VirtualNetworks[0].Subnets[0].ID + ", "},
		{"a policy without any says so", func() (any, error) { return (&Set{}).NetworkSecurityGroup("n") }, nil, "the policy has none"},
		{"nothing has the empty name", func() (any, error) { return set.NetworkInterface("") }, nil, "not found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.find()
			if tt.want == nil {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestTargetsAreFoundByNameAndID(t *testing.T) {
	const network, compute = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Network/", "/subscriptions/s/resourceGroups/r/providers/Microsoft.Compute/"
	set := &Set{}
	add := func(name, id, vm string) {
		set.NetworkInterfaces = append(set.NetworkInterfaces, &NetworkInterface{Name: name, ID: id, VirtualMachineID: vm})
	}
	add("a", network+"networkInterfaces/a", compute+"virtualMachines/one")
	add("b", network+"networkInterfaces/b", strings.ToUpper(compute)+"VIRTUALMACHINES/ONE")
	add("two", network+"networkInterfaces/two", compute+"virtualMachines/three")
	add("c", network+"networkInterfaces/c", compute+"virtualMachines/two")
	for _, tt := range []struct{ name, target, want string }{
		{"a NIC's name", "B", "b"},
		{"a NIC's id", strings.ToUpper(network) + "networkInterfaces/a", "a"},
		{"the end of a NIC's id, from the resource group on", "resourcegroups/R/providers/Microsoft.Network/networkInterfaces/a", "a"},
		{"a virtual machine's name", "one", "a b"},
		{"a virtual machine's id", compute + "virtualMachines/one", "a b"},
		{"a name of both is the NIC's", "two", "two"},
		{"a name of both, said to be the virtual machine's", "VirtualMachines/two", "c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nics, err := set.Target(tt.target)
			var names []string
			for _, n := range nics {
				names = append(names, n.Name)
			}
			if got := strings.Join(names, " "); err != nil || got != tt.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	for _, tt := range []struct{ name, target, want string }{
		{"an unknown name", "x", `network interface "x" not found: the policy has a, b, two, c`},
		{"an unknown virtual machine", "virtualMachines/x", `virtual machine "x" not found: the policy has one, three, two`},
		{"an end that begins within a name", "nterfaces/a", "not found"},
		{"another resource group", "resourceGroups/other/providers/Microsoft.Network/networkInterfaces/a", "not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if nics, err := set.Target(tt.target); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v", nics, err)
			}
		})
	}
	t.Run("of many, what is near is named", func(t *testing.T) {
		for i := range 20 {
			add(fmt.Sprintf("other-machine%d-nic", i), "", "")
		}
		_, err := set.NetworkInterface("other-machin17-nic")
		if err == nil || !strings.Contains(err.Error(), "and 14 more; near are other-machine17-nic, ") {
			t.Error(err)
		}
	})
}
