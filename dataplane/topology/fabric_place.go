package topology

import (
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// placeFabrics gives the fabrics every endpoint of their groups that no other attachment took.
func (s *attachedSet) placeFabrics(set *policy.Set, specs []Spec, host string, f *faults) {
	some := false
	for _, a := range s.attachments {
		if a.fabric == nil || a.fabric.group == nil {
			continue
		}
		some = true
		switch x := a.fabric; x.sort {
		case FabricGroup:
			x.group.checkSpaces(specs[a.Index].number(a.Index), f)
		case FabricInterface:
			s.placeFabricInterface(x)
		case FabricGateway:
			g := x.at.gateway
			if g.receivesForeign = true; g.Attachment != a.Index {
				x.own, x.entry = true, []*Endpoint{g}
			}
			x.group.gateways = append(x.group.gateways, x.at)
		case FabricInternet:
			s.placeFabricInternet(x, host, specs[a.Index].number(a.Index), f)
		}
	}
	if !some {
		return
	}
	for _, e := range s.all() {
		if g := s.networks.of[e.Subnet.VirtualNetwork].group; e.Attachment < 0 && g.attachment >= 0 {
			e.Attachment, e.Elsewhere = g.attachment, true
		}
	}
	s.checkFabrics(set, f)
}

// placeFabricInterface makes the fabric the way to its NIC, or the place where packets for it arrive.
func (s *attachedSet) placeFabricInterface(x *fabric) {
	for _, e := range s.nics {
		e.receivesForeign = e.receivesForeign || e.NetworkInterface == x.nic
		switch {
		case e.NetworkInterface != x.nic:
		case e.Attachment >= 0:
			x.own, x.entry = true, append(x.entry, e)
		default:
			e.Attachment, e.Elsewhere = x.index, true
		}
	}
}

// placeFabricInternet chooses the host to which the group's packets for the internet go: this one if it has the
// internet, else the one that comes first by a hash with this host's name, so that hosts spread.
func (s *attachedSet) placeFabricInternet(x *fabric, host string, number int, f *faults) {
	here := s.outside.Attachment >= 0 && !s.outside.Elsewhere
	switch {
	case host == "":
		f.add("attachment %d: a fabric to the internet needs the name of this host", number)
	case x.host == host && !here:
		f.add("attachment %d: the internet of this host, %q, is not attached: a fabric to it needs that", number, host)
	case x.host == host:
		x.own, x.group.own = true, x.index
	case here:
	default:
		if first := x.group.internet; first < 0 || before(host, x.host, s.attachments[first].fabric.host) {
			x.group.internet = x.index
		}
		for _, e := range []*Endpoint{s.outside, s.services} {
			e.Attachment, e.Elsewhere = x.index, true
		}
	}
}

// before reports that of two other hosts a host chooses the first.
func before(host, a, b string) bool {
	rank := func(other string) uint64 {
		h := fnv.New64a()
		fmt.Fprintf(h, "%d %s %s", len(host), host, other)
		return mix(h.Sum64(), 0)
	}
	if ra, rb := rank(a), rank(b); ra != rb {
		return ra > rb
	}
	return a < b
}

// checkFabrics finds ends that packets from other hosts could not reach.
func (s *attachedSet) checkFabrics(set *policy.Set, f *faults) {
	own := map[*policy.NetworkInterface]bool{}
	for _, a := range s.attachments {
		if a.fabric != nil && a.fabric.nic != nil {
			own[a.fabric.nic] = true
		}
	}
	for _, nic := range FabricInterfaces(set) {
		if n := s.networks.of[nic.IPConfigurations[0].Subnet.VirtualNetwork]; n.group.attachment >= 0 && !own[nic] {
			f.add("network interface %q receives what is not addressed to it, from a route or with floating IP: it needs a fabric of its own", nic.Name)
		}
	}
	eachBackend(set, func(of *policy.Frontend, floating bool, b *policy.Backend) {
		if floating && s.networks.of[b.VirtualNetwork].group.attachment >= 0 && interfaceOf(set, b) == nil {
			f.add("backend %s of frontend %q has floating IP: across hosts it must be the address of a network interface", b.Address, of.Name)
		}
	})
}

// refuseFabrics refuses what Options.Isolated has no use for.
func (s *attachedSet) refuseFabrics(f *faults) {
	if slices.ContainsFunc(s.attachments, func(a *Attachment) bool { return a.fabric != nil }) {
		f.add("a fabric is attached: isolated network interfaces have none")
	}
}

// fillFabrics fills what admission from fabrics searches.
func (s *routedSet) fillFabrics() {
	done := map[*fabricGroup]bool{}
	for _, n := range s.networks.list {
		if g := n.group; g != nil && !done[g] {
			done[g] = true
			g.fill()
		}
	}
	for _, e := range s.nics {
		g := s.networks.of[e.Subnet.VirtualNetwork].group
		if !e.Elsewhere || g == nil {
			continue
		}
		if g.forwarder == nil && e.NetworkInterface.EnableIPForwarding {
			g.forwarder = e
		}
		for _, a := range e.floating {
			if g.floating == nil {
				g.floating = map[packet.Addr]*Endpoint{}
			}
			g.floating[a] = e
		}
	}
}

// fill makes one table of the addresses of all networks of the group.
func (g *fabricGroup) fill() {
	if len(g.networks) == 1 {
		g.hosts = &g.networks[0].hosts
		return
	}
	g.hosts = &bart.Table[*Endpoint]{}
	for _, n := range g.networks {
		for p, e := range n.hosts.All() {
			g.hosts.Insert(p, e)
		}
	}
}
