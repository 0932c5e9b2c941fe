package cluster

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
)

// Placement says where everything of a cluster is. It is never changed once it is published.
type Placement struct {
	// Revision is etcd's: a later placement has a higher one, unless etcd has lost what it held.
	Revision int64
	// Self is the name of this host.
	Self string
	// Hosts are those alive, by name.
	Hosts map[string]PlacedHost
	// NICs are the network interfaces that hosts have claimed, by id in lower case.
	NICs map[string]PlacedNIC
	// VNIs are VXLAN's network identifiers by the names that they were asked for with.
	VNIs map[string]uint32
}

// PlacedHost is a host's end of tunnels.
type PlacedHost struct {
	Underlay netip.Addr
	Port     uint16
	MTU      int // of the underlay's interface; 0: not known
	// Internet says that the host has an internet attachment.
	Internet bool
	// Gateways are the networks behind the gateways that the host attaches, by the virtual network's id in lower case.
	Gateways map[string][]netip.Prefix
	// Epoch rises with each registration under the name.
	Epoch int64
}

// PlacedNIC is a network interface's host.
type PlacedNIC struct {
	Host string
	// Epoch rises with each claim of the network interface.
	Epoch int64
}

// placement is what a view says of places. Claims of hosts that are gone, and of earlier registrations, are left out.
func (v *View) placement(self string) *Placement {
	p := &Placement{Revision: v.Revision, Self: self, Hosts: map[string]PlacedHost{}, NICs: map[string]PlacedNIC{}, VNIs: maps.Clone(v.VNIs)}
	for name, h := range v.Hosts {
		p.Hosts[name] = PlacedHost{Underlay: h.Underlay, Port: h.Port, MTU: h.MTU, Internet: h.Internet, Gateways: h.Gateways, Epoch: h.Epoch}
	}
	for nic, c := range v.Claims {
		if h := v.Hosts[c.Host]; h != nil && h.Epoch == c.Epoch {
			p.NICs[nic] = PlacedNIC{c.Host, c.Revision}
		}
	}
	return p
}

// Same reports that two placements differ in nothing but their revision.
func (p *Placement) Same(other *Placement) bool {
	return other != nil && p.Self == other.Self && maps.EqualFunc(p.Hosts, other.Hosts, func(a, b PlacedHost) bool { return reflect.DeepEqual(a, b) }) && maps.Equal(p.NICs, other.NICs) && maps.Equal(p.VNIs, other.VNIs)
}

// On lists the network interfaces of a host, sorted.
func (p *Placement) On(host string) (nics []string) {
	for nic, at := range p.NICs {
		if at.Host == host {
			nics = append(nics, nic)
		}
	}
	slices.Sort(nics)
	return nics
}
