package cluster

import (
	"cmp"
	"fmt"
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
		p.Hosts[name] = h.placed(h.Epoch)
	}
	for nic, c := range v.Claims {
		if v.Registered(&c.ClaimRecord) {
			p.NICs[nic] = PlacedNIC{c.Host, c.Revision}
		}
	}
	return p
}

// placed is what a record says of places.
func (r *HostRecord) placed(epoch int64) PlacedHost {
	return PlacedHost{Underlay: r.Underlay, Port: r.Port, MTU: r.MTU, Internet: r.Internet, Gateways: r.Gateways, Epoch: epoch}
}

// trustInternet takes the internet from hosts that may not have it: whoever says so gets what others send there. faults
// name them. Without names every host may.
func (p *Placement) trustInternet(names []string) (faults []error) {
	for _, name := range slices.Sorted(maps.Keys(p.Hosts)) {
		if h := p.Hosts[name]; h.Internet && len(names) > 0 && name != p.Self && !slices.Contains(names, name) {
			h.Internet = false
			p.Hosts[name] = h
			faults = append(faults, fmt.Errorf("host %q says that it has the internet, and cluster.internetHosts does not name it: nothing goes there", name))
		}
	}
	return faults
}

// MinUnderlayMTU is the least of an underlay: IPv6 packets of 1,280 bytes go whole through a tunnel over IPv6.
const MinUnderlayMTU = 1280 + 40 + 8 + 8

// Confine leaves hosts out that this one can't reach by its underlay and port, with their network interfaces: their
// records may say anything. own is this host's; the zero value: what the placement says of it. Of two hosts with one
// underlay the one that registered first stays. faults name the hosts.
func (p *Placement) Confine(own netip.AddrPort) (faults []error) {
	if h, known := p.Hosts[p.Self]; known && !own.IsValid() {
		own = netip.AddrPortFrom(h.Underlay, h.Port)
	}
	names := slices.SortedFunc(maps.Keys(p.Hosts), func(a, b string) int {
		return cmp.Or(cmp.Compare(p.Hosts[a].Epoch, p.Hosts[b].Epoch), cmp.Compare(a, b))
	})
	taken := map[netip.Addr]string{own.Addr(): p.Self}
	for _, name := range names {
		if name == p.Self {
			continue
		}
		h := p.Hosts[name]
		err := h.check(own)
		if other, known := taken[h.Underlay]; err == nil && known {
			err = fmt.Errorf("underlay %v is that of host %q too", h.Underlay, other)
		}
		if err == nil && len(taken) > MaxReached {
			err = fmt.Errorf("more than %d hosts", MaxReached)
		}
		if err == nil {
			taken[h.Underlay] = name
			continue
		}
		faults = append(faults, fmt.Errorf("nothing goes to host %q: %w", name, err))
		delete(p.Hosts, name)
	}
	maps.DeleteFunc(p.NICs, func(_ string, at PlacedNIC) bool { _, known := p.Hosts[at.Host]; return !known })
	return faults
}

// MaxReached is how many other hosts one reaches.
const MaxReached = 5000

// check says why tunnels can't lead to a host.
func (h *PlacedHost) check(own netip.AddrPort) error {
	switch u := h.Underlay; {
	case !u.IsGlobalUnicast() || u.Is4In6() || u.Zone() != "":
		return fmt.Errorf("underlay %v: allowed is an address that a host can have", u)
	case own.IsValid() && u.Is4() != own.Addr().Is4():
		return fmt.Errorf("underlay %v is of another family than this host's, %v", u, own.Addr())
	case own.IsValid() && h.Port != own.Port():
		return fmt.Errorf("port %d: this host has %d: cluster.port is the same on all", h.Port, own.Port())
	case h.MTU != 0 && (h.MTU < MinUnderlayMTU || h.MTU > 65536):
		return fmt.Errorf("MTU %d of its underlay: allowed are %d to 65536", h.MTU, MinUnderlayMTU)
	}
	return nil
}

// keep adds what an earlier placement says of hosts and network interfaces that this one lacks.
func (p *Placement) keep(earlier *Placement) {
	for name, h := range earlier.Hosts {
		if _, known := p.Hosts[name]; !known {
			p.Hosts[name] = h
		}
	}
	for nic, at := range earlier.NICs {
		if _, known := p.NICs[nic]; !known {
			p.NICs[nic] = at
		}
	}
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
