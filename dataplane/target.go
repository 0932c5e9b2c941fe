package dataplane

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
)

// localEnd finds the NIC and the endpoint of a question: of a virtual machine's NICs the
// one that has the address.
func localEnd(s *topology.Snapshot, q *arm.Flow) (*topology.Endpoint, error) {
	nics, err := s.Policy.Target(q.NetworkInterface)
	if err != nil {
		return nil, err
	}
	for _, nic := range nics {
		if e := s.Endpoint(nic, q.Local); e != nil && (len(nics) == 1 || !anyForwards(nics)) {
			return e, belongs(nic, q.VirtualMachine)
		}
	}
	if len(nics) == 1 {
		return nil, fmt.Errorf("network interface %q has no address %s; it has %s", nics[0].Name, q.Local, addresses(nics[0]))
	}
	if anyForwards(nics) {
		// As Azure: what a forwarding NIC receives need not be for an address of its own.
		return nil, fmt.Errorf("virtual machine %q has several network interfaces and one of them forwards: targetNicResourceId is needed; they are %s",
			q.NetworkInterface, nicNames(nics))
	}
	return nil, fmt.Errorf("virtual machine %q has no address %s; its network interfaces are %s", q.NetworkInterface, q.Local, nicNames(nics))
}

// belongs refuses a NIC that the policy says is another virtual machine's.
func belongs(nic *arm.NetworkInterface, vm string) error {
	if vm == "" || nic.VirtualMachineID == "" || arm.SameVirtualMachine(vm, nic.VirtualMachineID) {
		return nil
	}
	return fmt.Errorf("network interface %q belongs to virtual machine %q, not to %q", nic.Name, nic.VirtualMachineID, vm)
}

func anyForwards(nics []*arm.NetworkInterface) bool {
	for _, nic := range nics {
		if nic.EnableIPForwarding {
			return true
		}
	}
	return false
}

func nicNames(nics []*arm.NetworkInterface) string {
	names := make([]string, len(nics))
	for i, nic := range nics {
		names[i] = nic.Name
	}
	return strings.Join(names, ", ")
}

func addresses(nic *arm.NetworkInterface) []netip.Addr {
	var list []netip.Addr
	for i := range nic.IPConfigurations {
		list = append(list, nic.IPConfigurations[i].Address)
	}
	return list
}
