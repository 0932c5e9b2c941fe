package fabric

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
)

// State is what the kernel has to carry.
type State struct {
	// Underlay is this host's address. Outer packets have it as their source, and are taken only if it is their destination.
	Underlay netip.Addr
	// Port is VXLAN's UDP port, on every host the same.
	Port uint16
	// Device is the name of VXLAN's device.
	Device string
	// Hosts are the others.
	Hosts []Host
	// Tunnels are the networks, each with a VNI and a TUN device of its own.
	Tunnels []Tunnel
}

// Host is another host.
type Host struct {
	Name string
	// Underlay is its address, of the same family as this host's.
	Underlay netip.Addr
}

// Tunnel is a network that spreads over hosts.
type Tunnel struct {
	// VNI is VXLAN's number of it, 1 to 16,777,215.
	VNI uint32
	// TUN is the name of its device, in the namespace of the fabric.
	TUN string
	// MTU bounds inner packets, in bytes: 576 or more, with IPv6 1280. The sender of a larger one is told. Over an
	// IPv4 underlay the kernel fragments outside what may be fragmented.
	MTU int
	// Routes say where destinations are: the longest prefix counts. Without one a packet is dropped.
	Routes []Route
	// Sources say who may send what: the longest prefix counts. Without one a packet is dropped.
	Sources []Source
}

// Route sends a prefix to a host.
type Route struct {
	Prefix netip.Prefix
	Host   string
}

// Source lets a host send from a prefix. A prefix that several hosts may send from has an entry for each.
type Source struct {
	Prefix netip.Prefix
	// Host is its name. Empty: the prefix is on this host, so that no other one sends from it.
	Host string
}

const (
	// MaxHosts, MaxTunnels, MaxPrefixes and MaxShared bound a State: the routes and the sources of all tunnels, and the
	// entries of prefixes that several hosts have.
	MaxHosts, MaxTunnels, MaxPrefixes, MaxShared = 5000, 4096, 1 << 19, 1 << 16

	maxVNI           = 1<<24 - 1
	minMTU4, minMTU6 = 576, 1280 // what every host takes (RFC 791, RFC 8200)

	maxName = 15 // of a device: IFNAMSIZ less its final zero
)

// deviceName is what the kernel and nft take as a name.
var deviceName = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,15}$`)

// ErrState: the state is not possible.
var ErrState = errors.New("state of the fabric")

// Overhead is how many bytes an outer packet has more than its inner one: IP, UDP and VXLAN GPE.
func Overhead(underlay netip.Addr) int {
	const udp, vxlan = 8, 8
	if underlay.Is4() {
		return 20 + udp + vxlan
	}
	return 40 + udp + vxlan
}

// hostsByName are the addresses of hosts, once Validate is content.
func (s *State) hostsByName() map[string]netip.Addr {
	m := make(map[string]netip.Addr, len(s.Hosts))
	for _, h := range s.Hosts {
		m[h.Name] = h.Underlay
	}
	return m
}

// Validate finds what is wrong in the state itself, whatever the host has. The error is an ErrState.
func (s *State) Validate() error {
	if err := s.validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	return nil
}

func (s *State) validate() error {
	if err := checkUnderlay(s.Underlay); err != nil {
		return fmt.Errorf("underlay: %w", err)
	}
	if s.Port == 0 {
		return errors.New("port: 0: allowed are 1 to 65535")
	}
	if !deviceName.MatchString(s.Device) || s.Device == "." || s.Device == ".." {
		return fmt.Errorf("device: %q: a name has 1 to %d of the characters A-Z a-z 0-9 _ . @ -", s.Device, maxName)
	}
	if len(s.Hosts) > MaxHosts {
		return fmt.Errorf("hosts: %d: at most %d are allowed", len(s.Hosts), MaxHosts)
	}
	if len(s.Tunnels) > MaxTunnels {
		return fmt.Errorf("tunnels: %d: at most %d are allowed", len(s.Tunnels), MaxTunnels)
	}
	names, addresses := map[string]bool{}, map[netip.Addr]string{s.Underlay: "this one"}
	for _, h := range s.Hosts {
		if h.Name == "" || names[h.Name] {
			return fmt.Errorf("hosts: name %q: each has one, and no two the same", h.Name)
		}
		if err := checkUnderlay(h.Underlay); err != nil {
			return fmt.Errorf("host %q: %w", h.Name, err)
		}
		if h.Underlay.Is4() != s.Underlay.Is4() {
			return fmt.Errorf("host %q: underlay %v is of another family than this host's, %v", h.Name, h.Underlay, s.Underlay)
		}
		if other, known := addresses[h.Underlay]; known {
			return fmt.Errorf("host %q: underlay %v is that of host %q too", h.Name, h.Underlay, other)
		}
		names[h.Name], addresses[h.Underlay] = true, h.Name
	}
	return s.validateTunnels(names)
}

func checkUnderlay(a netip.Addr) error {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is4In6() || a.Zone() != "" {
		return fmt.Errorf("address %v: a unicast address is wanted that other hosts reach", a)
	}
	return nil
}

func (s *State) validateTunnels(hosts map[string]bool) error {
	numbers, devices := map[uint32]bool{}, map[string]uint32{s.Device: 0}
	prefixes, shared := 0, 0
	for n := range s.Tunnels {
		t := &s.Tunnels[n]
		if t.VNI == 0 || t.VNI > maxVNI || numbers[t.VNI] {
			return fmt.Errorf("tunnels: VNI %d: allowed are 1 to %d, each once", t.VNI, maxVNI)
		}
		if !deviceName.MatchString(t.TUN) {
			return fmt.Errorf("tunnel %d: TUN %q: a name has 1 to %d of the characters A-Z a-z 0-9 _ . @ -", t.VNI, t.TUN, maxName)
		}
		if other, known := devices[t.TUN]; known {
			return fmt.Errorf("tunnel %d: TUN %q is that of VNI %d too (0: VXLAN's own device)", t.VNI, t.TUN, other)
		}
		if least := t.leastMTU(); t.MTU < least || t.MTU > 65535 {
			return fmt.Errorf("tunnel %d: MTU %d: allowed are %d to 65535", t.VNI, t.MTU, least)
		}
		numbers[t.VNI], devices[t.TUN] = true, t.VNI
		prefixes += len(t.Routes) + len(t.Sources)
		more, err := t.validate(hosts)
		if err != nil {
			return fmt.Errorf("tunnel %d: %w", t.VNI, err)
		}
		shared += more
	}
	if prefixes > MaxPrefixes {
		return fmt.Errorf("tunnels: %d routes and sources: at most %d are allowed", prefixes, MaxPrefixes)
	}
	if shared > MaxShared {
		return fmt.Errorf("tunnels: %d sources of prefixes that several hosts have: at most %d are allowed", shared, MaxShared)
	}
	return nil
}

func (t *Tunnel) leastMTU() int {
	if slices.ContainsFunc(t.Routes, func(r Route) bool { return r.Prefix.Addr().Is6() }) {
		return minMTU6
	}
	return minMTU4
}

// validate checks routes and sources. shared is the number of sources of prefixes that several hosts have.
func (t *Tunnel) validate(hosts map[string]bool) (shared int, err error) {
	routes := make(map[netip.Prefix]bool, len(t.Routes))
	for _, r := range t.Routes {
		if err := checkPrefix(r.Prefix); err != nil {
			return 0, fmt.Errorf("route: %w", err)
		}
		if !hosts[r.Host] {
			return 0, fmt.Errorf("route %v: host %q is not among the hosts", r.Prefix, r.Host)
		}
		if routes[r.Prefix] {
			return 0, fmt.Errorf("route %v is there twice: a prefix has one host", r.Prefix)
		}
		routes[r.Prefix] = true
	}
	sources, senders := make(map[Source]bool, len(t.Sources)), make(map[netip.Prefix]int, len(t.Sources))
	for _, one := range t.Sources {
		if err := checkPrefix(one.Prefix); err != nil {
			return 0, fmt.Errorf("source: %w", err)
		}
		if one.Host != "" && !hosts[one.Host] {
			return 0, fmt.Errorf("source %v: host %q is not among the hosts", one.Prefix, one.Host)
		}
		if sources[one] {
			return 0, fmt.Errorf("source %v of host %q is there twice", one.Prefix, one.Host)
		}
		sources[one] = true
		if senders[one.Prefix]++; senders[one.Prefix] > 1 {
			shared++
		}
	}
	for prefix, number := range senders {
		if number > 1 && sources[Source{prefix, ""}] {
			return 0, fmt.Errorf("source %v is on this host, so that no other host sends from it", prefix)
		}
	}
	return shared, nil
}

func checkPrefix(p netip.Prefix) error {
	if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
		return fmt.Errorf("prefix %v: an IPv4 or IPv6 prefix is wanted whose bits after its length are 0", p)
	}
	return nil
}
