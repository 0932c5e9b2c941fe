package topology

import (
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// attachedSet is the endpoints, each with the attachment that leads to it.
type attachedSet struct {
	*endpointSet
	attachments []*Attachment // in the order of the specs
	ofNIC       map[*policy.NetworkInterface][]*Endpoint
}

// attach makes the attachments and tells each endpoint which of them leads to it.
func attach(set *policy.Set, specs []Spec, endpoints *endpointSet, f *faults) *attachedSet {
	s := &attachedSet{endpointSet: endpoints, ofNIC: make(map[*policy.NetworkInterface][]*Endpoint, len(set.NetworkInterfaces))}
	for _, e := range s.nics {
		s.ofNIC[e.NetworkInterface] = append(s.ofNIC[e.NetworkInterface], e)
	}
	taken := map[any]int{}
	for i := range specs {
		a := &Attachment{Index: i, Kind: specs[i].Kind}
		s.attachments = append(s.attachments, a)
		what, ok := s.place(set, a, &specs[i], f)
		if !ok {
			continue
		}
		if first, dup := taken[what]; dup {
			f.add("attachment %d: %s %q is attached already by attachment %d", specs[i].number(i), a.Kind, a.Name, specs[first].number(first))
		}
		taken[what] = i
	}
	s.placeSubnets()
	names := uniqueNames(s.attachments, func(a *Attachment) (name, id string) { return a.Name, a.id })
	for i, a := range s.attachments {
		a.Name = names[i]
	}
	return s
}

// place fills an attachment. what is the thing that only one attachment may stand for; ok is
// false when the policy lacks it, and for a vacant one.
func (s *attachedSet) place(set *policy.Set, a *Attachment, spec *Spec, f *faults) (what any, ok bool) {
	var err error
	id, number := "", spec.number(a.Index)
	switch spec.Kind {
	case Vacant:
		return nil, false
	case NetworkInterface:
		var nic *policy.NetworkInterface
		if nic, err = set.NetworkInterface(spec.Reference); err == nil {
			what, id = nic, nic.ID
			s.placeNIC(a, nic, number, f)
		}
	case Subnet:
		var sub *policy.Subnet
		if sub, err = set.Subnet(spec.Reference); err == nil {
			what, id = sub, sub.ID
			a.Name, a.id, a.network = sub.Name, sub.ID, s.networks.of[sub.VirtualNetwork]
		}
	case Gateway:
		var v *policy.VirtualNetwork
		if v, err = set.VirtualNetwork(spec.Reference); err == nil {
			what, id = v, v.ID
			s.placeGateway(a, v, spec.Prefixes, number, f)
		}
	case Fabric:
		what, id, err = s.placeFabric(set, a, spec)
	case Internet:
		what = spec.Kind
		a.Name, s.outside.Attachment, s.services.Attachment = "internet", a.Index, a.Index
	case Platform:
		what = spec.Kind
		a.Name, s.platform.Attachment = "platform", a.Index
		for _, addr := range PlatformAddresses[:2] { // addProbeSource adds the last
			a.Addresses = append(a.Addresses, host(addr))
		}
	}
	if err != nil {
		f.add("attachment %d: %w", number, err)
	}
	a.identity = identity(spec.Kind, id)
	return what, err == nil
}

func (s *attachedSet) placeNIC(a *Attachment, nic *policy.NetworkInterface, number int, f *faults) {
	a.Name, a.id, a.forwards = nic.Name, nic.ID, nic.EnableIPForwarding
	for _, e := range s.ofNIC[nic] {
		e.Attachment, e.Limited = a.Index, true
		a.network = s.networks.of[e.Subnet.VirtualNetwork]
		a.endpoints = append(a.endpoints, e)
		addr := e.address.Netip()
		bits := addr.BitLen()
		for _, p := range e.Subnet.Prefixes {
			if p.Contains(addr) {
				bits = p.Bits()
			}
		}
		a.Addresses = append(a.Addresses, netip.PrefixFrom(addr, bits))
	}
	if len(a.endpoints) == 0 {
		f.add("attachment %d: network interface %q has no ipConfiguration with a private address", number, nic.Name)
	}
}

func (s *attachedSet) placeGateway(a *Attachment, v *policy.VirtualNetwork, prefixes []netip.Prefix, number int, f *faults) {
	n := s.networks.of[v]
	a.Name, a.id, a.network = v.Name+"/"+gatewaySubnet, v.ID+"/"+gatewaySubnet, n
	if len(prefixes) == 0 {
		f.add("attachment %d: the gateway of virtual network %q has no prefixes: those of the networks behind it are needed", number, v.Name)
	}
	for _, p := range prefixes {
		for _, space := range v.AddressSpace {
			if p.Bits() > 0 && p.Overlaps(space) && p.Bits() >= space.Bits() {
				f.add("attachment %d: prefix %s of the gateway lies within the address space of its virtual network %q: %s", number, p, v.Name, space)
			}
		}
	}
}

// placeSubnets gives a subnet's attachment every endpoint of the subnet that no NIC's
// attachment took. Where the network has a fabric, NICs need attachments of their own.
func (s *attachedSet) placeSubnets() {
	for _, a := range s.attachments {
		if a.Kind != Subnet {
			continue
		}
		members := slices.Concat(s.nics, s.subnets)
		if a.network.group != nil && a.network.group.attachment >= 0 {
			members = s.subnets // NICs without an attachment are those of other hosts
		}
		for _, e := range members {
			if e.Attachment < 0 && e.Subnet.ID == a.id {
				e.Attachment = a.Index
			}
		}
	}
}

// host is the prefix of one address.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()) }
