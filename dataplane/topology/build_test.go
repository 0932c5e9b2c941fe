package topology

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func ip(s string) packet.Addr { return packet.AddrFrom(netip.MustParseAddr(s)) }

// twoNetworks has vnet1 (10.0.0.0/16: a with NSG g, b) and vnet2 with the same space.
func twoNetworks() *policy.Set {
	set := &policy.Set{}
	g := &ruleset.NSG{Name: "g", ID: "/nsg/g"}
	set.NetworkSecurityGroups = []*ruleset.NSG{g}
	for _, name := range []string{"vnet1", "vnet2"} {
		v := &policy.VirtualNetwork{Name: name, ID: "/vnet/" + name, AddressSpace: []netip.Prefix{pfx("10.0.0.0/16"), pfx("fd00:1::/48")}}
		if name == "vnet2" {
			v.AddressSpace = []netip.Prefix{pfx("10.0.0.0/16"), pfx("10.2.0.0/16")}
		}
		a := &policy.Subnet{Name: "a", ID: v.ID + "/a", VirtualNetwork: v, NetworkSecurityGroup: g, Prefixes: []netip.Prefix{pfx("10.0.1.0/24")}}
		b := &policy.Subnet{Name: "b", ID: v.ID + "/b", VirtualNetwork: v, Prefixes: []netip.Prefix{pfx("10.0.2.0/24")}}
		if name == "vnet2" {
			b.Prefixes = []netip.Prefix{pfx("10.2.2.0/24")}
		}
		v.Subnets = []*policy.Subnet{a, b}
		set.VirtualNetworks = append(set.VirtualNetworks, v)
		for _, s := range v.Subnets {
			addr := s.Prefixes[0].Addr().Next().Next().Next().Next()
			set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: name + s.Name, ID: "/nic/" + name + s.Name,
				IPConfigurations: []policy.IPConfiguration{{Name: "c", Address: addr, Subnet: s, Primary: true}}})
		}
	}
	return set
}

func TestRouteAndAdmit(t *testing.T) {
	specs := []Spec{{Kind: NetworkInterface, Reference: "vnet1a"}, {Kind: Subnet, Reference: "vnet1/a"}, {Kind: Subnet, Reference: "vnet1/b"}, {Kind: NetworkInterface, Reference: "vnet2a"}, {Kind: Subnet, Reference: "vnet2/b"}, {Kind: Internet}, {Kind: Platform}}
	const (
		nic1 = iota
		sub1a
		sub1b
		nic2
		sub2b
		inet
		plat
	)
	s, err := Build(twoNetworks(), specs, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	routes := []struct {
		name string
		from int
		to   string
		want int // -1: none
	}{
		{"a NIC with its own attachment", sub1b, "10.0.1.4", nic1},
		{"another address of the same subnet goes to the subnet's attachment", nic1, "10.0.1.9", sub1a},
		{"a NIC without an attachment is behind its subnet's", nic1, "10.0.2.4", sub1b},
		{"the same address in the other network is the other network's", sub2b, "10.0.1.4", nic2},
		{"virtual networks that are not peered do not reach each other", nic1, "10.2.2.4", -1},
		{"the outside", nic1, "203.0.113.1", inet},
		{"the outside over IPv6", nic1, "2001:db8::1", inet},
		{"a private address outside", nic1, "172.16.0.1", -1},
		{"an address of the space without a subnet", nic1, "10.0.9.1", -1},
		{"the platform", nic1, "168.63.129.16", plat},
		{"the platform's IMDS", nic1, "169.254.169.254", plat},
		{"the broadcast address of a subnet", nic1, "10.0.1.255", -1},
		{"loopback", nic1, "127.0.0.1", -1},
		{"this host", nic1, "0.0.0.0", -1},
		{"link-local", nic1, "169.254.1.1", -1},
		{"reserved", nic1, "240.0.0.1", -1},
		{"loopback over IPv6", nic1, "::1", -1},
		{"link-local over IPv6", nic1, "fe80::1", -1},
		{"from outside to an address that two networks have", inet, "10.0.1.4", -1},
		{"from outside to an address that one network has", inet, "10.0.2.4", sub1b},
		{"from outside to the outside", inet, "198.51.100.1", -1},
		{"from outside to the platform", inet, "168.63.129.16", -1},
		{"from the platform to a NIC", plat, "10.2.2.4", sub2b},
		{"from outside to the other network", inet, "10.2.2.200", sub2b},
	}
	for _, tt := range routes {
		t.Run(tt.name, func(t *testing.T) {
			got := -1
			if e, _ := s.Route(sender(t, s, tt.from), packet.Addr{}, ip(tt.to)); e != nil {
				got = e.Attachment
			}
			if got != tt.want {
				t.Errorf("%s goes to %d, want %d", tt.to, got, tt.want)
			}
		})
	}
	sources := []struct {
		name string
		from int
		src  string
		want bool
	}{
		{"a NIC's own address", nic1, "10.0.1.4", true},
		{"a neighbour's address", nic1, "10.0.1.9", false},
		{"a subnet's address", sub1a, "10.0.1.9", true},
		{"a subnet's broadcast address", sub1a, "10.0.1.255", false},
		{"the address of a NIC that has its own attachment", sub1a, "10.0.1.4", false},
		{"an outside address at the internet", inet, "203.0.113.1", true},
		{"an inside address at the internet", inet, "10.2.2.4", false},
		{"an inside IPv6 address at the internet", inet, "fd00:1::1", false},
		{"the platform's address at the internet", inet, "168.63.129.16", false},
		{"the platform's address at the platform", plat, "168.63.129.16", true},
		{"any other address at the platform", plat, "203.0.113.1", false},
	}
	for _, tt := range sources {
		t.Run(tt.name, func(t *testing.T) {
			if got := s.Admit(s.Attachments[tt.from], ip(tt.src)) != nil; got != tt.want {
				t.Errorf("%s admitted: %v", tt.src, got)
			}
		})
	}
	for _, addr := range []string{"10.0.1.255", "127.0.0.1", "172.16.0.1"} {
		if e := s.RouteFrom(s.nicEndpoint(t, "vnet1a"), netip.MustParseAddr(addr)); e != nil {
			t.Errorf("a question about %s finds an endpoint that no packet reaches: %+v", addr, e)
		}
	}
}

// sender is an endpoint behind an attachment.
func sender(t *testing.T, s *Snapshot, at int) *Endpoint {
	t.Helper()
	switch a := s.Attachments[at]; a.Kind {
	case NetworkInterface:
		return a.endpoints[0]
	case Subnet:
		for _, p := range s.Policy.VirtualNetworks {
			for _, sub := range p.Subnets {
				if sub.ID == a.id {
					e, _ := a.network.hosts.Lookup(netipx.PrefixLastIP(sub.Prefixes[0]).Prev())
					return e
				}
			}
		}
	case Gateway:
		return a.network.gateway
	case Platform:
		return s.platform
	}
	return s.outside
}

// nicEndpoint is the endpoint of a NIC's only address.
func (s *Snapshot) nicEndpoint(t *testing.T, name string) *Endpoint {
	t.Helper()
	nic, err := s.Policy.NetworkInterface(name)
	if err != nil {
		t.Fatal(err)
	}
	return s.Endpoint(nic, nic.IPConfigurations[0].Address)
}

// The longer of two prefixes won: the outside reached a NIC at an address that is
// another network's as well.
func TestOutsideReachesNoAddressOfTwoNetworksWhoseSubnetsDiffer(t *testing.T) {
	for _, order := range []string{"wide first", "narrow first"} {
		t.Run(order, func(t *testing.T) {
			set := twoNetworks()
			v1, v2 := set.VirtualNetworks[0], set.VirtualNetworks[1]
			v1.Subnets, v2.Subnets = v1.Subnets[:1], v2.Subnets[:1]
			v1.Subnets[0].Prefixes = []netip.Prefix{pfx("10.0.0.0/16")}
			v2.Subnets[0].Prefixes = []netip.Prefix{pfx("10.0.1.0/24")}
			set.NetworkInterfaces = set.NetworkInterfaces[2:3] // vnet2's at 10.0.1.4
			if order == "narrow first" {
				set.VirtualNetworks[0], set.VirtualNetworks[1] = v2, v1
			}
			s, err := Build(set, []Spec{{Kind: Subnet, Reference: "vnet1/a"}, {Kind: NetworkInterface, Reference: "vnet2a"}, {Kind: Subnet, Reference: "vnet2/a"}, {Kind: Internet}}, NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			for to, want := range map[string]int{"10.0.1.4": -1, "10.0.1.9": -1, "10.0.2.4": 0} {
				got := -1
				if e := s.RouteFrom(nil, netip.MustParseAddr(to)); e != nil {
					got = e.Attachment
				}
				if got != want {
					t.Errorf("%s goes to %d, want %d", to, got, want)
				}
			}
		})
	}
}

func TestANICThatForwardsMaySendWhatItDoesNotOwn(t *testing.T) {
	set := twoNetworks()
	set.NetworkInterfaces[0].EnableIPForwarding = true
	s, err := Build(set, []Spec{{Kind: NetworkInterface, Reference: "vnet1a"}}, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if e := s.Admit(s.Attachments[0], ip("192.168.7.7")); e == nil || len(e.Outbound) != 1 {
		t.Errorf("got %+v, want the NIC's own endpoint and chain", e)
	}
}

func TestBuildNamesEveryFault(t *testing.T) {
	set := twoNetworks()
	set.NetworkSecurityGroups[0].Rules = []ruleset.Rule{{Name: "sql", Priority: 100, Source: ruleset.Peer{Tag: "Sql"}, Destination: ruleset.Peer{Any: true},
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}}}
	registry := NewRegistry()
	_, err := Build(set, []Spec{{Kind: NetworkInterface, Reference: "nobody"}, {Kind: Internet}, {Kind: Internet}}, registry)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"nobody"`, `"Sql"`, `rule "sql"`, `attached already`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	if n := len(registry.Keys()); n != 0 {
		t.Errorf("a refused policy left %d rules in the registry", n)
	}
}

func TestSlotsStayWithTheirRuleAcrossSnapshots(t *testing.T) {
	registry := NewRegistry()
	rule := func(name string, access ruleset.Access) ruleset.Rule {
		return ruleset.Rule{Name: name, Priority: 100, Access: access, Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true},
			SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}}
	}
	build := func(rules ...ruleset.Rule) *Table {
		set := twoNetworks()
		set.NetworkSecurityGroups[0].Rules = rules
		s, err := Build(set, nil, registry)
		if err != nil {
			t.Fatal(err)
		}
		return &s.Groups[0].Inbound
	}
	first := build(rule("a", ruleset.Allow))
	without := build()
	again := build(rule("a", ruleset.Allow))
	denied := build(rule("a", ruleset.Deny))
	if first.Slots[0] != again.Slots[0] {
		t.Error("a rule that returned has another slot")
	}
	if denied.Slots[0] == first.Slots[0] {
		t.Error("Allow and Deny share a slot, though access is a label")
	}
	if !slices.Equal(without.Slots, first.Slots[1:]) {
		t.Error("default rules changed their slots")
	}
}

// Groups stood in the order of their first use by a subnet or a NIC.
func TestGroupsStandInThePolicysOrder(t *testing.T) {
	set := twoNetworks()
	g := set.NetworkSecurityGroups[0] // of subnet a in both networks
	first, last := &ruleset.NSG{Name: "first", ID: "/nsg/first"}, &ruleset.NSG{Name: "last", ID: "/nsg/last"}
	unused := &ruleset.NSG{Name: "unused", ID: "/nsg/unused"}
	set.NetworkSecurityGroups = []*ruleset.NSG{unused, first, g, last}
	set.NetworkInterfaces[0].NetworkSecurityGroup = last
	set.NetworkInterfaces[3].NetworkSecurityGroup = first
	s, err := Build(set, nil, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, g := range s.Groups {
		got = append(got, g.NSG.Name)
	}
	if want := []string{"unused", "first", "g", "g", "last"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAUserRuleNamedLikeADefaultRuleCountsByItself(t *testing.T) {
	set := twoNetworks()
	set.NetworkSecurityGroups[0].Rules = []ruleset.Rule{{Name: "DenyAllInBound", Priority: 100, Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true},
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}}}
	registry := NewRegistry()
	s, err := Build(set, nil, registry)
	if err != nil {
		t.Fatal(err)
	}
	slots := s.Groups[0].Inbound.Slots
	first, last := slots[0], slots[len(slots)-1]
	if first == last || registry.Keys()[first].Rule != "securityRules/DenyAllInBound" || registry.Keys()[last].Rule != "DenyAllInBound" {
		t.Errorf("slots %v, keys %+v", slots, registry.Keys())
	}
}

func TestNSGsOfOneNameAreToldApartByID(t *testing.T) {
	set := twoNetworks()
	set.NetworkSecurityGroups = append(set.NetworkSecurityGroups, &ruleset.NSG{Name: "G", ID: "/other/g"})
	s, err := Build(set, nil, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]bool{}
	for _, g := range s.Groups {
		labels[g.Label] = true
	}
	if !labels["/nsg/g"] || !labels["/other/g"] || len(labels) != 2 {
		t.Errorf("labels %v", labels)
	}
}

func TestMembersOfAnApplicationSecurityGroup(t *testing.T) {
	set := twoNetworks()
	set.NetworkInterfaces[0].IPConfigurations[0].ApplicationSecurityGroups = []string{"/ASG/Web"}
	set.NetworkSecurityGroups[0].Rules = []ruleset.Rule{{Name: "web", Priority: 100, Access: ruleset.Allow,
		Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{ApplicationSecurityGroups: []string{"/asg/web"}},
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}}}
	s, err := Build(set, nil, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	match := func(dst string) int {
		return s.Groups[0].Inbound.Match.FirstMatch(&packet.Tuple{Src: ip("203.0.113.1"), Dst: ip(dst), DstPort: 1, Proto: packet.ProtoTCP})
	}
	if got := match("10.0.1.4"); got != 0 {
		t.Errorf("a member matched rule %d", got)
	}
	if got := match("10.0.1.9"); got == 0 {
		t.Error("somebody else matched the group's rule")
	}
}
