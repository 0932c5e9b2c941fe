package classifier_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"github.com/nsgd/nsgd/ruleset/classifier/classifiertest"
)

// groupRules makes the rules of an ordinary network security group: lists of up to four
// subnets and hosts of 10.0.0.0/8 or public addresses, a few destination ports, any source
// port. The last rule denies everything.
func groupRules(r *rand.Rand, n int) []classifier.Rule {
	prefix := func() netip.Prefix {
		b := [4]byte{10, uint8(r.IntN(8)), uint8(r.Uint32()), uint8(r.Uint32())}
		if r.IntN(4) == 0 {
			b[0] = uint8(1 + r.IntN(223))
		}
		return netip.PrefixFrom(netip.AddrFrom4(b), []int{16, 24, 24, 28, 32, 32}[r.IntN(6)]).Masked()
	}
	prefixes := func() []netip.Prefix {
		if r.IntN(4) == 0 {
			return anywhere
		}
		out := make([]netip.Prefix, 1+r.IntN(4))
		for i := range out {
			out[i] = prefix()
		}
		return out
	}
	wellKnown := []uint16{22, 53, 80, 123, 389, 443, 445, 1433, 3306, 3389, 5432, 6379, 8080, 8443}
	ports := func() []ruleset.PortRange {
		out := make([]ruleset.PortRange, 1+r.IntN(3))
		for i := range out {
			p := wellKnown[r.IntN(len(wellKnown))]
			out[i] = ruleset.PortRange{First: p, Last: p}
			if r.IntN(3) == 0 {
				first := uint16(1024 + r.IntN(60000))
				out[i] = ruleset.PortRange{First: first, Last: first + uint16(r.IntN(1000))}
			}
		}
		return out
	}
	rules := make([]classifier.Rule, n)
	for i := range rules {
		rules[i] = classifier.Rule{
			Protocol: []ruleset.Protocol{ruleset.TCP, ruleset.TCP, ruleset.UDP, ruleset.AnyProtocol}[r.IntN(4)],
			Sources:  prefixes(), Destinations: prefixes(), SourcePorts: allPorts, DestinationPorts: ports(),
		}
	}
	rules[n-1] = classifier.Rule{Sources: anywhere, Destinations: anywhere, SourcePorts: allPorts, DestinationPorts: allPorts}
	return rules
}

// traffic is a mix of packets inside rules and at their edges.
func traffic(r *rand.Rand, rules []classifier.Rule, packets int) []packet.Tuple {
	out := make([]packet.Tuple, packets)
	for i := range out {
		if out[i] = insideTuple(r, rules); i%4 == 0 {
			out[i] = edgeTuple(r, rules)
		}
	}
	return out
}

var sink int

// firstMatcher is what Table and Linear have in common.
type firstMatcher interface {
	FirstMatch(*packet.Tuple) int
}

func benchmarkFirstMatch(b *testing.B, c firstMatcher, tuples []packet.Tuple) {
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		sink += c.FirstMatch(&tuples[i%len(tuples)])
		i++
	}
}

func BenchmarkFirstMatch(b *testing.B) {
	for _, n := range []int{1, 4, 8, 10, 16, 64, 65, 100, 256, 257, 1000, 4000} {
		rules := groupRules(rand.New(rand.NewPCG(1, uint64(n))), n)
		tuples := traffic(rand.New(rand.NewPCG(2, uint64(n))), rules, 4096)
		table := classifier.Compile(rules)
		b.Run(fmt.Sprintf("table/rules=%d", n), func(b *testing.B) {
			benchmarkFirstMatch(b, table, tuples)
			b.ReportMetric(float64(table.Bytes()), "table-bytes")
		})
		b.Run(fmt.Sprintf("linear/rules=%d", n), func(b *testing.B) {
			benchmarkFirstMatch(b, classifier.Linear(rules), tuples)
		})
		b.Run(fmt.Sprintf("at random/rules=%d", n), func(b *testing.B) {
			// The processor learns the branches of a few thousand packets in turn.
			for state := uint64(1); b.Loop(); {
				state = state*6364136223846793005 + 1442695040888963407
				sink += table.FirstMatch(&tuples[state>>52])
			}
		})
	}
}

func BenchmarkFirstMatchClassBench(b *testing.B) {
	for _, set := range classifiertest.ClassBenchSets {
		b.Run(set.Name, func(b *testing.B) {
			rules := classifiertest.ReadClassBench(b, set.Name)
			tuples := traffic(rand.New(rand.NewPCG(3, 3)), rules, 4096)
			table := classifier.Compile(rules)
			b.Run("table", func(b *testing.B) {
				benchmarkFirstMatch(b, table, tuples)
				b.ReportMetric(float64(table.Bytes()), "table-bytes")
			})
			b.Run("linear", func(b *testing.B) {
				benchmarkFirstMatch(b, classifier.Linear(rules), tuples)
			})
		})
	}
}

// BenchmarkFirstMatchWorstCase has only misleading summaries: a lookup reads every word of
// the bitmaps, and only the last word has a match.
func BenchmarkFirstMatchWorstCase(b *testing.B) {
	host := []netip.Prefix{netip.MustParsePrefix("10.0.0.4/32")}
	other := []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}
	rules := misleading(4095, host, other)
	rules = append(rules, classifier.Rule{Sources: host, Destinations: anywhere, SourcePorts: allPorts, DestinationPorts: allPorts})
	tuples := []packet.Tuple{{Src: packet.AddrFrom(host[0].Addr()), Dst: packet.AddrFrom(host[0].Addr()), SrcPort: 1, DstPort: 1, Proto: packet.ProtoTCP}}
	b.Run("table/rules=4096", func(b *testing.B) { benchmarkFirstMatch(b, classifier.Compile(rules), tuples) })
	b.Run("linear/rules=4096", func(b *testing.B) { benchmarkFirstMatch(b, classifier.Linear(rules), tuples) })
}

func BenchmarkCompile(b *testing.B) {
	compile := func(name string, rules []classifier.Rule) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sink += classifier.Compile(rules).Bytes()
			}
			b.ReportMetric(float64(classifier.Compile(rules).Bytes()), "table-bytes")
		})
	}
	for _, n := range []int{10, 100, 1000, 4000} {
		compile(fmt.Sprintf("rules=%d", n), groupRules(rand.New(rand.NewPCG(1, uint64(n))), n))
	}
	compile("rules=1000/one list of 4000 prefixes", sharedList(1000, 4000))
	compile("rules=1000/prefixes=4000 over all rules", nestedLists(1000, 4))
	compile("rules=1000/prefixes=4000 in every rule, from 4000", pickedLists(1000, 4000, 4000))
	compile("rules=1000/prefixes=400 in every rule, all different", nestedLists(1000, 400))
	for _, set := range classifiertest.ClassBenchSets {
		b.Run(set.Name, func(b *testing.B) {
			rules := classifiertest.ReadClassBench(b, set.Name)
			b.ReportAllocs()
			for b.Loop() {
				sink += classifier.Compile(rules).Bytes()
			}
		})
	}
}

// sharedList makes n rules that share one list of addresses, as a service tag's, and
// differ in their ports.
func sharedList(n, prefixes int) []classifier.Rule {
	list := nestedLists(1, prefixes)[0].Sources
	rules := make([]classifier.Rule, n)
	for i := range rules {
		rules[i] = classifier.Rule{Sources: list, Destinations: list, SourcePorts: allPorts, DestinationPorts: []ruleset.PortRange{{First: uint16(i), Last: uint16(i)}}}
	}
	return rules
}

// nestedLists makes n rules with lists of prefixes of 10.0.0.0/8, of lengths 12 to 32. The
// prefixes of different rules are deeply nested, and each rule leaves holes.
func nestedLists(n, prefixes int) []classifier.Rule {
	r := rand.New(rand.NewPCG(4, uint64(n)))
	nested := func() []netip.Prefix {
		out := make([]netip.Prefix, prefixes)
		for i := range out {
			a := netip.AddrFrom4([4]byte{10, uint8(r.Uint32()), uint8(r.Uint32()), uint8(r.Uint32())})
			length := 32 - r.IntN(12)
			if r.IntN(1000) == 0 {
				length = 12 + r.IntN(8)
			}
			out[i] = netip.PrefixFrom(a, length).Masked()
		}
		return out
	}
	rules := make([]classifier.Rule, n)
	for i := range rules {
		rules[i] = classifier.Rule{Sources: nested(), Destinations: anywhere, SourcePorts: allPorts, DestinationPorts: allPorts}
	}
	return rules
}

// pickedLists makes n rules with different picks of one set of prefixes. Their borders are
// at the same values, and neighbouring intervals differ in about half of the rules.
func pickedLists(n, prefixes, from int) []classifier.Rule {
	r := rand.New(rand.NewPCG(5, uint64(n)))
	rules := make([]classifier.Rule, n)
	for i := range rules {
		list := make([]netip.Prefix, prefixes)
		for j := range list {
			at := 2 * uint32(r.IntN(from))
			list[j] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, uint8(at >> 16), uint8(at >> 8), uint8(at)}), 32)
		}
		rules[i] = classifier.Rule{Sources: list, Destinations: anywhere, SourcePorts: allPorts, DestinationPorts: allPorts}
	}
	return rules
}
