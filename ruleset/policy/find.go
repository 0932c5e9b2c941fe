package policy

import (
	"fmt"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// NetworkInterface finds a NIC by name or id, in any case. The error lists candidates
// when the name is unknown or ambiguous.
func (s *Set) NetworkInterface(nameOrID string) (*NetworkInterface, error) {
	keys := func(n *NetworkInterface) []string { return []string{n.Name, n.ID} }
	return findAmong(s.nics.near(nameOrID, s.NetworkInterfaces, keys), "network interface", nameOrID, s.NetworkInterfaces, keys)
}

// NetworkSecurityGroup finds an NSG by name or id, in any case. The error lists
// candidates when the name is unknown or ambiguous.
func (s *Set) NetworkSecurityGroup(nameOrID string) (*ruleset.NSG, error) {
	return find("network security group", nameOrID, s.NetworkSecurityGroups, func(n *ruleset.NSG) []string {
		return []string{n.Name, n.ID}
	})
}

// VirtualNetwork finds a virtual network by name or id, in any case. The error lists
// candidates when the name is unknown or ambiguous.
func (s *Set) VirtualNetwork(nameOrID string) (*VirtualNetwork, error) {
	return find("virtual network", nameOrID, s.VirtualNetworks, func(n *VirtualNetwork) []string {
		return []string{n.Name, n.ID}
	})
}

// Subnet finds a subnet by name, by "vnet/subnet" or by id, in any case. The error lists
// candidates when the name is unknown or ambiguous.
func (s *Set) Subnet(nameOrID string) (*Subnet, error) {
	var subnets []*Subnet
	for _, v := range s.VirtualNetworks {
		subnets = append(subnets, v.Subnets...)
	}
	return find("subnet", nameOrID, subnets, func(n *Subnet) []string {
		return []string{n.VirtualNetwork.Name + "/" + n.Name, n.ID, n.Name}
	})
}

// ApplicationSecurityGroup finds an ASG by name or id, in any case. The error lists candidates when the name is
// unknown or ambiguous.
func (s *Set) ApplicationSecurityGroup(nameOrID string) (*ApplicationSecurityGroup, error) {
	return find("application security group", nameOrID, s.ApplicationSecurityGroups, func(g *ApplicationSecurityGroup) []string {
		return []string{g.Name, g.ID}
	})
}

// PublicIPAddress finds a public IP address by name or id, in any case. The error lists candidates when the name
// is unknown or ambiguous.
func (s *Set) PublicIPAddress(nameOrID string) (*PublicIPAddress, error) {
	return find("public IP address", nameOrID, s.PublicIPAddresses, func(p *PublicIPAddress) []string {
		return []string{p.Name, p.ID}
	})
}

// VirtualMachine finds the NICs of a virtual machine by its name, by "virtualMachines/NAME"
// or by its id, in any case. An instance of a scale set is named SET_INSTANCE.
func (s *Set) VirtualMachine(nameOrID string) ([]*NetworkInterface, error) {
	machines := s.machines()
	if kind, name, _ := strings.Cut(nameOrID, "/"); strings.EqualFold(kind, "virtualMachines") && !strings.Contains(name, "/") {
		nameOrID = name
	}
	m, err := find("virtual machine", nameOrID, machines, func(m *machine) []string { return []string{m.name, m.id} })
	if err != nil {
		return nil, err
	}
	return m.nics, nil
}

// VirtualMachines are the names of the virtual machines that have NICs, in the order of these.
func (s *Set) VirtualMachines() (names []string) {
	for _, m := range s.machines() {
		names = append(names, m.name)
	}
	return names
}

// machine is a virtual machine, known by its NICs.
type machine struct {
	name, id string
	nics     []*NetworkInterface
}

func (s *Set) machines() (machines []*machine) {
	byID := map[string]*machine{}
	for _, n := range s.NetworkInterfaces {
		key := strings.ToLower(n.VirtualMachineID)
		if key == "" {
			continue
		}
		if byID[key] == nil {
			byID[key] = &machine{name: MachineName(n.VirtualMachineID), id: n.VirtualMachineID}
			machines = append(machines, byID[key])
		}
		byID[key].nics = append(byID[key].nics, n)
	}
	return machines
}

// MachineName is the name of a virtual machine with an id. An instance of a scale set is named SET_INSTANCE.
func MachineName(id string) string {
	segments := strings.Split(id, "/")
	n := len(segments)
	if n >= 4 && strings.EqualFold(segments[n-4], "virtualMachineScaleSets") {
		return segments[n-3] + "_" + segments[n-1]
	}
	return segments[n-1]
}

// Target finds the NICs that Azure's diagnostics look at: the NIC of a name or id, or all
// NICs of a virtual machine. A name that fits both means the NIC.
func (s *Set) Target(nameOrID string) ([]*NetworkInterface, error) {
	if IsVirtualMachineID(nameOrID) {
		return s.VirtualMachine(nameOrID)
	}
	nic, err := s.NetworkInterface(nameOrID)
	if err == nil {
		return []*NetworkInterface{nic}, nil
	}
	if nics, vmErr := s.VirtualMachine(nameOrID); vmErr == nil {
		return nics, nil
	}
	return nil, err
}

// IsVirtualMachineID reports whether id is the id of a virtual machine, or its end.
func IsVirtualMachineID(id string) bool {
	segments := strings.Split(id, "/")
	return len(segments) >= 2 && strings.EqualFold(segments[len(segments)-2], "virtualMachines")
}

// SameVirtualMachine reports whether two ids, or ends of ids, mean one virtual machine.
func SameVirtualMachine(a, b string) bool { return names(a, b) || names(b, a) }

// names reports whether a reference is a key, in any case, or the key's end after a slash:
// "resourceGroups/R/providers/Microsoft.Network/networkInterfaces/N".
func names(reference, key string) bool {
	if strings.EqualFold(key, reference) {
		return true
	}
	start := len(key) - len(reference)
	return start > 0 && key[start-1] == '/' && strings.Contains(reference, "/") && strings.EqualFold(key[start:], reference)
}

// find compares the name with each of an object's keys. Messages show the first key; the
// second key is the id.
func find[T any](kind, nameOrID string, objects []*T, keys func(*T) []string) (*T, error) {
	return findAmong(objects, kind, nameOrID, objects, keys)
}

// findAmong is find where candidates are all objects that the name can fit.
func findAmong[T any](candidates []*T, kind, nameOrID string, objects []*T, keys func(*T) []string) (*T, error) {
	var found []*T
	for _, o := range candidates {
		for _, key := range keys(o) {
			if key != "" && names(nameOrID, key) {
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
		return ruleset.Listed(texts)
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, fmt.Errorf("%s %q is ambiguous: %s", kind, nameOrID, show(found, 1))
	case len(objects) == 0:
		return nil, fmt.Errorf("%s %q not found: the policy has none", kind, nameOrID)
	}
	near := ruleset.NewNearMiss(nameOrID)
	if len(objects) > ruleset.MaxListed && len(objects) <= maxCompared { // a shorter list is shown whole
		for _, o := range objects {
			near.Try(keys(o)[0], strings.ToLower(keys(o)[0]), false)
		}
	}
	return nil, fmt.Errorf("%s %q not found: the policy has %s%s", kind, nameOrID, show(objects, 0), near.Hint())
}

// maxCompared bounds the search for near names: a batch of questions may hold thousands
// of unknown names.
const maxCompared = 2000
