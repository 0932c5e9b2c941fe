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

// receiver is who receives a flow that comes in.
type receiver struct {
	way topology.Way
	// entered says that the local address stands for others: the way leads from it to the NIC.
	entered bool
	// drop says that there is no NIC behind the local address for this flow.
	drop packet.Drop
	// port is the source port that leads there; valid with entered.
	port uint16
}

// receivingEnd finds who receives what the remote end sends as p: the owner of the local address, or
// whoever the public IP or load balancer with that address leads to.
func receivingEnd(s *topology.Snapshot, q *azure.Flow, p *packet.Packet) (to receiver, err error) {
	if owned(s.Policy, q.Local) == "" || namesOwner(s, q) {
		if to.way.To, err = localEnd(s, q); err == nil {
			to.way.Closed = s.ClosedTo(to.way.To, q.Remote)
		}
		to.way.Arrives = p.Tuple
		return to, err
	}
	src := remoteEnd(s, q, frontendSubnet(s, q.Local))
	switch {
	case src == nil && s.Foreign(q.Remote):
		to.entered, to.drop = true, packet.DropSpoofed
		return to, nil
	case src == nil:
		return to, fmt.Errorf("remote address %s: nobody has it, or several virtual networks do", q.Remote)
	}
	to.enter(s, src, &p.Tuple)
	if to.way.To == nil || q.NetworkInterface == "" {
		return to, nil
	}
	nics, err := s.Policy.Target(q.NetworkInterface)
	if err != nil {
		return to, err
	}
	chosen := interfaceOf(to.way.To)
	if chosen == nil || slices.Contains(nics, chosen) || to.another(s, src, &p.Tuple, nics) {
		return to, nil
	}
	return to, fmt.Errorf("%s, %s, leads this flow to network interface %q, not to %q", q.Local, owned(s.Policy, q.Local), chosen.Name, q.NetworkInterface)
}

// enter takes the way from the local address on. That nothing is attached to its end is of no meaning
// for the NIC's own chain.
func (to *receiver) enter(s *topology.Snapshot, src *topology.Endpoint, sent *packet.Tuple) {
	to.entered, to.port = true, sent.SrcPort
	to.drop = s.Way(src, sent, &to.way)
	if to.way.To != nil && !to.drop.OfTranslation() {
		to.drop = packet.NotDropped
	}
	if to.way.Ports != nil {
		s.Choose(&to.way, sent)
	}
}

// another takes the way to one of some NICs instead, if a load balancer may lead there. It would with
// another source port, and the question's stands for any.
func (to *receiver) another(s *topology.Snapshot, src *topology.Endpoint, sent *packet.Tuple, nics []*policy.NetworkInterface) bool {
	const ports = 256
	for n := range uint16(ports) {
		k, other := *sent, receiver{}
		k.SrcPort += n
		if other.enter(s, src, &k); other.way.To != nil && slices.Contains(nics, other.way.To.NetworkInterface) {
			*to = other
			to.way.Arrives.SrcPort = sent.SrcPort
			return true
		}
	}
	return false
}

// sender is who sends a flow that comes in; nil when nobody can.
func (to *receiver) sender(s *topology.Snapshot, q *azure.Flow) *topology.Endpoint {
	if e := publicOwner(s, q.Remote); e != nil {
		return e
	}
	if to.entered {
		return remoteEnd(s, q, frontendSubnet(s, q.Local))
	}
	return remoteEnd(s, q, to.way.To.Subnet)
}

// remoteEnd is who sends from a remote address into a subnet, or to a public address when sub is nil; nil
// when nobody can, or one of several.
func remoteEnd(s *topology.Snapshot, q *azure.Flow, sub *policy.Subnet) *topology.Endpoint {
	if sub != nil {
		if e := s.SenderInto(sub, q.Remote); e != nil {
			return e
		}
	}
	if owner := s.Owner(q.Remote); owner != nil && (sub == nil || owner.Subnet != nil) {
		return owner
	}
	// The network may have no way back to the sender.
	if all := admitters(s, packet.AddrFrom(q.Remote)); len(all) == 1 {
		return all[0]
	}
	return nil
}

// frontendSubnet is the subnet with an internal frontend; nil: none has the address, or those of several
// virtual networks do.
func frontendSubnet(s *topology.Snapshot, a netip.Addr) (sub *policy.Subnet) {
	for _, b := range s.Policy.LoadBalancers {
		for _, f := range b.Frontends {
			switch {
			case f.Subnet == nil || f.Address != a:
			case sub != nil && sub.VirtualNetwork != f.Subnet.VirtualNetwork:
				return nil
			default:
				sub = f.Subnet
			}
		}
	}
	return sub
}

// admitters are the endpoints whose attachments let in what an address sends. NICs are left out: one
// that forwards lets in everything.
func admitters(s *topology.Snapshot, src packet.Addr) (all []*topology.Endpoint) {
	for _, a := range s.Attachments {
		if a.Kind == topology.NetworkInterface {
			continue
		}
		if e := s.Admit(a, src); e != nil {
			all = append(all, e)
		}
	}
	return all
}

// sendingEnd finds who sends a flow. Where the local address is a public IP, it makes k what the NIC
// behind it sends.
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

// byAddress is the owner of a private address, for a question that names no NIC.
func byAddress(s *topology.Snapshot, a netip.Addr) (*topology.Endpoint, error) {
	e := s.Owner(a)
	if e != nil && e.NetworkInterface != nil {
		return e, nil
	}
	return nil, fmt.Errorf("targetNicResourceId is missing: it names the network interface, which local address %s alone does not tell", a)
}

// localEnd finds the endpoint of a question's local address: of a virtual machine's NICs the one that
// has it.
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
			return e, ofMachine(nic, q.VirtualMachine)
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

// ofMachine refuses a NIC of another virtual machine than the question names.
func ofMachine(nic *policy.NetworkInterface, vm string) error {
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
