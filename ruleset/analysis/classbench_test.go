package analysis_test

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier/classifiertest"
)

var samples = flag.Int("samples", 10_000, "packets for each pair of lists that is sampled")

// sample is a packet that a random rule of the lists matches, or is near to it.
func sample(r *rand.Rand, lists ...[]analysis.Rule) packet.Tuple {
	rules := lists[r.IntN(len(lists))]
	rule := &rules[r.IntN(len(rules))]
	k := packet.Tuple{Src: insidePrefix(r, rule.Sources), Dst: insidePrefix(r, rule.Destinations),
		SrcPort: insideRange(r, rule.SourcePorts), DstPort: insideRange(r, rule.DestinationPorts)}
	if k.Src.Is4() != k.Dst.Is4() {
		k.Dst = k.Src
	}
	switch rule.Protocol {
	case ruleset.TCP:
		k.Proto = packet.ProtoTCP
	case ruleset.UDP:
		k.Proto = packet.ProtoUDP
	default:
		k.Proto = []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoESP, packet.ProtoAH, packet.ProtoGRE}[r.IntN(6)]
	}
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
	case packet.ProtoICMP:
		k.SrcPort, k.DstPort = 0, k.DstPort%256
	default:
		k.SrcPort, k.DstPort = 0, 0
	}
	return k
}

func insidePrefix(r *rand.Rand, list []netip.Prefix) packet.Addr {
	p := list[r.IntN(len(list))]
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		if r.IntN(2) == 0 {
			b[bit/8] ^= 1 << (7 - bit%8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return packet.AddrFrom(a)
}

func insideRange(r *rand.Rand, list []ruleset.PortRange) uint16 {
	one := list[r.IntN(len(list))]
	return one.First + uint16(r.IntN(int(one.Last)-int(one.First)+1))
}

func TestCompareAgreesWithSampledPacketsOfClassBench(t *testing.T) {
	for _, set := range classifiertest.ClassBenchSets {
		t.Run(set.Name, func(t *testing.T) {
			rules := classBench(t, set.Name)
			r := rand.New(rand.NewPCG(3, 5))
			edited := threeEdits(r, rules)
			old, new := chain{rules}, chain{edited}
			d := analysis.Compare(old.prepared(), new.prepared(), analysis.Options{})
			packets := make([]packet.Tuple, *samples)
			for i := range packets {
				packets[i] = sample(r, rules, edited)
			}
			checkDifference(t, old, new, d, packets)
			t.Logf("%d changes, %d packets", len(d.Changes), len(packets))
		})
	}
}
