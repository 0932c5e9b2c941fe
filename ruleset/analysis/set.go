package analysis

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// value is a value of any field. Addresses have packet.Addr's form, ports and ICMP types are
// their numbers.
type value = packet.Addr

// span is an inclusive range of values.
type span struct{ first, last value }

// set is a set of values: spans in ascending order with a gap between any two. Sets are immutable.
// hash is a function of the content.
type set struct {
	spans []span
	hash  uint64
}

// newSet takes ownership of spans, which may overlap and come in any order.
func newSet(spans []span) *set {
	slices.SortFunc(spans, func(a, b span) int { return a.first.Compare(b.first) })
	merged := spans[:0]
	for _, s := range spans {
		if n := len(merged); n > 0 && !isAfter(s.first, merged[n-1].last) {
			if merged[n-1].last.Less(s.last) {
				merged[n-1].last = s.last
			}
			continue
		}
		merged = append(merged, s)
	}
	return sealed(merged)
}

// sealed makes a set of spans that are in order already.
func sealed(spans []span) *set {
	s := &set{spans: spans}
	for _, p := range spans {
		for _, w := range [...]uint64{p.first.Hi, p.first.Lo, p.last.Hi, p.last.Lo} {
			s.hash = mix(s.hash, w)
		}
	}
	return s
}

// mix is one step of wyhash. It needs no secret seed: equal hashes are only a hint here.
func mix(h, w uint64) uint64 {
	high, low := bits.Mul64(h^0xa0761d6478bd642f, w^0xe7037ed1a0b428db)
	return high ^ low
}

// isAfter reports whether a gap of at least one value is between last and v.
func isAfter(v, last value) bool {
	next, ok := last.Next()
	return ok && next.Less(v)
}

// predecessor is the value before a, which is not the lowest.
func predecessor(a value) value {
	if a.Lo == 0 {
		a.Hi--
	}
	a.Lo--
	return a
}

func (s *set) empty() bool { return len(s.spans) == 0 }

func (s *set) equal(o *set) bool { return s == o || s.hash == o.hash && slices.Equal(s.spans, o.spans) }

// apart reports, without looking closely, that two sets have no value in common.
func (s *set) apart(o *set) bool {
	return s.empty() || o.empty() || s.spans[len(s.spans)-1].last.Less(o.spans[0].first) || o.spans[len(o.spans)-1].last.Less(s.spans[0].first)
}

// at is the index of the first span that ends at v or after it.
func (s *set) at(v value) int {
	i, _ := slices.BinarySearchFunc(s.spans, v, func(p span, v value) int { return p.last.Compare(v) })
	return i
}

func (s *set) contains(v value) bool {
	i := s.at(v)
	return i < len(s.spans) && !v.Less(s.spans[i].first)
}

// holds reports whether o is a subset of s.
func (s *set) holds(o *set) bool {
	if s == o {
		return true
	}
	for _, p := range o.spans {
		i := s.at(p.last)
		if i == len(s.spans) || p.first.Less(s.spans[i].first) {
			return false
		}
	}
	return true
}

// intersect returns one of the two sets where it is the result.
func (s *set) intersect(o *set) *set {
	switch {
	case len(s.spans) == 1 && s.holds(o):
		return o
	case len(o.spans) == 1 && o.holds(s):
		return s
	}
	a, b := s.spans, o.spans
	out := make([]span, 0, max(len(a), len(b)))
	if len(a) > 0 && len(b) > 0 {
		a, b = a[s.at(b[0].first):], b[o.at(a[0].first):]
	}
	for len(a) > 0 && len(b) > 0 {
		first, last := a[0].first, a[0].last
		if first.Less(b[0].first) {
			first = b[0].first
		}
		if b[0].last.Less(last) {
			last = b[0].last
		}
		if !last.Less(first) {
			out = append(out, span{first, last})
		}
		if a[0].last.Less(b[0].last) {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return sealed(out)
}

// size is how many values the set has, rounded.
func (s *set) size() float64 {
	n := 0.0
	for _, p := range s.spans {
		n += p.size()
	}
	return n
}

func (p span) size() float64 {
	lo, borrow := bits.Sub64(p.last.Lo, p.first.Lo, 0)
	hi, _ := bits.Sub64(p.last.Hi, p.first.Hi, borrow)
	return math.Ldexp(float64(hi), 64) + float64(lo) + 1
}

// The families of addresses.
const (
	ipv4 = iota
	ipv6
	families
)

// addresses are all addresses of each family. The IPv4-mapped ones belong to IPv4.
var addresses = func() (all [families]*set) {
	mapped := prefixSpan(netip.MustParsePrefix("0.0.0.0/0"))
	after, _ := mapped.last.Next()
	all[ipv4] = sealed([]span{mapped})
	all[ipv6] = sealed([]span{{last: predecessor(mapped.first)}, {after, value{Hi: math.MaxUint64, Lo: math.MaxUint64}}})
	return all
}()

func prefixSpan(p netip.Prefix) span {
	first := packet.AddrFrom(p.Masked().Addr())
	hosts := p.Addr().BitLen() - p.Bits()
	mask := value{Hi: 1<<max(0, hosts-64) - 1, Lo: 1<<min(64, hosts) - 1}
	return span{first, value{Hi: first.Hi | mask.Hi, Lo: first.Lo | mask.Lo}}
}

// prefixSets are the addresses of a list of prefixes by family. It skips invalid prefixes, as
// package classifier does.
func prefixSets(prefixes []netip.Prefix) [families]*set {
	var spans [families][]span
	for _, p := range prefixes {
		switch {
		case !p.IsValid():
		case p.Addr().Is4(), p.Addr().Is4In6() && p.Bits() >= 96:
			spans[ipv4] = append(spans[ipv4], prefixSpan(p))
		default:
			spans[ipv6] = append(spans[ipv6], prefixSpan(p))
		}
	}
	return [families]*set{newSet(spans[ipv4]), newSet(spans[ipv6]).intersect(addresses[ipv6])}
}

// number is a port, an ICMP type or the like as a value.
func number(n uint16) value { return value{Lo: uint64(n)} }

// The domains of ports: TCP's and UDP's, ICMP's types, and that of a field that a protocol lacks.
var (
	everyPort = sealed([]span{{number(0), number(math.MaxUint16)}})
	everyType = sealed([]span{{number(0), number(math.MaxUint8)}})
	onlyZero  = sealed([]span{{}})
	nothing   = &set{}
)

func portSet(ranges []ruleset.PortRange) *set {
	var spans []span
	for _, r := range ranges {
		if r.First <= r.Last {
			spans = append(spans, span{number(r.First), number(r.Last)})
		}
	}
	return newSet(spans)
}

// netipOf is an address of a family for people.
func netipOf(v value, family int) netip.Addr {
	if family == ipv4 {
		return v.Netip()
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], v.Hi)
	binary.BigEndian.PutUint64(b[8:], v.Lo)
	return netip.AddrFrom16(b)
}
