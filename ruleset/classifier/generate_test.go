package classifier_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// anywhere is the address "*".
var anywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

var allPorts = []ruleset.PortRange{ruleset.AllPorts}

// protocols are the numbers that rules can name, and some others.
var protocols = []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6, packet.ProtoESP, packet.ProtoAH, packet.ProtoGRE, 0, 255}

// agree checks that Table and Linear give the same answer for each tuple.
func agree(t *testing.T, rules []classifier.Rule, table *classifier.Table, tuples ...packet.Tuple) {
	t.Helper()
	linear := classifier.Linear(rules)
	for i := range tuples {
		k := &tuples[i]
		if got, want := table.FirstMatch(k), linear.FirstMatch(k); got != want {
			t.Fatalf("%d rules: table says %d, linear %d for %v (ports %d, %d)\n table: %s\n linear: %s", len(rules), got, want, k, k.SrcPort, k.DstPort, show(rules, got), show(rules, want))
		}
	}
}

func show(rules []classifier.Rule, i int) string {
	if i < 0 {
		return "no rule"
	}
	return fmt.Sprintf("%+v", rules[i])
}

// randomAddr picks from a few small regions of both families, so that random
// rules and random packets meet.
func randomAddr(r *rand.Rand) netip.Addr {
	switch r.IntN(8) {
	case 0:
		var b [4]byte
		for i := range b {
			b[i] = uint8(r.Uint32())
		}
		return netip.AddrFrom4(b)
	case 1:
		// ::ffff:0:0/96 is left out: Decode refuses it, a prefix there is IPv4.
		b := [16]byte{0: 0x20}
		for i := 1; i < len(b); i++ {
			b[i] = uint8(r.Uint32())
		}
		return netip.AddrFrom16(b)
	case 2, 3, 4:
		return netip.AddrFrom4([4]byte{10, 0, uint8(r.IntN(2)), uint8(r.IntN(32))})
	case 5:
		return netip.AddrFrom16([16]byte{15: uint8(r.IntN(32))})
	default:
		return netip.AddrFrom16([16]byte{0: 0xfd, 7: uint8(r.IntN(2)), 8: uint8(r.IntN(2)), 15: uint8(r.IntN(32))})
	}
}

// randomPrefix has any length, mostly a long one. Some have host bits, and some are IPv4
// prefixes in their mapped form.
func randomPrefix(r *rand.Rand) netip.Prefix {
	a := randomAddr(r)
	length := a.BitLen() - r.IntN(10)
	if r.IntN(4) == 0 {
		length = r.IntN(a.BitLen() + 1)
	}
	if a.Is4() && r.IntN(8) == 0 {
		return netip.PrefixFrom(netip.AddrFrom16(a.As16()), length+96)
	}
	p := netip.PrefixFrom(a, length)
	if r.IntN(2) == 0 {
		return p
	}
	return p.Masked()
}

func randomPrefixes(r *rand.Rand, most int) []netip.Prefix {
	switch r.IntN(4) {
	case 0:
		return anywhere
	case 1:
		return anywhere[r.IntN(2):][:1]
	}
	out := make([]netip.Prefix, r.IntN(most+1))
	for i := range out {
		out[i] = randomPrefix(r)
	}
	return out
}

func randomPort(r *rand.Rand) uint16 {
	edges := []uint16{0, 1, 3, 8, 22, 80, 128, 443, 1023, 1024, 32767, 32768, 65534, 65535}
	if r.IntN(3) == 0 {
		return uint16(r.Uint32())
	}
	return edges[r.IntN(len(edges))]
}

func randomPorts(r *rand.Rand) []ruleset.PortRange {
	switch r.IntN(6) {
	case 0, 1:
		return allPorts
	case 2: // every port, in two pieces
		cut := uint16(r.IntN(65535))
		return []ruleset.PortRange{{First: cut + 1, Last: 65535}, {First: 0, Last: cut}}
	}
	out := make([]ruleset.PortRange, r.IntN(5))
	for i := range out {
		out[i] = ruleset.PortRange{First: randomPort(r), Last: randomPort(r)}
		if out[i].First > out[i].Last && r.IntN(8) > 0 {
			out[i].First, out[i].Last = out[i].Last, out[i].First
		}
	}
	return out
}

func randomRules(r *rand.Rand, n, prefixes int) []classifier.Rule {
	rules := make([]classifier.Rule, n)
	for i := range rules {
		rules[i] = classifier.Rule{
			Protocol:         ruleset.Protocol(r.IntN(int(ruleset.AH) + 1)),
			Sources:          randomPrefixes(r, prefixes),
			Destinations:     randomPrefixes(r, prefixes),
			SourcePorts:      randomPorts(r),
			DestinationPorts: randomPorts(r),
		}
		if i > 0 && r.IntN(5) == 0 {
			rules[i].Sources = rules[r.IntN(i)].Sources // one slice, like an expanded tag
		}
	}
	return rules
}

// randomTuple takes addresses and ports at random, whatever the rules are.
func randomTuple(r *rand.Rand) packet.Tuple {
	return packet.Tuple{
		Src: packet.AddrFrom(randomAddr(r)), Dst: packet.AddrFrom(randomAddr(r)),
		SrcPort: randomPort(r), DstPort: randomPort(r), Proto: protocols[r.IntN(len(protocols))],
	}
}

// edgeTuple takes each field from the borders of one random rule or next to them, and
// sometimes a random field.
func edgeTuple(r *rand.Rand, rules []classifier.Rule) packet.Tuple {
	k := randomTuple(r)
	rule := &rules[r.IntN(len(rules))]
	if len(rule.Sources) > 0 {
		k.Src = edgeAddr(r, rule.Sources[r.IntN(len(rule.Sources))])
	}
	if len(rule.Destinations) > 0 {
		k.Dst = edgeAddr(r, rule.Destinations[r.IntN(len(rule.Destinations))])
	}
	if len(rule.SourcePorts) > 0 && r.IntN(4) > 0 {
		k.SrcPort = edgePort(r, rule.SourcePorts[r.IntN(len(rule.SourcePorts))])
	}
	if len(rule.DestinationPorts) > 0 && r.IntN(4) > 0 {
		k.DstPort = edgePort(r, rule.DestinationPorts[r.IntN(len(rule.DestinationPorts))])
	}
	return k
}

// edgeAddr is p's first or last address or a neighbour of either.
func edgeAddr(r *rand.Rand, p netip.Prefix) packet.Addr {
	if p.Addr().Is4In6() {
		p = netip.PrefixFrom(p.Addr().Unmap(), max(0, p.Bits()-96))
	}
	b := p.Masked().Addr().AsSlice()
	if r.IntN(2) == 0 {
		for i := p.Bits(); i < 8*len(b); i++ {
			b[i/8] |= 0x80 >> (i % 8)
		}
	}
	edge, _ := netip.AddrFromSlice(b)
	for _, a := range []netip.Addr{edge, edge.Prev(), edge.Next()}[r.IntN(3):] {
		if a.IsValid() && !a.Is4In6() {
			return packet.AddrFrom(a)
		}
	}
	return packet.AddrFrom(edge)
}

func edgePort(r *rand.Rand, p ruleset.PortRange) uint16 {
	edges := []uint16{p.First, p.Last, p.First - 1, p.Last + 1} // wrapping is an edge too
	return edges[r.IntN(len(edges))]
}

// insideTuple is a packet somewhere inside one random rule, in one family.
func insideTuple(r *rand.Rand, rules []classifier.Rule) packet.Tuple {
	rule := &rules[r.IntN(len(rules))]
	k := packet.Tuple{Proto: packet.ProtoTCP}
	switch rule.Protocol {
	case ruleset.UDP:
		k.Proto = packet.ProtoUDP
	case ruleset.ICMP:
		k.Proto = packet.ProtoICMP
	case ruleset.ICMPv6:
		k.Proto = packet.ProtoICMPv6
	case ruleset.ESP:
		k.Proto = packet.ProtoESP
	case ruleset.AH:
		k.Proto = packet.ProtoAH
	case ruleset.AnyProtocol:
		k.Proto = protocols[r.IntN(len(protocols))]
	}
	if len(rule.Sources) == 0 || len(rule.Destinations) == 0 {
		return k
	}
	k.Src = insideAddr(r, rule.Sources[r.IntN(len(rule.Sources))])
	if k.Proto == packet.ProtoICMP && !k.Src.Is4() {
		k.Proto = packet.ProtoICMPv6
	}
	ofFamily := slices.DeleteFunc(slices.Clone(rule.Destinations), func(p netip.Prefix) bool { return p.Addr().Is4() != k.Src.Is4() })
	if len(ofFamily) > 0 {
		k.Dst = insideAddr(r, ofFamily[r.IntN(len(ofFamily))])
	}
	if n := len(rule.SourcePorts); n > 0 {
		k.SrcPort = insidePort(r, rule.SourcePorts[r.IntN(n)])
	}
	if n := len(rule.DestinationPorts); n > 0 {
		k.DstPort = insidePort(r, rule.DestinationPorts[r.IntN(n)])
	}
	return k
}

func insideAddr(r *rand.Rand, p netip.Prefix) packet.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] ^= uint8(r.Uint32()) & (0x80 >> (i % 8))
	}
	a, _ := netip.AddrFromSlice(b)
	return packet.AddrFrom(a)
}

func insidePort(r *rand.Rand, p ruleset.PortRange) uint16 {
	if p.First >= p.Last {
		return p.First
	}
	return p.First + uint16(r.IntN(int(p.Last-p.First)+1))
}
