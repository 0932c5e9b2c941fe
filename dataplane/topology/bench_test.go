package topology

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// BenchmarkAdmit is what each packet costs before its flow is looked up.
func BenchmarkAdmit(b *testing.B) {
	s, err := Build(hubAndSpokes(), hubSpecs, NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		at   int
		src  string
	}{
		{"internet", atInternet, "203.0.113.9"}, {"internet-IPv6", atInternet, "2606:4700::1111"}, {"internet-6to4", atInternet, "2002:102:304::1"},
		{"internet-spoofed", atInternet, "10.0.1.4"}, {"network-interface", atFw, "10.0.1.4"}, {"gateway", atGateway, "192.168.7.7"},
	} {
		b.Run(c.name, func(b *testing.B) {
			a, src := s.Attachments[c.at], ip(c.src)
			var e *Endpoint
			for b.Loop() {
				e = s.Admit(a, src)
			}
			kept = e
		})
	}
}

var kept *Endpoint

// BenchmarkBuildHubOf1500Networks builds a snapshot of networks that learn each other's prefixes. Building such hops for
// each network took 26 s.
func BenchmarkBuildHubOf1500Networks(b *testing.B) {
	set, table := &policy.Set{}, &policy.HubTable{}
	for i := range 1500 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 7), byte(i << 1), 0}), 24)
		v := &policy.VirtualNetwork{Name: fmt.Sprint("n", i), ID: fmt.Sprint("/n", i), AddressSpace: []netip.Prefix{p}, HubTable: table}
		v.Subnets = []*policy.Subnet{{Name: "s", ID: v.ID + "/s", VirtualNetwork: v, Prefixes: []netip.Prefix{p}}}
		set.VirtualNetworks = append(set.VirtualNetworks, v)
		table.Routes = append(table.Routes, policy.HubRoute{Prefix: p, Network: v})
	}
	for b.Loop() {
		if _, err := Build(set, nil, NewRegistry()); err != nil {
			b.Fatal(err)
		}
	}
}
