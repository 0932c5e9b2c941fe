package classifier_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// FuzzFirstMatch reads rules from bytes and compares Table with Linear for packets at the
// rules' edges, inside them and elsewhere. Before each rule come gap rules that match
// nothing, so that few bytes reach every shape of bitmap.
func FuzzFirstMatch(f *testing.F) {
	f.Add([]byte{}, uint8(0), uint64(0))
	f.Add([]byte{1, 0x21, 4, 10, 0, 0, 0, 8, 6, 0xfd, 0, 0, 0, 0, 0, 0, 0, 16, 0x11, 0, 80, 0, 80, 0, 0, 0xff, 0xff}, uint8(0), uint64(1))
	f.Add([]byte{0, 0x11, 4, 10, 0, 0, 4, 32, 4, 10, 0, 0, 5, 32, 0x11, 0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff}, uint8(255), uint64(2))
	f.Add([]byte{0, 0x11, 0xf4, 10, 0, 0, 0, 63, 0, 0xf5, 10, 0, 0, 0, 63, 0, 0x11, 0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff,
		1, 0x11, 0xf0, 10, 0, 0, 0, 63, 4, 0xf3, 10, 0, 0, 0, 63, 9, 0x11, 0, 0, 0xff, 0xff, 0, 80, 0, 80}, uint8(200), uint64(3))
	f.Fuzz(func(t *testing.T, b []byte, gap uint8, seed uint64) {
		rules := rulesFrom(b)
		if len(rules) == 0 {
			return
		}
		all := sparse(rules, int(gap))
		table := classifier.Compile(all)
		r := rand.New(rand.NewPCG(seed, 0))
		for range max(4, min(64, 16_384/len(all))) { // the reference is slow
			agree(t, all, table, edgeTuple(r, rules), insideTuple(r, rules), randomTuple(r))
		}
	})
}

// byteReader gives out its bytes, then zeros for ever.
type byteReader []byte

func (b *byteReader) take(n int) []byte {
	out := make([]byte, n)
	*b = (*b)[copy(out, *b):]
	return out
}

func (b *byteReader) byte() byte { return b.take(1)[0] }

// rulesFrom reads up to 32 rules, each a protocol, two counts of prefixes, the
// prefixes, two counts of ranges and the ranges.
func rulesFrom(b []byte) []classifier.Rule {
	in := byteReader(b)
	var rules []classifier.Rule
	for len(in) > 0 && len(rules) < 32 {
		rule := classifier.Rule{Protocol: ruleset.Protocol(in.byte() % byte(ruleset.AH+1))}
		counts := in.byte()
		rule.Sources = prefixesFrom(&in, counts>>4)
		rule.Destinations = prefixesFrom(&in, counts&15)
		counts = in.byte()
		rule.SourcePorts = rangesFrom(&in, counts>>4)
		rule.DestinationPorts = rangesFrom(&in, counts&15)
		rules = append(rules, rule)
	}
	return rules
}

// prefixesFrom reads n prefixes; 15 means "*".
func prefixesFrom(in *byteReader, n byte) []netip.Prefix {
	if n == 15 {
		return anywhere
	}
	var out []netip.Prefix
	for range n {
		var a netip.Addr
		switch kind := in.byte(); {
		case kind >= 0xf0:
			out = append(out, clusterFrom(in, kind)...)
			continue
		case kind%3 == 0: // IPv6, with bytes in both halves
			var b [16]byte
			copy(b[:6], in.take(6))
			copy(b[14:], in.take(2))
			a = netip.AddrFrom16(b)
		case kind%3 == 1:
			a = netip.AddrFrom4([4]byte(in.take(4)))
		default: // IPv4 in its mapped form; the length may reach beyond that
			a = netip.AddrFrom16(netip.AddrFrom4([4]byte(in.take(4))).As16())
		}
		p := netip.PrefixFrom(a, int(in.byte())%(a.BitLen()+1))
		out = append(out, p)
	}
	return out
}

// clusterFrom reads the place and distance of up to 64 prefixes. Few bytes make many close
// borders, and neighbours that differ in single bits.
func clusterFrom(in *byteReader, kind byte) []netip.Prefix {
	b := in.take(6)
	first, count, shift := binary.BigEndian.Uint32(b), int(b[4]%64)+1, b[5]%24
	out := make([]netip.Prefix, count)
	for i := range out {
		offset := uint32(i) << shift
		if kind&1 != 0 { // each distance is twice the one before
			offset = 1 << (i % 32)
		}
		var a [16]byte
		copy(a[:], []byte{0xfd, kind})
		binary.BigEndian.PutUint32(a[2+10*int(kind>>1&1):], first+offset)
		addr := netip.AddrFrom16(a)
		if kind&4 != 0 {
			addr = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, first+offset)))
		}
		out[i] = netip.PrefixFrom(addr, addr.BitLen()-int(kind>>3&1)*int(shift))
	}
	return out
}

// rangesFrom reads n ranges as they are, empty ones too; 15 means "*".
func rangesFrom(in *byteReader, n byte) []ruleset.PortRange {
	if n == 15 {
		return allPorts
	}
	var out []ruleset.PortRange
	for range n {
		b := in.take(4)
		out = append(out, ruleset.PortRange{First: binary.BigEndian.Uint16(b), Last: binary.BigEndian.Uint16(b[2:])})
	}
	return out
}

// TestRulesFromReadsEveryKindOfPrefix keeps the fuzz target from going blind.
func TestRulesFromReadsEveryKindOfPrefix(t *testing.T) {
	rules := rulesFrom([]byte{1, 0x31, 0, 0xfd, 0, 0, 0, 0, 0, 0, 1, 64, 1, 10, 0, 0, 0, 8, 2, 10, 0, 0, 0, 104, 1, 10, 0, 0, 4, 32, 0x0f})
	if len(rules) != 1 || len(rules[0].Sources) != 3 || len(rules[0].DestinationPorts) != 1 || rules[0].Protocol != ruleset.TCP {
		t.Fatalf("read %+v", rules)
	}
	for i, want := range prefixes("fd00::1/64", "10.0.0.0/8", "::ffff:10.0.0.0/104") {
		if rules[0].Sources[i] != want {
			t.Errorf("prefix %d: %v, want %v", i, rules[0].Sources[i], want)
		}
	}
	if k := (packet.Tuple{}); classifier.Linear(rules).FirstMatch(&k) != -1 {
		t.Error("the zero tuple matches")
	}
}
