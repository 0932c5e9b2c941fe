// Package plan says which fabrics a host of a cluster needs, and what the kernel carries for them.
package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun/fabric"
)

// Plan is what joins a host to the others, for one policy and one placement. It is not changed once it is made.
type Plan struct {
	// Specs are the fabrics that the host attaches, besides what its configuration says. Their order is stable.
	Specs []topology.Spec
	// Names are what the VNIs of Specs are asked for with, in the same order.
	Names []string
	// Share is this host's share of the ports of public addresses.
	Share topology.Share

	placement *cluster.Placement
	groups    []*group
	of        []*group // by index of Specs
}

// group is a group of peered virtual networks, and where its ends are.
type group struct {
	topology.PeeredGroup
	members []member
	// forwarders are the other hosts with a network interface that sends what it does not own, sorted.
	forwarders []string
	needed     bool
}

// member is an address of a network interface, or one that it answers from.
type member struct {
	prefix netip.Prefix
	host   string // that holds the network interface; empty: none does
	routed bool   // packets for the address go there
}

// New plans for a host that attaches own, by its configuration.
func New(set *policy.Set, own []topology.Spec, p *cluster.Placement) *Plan {
	return planFor(set, own, p, true)
}

// Beyond are the fabrics of groups in which the host has nothing. Its packets never go there; its questions do.
func Beyond(set *policy.Set, own []topology.Spec, p *cluster.Placement) []topology.Spec {
	return planFor(set, own, p, false).Specs
}

// planFor plans for the groups in which a host has something, or for all others.
func planFor(set *policy.Set, own []topology.Spec, p *cluster.Placement, needed bool) *Plan {
	x := &Plan{placement: p}
	networks := map[*policy.VirtualNetwork]*group{}
	for _, g := range topology.FabricGroups(set) {
		one := &group{PeeredGroup: g}
		x.groups = append(x.groups, one)
		for _, v := range g.Networks {
			networks[v] = one
		}
	}
	x.need(set, own, networks)
	for _, g := range x.groups {
		g.needed = g.needed == needed
	}
	x.gather(set, networks)
	internets := x.internets()
	if i := slices.Index(internets, p.Self); i >= 0 {
		x.Share = topology.Share{Index: i, Of: len(internets)}
	}
	for _, g := range x.groups {
		if !g.needed {
			continue
		}
		x.add(set, g, topology.Spec{Kind: topology.Fabric, Sort: topology.FabricGroup, Reference: g.ID})
		for _, host := range internets {
			x.add(set, g, topology.Spec{Kind: topology.Fabric, Sort: topology.FabricInternet, Reference: g.ID, Host: host})
		}
	}
	for _, nic := range topology.FabricInterfaces(set) {
		if g := networks[networkOf(nic)]; g != nil && g.needed {
			x.add(set, g, topology.Spec{Kind: topology.Fabric, Sort: topology.FabricInterface, Reference: nic.ID})
		}
	}
	for _, v := range set.VirtualNetworks {
		host, prefixes := x.gateway(v)
		if g := networks[v]; g.needed && host != "" {
			x.add(set, g, topology.Spec{Kind: topology.Fabric, Sort: topology.FabricGateway, Reference: v.ID, Prefixes: prefixes})
		}
	}
	return x
}

func (x *Plan) add(set *policy.Set, g *group, s topology.Spec) {
	x.Specs, x.Names, x.of = append(x.Specs, s), append(x.Names, s.Identity(set)), append(x.of, g)
}

// need finds the groups that this host takes part in: all of them where it has the internet.
func (x *Plan) need(set *policy.Set, own []topology.Spec, networks map[*policy.VirtualNetwork]*group) {
	for i := range own {
		switch s := &own[i]; s.Kind {
		case topology.Internet:
			for _, g := range x.groups {
				g.needed = true
			}
		case topology.NetworkInterface:
			if nic, err := set.NetworkInterface(s.Reference); err == nil {
				if g := networks[networkOf(nic)]; g != nil {
					g.needed = true
				}
			}
		case topology.Gateway:
			if v, err := set.VirtualNetwork(s.Reference); err == nil {
				networks[v].needed = true
			}
		}
	}
}

// networkOf is a network interface's network; nil: it has no address.
func networkOf(nic *policy.NetworkInterface) *policy.VirtualNetwork {
	if len(nic.IPConfigurations) == 0 {
		return nil
	}
	return nic.IPConfigurations[0].Subnet.VirtualNetwork
}

// gather finds who has which address of the groups.
func (x *Plan) gather(set *policy.Set, networks map[*policy.VirtualNetwork]*group) {
	floating := topology.FloatingAddresses(set)
	for _, nic := range set.NetworkInterfaces {
		g := networks[networkOf(nic)]
		if g == nil {
			continue
		}
		host := x.placement.NICs[cluster.NormalNIC(nic.ID)].Host
		for i := range nic.IPConfigurations {
			g.members = append(g.members, member{hostPrefix(nic.IPConfigurations[i].Address), host, true})
		}
		for _, a := range floating[nic] {
			g.members = append(g.members, member{hostPrefix(a), host, false})
		}
		if nic.EnableIPForwarding && host != "" && host != x.placement.Self && !slices.Contains(g.forwarders, host) {
			g.forwarders = append(g.forwarders, host)
		}
	}
	for _, g := range x.groups {
		slices.Sort(g.forwarders)
	}
}

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()) }

// internets are the hosts with the internet, sorted.
func (x *Plan) internets() (names []string) {
	for name, h := range x.placement.Hosts {
		if h.Internet {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// gateway is the host with a network's gateway, and the networks behind that; empty: none has it. Of several the first one
// counts.
func (x *Plan) gateway(v *policy.VirtualNetwork) (host string, behind []netip.Prefix) {
	for name, h := range x.placement.Hosts {
		if host != "" && host < name {
			continue
		}
		if p := behindGateway(v, h.Gateways[strings.ToLower(v.ID)]); len(p) > 0 {
			host, behind = name, p
		}
	}
	return host, behind
}

// behindGateway are the prefixes of a host's record that may be behind a network's gateway. The record may say anything;
// what a configuration could not say is left out, so that it refuses no policy.
func behindGateway(v *policy.VirtualNetwork, list []netip.Prefix) (behind []netip.Prefix) {
	for _, p := range list {
		inside := func(space netip.Prefix) bool { return p.Bits() > 0 && p.Overlaps(space) && p.Bits() >= space.Bits() }
		if p.IsValid() && p == p.Masked() && !p.Addr().Is4In6() && !slices.Contains(behind, p) && !slices.ContainsFunc(v.AddressSpace, inside) {
			behind = append(behind, p)
		}
	}
	return behind
}

// Numbered takes the VNIs of the specs, 0 where one has none, and zeroes those of a group that can't be attached yet: each of
// its network interfaces that receives what is not addressed to it needs a number.
func (x *Plan) Numbered(vnis []uint32) {
	incomplete := map[*group]bool{}
	for i := range x.Specs {
		if x.Specs[i].Sort == topology.FabricInterface && vnis[i] == 0 {
			incomplete[x.of[i]] = true
		}
	}
	for i := range vnis {
		if incomplete[x.of[i]] {
			vnis[i] = 0
		}
	}
}

var everywhere = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// Tunnels are what the kernel carries for the specs, in their order. set is the policy of New. Devices and vnis have the
// names of TUN devices and the VNIs of the specs. A spec without a VNI has no tunnel: nothing goes there yet.
func (x *Plan) Tunnels(set *policy.Set, devices []string, vnis []uint32, mtu int) (list []fabric.Tunnel) {
	for i := range x.Specs {
		if vnis[i] == 0 {
			continue
		}
		t := fabric.Tunnel{VNI: vnis[i], TUN: devices[i], MTU: mtu}
		x.fill(set, &t, &x.Specs[i], x.of[i])
		list = append(list, t)
	}
	return list
}

// fill says where a tunnel leads, and who may send by it.
func (x *Plan) fill(set *policy.Set, t *fabric.Tunnel, s *topology.Spec, g *group) {
	self := x.placement.Self
	owner := ""
	switch s.Sort {
	case topology.FabricGroup:
		x.toMembers(t, g)
		x.fromMembers(t, g)
		return
	case topology.FabricInternet:
		owner = s.Host
	case topology.FabricInterface:
		if nic, err := set.NetworkInterface(s.Reference); err == nil {
			owner = x.placement.NICs[cluster.NormalNIC(nic.ID)].Host
		}
	case topology.FabricGateway:
		if v, err := set.VirtualNetwork(s.Reference); err == nil {
			owner, _ = x.gateway(v)
		}
	}
	switch owner {
	case "": // nobody has it
	case self:
		x.toMembers(t, g)
		x.fromMembers(t, g)
		if s.Sort == topology.FabricInterface { // what is delivered with floating IP comes from outside
			for _, host := range x.internets() {
				if host != self {
					t.Sources = addEverywhere(t.Sources, host)
				}
			}
		}
	default:
		for _, p := range everywhere {
			t.Routes = append(t.Routes, fabric.Route{Prefix: p, Host: owner})
		}
		t.Sources = addEverywhere(t.Sources, owner)
	}
}

// toMembers routes the addresses of a group to the other hosts that hold them.
func (x *Plan) toMembers(t *fabric.Tunnel, g *group) {
	for _, m := range g.members {
		if m.routed && m.host != "" && m.host != x.placement.Self {
			t.Routes = append(t.Routes, fabric.Route{Prefix: m.prefix, Host: m.host})
		}
	}
}

// fromMembers lets each host send from the addresses that it holds. A host with an appliance sends from all addresses,
// also from those of this host: it returns what it was sent.
func (x *Plan) fromMembers(t *fabric.Tunnel, g *group) {
	self := x.placement.Self
	for _, m := range g.members {
		switch {
		case m.host == "":
			continue
		case m.host == self && len(g.forwarders) == 0:
			t.Sources = append(t.Sources, fabric.Source{Prefix: m.prefix})
			continue
		case m.host != self:
			t.Sources = append(t.Sources, fabric.Source{Prefix: m.prefix, Host: m.host})
		}
		for _, host := range g.forwarders {
			if host != m.host {
				t.Sources = append(t.Sources, fabric.Source{Prefix: m.prefix, Host: host})
			}
		}
	}
	for _, host := range g.forwarders {
		t.Sources = addEverywhere(t.Sources, host)
	}
	for _, v := range g.Networks {
		if host, behind := x.gateway(v); host != "" && host != self {
			for _, p := range behind {
				t.Sources = append(t.Sources, fabric.Source{Prefix: p.Masked(), Host: host})
			}
		}
	}
	slices.SortFunc(t.Sources, func(a, b fabric.Source) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Host, b.Host))
	})
	t.Sources = slices.Compact(t.Sources)
	// An address that another host answers from too, with floating IP, is not this host's alone.
	only := t.Sources[:0]
	for i, s := range t.Sources {
		if s.Host != "" || i+1 == len(t.Sources) || t.Sources[i+1].Prefix != s.Prefix {
			only = append(only, s)
		}
	}
	t.Sources = only
}

func addEverywhere(list []fabric.Source, host string) []fabric.Source {
	for _, p := range everywhere {
		if s := (fabric.Source{Prefix: p, Host: host}); !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}
