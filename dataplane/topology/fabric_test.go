package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// threeNetworks are a and b, which are peered, and c with a's addresses. Each has a NIC of its name at .4 and, a and b, an
// appliance "fw" of its name at .5, of which a route names a's.
func threeNetworks() *policy.Set {
	set := &policy.Set{}
	nic := func(name, address string, s *policy.Subnet) *policy.NetworkInterface {
		n := &policy.NetworkInterface{Name: name, ID: "/NIC/" + name, IPConfigurations: []policy.IPConfiguration{{Name: "c", Address: netip.MustParseAddr(address), Subnet: s, Primary: true}}}
		set.NetworkInterfaces = append(set.NetworkInterfaces, n)
		return n
	}
	for _, v := range []struct{ name, space, host string }{{"b", "10.2.0.0/16", "10.2.0."}, {"a", "10.1.0.0/16", "10.1.0."}, {"c", "10.1.0.0/16", "10.1.0."}} {
		n := &policy.VirtualNetwork{Name: v.name, ID: "/Vnet/" + v.name, AddressSpace: []netip.Prefix{pfx(v.space)}}
		s := &policy.Subnet{Name: "s", ID: n.ID + "/s", VirtualNetwork: n, Prefixes: []netip.Prefix{pfx(v.host + "0/24")}}
		n.Subnets = []*policy.Subnet{s}
		set.VirtualNetworks = append(set.VirtualNetworks, n)
		nic(v.name, v.host+"4", s)
		if v.name != "c" {
			nic("fw"+v.name, v.host+"5", s).EnableIPForwarding = true
		}
	}
	b, a := set.VirtualNetworks[0], set.VirtualNetworks[1]
	a.Peerings = []policy.Peering{{Name: "b", Remote: b, AllowVirtualNetworkAccess: true, AllowForwardedTraffic: true}}
	b.Peerings = []policy.Peering{{Name: "a", Remote: a, AllowVirtualNetworkAccess: true, AllowForwardedTraffic: true}}
	b.Subnets[0].RouteTable = &policy.RouteTable{Name: "rt", Routes: []policy.Route{{Name: "r", Prefix: pfx("0.0.0.0/0"), Hop: policy.HopVirtualAppliance, Appliance: netip.MustParseAddr("10.1.0.5")}}}
	return set
}

func TestFabricsOfAPolicy(t *testing.T) {
	set := threeNetworks()
	var groups, nics []string
	for _, g := range FabricGroups(set) {
		text := g.ID + ":"
		for _, v := range g.Networks {
			text += " " + v.Name
		}
		groups = append(groups, text)
	}
	for _, nic := range FabricInterfaces(set) {
		nics = append(nics, nic.Name)
	}
	if want := []string{"/vnet/a: b a", "/vnet/c: c"}; !slices.Equal(groups, want) {
		t.Errorf("groups %q, want %q", groups, want)
	}
	if want := []string{"fwa"}; !slices.Equal(nics, want) {
		t.Errorf("interfaces %q, want %q", nics, want)
	}
	identities := map[string]Spec{
		"fabric group /vnet/a":              {Kind: Fabric, Reference: "b"},
		"fabric networkinterface /nic/fwa":  {Kind: Fabric, Sort: FabricInterface, Reference: "fwa"},
		"fabric gateway /vnet/b":            {Kind: Fabric, Sort: FabricGateway, Reference: "b"},
		"fabric internet host-1 /vnet/a":    {Kind: Fabric, Sort: FabricInternet, Reference: "b", Host: "Host-1"},
		"fabric internet other-one /vnet/c": {Kind: Fabric, Sort: FabricInternet, Reference: "c", Host: "other-one"},
	}
	for want, spec := range identities {
		if got := spec.Identity(set); got != want {
			t.Errorf("identity %q, want %q", got, want)
		}
	}
}

func TestFaultsOfFabrics(t *testing.T) {
	group := Spec{Kind: Fabric, Reference: "a"}
	fwa := Spec{Kind: Fabric, Sort: FabricInterface, Reference: "fwa"}
	tests := []struct {
		name  string
		edit  func(*policy.Set)
		specs []Spec
		o     Options
		want  string // of the error; empty: none
	}{
		{"all is well", nil, []Spec{group, fwa, {Kind: NetworkInterface, Reference: "a"}}, Options{}, ""},
		{"networks of a group with the same addresses", func(set *policy.Set) { set.VirtualNetworks[0].AddressSpace = []netip.Prefix{pfx("10.1.128.0/17")} }, []Spec{group, fwa}, Options{},
			`the address spaces of virtual networks "a" and "b" overlap: 10.1.0.0/16 and 10.1.128.0/17`},
		{"networks of two groups with the same addresses", nil, []Spec{group, fwa, {Kind: Fabric, Reference: "c"}}, Options{}, ""},
		{"one group twice", nil, []Spec{group, fwa, {Kind: Fabric, Reference: "b"}}, Options{}, "attached already"},
		{"an appliance without a fabric of its own", nil, []Spec{group}, Options{}, `network interface "fwa" receives what is not addressed to it`},
		{"a gateway without prefixes", nil, []Spec{group, fwa, {Kind: Fabric, Sort: FabricGateway, Reference: "a"}}, Options{}, "has no prefixes"},
		{"an unknown network", nil, []Spec{{Kind: Fabric, Reference: "nowhere"}}, Options{}, `"nowhere"`},
		{"an unknown sort", nil, []Spec{{Kind: Fabric, Sort: 9, Reference: "a"}}, Options{}, "sort 9 of a fabric: allowed are 0 to 3"},
		{"the internet of no host", nil, []Spec{group, fwa, {Kind: Fabric, Sort: FabricInternet, Reference: "a"}}, Options{Host: "h"}, "needs the name of the host with the internet"},
		{"a host without a name", nil, []Spec{group, fwa, {Kind: Fabric, Sort: FabricInternet, Reference: "a", Host: "g"}}, Options{}, "needs the name of this host"},
		{"a host without the internet that is its own", nil, []Spec{group, fwa, {Kind: Fabric, Sort: FabricInternet, Reference: "a", Host: "h"}}, Options{Host: "h"}, `the internet of this host, "h", is not attached`},
		{"isolated", nil, []Spec{group, fwa}, Options{Isolated: true}, "isolated network interfaces have none"},
		{"a share that is none", nil, []Spec{group, fwa}, Options{InternetShare: Share{Index: 2, Of: 2}}, "share of ports: number 2 of 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set := threeNetworks()
			if tt.edit != nil {
				tt.edit(set)
			}
			_, err := tt.o.Build(set, tt.specs, NewRegistry())
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestAFabricAdmitsWhatIsElsewhere(t *testing.T) {
	specs := []Spec{{Kind: NetworkInterface, Reference: "a"}, {Kind: Fabric, Reference: "a"}, {Kind: Fabric, Sort: FabricInterface, Reference: "fwa"}, {Kind: Fabric, Sort: FabricInternet, Reference: "a", Host: "other"},
		{Kind: Fabric, Reference: "c"}, {Kind: NetworkInterface, Reference: "fwb"}}
	const (
		nic = iota
		group
		own
		internet
		groupC
	)
	build := func(specs ...Spec) *Snapshot {
		s, err := Options{Host: "this"}.Build(threeNetworks(), specs, NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	forwarding, none := build(specs...), threeNetworks()
	for _, n := range none.NetworkInterfaces {
		n.EnableIPForwarding = false
	}
	plain, err := Options{Host: "this"}.Build(none, specs[:2], NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		s    *Snapshot
		from int
		src  string
		want string // the NIC, "outside" or "subnet"; empty: nobody
	}{
		{"a NIC elsewhere", plain, group, "10.2.0.4", "b"},
		{"the rest of a subnet elsewhere", plain, group, "10.1.0.9", "subnet"},
		{"a NIC that is attached here is spoofed", plain, group, "10.1.0.4", ""},
		{"an address of nobody", plain, group, "198.51.100.7", ""},
		{"the platform", plain, group, "168.63.129.16", ""},
		{"a NIC that is attached here, forwarded by an appliance elsewhere", forwarding, group, "10.1.0.4", "fwa"},
		{"what an appliance elsewhere forwards", forwarding, group, "198.51.100.7", "fwa"},
		{"no host's address, whoever forwards", forwarding, group, "240.0.0.1", ""},
		{"the platform, whoever forwards", forwarding, group, "168.63.129.16", ""},
		{"the internet at another host", forwarding, internet, "198.51.100.7", "outside"},
		{"a NIC from the internet at another host", forwarding, internet, "10.2.0.4", ""},
		{"the same address in another group", forwarding, groupC, "10.1.0.4", "c"},
		{"an appliance of another group forwards nothing here", forwarding, groupC, "198.51.100.7", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			switch e := tt.s.Admit(tt.s.Attachments[tt.from], ip(tt.src)); {
			case e == nil:
			case e == tt.s.Outside():
				got = "outside"
			case e.NetworkInterface == nil:
				got = "subnet"
			default:
				got = e.NetworkInterface.Name
			}
			if got != tt.want {
				t.Errorf("sent by %q, want %q", got, tt.want)
			}
		})
	}
	if to := forwarding.Attachments[group].Receiver(ip("10.2.0.4")); to != nil {
		t.Errorf("a packet for a NIC elsewhere is received here, by %v", to)
	}
}

// Hosts give flows no port that another host gives, and leave none out.
func TestSharesOfPorts(t *testing.T) {
	all := []PortRange{{ip("203.0.113.1"), 1024, 1033}, {ip("203.0.113.2"), 2000, 2006}}
	for of := 1; of <= 20; of++ {
		taken := map[string]int{}
		n := 0
		for index := range of {
			for _, r := range (Share{index, of}).of(all) {
				for p := int(r.First); p <= int(r.Last); p++ {
					taken[fmt.Sprint(r.Address, p)]++
					n++
				}
			}
		}
		if n != 17 || len(taken) != 17 {
			t.Errorf("%d shares: %d ports, %d of them different, want 17", of, n, len(taken))
		}
	}
}

// Hosts without the internet choose one with it: always the same, and not all the same.
func TestHostsSpreadOverThoseWithTheInternet(t *testing.T) {
	chosen := map[string]int{}
	for i := range 64 {
		best := "g0"
		for _, other := range []string{"g1", "g2"} {
			if before(fmt.Sprint("host", i), other, best) {
				best = other
			}
		}
		chosen[best]++
	}
	if len(chosen) != 3 {
		t.Errorf("chosen: %v", chosen)
	}
}
