package inspect

import (
	"slices"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// Names are the names of a policy's resources that questions are about. Each list is sorted, holds a name once,
// and is not nil.
type Names struct {
	NetworkInterfaces         []string `json:"networkInterfaces"`
	VirtualMachines           []string `json:"virtualMachines"` // that network interfaces name
	VirtualNetworks           []string `json:"virtualNetworks"`
	Subnets                   []string `json:"subnets"` // network/subnet
	NetworkSecurityGroups     []string `json:"networkSecurityGroups"`
	ApplicationSecurityGroups []string `json:"applicationSecurityGroups"`
}

// PolicyNames lists the names in a policy.
func PolicyNames(set *policy.Set) *Names {
	n := &Names{}
	for _, nic := range set.NetworkInterfaces {
		n.NetworkInterfaces = append(n.NetworkInterfaces, nic.Name)
		if id := nic.VirtualMachineID; id != "" {
			n.VirtualMachines = append(n.VirtualMachines, policy.MachineName(id))
		}
	}
	for _, network := range set.VirtualNetworks {
		n.VirtualNetworks = append(n.VirtualNetworks, network.Name)
		for _, subnet := range network.Subnets {
			n.Subnets = append(n.Subnets, network.Name+"/"+subnet.Name)
		}
	}
	for _, g := range set.NetworkSecurityGroups {
		n.NetworkSecurityGroups = append(n.NetworkSecurityGroups, g.Name)
	}
	for _, g := range set.ApplicationSecurityGroups {
		n.ApplicationSecurityGroups = append(n.ApplicationSecurityGroups, g.Name)
	}
	for _, list := range []*[]string{&n.NetworkInterfaces, &n.VirtualMachines, &n.VirtualNetworks, &n.Subnets, &n.NetworkSecurityGroups, &n.ApplicationSecurityGroups} {
		slices.Sort(*list)
		*list = slices.Compact(append([]string{}, *list...))
	}
	return n
}

// Names lists the names in the running policy.
func (s *Service) Names() *Names { return PolicyNames(s.Snapshot().Policy) }
