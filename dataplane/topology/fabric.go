package topology

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Several hosts may share one policy, each with attachments of its own. Each builds the snapshot of the whole policy. An
// end that is attached to another host is behind an attachment of the kind Fabric, whose packets the hosts carry to
// each other as they are. A packet on its way between two hosts meets one attachment with the same identity at each: an
// identity stands for one number of a virtual network between the hosts.

// FabricSort says what an attachment of the kind Fabric leads to.
type FabricSort uint8

// The sorts of fabrics. All but FabricGroup belong to one host; there the attachment is where packets for it arrive.
const (
	// FabricGroup leads to all of a group of peered virtual networks: a packet's destination says to which host.
	FabricGroup FabricSort = iota
	// FabricInterface leads to a NIC that receives what is not addressed to it, see FabricInterfaces.
	FabricInterface
	// FabricGateway leads to the on-premises networks behind a virtual network's gateway.
	FabricGateway
	// FabricInternet leads a group to the internet at one host, and what that host has translated to the group: a
	// packet's destination says to which host.
	FabricInternet
)

var fabricSorts = [...]string{"group", "networkInterface", "gateway", "internet"}

// String is the word in identities.
func (s FabricSort) String() string { return fabricSorts[s] }

// fabric is what an attachment of the kind Fabric leads to.
type fabric struct {
	sort  FabricSort
	index int // of the attachment
	group *fabricGroup
	host  string // of FabricInternet
	own   bool   // it is this host's: packets for it arrive here
	// entry are the endpoints here for which packets arrive, of own interfaces and gateways.
	entry []*Endpoint
	nic   *policy.NetworkInterface // of FabricInterface
	at    *network                 // of FabricGateway
}

// fabricGroup is a group of virtual networks that are peered, one with the next, or share a virtual hub.
type fabricGroup struct {
	networks []*network
	id       string // the lowest of the networks' ids
	// attachment is the index of the group's fabric, internet that of the fabric to the internet of the
	// host that was chosen, and own that of this host's fabric for the internet of others; -1: none.
	attachment, internet, own int
	hosts                     *bart.Table[*Endpoint] // who has an address in the group
	gateways                  []*network             // with a gateway elsewhere
	// forwarder is an endpoint elsewhere that sends what it does not own; nil: none does.
	forwarder *Endpoint
	floating  map[packet.Addr]*Endpoint // endpoints elsewhere that answer from floating addresses
}

// PeeredGroup is a group of virtual networks that one fabric carries.
type PeeredGroup struct {
	// ID is the lowest of the networks' ids, in lower case.
	ID       string
	Networks []*policy.VirtualNetwork // in the policy's order
}

// FabricGroups are the groups of a policy's virtual networks that reach each other by peerings or by a virtual hub,
// one directly or by way of others. Each needs a Spec of sort FabricGroup on every host with an end in it.
func FabricGroups(set *policy.Set) (list []PeeredGroup) {
	for _, g := range newNetworks(set, nil).groups() {
		one := PeeredGroup{ID: g.id}
		for _, n := range g.networks {
			one.Networks = append(one.Networks, n.vnet)
		}
		list = append(list, one)
	}
	return list
}

// FabricInterfaces are the NICs of a policy, in its order, that receive what is not addressed to them: appliances that a
// route names, by their address or by a load balancer's, and backends with floating IP. Each needs
// a Spec of sort FabricInterface on every host that has the fabric of its group, its own included.
func FabricInterfaces(set *policy.Set) (list []*policy.NetworkInterface) {
	named := map[netip.Addr]bool{}
	for _, v := range set.VirtualNetworks {
		for _, sub := range v.Subnets {
			if sub.RouteTable == nil {
				continue
			}
			for i := range sub.RouteTable.Routes {
				if r := &sub.RouteTable.Routes[i]; r.Hop == policy.HopVirtualAppliance {
					named[r.Appliance] = true
				}
			}
		}
	}
	receives := map[*policy.NetworkInterface]bool{}
	eachBackend(set, func(f *policy.Frontend, floating bool, b *policy.Backend) {
		if nic := interfaceOf(set, b); nic != nil && (floating || nic.EnableIPForwarding && named[f.Address]) {
			receives[nic] = true
		}
	})
	for _, nic := range set.NetworkInterfaces {
		forwards := nic.EnableIPForwarding && slices.ContainsFunc(nic.IPConfigurations, func(c policy.IPConfiguration) bool { return named[c.Address] })
		if receives[nic] || forwards {
			list = append(list, nic)
		}
	}
	return list
}

// FloatingAddresses are the addresses of frontends that NICs answer from, as backends with floating IP.
func FloatingAddresses(set *policy.Set) map[*policy.NetworkInterface][]netip.Addr {
	list := map[*policy.NetworkInterface][]netip.Addr{}
	eachBackend(set, func(f *policy.Frontend, floating bool, b *policy.Backend) {
		if nic := interfaceOf(set, b); floating && nic != nil && f.Address.IsValid() && !slices.Contains(list[nic], f.Address) {
			list[nic] = append(list[nic], f.Address)
		}
	})
	return list
}

// eachBackend visits the backends behind the rules of all load balancers.
func eachBackend(set *policy.Set, visit func(f *policy.Frontend, floating bool, b *policy.Backend)) {
	for _, lb := range set.LoadBalancers {
		for _, r := range lb.Rules {
			for _, p := range r.Pools {
				for i := range p.Backends {
					visit(r.Frontend, r.FloatingIP, &p.Backends[i])
				}
			}
		}
		for _, r := range lb.NATRules {
			if r.Backend != nil {
				visit(r.Frontend, r.FloatingIP, r.Backend)
			}
			if r.Pool != nil {
				for i := range r.Pool.Backends {
					visit(r.Frontend, r.FloatingIP, &r.Pool.Backends[i])
				}
			}
		}
	}
}

// interfaceOf is the NIC that has a backend's address; nil: none has.
func interfaceOf(set *policy.Set, b *policy.Backend) *policy.NetworkInterface {
	if b.NetworkInterface != nil {
		return b.NetworkInterface
	}
	for _, nic := range set.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			if c := &nic.IPConfigurations[i]; c.Address == b.Address && c.Subnet.VirtualNetwork == b.VirtualNetwork {
				return nic
			}
		}
	}
	return nil
}

// groups are the networks in groups, in the order of their first networks.
func (s *networkSet) groups() (list []*fabricGroup) {
	leader := map[*network]*network{}
	var find func(n *network) *network
	find = func(n *network) *network {
		if l := leader[n]; l != nil && l != n {
			leader[n] = find(l)
			return leader[n]
		}
		return n
	}
	hubs := map[*policy.HubTable]*network{}
	for _, n := range s.list {
		for i := range n.peers {
			if other := n.peers[i].network; other != nil {
				leader[find(other)] = find(n)
			}
		}
		if t := n.vnet.HubTable; t != nil {
			if first := hubs[t]; first != nil {
				leader[find(n)] = find(first)
				continue
			}
			hubs[t] = n
			for _, r := range t.Routes {
				if other := s.of[r.Network]; other != nil {
					leader[find(other)] = find(n)
				}
			}
		}
	}
	of := map[*network]*fabricGroup{}
	for _, n := range s.list {
		g, id := of[find(n)], strings.ToLower(n.vnet.ID)
		if g == nil {
			g = &fabricGroup{id: id, attachment: -1, internet: -1, own: -1}
			of[find(n)] = g
			list = append(list, g)
		}
		g.networks, g.id = append(g.networks, n), min(g.id, id)
	}
	return list
}

// groupNetworks puts networks into groups, if some of the specs are fabrics. A fabric finds a host by an address, so that
// no two networks of a group may have the same.
func groupNetworks(networks *networkSet, specs []Spec, f *faults) {
	if !slices.ContainsFunc(specs, func(s Spec) bool { return s.Kind == Fabric }) {
		return
	}
	for _, g := range networks.groups() {
		for _, n := range g.networks {
			n.group = g
		}
	}
	for i, s := range specs {
		if s.Kind == Fabric && s.Sort == FabricGateway && len(s.Prefixes) == 0 {
			f.add("attachment %d: the fabric to the gateway of virtual network %q has no prefixes: those of the networks behind it are needed", s.number(i), s.Reference)
		}
	}
}

// checkSpaces finds networks of the group with the same addresses.
func (g *fabricGroup) checkSpaces(number int, f *faults) {
	type space struct {
		prefix netip.Prefix
		of     *network
	}
	var all []space
	for _, n := range g.networks {
		for _, p := range n.vnet.AddressSpace {
			all = append(all, space{p.Masked(), n})
		}
	}
	slices.SortStableFunc(all, func(a, b space) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
	for i := 1; i < len(all); i++ {
		if a, b := all[i-1], all[i]; a.of != b.of && a.prefix.Overlaps(b.prefix) {
			f.add("attachment %d: the address spaces of virtual networks %q and %q overlap: %s and %s: networks that peerings connect across hosts need addresses of their own",
				number, a.of.vnet.Name, b.of.vnet.Name, a.prefix, b.prefix)
		}
	}
}

// gatewaysOf are the specs of gateways with their indexes, this host's first.
func gatewaysOf(specs []Spec) func(yield func(int, Spec) bool) {
	return func(yield func(int, Spec) bool) {
		for _, kind := range []Kind{Gateway, Fabric} {
			for i, s := range specs {
				if s.Kind == kind && (kind == Gateway || s.Sort == FabricGateway) && !yield(i, s) {
					return
				}
			}
		}
	}
}

// fabricID is the identity of a fabric behind its kind; empty when the policy lacks what it leads to.
func (s *Spec) fabricID(set *policy.Set) string {
	if s.Sort == FabricInterface {
		nic, err := set.NetworkInterface(s.Reference)
		if err != nil {
			return ""
		}
		return s.Sort.String() + " " + nic.ID
	}
	v, err := set.VirtualNetwork(s.Reference)
	switch {
	case err != nil:
		return ""
	case s.Sort == FabricGateway:
		return s.Sort.String() + " " + v.ID
	}
	networks := newNetworks(set, nil)
	for _, g := range networks.groups() {
		if slices.Contains(g.networks, networks.of[v]) {
			return s.idOf(g)
		}
	}
	return ""
}

func (s *Spec) idOf(g *fabricGroup) string {
	if s.Sort == FabricInternet {
		return fmt.Sprint(s.Sort, " ", s.Host, " ", g.id)
	}
	return s.Sort.String() + " " + g.id
}

// placeFabric fills an attachment of the kind Fabric; see place.
func (s *attachedSet) placeFabric(set *policy.Set, a *Attachment, spec *Spec) (what any, id string, err error) {
	a.fabric = &fabric{sort: spec.Sort, index: a.Index, host: spec.Host}
	switch spec.Sort {
	case FabricInterface:
		nic, err := set.NetworkInterface(spec.Reference)
		if err != nil {
			return nil, "", err
		}
		if len(nic.IPConfigurations) == 0 {
			return nil, "", fmt.Errorf("network interface %q has no ipConfiguration with a private address", nic.Name)
		}
		a.fabric.nic, a.network = nic, s.networks.of[nic.IPConfigurations[0].Subnet.VirtualNetwork]
		a.Name, id = nic.Name, nic.ID
	case FabricGroup, FabricGateway, FabricInternet:
		v, err := set.VirtualNetwork(spec.Reference)
		if err != nil {
			return nil, "", err
		}
		n := s.networks.of[v]
		a.network, a.Name, id = n, v.Name, v.ID
		if spec.Sort == FabricGateway {
			a.fabric.at = n
			break
		}
		a.Name, id = n.group.networks[0].vnet.Name, n.group.id
		if spec.Sort == FabricInternet {
			if spec.Host == "" {
				return nil, "", errors.New("a fabric to the internet needs the name of the host with the internet")
			}
			a.Name, id = spec.Host+" "+a.Name, spec.Host+" "+id
		}
	default:
		return nil, "", fmt.Errorf("sort %d of a fabric: allowed are 0 to %d", spec.Sort, len(fabricSorts)-1)
	}
	a.fabric.group = a.network.group
	if spec.Sort == FabricGroup {
		a.fabric.group.attachment = a.Index
	}
	a.Name = Fabric.String() + " " + spec.Sort.String() + " " + a.Name
	a.id = spec.Sort.String() + " " + id
	return Fabric.String() + " " + strings.ToLower(a.id), a.id, nil
}
