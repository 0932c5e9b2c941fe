package topology

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
)

// Spec asks for one attachment.
type Spec struct {
	Kind Kind
	// Reference is the NIC's or subnet's ARM name or id; empty for the others.
	Reference string
}

// Build makes a snapshot of a policy and the attachments that serve it, in
// their order. With no specs it answers questions about the policy alone.
// Every fault is reported, joined; nothing of the registry changes unless Build
// succeeds.
func Build(policy *arm.Set, specs []Spec, registry *Registry) (*Snapshot, error) {
	return Rebuild(nil, policy, specs, registry)
}

// Rebuild is Build that takes the compiled rules of an earlier snapshot where they
// are what compiling anew would give: a direction of an NSG whose rules, and all that
// their tags and application security groups stand for, are equal. earlier may be nil.
func Rebuild(earlier *Snapshot, policy *arm.Set, specs []Spec, registry *Registry) (*Snapshot, error) {
	b := &builder{
		s:        &Snapshot{Policy: policy, endpoints: map[endpointKey]*Endpoint{}, registry: registry},
		networks: map[*arm.VirtualNetwork]*network{},
		groups:   map[groupKey]*Group{},
		members:  map[string][]netip.Prefix{},
		sides:    map[string][]netip.Prefix{},
		spaces:   map[string][]netip.Prefix{},
	}
	b.s.outside = &Endpoint{Attachment: -1}
	b.s.platform = &Endpoint{Attachment: -1}
	b.labelGroups()
	b.groupMembers()
	b.networkGroups()
	b.addNetworks()
	b.addUnused()
	b.resolveGroups(earlier)
	b.attach(specs)
	b.addRoutes()
	if len(b.faults) > 0 {
		return nil, errors.Join(b.faults...)
	}
	if err := b.assignSlots(registry); err != nil {
		return nil, err
	}
	b.compile()
	return b.s, nil
}

type groupKey struct {
	nsg     *ruleset.NSG
	network *network
}

type builder struct {
	s        *Snapshot
	networks map[*arm.VirtualNetwork]*network
	labels   map[*ruleset.NSG]string
	groups   map[groupKey]*Group
	members  map[string][]netip.Prefix       // ASG id in lower case -> addresses
	sides    map[string][]netip.Prefix       // ASG ids as a rule lists them -> addresses of all
	spaces   map[string][]netip.Prefix       // network group id in lower case -> address spaces of all
	pending  []*Table                        // to be compiled
	nics     []*Endpoint                     // in the policy's order
	subnets  []*Endpoint                     // the other addresses of each subnet
	owners   bart.Table[*arm.VirtualNetwork] // by subnet prefix; nil where several have it
	faults   []error
}

func (b *builder) fail(format string, args ...any) {
	b.faults = append(b.faults, fmt.Errorf("topology: "+format, args...))
}

// labelGroups names NSGs and rule collections for metrics: by name, or by id where a name
// is not unique. A collection's name has slashes, which no NSG's can have.
func (b *builder) labelGroups() {
	all := slices.Clone(b.s.Policy.NetworkSecurityGroups)
	for _, c := range b.s.Policy.AdminCollections {
		all = append(all, c.Rules)
	}
	count := map[string]int{}
	for _, g := range all {
		count[strings.ToLower(g.Name)]++
	}
	b.labels = map[*ruleset.NSG]string{}
	for _, g := range all {
		b.labels[g] = g.Name
		if count[strings.ToLower(g.Name)] > 1 {
			b.labels[g] = g.ID
		}
	}
}

func (b *builder) groupMembers() {
	for _, nic := range b.s.Policy.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			c := &nic.IPConfigurations[i]
			for _, id := range c.ApplicationSecurityGroups {
				id = strings.ToLower(id)
				b.members[id] = append(b.members[id], host(c.Address))
			}
		}
	}
}

func (b *builder) addNetworks() {
	for _, v := range b.s.Policy.VirtualNetworks {
		n := &network{vnet: v, tags: map[string][]netip.Prefix{}}
		b.networks[v] = n
		b.s.networks = append(b.s.networks, n)
		n.adminInbound, n.adminOutbound = b.adminStages(n)
		for _, p := range v.AddressSpace {
			b.s.space.Insert(p)
		}
		for _, sub := range v.Subnets {
			e := &Endpoint{Subnet: sub, Attachment: -1, Established: v.FlowTimeout}
			b.chain(e, n)
			b.subnets = append(b.subnets, e)
		}
	}
	for _, nic := range b.s.Policy.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			c := &nic.IPConfigurations[i]
			n := b.networks[c.Subnet.VirtualNetwork]
			e := &Endpoint{NetworkInterface: nic, Subnet: c.Subnet, Attachment: -1,
				Established: c.Subnet.VirtualNetwork.FlowTimeout, Stateless: nic.DisableTCPStateTracking,
				address: packet.AddrFrom(c.Address)}
			b.chain(e, n)
			b.nics = append(b.nics, e)
			b.s.endpoints[endpointKey{nic, c.Address.Unmap()}] = e
		}
	}
}

// chain sets the stages of an endpoint in Azure's order: inbound the subnet's
// NSG and then the NIC's, outbound the other way round.
func (b *builder) chain(e *Endpoint, n *network) {
	b.s.members = append(b.s.members, e)
	e.AdminInbound, e.AdminOutbound = n.adminInbound, n.adminOutbound
	var subnet, nic *Group
	if g := e.Subnet.NetworkSecurityGroup; g != nil {
		subnet = b.group(g, n)
	}
	if e.NetworkInterface != nil && e.NetworkInterface.NetworkSecurityGroup != nil {
		nic = b.group(e.NetworkInterface.NetworkSecurityGroup, n)
	}
	if subnet != nil {
		e.Inbound = append(e.Inbound, Stage{SubnetAssociation, ruleset.Inbound, subnet, &subnet.Inbound})
	}
	if nic != nil {
		e.Inbound = append(e.Inbound, Stage{NetworkInterfaceAssociation, ruleset.Inbound, nic, &nic.Inbound})
		e.Outbound = append(e.Outbound, Stage{NetworkInterfaceAssociation, ruleset.Outbound, nic, &nic.Outbound})
	}
	if subnet != nil {
		e.Outbound = append(e.Outbound, Stage{SubnetAssociation, ruleset.Outbound, subnet, &subnet.Outbound})
	}
}

// group makes the group of an NSG for a network once; resolveGroups fills it.
func (b *builder) group(nsg *ruleset.NSG, n *network) *Group {
	key := groupKey{nsg, n}
	if g := b.groups[key]; g != nil {
		return g
	}
	g := &Group{NSG: nsg, Label: b.labels[nsg], network: n}
	b.groups[key] = g
	b.s.Groups = append(b.s.Groups, g)
	return g
}

// addUnused adds the NSGs that no subnet or NIC uses, so that they are checked and
// can be shown, and puts all into the policy's order.
func (b *builder) addUnused() {
	used := map[*ruleset.NSG]bool{}
	for _, g := range b.s.Groups {
		used[g.NSG] = true
	}
	order := map[*ruleset.NSG]int{}
	for i, c := range b.s.Policy.AdminCollections {
		order[c.Rules] = i - len(b.s.Policy.AdminCollections)
		if !used[c.Rules] {
			b.group(c.Rules, &network{tags: map[string][]netip.Prefix{}})
		}
	}
	for i, nsg := range b.s.Policy.NetworkSecurityGroups {
		order[nsg] = i
		if !used[nsg] {
			b.group(nsg, &network{tags: map[string][]netip.Prefix{}})
		}
	}
	slices.SortStableFunc(b.s.Groups, func(x, y *Group) int { return order[x.NSG] - order[y.NSG] })
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()) }

// attach places the attachments and tells each endpoint which of them leads to it.
func (b *builder) attach(specs []Spec) {
	taken := map[any]int{}
	for i, spec := range specs {
		a := &Attachment{Index: i, Kind: spec.Kind}
		b.s.Attachments = append(b.s.Attachments, a)
		var what any = spec.Kind
		switch spec.Kind {
		case NetworkInterface:
			nic, err := b.s.Policy.NetworkInterface(spec.Reference)
			if err != nil {
				b.fail("attachment %d: %w", i, err)
				continue
			}
			what = nic
			b.attachNIC(a, nic)
		case Subnet:
			sub, err := b.s.Policy.Subnet(spec.Reference)
			if err != nil {
				b.fail("attachment %d: %w", i, err)
				continue
			}
			what = sub
			a.Name, a.id, a.network = sub.Name, sub.ID, b.networks[sub.VirtualNetwork]
		case Internet:
			a.Name, b.s.outside.Attachment = "internet", i
		case Platform:
			a.Name, b.s.platform.Attachment = "platform", i
			for _, addr := range PlatformAddresses {
				a.Addresses = append(a.Addresses, host(addr))
			}
		}
		if first, dup := taken[what]; dup {
			b.fail("attachment %d: %s %q is attached already by attachment %d", i, spec.Kind, a.Name, first)
		}
		taken[what] = i
	}
	b.attachSubnets()
	b.uniqueNames()
}

func (b *builder) attachNIC(a *Attachment, nic *arm.NetworkInterface) {
	a.Name, a.id, a.forwards = nic.Name, nic.ID, nic.EnableIPForwarding
	for _, e := range b.nics {
		if e.NetworkInterface != nic {
			continue
		}
		e.Attachment, e.Limited = a.Index, true
		a.network = b.networks[e.Subnet.VirtualNetwork]
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
		b.fail("attachment %d: network interface %q has no ipConfiguration with a private address", a.Index, nic.Name)
	}
}

// attachSubnets gives a subnet's attachment every endpoint of it that no NIC
// attachment took.
func (b *builder) attachSubnets() {
	for _, a := range b.s.Attachments {
		if a.Kind != Subnet {
			continue
		}
		for _, e := range slices.Concat(b.nics, b.subnets) {
			if e.Attachment < 0 && e.Subnet.ID == a.id {
				e.Attachment = a.Index
			}
		}
	}
}

// uniqueNames makes attachment names fit for a metric's label: where two share a
// name, both are known by their ids.
func (b *builder) uniqueNames() {
	count := map[string]int{}
	for _, a := range b.s.Attachments {
		count[a.Name]++
	}
	for _, a := range b.s.Attachments {
		if count[a.Name] > 1 && a.id != "" {
			a.Name = a.id
		}
	}
}

// unroutable are the ranges for which Azure's default routes have no next hop
// outside the virtual network, and those that no router forwards: this host,
// loopback, link-local and reserved (RFC 6890; RFC 4291 section 2.5).
var unroutable = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"),
}

// addRoutes fills the tables that Route searches.
func (b *builder) addRoutes() {
	for _, n := range b.s.networks {
		for _, p := range everywhere {
			n.route.Insert(p, b.s.outside)
		}
		for _, p := range slices.Concat(unroutable, n.vnet.AddressSpace) {
			n.route.Insert(p, nil)
		}
		for _, a := range PlatformAddresses {
			n.route.Insert(host(a), b.s.platform)
		}
	}
	for _, e := range b.subnets {
		for _, p := range e.Subnet.Prefixes {
			owner := e.Subnet.VirtualNetwork
			if first, ok := b.owners.Get(p); ok && first != owner {
				owner = nil
			}
			b.owners.Insert(p, owner)
		}
	}
	for _, e := range b.subnets {
		for _, p := range e.Subnet.Prefixes {
			b.insert(p, e)
			if p.Addr().Is4() && p.Bits() < 31 {
				broadcast := host(lastOf(p))
				b.networks[e.Subnet.VirtualNetwork].route.Insert(broadcast, nil)
				b.s.all.Insert(broadcast, nil)
			}
		}
	}
	for _, e := range b.nics {
		b.insert(host(e.address.Netip()), e)
	}
}

// lastOf is the highest address of an IPv4 prefix.
func lastOf(p netip.Prefix) netip.Addr {
	last := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(last)
}

// insert makes e reachable at p from its own network, and from outside unless
// another virtual network has p, or a range that holds it, for a subnet.
func (b *builder) insert(p netip.Prefix, e *Endpoint) {
	vnet := e.Subnet.VirtualNetwork
	b.networks[vnet].route.Insert(p, e)
	for _, owner := range b.owners.Supernets(p) {
		if owner != vnet {
			b.s.all.Insert(p, nil)
			return
		}
	}
	b.s.all.Insert(p, e)
}
