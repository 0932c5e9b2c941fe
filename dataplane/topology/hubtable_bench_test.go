package topology

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/ruleset/policy"
)

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
