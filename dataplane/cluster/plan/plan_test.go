package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun/fabric"
)

// placed is the seed's figure on three hosts: the first has VM1, the second VM2 and VM3, the third VM4 and the internet.
func placed(set *policy.Set, self string) (own []topology.Spec, p *cluster.Placement) {
	p = &cluster.Placement{Self: self, Hosts: map[string]cluster.PlacedHost{}, NICs: map[string]cluster.PlacedNIC{}}
	for i := range 3 {
		p.Hosts[fmt.Sprint("h", i+1)] = cluster.PlacedHost{Underlay: netip.AddrFrom4([4]byte{192, 168, 99, byte(i + 1)}), Internet: i == 2}
	}
	for i, host := range []string{"h1", "h2", "h2", "h3"} {
		nic := set.NetworkInterfaces[i]
		p.NICs[cluster.NormalNIC(nic.ID)] = cluster.PlacedNIC{Host: host}
		if host == self {
			own = append(own, topology.Spec{Kind: topology.NetworkInterface, Reference: nic.ID})
		}
	}
	if self == "h3" {
		own = append(own, topology.Spec{Kind: topology.Internet})
	}
	return own, p
}

// tunnels are those of a plan in words.
func tunnels(set *policy.Set, x *Plan) (list []string) {
	var devices []string
	var vnis []uint32
	for i := range x.Specs {
		devices, vnis = append(devices, x.Specs[i].Sort.String()), append(vnis, uint32(i+1))
	}
	for _, t := range x.Tunnels(set, devices, vnis, 1450) {
		var b strings.Builder
		fmt.Fprint(&b, t.TUN, " to")
		for _, r := range t.Routes {
			fmt.Fprintf(&b, " %s@%s", r.Prefix, r.Host)
		}
		fmt.Fprint(&b, " from")
		for _, s := range t.Sources {
			fmt.Fprintf(&b, " %s@%s", s.Prefix, s.Host)
		}
		list = append(list, b.String())
	}
	return list
}

func TestTheFigureOnThreeHosts(t *testing.T) {
	set := enginetest.FigureOfTheSeed()
	for _, tt := range []struct {
		self string
		want []string
	}{
		{"h1", []string{
			"group to 10.0.1.5/32@h2 10.0.2.4/32@h2 10.0.3.4/32@h3 from 10.0.1.4/32@ 10.0.1.5/32@h2 10.0.2.4/32@h2 10.0.3.4/32@h3",
			"internet to 0.0.0.0/0@h3 ::/0@h3 from 0.0.0.0/0@h3 ::/0@h3"}},
		{"h3", []string{
			"group to 10.0.1.4/32@h1 10.0.1.5/32@h2 10.0.2.4/32@h2 from 10.0.1.4/32@h1 10.0.1.5/32@h2 10.0.2.4/32@h2 10.0.3.4/32@",
			"internet to 10.0.1.4/32@h1 10.0.1.5/32@h2 10.0.2.4/32@h2 from 10.0.1.4/32@h1 10.0.1.5/32@h2 10.0.2.4/32@h2 10.0.3.4/32@"}},
		{"h4", nil}, // it has nothing of the policy
	} {
		own, p := placed(set, tt.self)
		x := New(set, own, p)
		if diff := cmp.Diff(tt.want, tunnels(set, x)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.self, diff)
		}
		for i, name := range x.Names {
			if name == "" || slices.Index(x.Names, name) != i {
				t.Errorf("%s: names %q", tt.self, x.Names)
			}
		}
		if tt.self == "h3" && x.Share != (topology.Share{Index: 0, Of: 1}) {
			t.Errorf("share %+v", x.Share)
		}
		if _, err := (topology.Options{Host: tt.self}).Rebuild(nil, set, append(own, x.Specs...), topology.NewRegistry()); err != nil {
			t.Errorf("%s: %v", tt.self, err)
		}
	}
}

// A host with an appliance sends what it does not own, also what this host has sent to it.
func TestAnApplianceSendsForOthers(t *testing.T) {
	set := enginetest.FigureOfTheSeed()
	set.NetworkInterfaces[1].EnableIPForwarding = true
	own, p := placed(set, "h1")
	got := tunnels(set, New(set, own, p))
	want := "group to 10.0.1.5/32@h2 10.0.2.4/32@h2 10.0.3.4/32@h3 from ::/0@h2 0.0.0.0/0@h2 10.0.1.4/32@h2 10.0.1.5/32@h2 10.0.2.4/32@h2 10.0.3.4/32@h2 10.0.3.4/32@h3"
	slices.Sort(strings.Fields(want))
	if len(got) == 0 || !sameWords(got[0], want) {
		t.Errorf("got  %s\nwant %s", got[0], want)
	}
}

func sameWords(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// What one host may send by a tunnel, and to which one it goes, is what the other one lets in: no packet of a network
// interface is lost because the two differ, and no third host may send it.
func TestHostsAgreeAboutTheirTunnels(t *testing.T) {
	set := enginetest.FigureOfTheSeed()
	type end struct {
		host, name string
	}
	all := map[end]fabric.Tunnel{}
	for _, self := range []string{"h1", "h2", "h3"} {
		own, p := placed(set, self)
		x := New(set, own, p)
		vnis := make([]uint32, len(x.Specs))
		for i := range vnis {
			vnis[i] = uint32(i + 1)
		}
		for i, tunnel := range x.Tunnels(set, x.Names, vnis, 1450) {
			all[end{self, x.Names[i]}] = tunnel
		}
	}
	_, p := placed(set, "h1")
	for from, tunnel := range all {
		for _, r := range tunnel.Routes {
			other, ok := all[end{r.Host, from.name}]
			if !ok {
				t.Errorf("%s sends %s to %s by %s, which that host lacks", from.host, r.Prefix, r.Host, from.name)
				continue
			}
			for _, nic := range set.NetworkInterfaces {
				at := p.NICs[cluster.NormalNIC(nic.ID)].Host
				for _, c := range nic.IPConfigurations {
					if in, mine := lets(&other, c.Address, from.host), at == from.host; in != mine && !(strings.Contains(from.name, "internet h3") && from.host == "h3") {
						t.Errorf("%s lets %s in from %s by %s: %v, which is at %s", r.Host, c.Address, from.host, from.name, in, at)
					}
				}
			}
		}
	}
}

// checked fails where the kernel's part refuses what a host is to carry.
func checked(t *testing.T, set *policy.Set, own []topology.Spec, p *cluster.Placement) {
	t.Helper()
	x := New(set, own, p)
	s := fabric.State{Underlay: p.Hosts[p.Self].Underlay, Port: 4790, Device: "nsgdvx"}
	for name, h := range p.Hosts {
		if name != p.Self {
			s.Hosts = append(s.Hosts, fabric.Host{Name: name, Underlay: h.Underlay})
		}
	}
	var devices []string
	var vnis []uint32
	for i := range x.Specs {
		devices, vnis = append(devices, fmt.Sprint("tun", i)), append(vnis, uint32(i+1))
	}
	s.Tunnels = x.Tunnels(set, devices, vnis, 1450)
	if err := s.Validate(); err != nil {
		t.Errorf("%s: %v", p.Self, err)
	}
	if _, err := (topology.Options{Host: p.Self}).Rebuild(nil, set, append(own, x.Specs...), topology.NewRegistry()); err != nil {
		t.Errorf("%s: %v", p.Self, err)
	}
}

// A host with the internet and a backend with floating IP let itself send by the backend's tunnel, and an address that
// backends on two hosts answer from was one host's alone: the kernel's part refuses both.
func TestBackendsWithFloatingIPOnSeveralHosts(t *testing.T) {
	for _, self := range []string{"h1", "h2", "h3"} {
		set := enginetest.FigureOfTheSeed()
		var backends []policy.Backend
		for _, i := range []int{0, 1, 3} {
			nic := set.NetworkInterfaces[i]
			c := &nic.IPConfigurations[0]
			backends = append(backends, policy.Backend{NetworkInterface: nic, VirtualNetwork: c.Subnet.VirtualNetwork, Address: c.Address})
		}
		front := &policy.Frontend{Name: "f", Subnet: set.VirtualNetworks[0].Subnets[0], Address: netip.MustParseAddr("10.0.1.100")}
		set.LoadBalancers = []*policy.LoadBalancer{{Name: "lb", ID: "lb", Frontends: []*policy.Frontend{front}, Rules: []*policy.LoadBalancingRule{{
			Name: "r", Frontend: front, FloatingIP: true, Pools: []*policy.BackendPool{{Name: "p", Backends: backends}}, FrontendPort: 80, BackendPort: 80,
		}}}}
		own, p := placed(set, self)
		checked(t, set, own, p)
		checkedWithout(t, set, own, p)
	}
}

// checkedWithout holds that what has a number can be attached while one spec has none. A reload was refused as long as others
// asked for the number of a network interface, and those of its network were there.
func checkedWithout(t *testing.T, set *policy.Set, own []topology.Spec, p *cluster.Placement) {
	t.Helper()
	x := New(set, own, p)
	for lacks := range x.Specs {
		vnis := make([]uint32, len(x.Specs))
		for i := range vnis {
			if i != lacks {
				vnis[i] = uint32(i + 1)
			}
		}
		x.Numbered(vnis)
		all := slices.Clone(own)
		for i, n := range vnis {
			if n != 0 {
				all = append(all, x.Specs[i])
			}
		}
		if _, err := (topology.Options{Host: p.Self}).Rebuild(nil, set, all, topology.NewRegistry()); err != nil {
			t.Errorf("%s without a number for %s: %v", p.Self, x.Names[lacks], err)
		}
	}
}

// What another host says of its gateways refuses no policy here.
func TestGatewaysOfAnotherHostThatNoConfigurationCouldHave(t *testing.T) {
	set := enginetest.FigureOfTheSeed()
	own, p := placed(set, "h1")
	h := p.Hosts["h2"]
	h.Gateways = map[string][]netip.Prefix{strings.ToLower(set.VirtualNetworks[0].ID): {
		{}, netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("192.168.5.5/16"), netip.MustParsePrefix("::ffff:10.0.0.0/104"),
		netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("192.168.0.0/16"),
	}}
	p.Hosts["h2"] = h
	checked(t, set, own, p)
	for _, s := range New(set, own, p).Specs {
		if s.Sort == topology.FabricGateway && !slices.Equal(s.Prefixes, []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}) {
			t.Errorf("behind the gateway: %v", s.Prefixes)
		}
	}
}

// lets is what the kernel decides: the longest prefix of a source counts.
func lets(t *fabric.Tunnel, source netip.Addr, host string) (in bool) {
	bits := -1
	for _, s := range t.Sources {
		if s.Prefix.Contains(source) && s.Prefix.Bits() >= bits {
			in = s.Prefix.Bits() == bits && in || s.Host == host
			bits = s.Prefix.Bits()
		}
	}
	return in
}

// A host that has nothing of a group has no fabric of it, and all of it for questions; one with the internet has all groups.
func TestBeyondAreTheGroupsThatNobodyHereHas(t *testing.T) {
	set := enginetest.FigureOfTheSeed()
	for self, want := range map[string]int{"h1": 0, "h3": 0, "h4": 2} { // the group's, and that to the internet of h3
		own, p := placed(set, self)
		beyond := Beyond(set, own, p)
		if len(beyond) != want || len(New(set, own, p).Specs)+len(beyond) != 2 {
			t.Errorf("%s: beyond %+v, want %d", self, beyond, want)
		}
	}
}
