package topology

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

func TestNoAttachmentSendsAnAddressOfThePlatformOrAPublicOne(t *testing.T) {
	set := hubAndSpokes()
	set.PublicIPAddresses = []*policy.PublicIPAddress{{Name: "p", ID: "/pip/p", Address: netip.MustParseAddr("203.0.113.5")}}
	specs := append([]Spec(nil), hubSpecs[:atGateway]...)
	specs = append(specs, Spec{Kind: Gateway, Reference: "hub", Prefixes: []netip.Prefix{pfx("203.0.113.0/24"), pfx("168.63.129.0/24"), pfx("10.0.0.0/8")}})
	s, err := Build(set, specs, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		at   int
		src  string
		want bool
	}{
		{"a NIC that forwards, for others", atFw, "198.51.100.7", true},
		{"a NIC that forwards, for the platform", atFw, "168.63.129.16", false},
		{"a gateway, of its prefixes", atGateway, "203.0.113.6", true},
		{"a gateway, a public address of the policy in its prefixes", atGateway, "203.0.113.5", false},
		{"a gateway, the platform's address in its prefixes", atGateway, "168.63.129.16", false},
		{"a gateway, a private address in its prefixes", atGateway, "10.99.0.1", true},
		{"a gateway, an address of its network", atGateway, "10.0.1.5", false},
		{"a gateway, an address of a peer", atGateway, "10.1.1.4", false},
		{"the internet, a public address of the policy", atInternet, "203.0.113.5", false},
	} {
		if got := s.Admit(s.Attachments[tt.at], ip(tt.src)) != nil; got != tt.want {
			t.Errorf("%s: %s admitted: %v", tt.name, tt.src, got)
		}
	}
}

func TestASubnetOfTwoAddressesHasNoBroadcastAddress(t *testing.T) {
	set := twoNetworks()
	set.VirtualNetworks[0].Subnets[1].Prefixes = []netip.Prefix{pfx("10.0.2.4/31"), pfx("10.0.3.0/30")}
	s, err := Build(set, []Spec{{Kind: Subnet, Reference: "vnet1/b"}}, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for src, want := range map[string]bool{"10.0.2.4": true, "10.0.2.5": true, "10.0.2.6": false, "10.0.3.2": true, "10.0.3.3": false} {
		if got := s.Admit(s.Attachments[0], ip(src)) != nil; got != want {
			t.Errorf("%s admitted: %v", src, got)
		}
	}
}

// A network with a gateway of its own uses no peer's gateway.
func TestAnOwnGatewayGoesBeforeAPeers(t *testing.T) {
	specs := append(append([]Spec(nil), hubSpecs...), Spec{Kind: Gateway, Reference: "spoke1", Prefixes: []netip.Prefix{pfx("172.20.0.0/16")}})
	s, err := Build(hubAndSpokes(), specs, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	spoke := s.nicEndpoint(t, "spoke1")
	if e, drop := s.Route(spoke, spoke.address, ip("172.20.1.1")); drop != packet.NotDropped || e.Attachment != len(hubSpecs) {
		t.Errorf("on-premises behind the own gateway: %+v, %s", e, drop)
	}
	if e, drop := s.Route(spoke, spoke.address, ip("192.168.7.7")); drop != packet.DropNoRoute {
		t.Errorf("on-premises behind the peer's gateway: %+v, %s", e, drop)
	}
}

func TestIsolatedNICsNeedAddressesOfTheirOwn(t *testing.T) {
	build := func(names ...string) (*Snapshot, error) {
		specs := []Spec{{Kind: Internet}}
		for _, n := range names {
			specs = append(specs, Spec{Kind: NetworkInterface, Reference: n})
		}
		return Options{Isolated: true}.Build(twoNetworks(), specs, NewRegistry())
	}
	if _, err := build("vnet1a", "vnet2a"); err == nil {
		t.Error("two NICs with one address are taken")
	}
	s, err := build("vnet1a", "vnet1b")
	if err != nil {
		t.Fatal(err)
	}
	nic := s.nicEndpoint(t, "vnet1a")
	for _, tt := range []struct {
		name, to string
		want     int
	}{
		{"the other NIC", "10.0.2.4", 2}, {"a neighbour without an attachment", "10.0.1.9", 0},
		{"a private address of nobody", "172.16.0.1", 0}, {"the internet", "203.0.113.1", 0},
	} {
		if e, drop := s.Route(nic, nic.address, ip(tt.to)); drop != packet.NotDropped || e.Attachment != tt.want {
			t.Errorf("%s: %+v, %s", tt.name, e, drop)
		}
	}
	if s.Admit(s.Attachments[0], ip("10.0.1.9")) == nil || s.Routed() {
		t.Error("an address without an attachment is not treated as outside, or routes are asked")
	}
}

// The table of blocks, the sets and what is embedded agree with a plain list, around every edge.
func TestTheInternetSendsFromWhatTheListSays(t *testing.T) {
	set := hubAndSpokes()
	set.PublicIPAddresses = []*policy.PublicIPAddress{{Name: "p", ID: "/pip/p", Address: netip.MustParseAddr("20.1.2.3")}}
	set.PublicIPPrefixes = []*policy.PublicIPPrefix{{Name: "r", ID: "/prefix/r", Prefix: pfx("20.1.3.0/30")}}
	set.VirtualNetworks[1].Peerings = append(set.VirtualNetworks[1].Peerings, policy.Peering{Name: "away", RemoteAddressSpace: []netip.Prefix{pfx("20.7.0.0/16"), pfx("2a00:7::/32")}})
	subnetOf(set, "spoke1").RouteTable = through(appliance("20.8.0.0/16", "10.0.1.4"), appliance("20.9.0.0/16", "10.0.1.99"),
		policy.Route{Name: "g", Prefix: pfx("20.10.0.0/16"), Hop: policy.HopGateway}, policy.Route{Name: "i", Prefix: pfx("20.11.0.0/16"), Hop: policy.HopInternet})
	extra := []netip.Prefix{pfx("198.18.0.0/16"), pfx("10.0.0.0/8"), pfx("fd77::/32")}
	specs := slices.Clone(hubSpecs)
	specs[atGateway].Prefixes = []netip.Prefix{pfx("192.168.0.0/16"), pfx("20.12.0.0/16")}
	s, err := Options{Outside: extra}.Build(set, specs, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	var never []netip.Prefix
	for _, v := range set.VirtualNetworks {
		never = append(never, v.AddressSpace...)
	}
	never = append(never, specs[atGateway].Prefixes...)
	for _, p := range []string{"168.63.129.16/32", "169.254.169.254/32", "20.1.2.3/32", "20.1.3.0/30", "20.7.0.0/16", "2a00:7::/32", "20.9.0.0/16", "20.10.0.0/16"} {
		never = append(never, pfx(p))
	}
	owned := func(a netip.Addr) bool { return contain(never, a) }
	want := func(a netip.Addr) bool {
		return packettest.OnInternet(a, owned) || contain(extra, a) && !owned(a)
	}
	admitted := 0
	random := rand.New(rand.NewPCG(1, 15))
	var addresses []netip.Addr
	for _, block := range specialPurpose {
		addresses = append(addresses, around(pfx(block.prefix))...)
	}
	for _, p := range append(slices.Clone(never), extra...) {
		addresses = append(addresses, around(p)...)
	}
	for range 2000 {
		v4 := random.Uint32()
		if random.IntN(2) == 0 {
			v4 = binary.BigEndian.Uint32(addresses[random.IntN(len(addresses))].AsSlice()[:4])
		}
		plain := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, v4)))
		addresses = append(addresses, plain)
	}
	for _, a := range slices.Clone(addresses) {
		if !a.Is4() {
			continue
		}
		b := a.As4()
		other := netip.AddrFrom4([4]byte{20, 1, 3, byte(random.IntN(8))}).As4()
		addresses = append(addresses,
			netip.AddrFrom16([16]byte{0x20, 0x02, b[0], b[1], b[2], b[3], 15: 1}),
			netip.AddrFrom16([16]byte{0, 0x64, 0xff, 0x9b, 12: b[0], b[1], b[2], b[3]}),
			netip.AddrFrom16([16]byte{0, 0x64, 0xff, 0x9b, 0, 1, 12: b[0], b[1], b[2], b[3]}),
			netip.AddrFrom16([16]byte{0x20, 0x01, 0, 0, b[0], b[1], b[2], b[3], 12: ^other[0], ^other[1], ^other[2], ^other[3]}),
			netip.AddrFrom16([16]byte{0x20, 0x01, 0, 0, other[0], other[1], other[2], other[3], 12: ^b[0], ^b[1], ^b[2], ^b[3]}),
			netip.AddrFrom16([16]byte{12: b[0], b[1], b[2], b[3]}))
	}
	for _, a := range addresses {
		embedded := a.Is6() && (pfx("2002::/16").Contains(a) || pfx("64:ff9b::/96").Contains(a) || pfx("2001::/32").Contains(a))
		if embedded && hasExtra(a, extra) {
			continue // the list does not know of them
		}
		got := s.Admit(s.Attachments[atInternet], packet.AddrFrom(a)) != nil
		if got != want(a) {
			t.Errorf("%s: admitted %v", a, got)
		}
		if got {
			admitted++
		}
	}
	if admitted < len(addresses)/10 || admitted > len(addresses)*9/10 {
		t.Errorf("%d of %d addresses admitted", admitted, len(addresses))
	}
}

// hasExtra reports that one of the 32-bit words of an address, or its complement, is in a prefix.
func hasExtra(a netip.Addr, extra []netip.Prefix) bool {
	b := a.As16()
	for i := 0; i+4 <= 16; i += 2 {
		if contain(extra, netip.AddrFrom4([4]byte(b[i:i+4]))) || contain(extra, netip.AddrFrom4([4]byte{^b[i], ^b[i+1], ^b[i+2], ^b[i+3]})) {
			return true
		}
	}
	return false
}

// around are the addresses at both edges of a prefix, within and without.
func around(p netip.Prefix) (list []netip.Addr) {
	first, last := p.Masked().Addr(), netipx.PrefixLastIP(p)
	for _, a := range []netip.Addr{first.Prev(), first, last, last.Next()} {
		if a.IsValid() && !a.Is4In6() {
			list = append(list, a)
		}
	}
	return list
}

// Whoever Sender names is let in at its own attachment, as that endpoint; and whoever an attachment that
// the receiver's network leads to lets in is named.
func TestSenderIsWhoIsAdmitted(t *testing.T) {
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 16))
		set := randomStreet(random)
		s, err := Build(set, everybody(set), NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			to := s.endpoints.nics[random.IntN(len(s.endpoints.nics))]
			from := randomPacket(random, set).Src
			if random.IntN(4) == 0 {
				from = packet.AddrFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, random.Uint32()))))
			}
			e := s.Sender(to, from.Netip())
			switch {
			case e != nil && e.Attachment >= 0 && s.Admit(s.Attachments[e.Attachment], from) != e:
				t.Errorf("seed %d: %s sends to %s from attachment %d, which does not let it in", seed, from, to.address, e.Attachment)
			case e == nil:
				for _, a := range s.Attachments {
					if other := s.Admit(a, from); a.Kind != NetworkInterface && other != nil && a.network == to.routes.network {
						t.Errorf("seed %d: attachment %d lets %s in, and nobody sends from it to %s", seed, a.Index, from, to.address)
					}
				}
			}
		}
	}
}

// Appliances whose routes lead to one another stand before nothing.
func TestRoutesInACircleLeadNowhere(t *testing.T) {
	set := hubAndSpokes()
	for _, nic := range set.NetworkInterfaces {
		nic.EnableIPForwarding = true
	}
	table := through(appliance("20.8.0.0/16", "10.0.1.4"))
	for _, v := range set.VirtualNetworks {
		for _, sub := range v.Subnets {
			sub.RouteTable = table
		}
	}
	s, err := Build(set, hubSpecs, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if s.Admit(s.Attachments[atInternet], ip("20.8.0.1")) != nil || s.Admit(s.Attachments[atInternet], ip("20.9.0.1")) == nil {
		t.Error("a route in a circle leads to the internet, or more than its prefix does not")
	}
}

func TestPrefixesOfTheInternetLieOutside(t *testing.T) {
	for prefix, want := range map[string]bool{"10.0.0.0/8": true, "10.0.0.0/16": false, "10.1.1.0/24": false, "172.16.0.0/12": true, "192.168.7.0/24": false} {
		_, err := Options{Outside: []netip.Prefix{pfx(prefix)}}.Build(hubAndSpokes(), hubSpecs, NewRegistry())
		if (err == nil) != want {
			t.Errorf("%s: %v", prefix, err)
		}
	}
}
