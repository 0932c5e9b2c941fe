package topology

import (
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
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
