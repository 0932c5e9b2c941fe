package arm

import (
	"fmt"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// NetworkInterface finds a NIC by name or id, without case. The error of an
// unknown or ambiguous name lists candidates.
func (s *Set) NetworkInterface(nameOrID string) (*NetworkInterface, error) {
	return find("network interface", nameOrID, s.NetworkInterfaces, func(n *NetworkInterface) []string {
		return []string{n.Name, n.ID}
	})
}

// NetworkSecurityGroup finds an NSG by name or id, without case. The error of an
// unknown or ambiguous name lists candidates.
func (s *Set) NetworkSecurityGroup(nameOrID string) (*ruleset.NSG, error) {
	return find("network security group", nameOrID, s.NetworkSecurityGroups, func(n *ruleset.NSG) []string {
		return []string{n.Name, n.ID}
	})
}

// VirtualNetwork finds a virtual network by name or id, without case. The error of an
// unknown or ambiguous name lists candidates.
func (s *Set) VirtualNetwork(nameOrID string) (*VirtualNetwork, error) {
	return find("virtual network", nameOrID, s.VirtualNetworks, func(n *VirtualNetwork) []string {
		return []string{n.Name, n.ID}
	})
}

// Subnet finds a subnet by name, by "vnet/subnet" or by id, without case. The
// error of an unknown or ambiguous name lists candidates.
func (s *Set) Subnet(nameOrID string) (*Subnet, error) {
	var subnets []*Subnet
	for _, v := range s.VirtualNetworks {
		subnets = append(subnets, v.Subnets...)
	}
	return find("subnet", nameOrID, subnets, func(n *Subnet) []string {
		return []string{n.VirtualNetwork.Name + "/" + n.Name, n.ID, n.Name}
	})
}

// find compares with each of an object's keys: the first is the one to show, the
// second the id.
func find[T any](kind, nameOrID string, objects []*T, keys func(*T) []string) (*T, error) {
	var found []*T
	for _, o := range objects {
		for _, key := range keys(o) {
			if key != "" && strings.EqualFold(key, nameOrID) {
				found = append(found, o)
				break
			}
		}
	}
	show := func(list []*T, key int) string {
		texts := make([]string, len(list))
		for i, o := range list {
			texts[i] = keys(o)[key]
		}
		return listed(texts)
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, fmt.Errorf("%s %q is ambiguous: %s", kind, nameOrID, show(found, 1))
	case len(objects) == 0:
		return nil, fmt.Errorf("%s %q not found: the policy has none", kind, nameOrID)
	}
	return nil, fmt.Errorf("%s %q not found: the policy has %s", kind, nameOrID, show(objects, 0))
}

// maxListed bounds the candidates that an error lists.
const maxListed = 10

func listed(texts []string) string {
	if len(texts) <= maxListed {
		return strings.Join(texts, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(texts[:maxListed], ", "), len(texts)-maxListed)
}
