package topology

import (
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// The hub peers its subnet a with subnet a of spoke1, which has another one, b.
func TestOnlyPeeredSubnetsReachEachOther(t *testing.T) {
	set := hubAndSpokes()
	hub, spoke := set.VirtualNetworks[0], set.VirtualNetworks[1]
	b := &policy.Subnet{Name: "b", ID: spoke.ID + "/b", VirtualNetwork: spoke, Prefixes: []netip.Prefix{pfx("10.1.2.0/24")}}
	spoke.Subnets = append(spoke.Subnets, b)
	set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: "other", ID: "/nic/other",
		IPConfigurations: []policy.IPConfiguration{{Name: "c", Address: netip.MustParseAddr("10.1.2.4"), Subnet: b, Primary: true}}})
	there, back := &hub.Peerings[0], &spoke.Peerings[0]
	there.OfSubnets, there.LocalSubnets, there.RemoteSubnets = true, hub.Subnets[1:], spoke.Subnets[:1]
	back.OfSubnets, back.LocalSubnets, back.RemoteSubnets = true, spoke.Subnets[:1], hub.Subnets[1:]
	s, err := Build(set, append([]Spec{{Kind: NetworkInterface, Reference: "other"}}, hubSpecs...), NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, from, to string
		drop           packet.Drop
	}{
		{"a peered subnet reaches a peered one", "10.1.1.4", "10.0.1.5", packet.NotDropped},
		{"and is reached", "10.0.1.5", "10.1.1.4", packet.NotDropped},
		{"another one reaches none", "10.1.2.4", "10.0.1.5", packet.DropNoRoute},
		{"and is not reached", "10.0.1.5", "10.1.2.4", packet.DropNoRoute},
		{"a peered subnet has the peer's gateway", "10.1.1.4", "192.168.7.7", packet.NotDropped},
		{"another one has none", "10.1.2.4", "192.168.7.7", packet.DropNoRoute},
		{"the gateway reaches a peered subnet", "192.168.7.7", "10.1.1.4", packet.NotDropped},
		{"and no other", "192.168.7.7", "10.1.2.4", packet.DropNoRoute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from, to := netip.MustParseAddr(tt.from), netip.MustParseAddr(tt.to)
			e := s.Owner(from)
			if e == nil || e == s.outside {
				e = s.networks.of[hub].gateway
			}
			if _, drop := s.Route(e, packet.AddrFrom(from), packet.AddrFrom(to)); drop != tt.drop {
				t.Errorf("%s, want %s", drop, tt.drop)
			}
		})
	}
}
