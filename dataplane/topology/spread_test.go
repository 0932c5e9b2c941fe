package topology

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Whatever the seed, each backend of three gets 30 of 300 flows at least that differ in their ports, or in their
// clients' addresses.
func TestFlowsThatFollowOneAnotherMeetEveryBackend(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 1500 {
		seed := random.Uint64()
		for what, flow := range map[string]struct {
			distribution policy.Distribution
			tuple        func(n int) packet.Tuple
		}{
			"ports":     {policy.DistributionDefault, func(n int) packet.Tuple { return clientsTuple("203.0.113.9", uint16(1024+n)) }},
			"addresses": {policy.DistributionSourceIP, func(n int) packet.Tuple { return clientsTuple(netip.AddrFrom4([4]byte{203, 0, byte(n >> 8), byte(n)}).String(), 1024) }},
		} {
			rule := &frontendRule{distribution: flow.distribution}
			var met [3]int
			for n := range 300 {
				tuple := flow.tuple(n)
				met[below(rule.hash(seed, &tuple), len(met))]++
			}
			for backend, n := range met {
				if n < 30 {
					t.Fatalf("seed %#x, %s: backend %d gets %d of 300 flows: %v", seed, what, backend, n, met)
				}
			}
		}
	}
}

func clientsTuple(client string, port uint16) packet.Tuple {
	return packet.Tuple{Src: packet.AddrFrom(netip.MustParseAddr(client)), Dst: packet.AddrFrom(netip.MustParseAddr("198.51.100.5")),
		Proto: packet.ProtoTCP, SrcPort: port, DstPort: 80}
}
