package topology

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// hubAndSpokes is a hub (10.0.0.0/16: subnet a with NIC fw that forwards, a GatewaySubnet) and two
// spokes (10.1.0.0/16, 10.2.0.0/16). Each spoke has a subnet "a" and a NIC of the spoke's name at
// .4. The spokes are peered with the hub, which lends them its gateway, but not with each other.
func hubAndSpokes() *policy.Set {
	set := &policy.Set{}
	network := func(name, space string, subnets map[string]string) *policy.VirtualNetwork {
		v := &policy.VirtualNetwork{Name: name, ID: "/vnet/" + name, AddressSpace: []netip.Prefix{pfx(space)}}
		for _, s := range slices.Sorted(maps.Keys(subnets)) { // GatewaySubnet first
			v.Subnets = append(v.Subnets, &policy.Subnet{Name: s, ID: v.ID + "/" + s, VirtualNetwork: v, Prefixes: []netip.Prefix{pfx(subnets[s])}})
		}
		set.VirtualNetworks = append(set.VirtualNetworks, v)
		return v
	}
	hub := network("hub", "10.0.0.0/16", map[string]string{"a": "10.0.1.0/24", "GatewaySubnet": "10.0.0.0/27"})
	nic := func(name, addr string, s *policy.Subnet, forwards bool) {
		set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: name, ID: "/nic/" + name, EnableIPForwarding: forwards,
			IPConfigurations: []policy.IPConfiguration{{Name: "c", Address: netip.MustParseAddr(addr), Subnet: s, Primary: true}}})
	}
	nic("fw", "10.0.1.4", hub.Subnets[1], true)
	nic("plain", "10.0.1.5", hub.Subnets[1], false)
	for i, name := range []string{"spoke1", "spoke2"} {
		space := []string{"10.1.0.0/16", "10.2.0.0/16"}[i]
		v := network(name, space, map[string]string{"a": []string{"10.1.1.0/24", "10.2.1.0/24"}[i]})
		nic(name, []string{"10.1.1.4", "10.2.1.4"}[i], v.Subnets[0], false)
		hub.Peerings = append(hub.Peerings, policy.Peering{Name: "to-" + name, Remote: v, AllowVirtualNetworkAccess: true, AllowGatewayTransit: true})
		v.Peerings = []policy.Peering{{Name: "to-hub", Remote: hub, AllowVirtualNetworkAccess: true, AllowForwardedTraffic: true, UseRemoteGateways: true}}
	}
	return set
}

// The attachments of hubSpecs.
const (
	atFw = iota
	atPlain
	atSpoke1
	atSpoke2
	atInternet
	atPlatform
	atGateway
)

var hubSpecs = []Spec{
	{Kind: NetworkInterface, Reference: "fw"}, {Kind: NetworkInterface, Reference: "plain"},
	{Kind: NetworkInterface, Reference: "spoke1"}, {Kind: NetworkInterface, Reference: "spoke2"},
	{Kind: Internet}, {Kind: Platform},
	{Kind: Gateway, Reference: "hub", Prefixes: []netip.Prefix{pfx("192.168.0.0/16"), pfx("10.1.9.0/24")}},
}

func subnetOf(set *policy.Set, vnet string) *policy.Subnet {
	v, err := set.VirtualNetwork(vnet)
	if err != nil {
		panic(err)
	}
	return v.Subnets[len(v.Subnets)-1]
}

// through makes a route table.
func through(routes ...policy.Route) *policy.RouteTable {
	return &policy.RouteTable{Name: "t", ID: "/rt/t", Routes: routes}
}

func appliance(prefix, address string) policy.Route {
	return policy.Route{Name: prefix, Prefix: pfx(prefix), Hop: policy.HopVirtualAppliance, Appliance: netip.MustParseAddr(address)}
}

func TestWhereRoutesLead(t *testing.T) {
	to := func(s *policy.Subnet, routes ...policy.Route) { s.RouteTable = through(routes...) }
	const none = -1
	tests := []struct {
		name     string
		edit     func(*policy.Set)
		from     int
		src, dst string
		want     int
		drop     packet.Drop
	}{
		{"a peer", nil, atSpoke1, "10.1.1.4", "10.0.1.5", atPlain, 0},
		{"a peer of the peer: peering is not transitive", nil, atSpoke1, "10.1.1.4", "10.2.1.4", none, packet.DropNoRoute},
		{"the platform", nil, atSpoke1, "10.1.1.4", "168.63.129.16", atPlatform, 0},
		{"the internet", nil, atSpoke1, "10.1.1.4", "203.0.113.1", atInternet, 0},
		{"on-premises by the network's own gateway", nil, atPlain, "10.0.1.5", "192.168.7.7", atGateway, 0},
		{"on-premises by a peer's gateway", nil, atSpoke1, "10.1.1.4", "192.168.7.7", atGateway, 0},
		{"a gateway's prefix within a peer does not win over the peering", nil, atPlain, "10.0.1.5", "10.1.9.9", none, packet.DropNoRoute},
		{"from on-premises to the network", nil, atGateway, "192.168.7.7", "10.0.1.5", atPlain, 0},
		{"from on-premises to a peer that borrows the gateway", nil, atGateway, "192.168.7.7", "10.2.1.4", atSpoke2, 0},
		{"from on-premises to the internet", nil, atGateway, "192.168.7.7", "203.0.113.1", none, packet.DropNoRoute},
		{"from on-premises to a peer that does not borrow it", func(s *policy.Set) { s.VirtualNetworks[2].Peerings[0].UseRemoteGateways = false }, atGateway, "192.168.7.7", "10.2.1.4", none, packet.DropNoRoute},
		{"on-premises where transit is not allowed", func(s *policy.Set) { s.VirtualNetworks[0].Peerings[0].AllowGatewayTransit = false }, atSpoke1, "10.1.1.4", "192.168.7.7", none, packet.DropNoRoute},
		{"on-premises where the table keeps gateway routes out", func(s *policy.Set) {
			to(subnetOf(s, "spoke1"))
			subnetOf(s, "spoke1").RouteTable.DisableGatewayRoutes = true
		}, atSpoke1, "10.1.1.4", "192.168.7.7", none, packet.DropNoRoute},
		{"a peering without access on this side", func(s *policy.Set) { s.VirtualNetworks[1].Peerings[0].AllowVirtualNetworkAccess = false }, atSpoke1, "10.1.1.4", "10.0.1.5", none, packet.DropNoRoute},
		{"a peering without access on the other side", func(s *policy.Set) { s.VirtualNetworks[0].Peerings[0].AllowVirtualNetworkAccess = false }, atSpoke1, "10.1.1.4", "10.0.1.5", none, packet.DropNoRoute},
		{"a peering that is not connected", func(s *policy.Set) { s.VirtualNetworks[0].Peerings[0].State = policy.PeeringInitiated }, atSpoke1, "10.1.1.4", "10.0.1.5", none, packet.DropNoRoute},
		{"an appliance with a peer", func(s *policy.Set) { to(subnetOf(s, "spoke1"), appliance("10.0.0.0/8", "10.0.1.4")) }, atSpoke1, "10.1.1.4", "10.2.1.4", atFw, 0},
		{"what the appliance sends on, for somebody else", nil, atFw, "10.1.1.4", "10.2.1.4", atSpoke2, 0},
		{"what the appliance sends on, to a peer that takes nothing forwarded", func(s *policy.Set) { s.VirtualNetworks[2].Peerings[0].AllowForwardedTraffic = false }, atFw, "10.1.1.4", "10.2.1.4", none, packet.DropForwarded},
		{"what the appliance sends itself, to that peer", func(s *policy.Set) { s.VirtualNetworks[2].Peerings[0].AllowForwardedTraffic = false }, atFw, "10.0.1.4", "10.2.1.4", atSpoke2, 0},
		{"the longer prefix is the network's own", func(s *policy.Set) { to(subnetOf(s, "hub"), appliance("10.0.0.0/8", "10.0.1.4")) }, atPlain, "10.0.1.5", "10.0.1.4", atFw, 0},
		{"a user-defined route wins over the network's of equal length", func(s *policy.Set) {
			to(subnetOf(s, "hub"), policy.Route{Prefix: pfx("10.0.0.0/16"), Hop: policy.HopNone})
		}, atPlain, "10.0.1.5", "10.0.1.4", none, packet.DropRouteNone},
		{"a user-defined route wins over the gateway's of equal length", func(s *policy.Set) {
			to(subnetOf(s, "hub"), policy.Route{Prefix: pfx("192.168.0.0/16"), Hop: policy.HopInternet})
		}, atPlain, "10.0.1.5", "192.168.7.7", atInternet, 0},
		{"a gateway's route wins over the system's of equal length", nil, atPlain, "10.0.1.5", "192.168.0.1", atGateway, 0},
		{"None", func(s *policy.Set) {
			to(subnetOf(s, "spoke1"), policy.Route{Prefix: pfx("0.0.0.0/0"), Hop: policy.HopNone})
		}, atSpoke1, "10.1.1.4", "203.0.113.1", none, packet.DropRouteNone},
		{"None does not lead away from the platform", func(s *policy.Set) {
			to(subnetOf(s, "spoke1"), policy.Route{Prefix: pfx("168.63.129.16/32"), Hop: policy.HopNone}, policy.Route{Prefix: pfx("0.0.0.0/0"), Hop: policy.HopNone})
		}, atSpoke1, "10.1.1.4", "168.63.129.16", atPlatform, 0},
		{"VnetLocal", func(s *policy.Set) {
			to(subnetOf(s, "hub"), policy.Route{Prefix: pfx("10.0.1.0/24"), Hop: policy.HopVnetLocal})
		}, atFw, "10.0.1.4", "10.0.1.5", atPlain, 0},
		{"VnetLocal for what is not in the network", func(s *policy.Set) {
			to(subnetOf(s, "hub"), policy.Route{Prefix: pfx("10.1.1.0/24"), Hop: policy.HopVnetLocal})
		}, atPlain, "10.0.1.5", "10.1.1.4", none, packet.DropNoRoute},
		{"VirtualNetworkGateway", func(s *policy.Set) {
			to(subnetOf(s, "spoke1"), policy.Route{Prefix: pfx("0.0.0.0/0"), Hop: policy.HopGateway})
		}, atSpoke1, "10.1.1.4", "203.0.113.1", atGateway, 0},
		{"VirtualNetworkGateway where there is none", func(s *policy.Set) {
			s.VirtualNetworks[1].Peerings[0].UseRemoteGateways = false
			to(subnetOf(s, "spoke1"), policy.Route{Prefix: pfx("0.0.0.0/0"), Hop: policy.HopGateway})
		}, atSpoke1, "10.1.1.4", "203.0.113.1", none, packet.DropNextHop},
		{"an appliance that does not forward", func(s *policy.Set) { to(subnetOf(s, "spoke1"), appliance("0.0.0.0/0", "10.0.1.5")) }, atSpoke1, "10.1.1.4", "203.0.113.1", none, packet.DropNextHop},
		{"an appliance that nobody is", func(s *policy.Set) { to(subnetOf(s, "spoke1"), appliance("0.0.0.0/0", "10.0.1.99")) }, atSpoke1, "10.1.1.4", "203.0.113.1", none, packet.DropNextHop},
		{"an appliance beyond the peer", func(s *policy.Set) {
			s.NetworkInterfaces[3].EnableIPForwarding = true
			to(subnetOf(s, "spoke1"), appliance("0.0.0.0/0", "10.2.1.4"))
		}, atSpoke1, "10.1.1.4", "203.0.113.1", none, packet.DropNextHop},
		{"a service tag", func(s *policy.Set) {
			s.ServiceTags = map[string][]netip.Prefix{"Sql": {pfx("203.0.113.0/24")}}
			to(subnetOf(s, "spoke1"), policy.Route{Tag: "Sql", Hop: policy.HopNone})
		}, atSpoke1, "10.1.1.4", "203.0.113.1", none, packet.DropRouteNone},
		{"a prefix wins over the equal one of a service tag", func(s *policy.Set) {
			s.ServiceTags = map[string][]netip.Prefix{"Sql": {pfx("203.0.113.0/24")}}
			to(subnetOf(s, "spoke1"), policy.Route{Prefix: pfx("203.0.113.0/24"), Hop: policy.HopInternet}, policy.Route{Tag: "Sql", Hop: policy.HopNone})
		}, atSpoke1, "10.1.1.4", "203.0.113.1", atInternet, 0},
		{"the route table of the GatewaySubnet holds for what comes from on-premises", func(s *policy.Set) { to(s.VirtualNetworks[0].Subnets[0], appliance("10.1.0.0/16", "10.0.1.4")) }, atGateway, "192.168.7.7", "10.1.1.4", atFw, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set := hubAndSpokes()
			if tt.edit != nil {
				tt.edit(set)
			}
			s, err := Build(set, hubSpecs, NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			got := none
			e, drop := s.Route(sender(t, s, tt.from), ip(tt.src), ip(tt.dst))
			if drop == packet.NotDropped {
				got = e.Attachment
			}
			if got != tt.want || drop != tt.drop {
				t.Errorf("goes to %d, %s; want %d, %s", got, drop, tt.want, tt.drop)
			}
		})
	}
}

func TestAnApplianceThatNothingIsAttachedTo(t *testing.T) {
	set := hubAndSpokes()
	subnetOf(set, "spoke1").RouteTable = through(appliance("0.0.0.0/0", "10.0.1.4"))
	for name, specs := range map[string][]Spec{"no attachment": {{Kind: NetworkInterface, Reference: "spoke1"}}, "its subnet's": {{Kind: NetworkInterface, Reference: "spoke1"}, {Kind: Subnet, Reference: "hub/a"}}} {
		s, err := Build(set, specs, NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		if _, drop := s.Route(sender(t, s, 0), ip("10.1.1.4"), ip("203.0.113.1")); drop != packet.DropNextHop {
			t.Errorf("%s: dropped under %s", name, drop)
		}
	}
}

func TestWhoMaySendFromOnPremises(t *testing.T) {
	set := hubAndSpokes()
	for i, space := range []string{"192.168.60.0/24", "192.168.50.0/24"} {
		v := set.VirtualNetworks[i] // the hub, and a spoke that uses its gateway
		v.Peerings = append(v.Peerings, policy.Peering{AllowVirtualNetworkAccess: true, State: policy.PeeringConnected, RemoteAddressSpace: []netip.Prefix{pfx(space)}})
	}
	s, err := Build(set, hubSpecs, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		at   int
		src  string
		want bool
	}{
		{"an address behind the gateway", atGateway, "192.168.7.7", true},
		{"an address that is not behind it", atGateway, "172.16.0.1", false},
		{"an address of its network", atGateway, "10.0.1.5", false},
		{"an address of a peer that the prefixes hold too", atGateway, "10.1.9.9", false},
		{"an address of a peer that the policy has not got", atGateway, "192.168.60.7", false},
		{"an address of a peer of a network that uses the gateway", atGateway, "192.168.50.7", false},
		{"the platform", atGateway, "168.63.129.16", false},
		{"an address behind the gateway, from the internet", atInternet, "192.168.7.7", false},
		{"a private address that nobody has, from the internet", atInternet, "172.16.0.1", false},
	}
	for _, tt := range tests {
		if got := s.Admit(s.Attachments[tt.at], ip(tt.src)) != nil; got != tt.want {
			t.Errorf("%s: admitted %v", tt.name, got)
		}
	}
}

func TestVirtualNetworkIsTheSubnets(t *testing.T) {
	const platform = "168.63.129.16/32"
	tests := []struct {
		name string
		edit func(*policy.Set)
		want []string // of spoke1's subnet
	}{
		{"the network, its peer, and what the peer's gateway has learned", nil, []string{"10.0.0.0/16", "10.1.0.0/16", platform, "192.168.0.0/16"}},
		{"a peering without access", func(s *policy.Set) { s.VirtualNetworks[1].Peerings[0].AllowVirtualNetworkAccess = false }, []string{"10.1.0.0/16", platform}},
		{"a peering that is not connected", func(s *policy.Set) { s.VirtualNetworks[0].Peerings[0].State = policy.PeeringDisconnected }, []string{"10.1.0.0/16", platform}},
		{"a peer that the policy has not got", func(s *policy.Set) {
			s.VirtualNetworks[1].Peerings = append(s.VirtualNetworks[1].Peerings, policy.Peering{AllowVirtualNetworkAccess: true, State: policy.PeeringConnected, RemoteAddressSpace: []netip.Prefix{pfx("10.7.0.0/16")}})
		}, []string{"10.0.0.0/16", "10.1.0.0/16", "10.7.0.0/16", platform, "192.168.0.0/16"}},
		{"gateways' routes kept out", func(s *policy.Set) { subnetOf(s, "spoke1").RouteTable = &policy.RouteTable{DisableGatewayRoutes: true} }, []string{"10.0.0.0/16", "10.1.0.0/16", platform}},
		{"user-defined routes, whatever their next hop", func(s *policy.Set) {
			s.ServiceTags = map[string][]netip.Prefix{"Sql": {pfx("203.0.113.0/24")}}
			subnetOf(s, "spoke1").RouteTable = through(policy.Route{Tag: "Sql", Hop: policy.HopInternet}, policy.Route{Prefix: pfx("172.16.0.0/12"), Hop: policy.HopNone})
		}, []string{"10.0.0.0/16", "10.1.0.0/16", platform, "172.16.0.0/12", "192.168.0.0/16", "203.0.113.0/24"}},
		{"a default route makes it everything", func(s *policy.Set) { subnetOf(s, "spoke1").RouteTable = through(appliance("0.0.0.0/0", "10.0.1.4")) }, []string{"0.0.0.0/0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set := hubAndSpokes()
			g := &ruleset.NSG{Name: "g", ID: "/nsg/g"}
			set.NetworkSecurityGroups = []*ruleset.NSG{g}
			subnetOf(set, "spoke1").NetworkSecurityGroup = g
			if tt.edit != nil {
				tt.edit(set)
			}
			s, err := Build(set, hubSpecs, NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			group := s.nicEndpoint(t, "spoke1").Inbound[0].Group
			var got []string
			for _, p := range group.Expand(ruleset.TagVirtualNetwork) {
				got = append(got, p.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			for _, p := range group.Expand(ruleset.TagInternet) {
				for _, own := range group.Expand(ruleset.TagVirtualNetwork) {
					if own.Overlaps(p) && own.String() != platform { // both tags hold the platform's address
						t.Errorf("Internet has %s, and VirtualNetwork %s", p, own)
					}
				}
			}
		})
	}
}

func TestSubnetsThatSeeTagsAlikeShareAGroup(t *testing.T) {
	set := hubAndSpokes()
	g := &ruleset.NSG{Name: "g", ID: "/nsg/g"}
	set.NetworkSecurityGroups = []*ruleset.NSG{g}
	v := set.VirtualNetworks[0]
	for _, name := range []string{"b", "c", "d"} {
		v.Subnets = append(v.Subnets, &policy.Subnet{Name: name, ID: v.ID + "/" + name, VirtualNetwork: v, Prefixes: []netip.Prefix{pfx("10.0." + map[string]string{"b": "2", "c": "3", "d": "4"}[name] + ".0/24")}})
	}
	for _, s := range v.Subnets {
		s.NetworkSecurityGroup = g
	}
	v.Subnets[3].RouteTable = through(appliance("172.16.0.0/12", "10.0.1.4"))                                               // c
	v.Subnets[4].RouteTable = &policy.RouteTable{ID: "/rt/u", Routes: []policy.Route{appliance("10.0.0.0/24", "10.0.1.4")}} // d: nothing new
	registry := NewRegistry()
	s, err := Build(set, hubSpecs, registry)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Groups) != 2 {
		t.Fatalf("%d groups, want one for c and one for the others", len(s.Groups))
	}
	again, err := Rebuild(s, set, hubSpecs, registry)
	if err != nil {
		t.Fatal(err)
	}
	if got := compiledAnew(s, again); got != nil {
		t.Errorf("compiled %v again", got)
	}
	v.Subnets[3].RouteTable = through(appliance("172.16.0.0/13", "10.0.1.4"))
	changed, err := Rebuild(again, set, hubSpecs, registry)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := compiledAnew(again, changed), []string{"g Inbound", "g Outbound"}; !slices.Equal(got, want) {
		t.Errorf("compiled %v, want the one group whose route has changed", got)
	}
}

func TestARuleOfSeveralGroupsOneOfThemEmpty(t *testing.T) {
	set := rebuildSet()
	ids := []string{"/asg/web", "/asg/empty"}
	set.NetworkSecurityGroups[1].Rules[0].Destination.ApplicationSecurityGroups = ids
	k := packet.Tuple{Src: ip("203.0.113.1"), Dst: ip("10.0.1.4"), SrcPort: 9, DstPort: 443, Proto: packet.ProtoTCP}
	for _, quirks := range []bool{false, true} {
		s, err := Options{AzureQuirks: quirks}.Build(set, nil, NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		table := s.Groups[1].Inbound
		if got := table.Rules[table.Match.FirstMatch(&k)].Name == "web"; got == quirks {
			t.Errorf("quirks %v: the rule matches: %v", quirks, got)
		}
	}
	set.NetworkSecurityGroups[1].Rules[0].Destination.ApplicationSecurityGroups = ids[:1]
	s, err := Options{AzureQuirks: true}.Build(set, nil, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if table := s.Groups[1].Inbound; table.Rules[table.Match.FirstMatch(&k)].Name != "web" {
		t.Error("a rule of one group with members does not match")
	}
}

func TestFaultsOfGateways(t *testing.T) {
	tests := []struct {
		name string
		spec Spec
		want string
	}{
		{"a network that is not there", Spec{Kind: Gateway, Reference: "nowhere", Prefixes: []netip.Prefix{pfx("192.168.0.0/16")}}, `attachment 7: virtual network "nowhere" not found: the policy has hub, spoke1, spoke2`},
		{"no prefixes", Spec{Kind: Gateway, Reference: "spoke1"}, `attachment 7: the gateway of virtual network "spoke1" has no prefixes`},
		{"a prefix of the network itself", Spec{Kind: Gateway, Reference: "spoke1", Prefixes: []netip.Prefix{pfx("10.1.2.0/24")}}, `prefix 10.1.2.0/24 of the gateway lies within the address space of its virtual network "spoke1": 10.1.0.0/16`},
		{"a second gateway of a network", hubSpecs[atGateway], `gateway "hub/GatewaySubnet" is attached already by attachment 6`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Build(hubAndSpokes(), append(slices.Clone(hubSpecs), tt.spec), NewRegistry())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
