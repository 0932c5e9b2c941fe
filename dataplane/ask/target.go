package ask

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// entry is a flow that comes in.
type entry struct {
	way topology.Way
	// entered says that the local address is one that the outside sees: the way leads from
	// there to the NIC.
	entered bool
	drop    packet.Drop
}

// sender is who sends a flow that comes in; nil when nobody can.
func (in *entry) sender(s *topology.Snapshot, q *azure.Flow) *topology.Endpoint {
	if e := publicOwner(s, q.Remote); e != nil {
		return e
	}
	owner := s.Owner(q.Remote)
	if in.entered {
		return owner
	}
	if e := s.Sender(in.way.To, q.Remote); e != nil {
		return e
	}
	if owner != nil && owner.Subnet != nil {
		return owner // of a network without a way back: what it sends is still to be judged
	}
	return nil
}

// receivingEnd finds who receives a flow that is sent as k: who has the local address, or whoever
// the public IP or load balancer with that address leads to.
func receivingEnd(s *topology.Snapshot, q *azure.Flow, k *packet.Tuple) (in entry, err error) {
	if owned(s.Policy, q.Local) == "" || namesOwner(s, q) {
		in.way.To, err = localEnd(s, q)
		in.way.Arrives = *k
		return in, err
	}
	src := s.Owner(q.Remote)
	if src == nil {
		return in, fmt.Errorf("remote address %s: nobody has it", q.Remote)
	}
	in.entered = true
	if in.drop = s.Way(src, k, &in.way); in.way.To == nil || q.NetworkInterface == "" {
		return in, nil
	}
	nics, err := s.Policy.Target(q.NetworkInterface)
	if err != nil {
		return in, err
	}
	chosen := interfaceOf(in.way.To)
	if chosen == nil || slices.Contains(nics, chosen) || in.another(s, src, k, nics) {
		return in, nil
	}
	return in, fmt.Errorf("%s, %s, leads this flow to network interface %q, not to %q", q.Local, owned(s.Policy, q.Local), chosen.Name, q.NetworkInterface)
}

// another takes the way to one of some NICs instead, if a load balancer might lead there: it would with
// another source port, of which the question's stands for any.
func (in *entry) another(s *topology.Snapshot, src *topology.Endpoint, k *packet.Tuple, nics []*policy.NetworkInterface) bool {
	const ports = 256
	for n := range uint16(ports) {
		other, way := *k, topology.Way{}
		other.SrcPort += n
		if drop := s.Way(src, &other, &way); way.To != nil && slices.Contains(nics, way.To.NetworkInterface) {
			in.way, in.drop = way, drop
			in.way.Arrives.SrcPort = k.SrcPort
			return true
		}
	}
	return false
}

// sendingEnd finds who sends a flow, and makes k what it sends when the local address is its public IP.
func sendingEnd(s *topology.Snapshot, q *azure.Flow, k *packet.Tuple) (*topology.Endpoint, error) {
	what := owned(s.Policy, q.Local)
	if what == "" || namesOwner(s, q) {
		return localEnd(s, q)
	}
	e := publicOwner(s, q.Local)
	if e == nil {
		return nil, fmt.Errorf("local address %s is %s, which several may send from: give the private address", q.Local, what)
	}
	private := *q
	private.Local = e.Address()
	if private.NetworkInterface == "" {
		private.NetworkInterface = e.NetworkInterface.ID
	}
	k.Src = packet.AddrFrom(private.Local)
	return localEnd(s, &private)
}

// namesOwner reports that a network interface that the question names has the local address itself.
// In another network the same address may stand for others.
func namesOwner(s *topology.Snapshot, q *azure.Flow) bool {
	if q.NetworkInterface == "" {
		return false
	}
	nics, _ := s.Policy.Target(q.NetworkInterface)
	return slices.ContainsFunc(nics, func(nic *policy.NetworkInterface) bool { return s.Endpoint(nic, q.Local) != nil })
}

// publicOwner is the endpoint that has a public IP of its own; nil when none has.
func publicOwner(s *topology.Snapshot, public netip.Addr) *topology.Endpoint {
	for _, nic := range s.Policy.NetworkInterfaces {
		if c := behind(nic, public); c != nil {
			return s.Endpoint(nic, c.Address)
		}
	}
	return nil
}

// behindPublic is the ipConfiguration of an endpoint's NIC that has a public address.
func behindPublic(e *topology.Endpoint, public netip.Addr) *policy.IPConfiguration {
	if e.NetworkInterface == nil {
		return nil
	}
	return behind(e.NetworkInterface, public)
}

// byAddress is who has a private address, when the question names no NIC.
func byAddress(s *topology.Snapshot, a netip.Addr) (*topology.Endpoint, error) {
	e := s.Owner(a)
	if e != nil && e.NetworkInterface != nil {
		return e, nil
	}
	return nil, fmt.Errorf("targetNicResourceId is missing: it names the network interface, which local address %s alone does not tell", a)
}

// localEnd finds the NIC and the endpoint of a question: of a virtual machine's NICs the
// one that has the address.
func localEnd(s *topology.Snapshot, q *azure.Flow) (*topology.Endpoint, error) {
	if q.NetworkInterface == "" {
		return byAddress(s, q.Local)
	}
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
func belongs(nic *policy.NetworkInterface, vm string) error {
	if vm == "" || nic.VirtualMachineID == "" || policy.SameVirtualMachine(vm, nic.VirtualMachineID) {
		return nil
	}
	return fmt.Errorf("network interface %q belongs to virtual machine %q, not to %q", nic.Name, nic.VirtualMachineID, vm)
}

func anyForwards(nics []*policy.NetworkInterface) bool {
	for _, nic := range nics {
		if nic.EnableIPForwarding {
			return true
		}
	}
	return false
}

func nicNames(nics []*policy.NetworkInterface) string {
	names := make([]string, len(nics))
	for i, nic := range nics {
		names[i] = nic.Name
	}
	return strings.Join(names, ", ")
}

func addresses(nic *policy.NetworkInterface) []netip.Addr {
	var list []netip.Addr
	for i := range nic.IPConfigurations {
		list = append(list, nic.IPConfigurations[i].Address)
	}
	return list
}
