package fabric

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCheckNamesEachFault(t *testing.T) {
	u := newUnderlay(t, 2, families[0].address, 1500)
	h := u.hosts[0]
	sound := func() State { return h.state() }
	if err := Check(h.namespace, sound()); err != nil {
		t.Fatalf("a sound state: %v", err)
	}
	for _, test := range []struct {
		name, make, undo string
		change           func(*State)
		want             string
	}{
		{"an MTU that is too large", "", "", func(s *State) { s.Tunnels[0].MTU = 1465 }, "MTU 1465"},
		{"its limit", "", "", func(s *State) { s.Tunnels[0].MTU = 1465 }, "the underlay has 1500, less 36 for the outer headers: 1464 or less is allowed"},
		{"an underlay's MTU that is too small", "ip link set ul mtu 1435", "ip link set ul mtu 1500", nil, "1399 or less is allowed"},
		{"another host's address", "", "", func(s *State) { s.Underlay = h.hosts[1].address; s.Hosts, s.Tunnels = nil, nil }, "underlay 192.168.99.2: no device of this host has the address"},
		{"a foreign device", "ip link add vx type bridge", "ip link del vx", nil, `device "vx" is there, and nsgd has not made it`},
		{"a foreign VXLAN's port", "ip link add other up type vxlan external dstport 4790", "ip link del other", nil, "port 4790 of UDP"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.make != "" {
				h.run("sh", "-c", test.make)
				defer h.run("sh", "-c", test.undo)
			}
			s := sound()
			if test.change != nil {
				test.change(&s)
			}
			before := h.listing()
			if err := Check(h.namespace, s); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if diff := cmp.Diff(before, h.listing()); diff != "" {
				t.Errorf("it changed something: %s", diff)
			}
		})
	}
	h.device("red")
	h.device("blue")
	h.open()
	h.must(h.fabric.Apply(sound()))
	if err := Check(h.namespace, sound()); err != nil {
		t.Errorf("of what is in force: %v", err)
	}
}

func TestAStateThatIsNotPossibleIsRefused(t *testing.T) {
	u := newUnderlay(t, 3, families[0].address, 1500)
	h := u.hosts[0]
	for _, test := range []struct {
		name   string
		change func(*State)
		want   string
	}{
		{"no underlay", func(s *State) { s.Underlay = netip.MustParseAddr("224.0.0.1") }, "underlay: address 224.0.0.1"},
		{"no port", func(s *State) { s.Port = 0 }, "port: 0"},
		{"a name that is too long", func(s *State) { s.Device = "0123456789abcdef" }, `device: "0123456789abcdef"`},
		{"a name with commands", func(s *State) { s.Device = `x" }` }, `device: "x\" }"`},
		{"a name of a TUN with commands", func(s *State) { s.Tunnels[0].TUN = `x;y` }, `TUN "x;y"`},
		{"two hosts of a name", func(s *State) { s.Hosts[1].Name = s.Hosts[0].Name }, `hosts: name "h2"`},
		{"two hosts of an address", func(s *State) { s.Hosts[1].Underlay = s.Hosts[0].Underlay }, `host "h3": underlay 192.168.99.2 is that of host "h2" too`},
		{"this host's address", func(s *State) { s.Hosts[1].Underlay = s.Underlay }, `is that of host "this one" too`},
		{"another family", func(s *State) { s.Hosts[1].Underlay = netip.MustParseAddr("fd99::3") }, "of another family"},
		{"no VNI", func(s *State) { s.Tunnels[0].VNI = 0 }, "VNI 0: allowed are 1 to 16777215"},
		{"a VNI that is too large", func(s *State) { s.Tunnels[0].VNI = 1 << 24 }, "VNI 16777216"},
		{"a VNI twice", func(s *State) { s.Tunnels[0].VNI = s.Tunnels[1].VNI }, "each once"},
		{"a TUN twice", func(s *State) { s.Tunnels[0].TUN = s.Tunnels[1].TUN }, "too (0: VXLAN's own device)"},
		{"VXLAN's device as a TUN", func(s *State) { s.Tunnels[0].TUN = s.Device }, `TUN "vx"`},
		{"an MTU that is too small for IPv6", func(s *State) { s.Tunnels[0].MTU = 1279 }, "MTU 1279: allowed are 1280 to 65535"},
		{"a route to nobody", func(s *State) { s.Tunnels[0].Routes[0].Host = "h9" }, `host "h9" is not among the hosts`},
		{"a route twice", func(s *State) { s.Tunnels[0].Routes[1].Prefix = s.Tunnels[0].Routes[0].Prefix }, "is there twice"},
		{"bits after a prefix", func(s *State) { s.Tunnels[0].Routes[0].Prefix = netip.MustParsePrefix("10.0.0.1/8") }, "prefix 10.0.0.1/8"},
		{"a source of nobody", func(s *State) { s.Tunnels[0].Sources[0].Host = "h9" }, `host "h9" is not among the hosts`},
		{"a source that is here and there", func(s *State) {
			s.Tunnels[0].Sources = append(s.Tunnels[0].Sources, Source{prefixOf(h.nic4()), "h2"})
		}, "is on this host"},
		{"too many hosts", func(s *State) { s.Hosts = make([]Host, MaxHosts+1) }, "hosts: 5001: at most 5000"},
		{"too many tunnels", func(s *State) { s.Tunnels = make([]Tunnel, MaxTunnels+1) }, "tunnels: 4097: at most 4096"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := h.state()
			test.change(&s)
			if err := s.Validate(); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	good := h.state()
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}
