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
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Spec asks for one attachment.
type Spec struct {
	Kind Kind
	// Reference is the ARM name or id of the NIC, the subnet, or the gateway's virtual
	// network; empty for the others.
	Reference string
	// Prefixes are the on-premises networks behind a gateway; of no meaning for others.
	Prefixes []netip.Prefix
}

// Options choose between ways to understand a policy. The zero value is the ordinary one.
type Options struct {
	// AzureQuirks: a rule that lists several application security groups on a side, one of
	// them without members, matches nothing, as has been seen in Azure (azure-docs issue
	// 77328). Otherwise the empty group adds nothing and the others count.
	AzureQuirks bool
	// Alone: only the rules of attached NICs are asked, whoever is at the other end, and no route is; see
	// alone.go. The attachments are NICs, the internet and the platform.
	Alone bool
	// DefaultOutbound is the address of default outbound access; not valid: packets without
	// another way out leave untranslated.
	DefaultOutbound netip.Addr
	// Seed is that of the hash by which load balancers distribute: with the same one a client
	// finds the same backend after a reload.
	Seed uint64
}

// Build makes a snapshot of a policy and the attachments that serve it, in
// their order. With no specs it answers questions about the policy alone.
// Every fault is reported, joined; nothing of the registry changes unless Build
// succeeds.
func Build(set *policy.Set, specs []Spec, registry *Registry) (*Snapshot, error) {
	return Options{}.Rebuild(nil, set, specs, registry)
}

// Rebuild is Options.Rebuild with the zero value.
func Rebuild(earlier *Snapshot, set *policy.Set, specs []Spec, registry *Registry) (*Snapshot, error) {
	return Options{}.Rebuild(earlier, set, specs, registry)
}

// Build is the function of that name, with options.
func (o Options) Build(set *policy.Set, specs []Spec, registry *Registry) (*Snapshot, error) {
	return o.Rebuild(nil, set, specs, registry)
}

// Rebuild is Build that takes the compiled rules of an earlier snapshot where they
// are what compiling anew would give: a direction of an NSG whose rules, and all that
// their tags and application security groups stand for, are equal. earlier may be nil.
func (o Options) Rebuild(earlier *Snapshot, set *policy.Set, specs []Spec, registry *Registry) (*Snapshot, error) {
	b := &builder{
		options: o,
		s: &Snapshot{Policy: set, endpoints: map[endpointKey]*Endpoint{}, registry: registry,
			seed: o.Seed, public: map[packet.Addr]*front{}},
		networks: map[*policy.VirtualNetwork]*network{},
		groups:   map[groupKey]*Group{},
		views:    map[string]*view{},
		members:  map[string][]netip.Prefix{},
		sides:    map[string][]netip.Prefix{},
		spaces:   map[string][]netip.Prefix{},
	}
	fromOutside := &routes{}
	b.s.outside = &Endpoint{Attachment: -1, routes: fromOutside}
	b.s.platform = &Endpoint{Attachment: -1, routes: fromOutside}
	b.labels = GroupLabels(b.s.Policy)
	b.groupMembers()
	b.networkGroups()
	b.addNetworks()
	b.addPeers()
	b.learn(specs)
	b.addEndpoints()
	b.addUnused()
	b.resolveGroups(earlier)
	b.attach(specs)
	b.addRoutes()
	if o.Alone {
		b.alone()
	} else {
		b.addTranslation()
	}
	if len(b.faults) > 0 {
		return nil, errors.Join(b.faults...)
	}
	if err := b.assignSlots(registry); err != nil {
		return nil, err
	}
	b.compile()
	return b.s, nil
}

// addTranslation makes what Way asks besides the routes.
func (b *builder) addTranslation() {
	b.addFronts()
	b.addEgresses()
	b.s.translates = b.s.translates || len(b.s.public) > 0
	for _, n := range b.s.networks {
		b.s.translates = b.s.translates || len(n.frontends) > 0
	}
	for _, a := range b.s.Attachments {
		for _, e := range slices.Concat(b.nics, b.subnets) {
			if a.Kind == Subnet && e.Attachment == a.Index && len(e.floats) > 0 {
				a.floated = append(a.floated, e)
			}
		}
	}
}

type groupKey struct {
	nsg  *ruleset.NSG
	view *view
}

type builder struct {
	options  Options
	s        *Snapshot
	networks map[*policy.VirtualNetwork]*network
	labels   map[*ruleset.NSG]string
	groups   map[groupKey]*Group
	views    map[string]*view
	members  map[string][]netip.Prefix          // ASG id in lower case -> addresses
	sides    map[string][]netip.Prefix          // ASG ids as a rule lists them -> addresses of all
	spaces   map[string][]netip.Prefix          // network group id in lower case -> address spaces of all
	pending  []*Table                           // to be compiled
	nics     []*Endpoint                        // in the policy's order
	subnets  []*Endpoint                        // the other addresses of each subnet
	owners   bart.Table[*policy.VirtualNetwork] // by subnet prefix; nil where several have it
	faults   []error
}

func (b *builder) fail(format string, args ...any) {
	b.faults = append(b.faults, fmt.Errorf("topology: "+format, args...))
}

// GroupLabels names a policy's NSGs and rule collections, as metrics do: by name, or by id
// where a name is not unique. A collection's name has slashes, which no NSG's can have.
func GroupLabels(set *policy.Set) map[*ruleset.NSG]string {
	groups := set.Groups()
	count := map[string]int{}
	for _, g := range groups {
		count[strings.ToLower(g.Name)]++
	}
	labels := map[*ruleset.NSG]string{}
	for _, g := range groups {
		labels[g] = g.Name
		if count[strings.ToLower(g.Name)] > 1 {
			labels[g] = g.ID
		}
	}
	return labels
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
		n := &network{vnet: v, routes: map[*policy.RouteTable]*routes{}}
		b.networks[v] = n
		b.s.networks = append(b.s.networks, n)
		for _, p := range v.AddressSpace {
			b.s.space.Insert(p)
		}
	}
}

// addEndpoints makes the endpoints of subnets and NICs, with their routes and stages.
func (b *builder) addEndpoints() {
	for _, n := range b.s.networks {
		for _, sub := range n.vnet.Subnets {
			e := &Endpoint{Subnet: sub, Attachment: -1, Established: n.vnet.FlowTimeout, routes: b.routesOf(n, sub.RouteTable)}
			b.chain(e)
			b.subnets = append(b.subnets, e)
		}
	}
	for _, nic := range b.s.Policy.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			c := &nic.IPConfigurations[i]
			n := b.networks[c.Subnet.VirtualNetwork]
			e := &Endpoint{NetworkInterface: nic, Subnet: c.Subnet, Attachment: -1, Established: n.vnet.FlowTimeout,
				Stateless: nic.DisableTCPStateTracking, address: packet.AddrFrom(c.Address), routes: b.routesOf(n, c.Subnet.RouteTable)}
			b.chain(e)
			b.nics = append(b.nics, e)
			b.s.endpoints[endpointKey{nic, c.Address.Unmap()}] = e
		}
	}
}

// chain sets the stages of an endpoint in Azure's order: inbound the subnet's
// NSG and then the NIC's, outbound the other way round.
func (b *builder) chain(e *Endpoint) {
	b.s.members = append(b.s.members, e)
	e.AdminInbound, e.AdminOutbound = e.routes.adminInbound, e.routes.adminOutbound
	var subnet, nic *Group
	if g := e.Subnet.NetworkSecurityGroup; g != nil {
		subnet = b.group(g, e.routes.view)
	}
	if e.NetworkInterface != nil && e.NetworkInterface.NetworkSecurityGroup != nil {
		nic = b.group(e.NetworkInterface.NetworkSecurityGroup, e.routes.view)
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

// group makes the group of an NSG for a view once; resolveGroups fills it.
func (b *builder) group(nsg *ruleset.NSG, v *view) *Group {
	key := groupKey{nsg, v}
	if g := b.groups[key]; g != nil {
		return g
	}
	g := &Group{NSG: nsg, Label: b.labels[nsg], view: v}
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
			b.group(c.Rules, b.viewOf(ruleset.VirtualNetworkPrefixes(nil)))
		}
	}
	for i, nsg := range b.s.Policy.NetworkSecurityGroups {
		order[nsg] = i
		if !used[nsg] {
			b.group(nsg, b.viewOf(ruleset.VirtualNetworkPrefixes(nil)))
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
		case Gateway:
			v, ok := b.attachGateway(a, &spec)
			if !ok {
				continue
			}
			what = v
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

func (b *builder) attachNIC(a *Attachment, nic *policy.NetworkInterface) {
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
