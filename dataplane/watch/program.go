package watch

import (
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Program is a filter with its names looked up: a list of tests, each with the next step for yes
// and for no. It never changes.
type Program struct {
	steps []step
	start int32
}

// Ends of a program, beside the numbers of steps.
const (
	accept = -1
	refuse = -2
)

type step struct {
	kind        kind
	side        side
	icmp        bool
	first, last uint16
	yes, no     int32

	value, mask packet.Addr // of kindHost and kindNet
	is4         bool        // of value
	set         []uint64    // a bit for each attachment or slot that has the name
}

// bind makes a program. An unknown name is an error if strict, and otherwise matches nothing.
func (f *Filter) bind(names *Names, strict bool) (*Program, error) {
	p := &Program{start: accept}
	if f.takesAll() {
		return p, nil
	}
	var err *Error
	p.start = p.compile(f.root, accept, refuse, func(t *test) []uint64 {
		numbers := names.matches(t)
		if len(numbers) == 0 && strict && (err == nil || t.column < err.Column) {
			err = names.unknown(t)
		}
		return bitmap(numbers)
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

func bitmap(numbers []uint32) []uint64 {
	var set []uint64
	for _, n := range numbers {
		for int(n/64) >= len(set) {
			set = append(set, 0)
		}
		set[n/64] |= 1 << (n % 64)
	}
	return set
}

func has(set []uint64, n uint32) bool { return int(n/64) < len(set) && set[n/64]>>(n%64)&1 != 0 }

// compile adds the steps of a node that leads to yes or no, and returns the first. Later steps are
// added first, because earlier ones need their numbers.
func (p *Program) compile(n *node, yes, no int32, lookup func(*test) []uint64) int32 {
	switch n.op {
	case opNot:
		return p.compile(n.left, no, yes, lookup)
	case opAnd:
		return p.compile(n.left, p.compile(n.right, yes, no, lookup), no, lookup)
	case opOr:
		return p.compile(n.left, yes, p.compile(n.right, yes, no, lookup), lookup)
	}
	t := &n.test
	s := step{kind: t.kind, side: t.side, icmp: t.icmp, first: t.first, last: t.last, yes: yes, no: no}
	switch t.kind {
	case kindHost, kindNet:
		s.value, s.mask, s.is4 = packet.AddrFrom(t.prefix.Addr()), maskOf(t.prefix), t.prefix.Addr().Is4()
	case kindAttachment, kindNSG, kindRule:
		s.set = lookup(t)
	}
	p.steps = append(p.steps, s)
	return int32(len(p.steps) - 1)
}

// maskOf is a prefix's mask as a packet.Addr, where an IPv4 address is the end of an IPv6 one.
func maskOf(p netip.Prefix) packet.Addr {
	bits := p.Bits() + 128 - p.Addr().BitLen()
	return packet.Addr{Hi: ^uint64(0) << max(64-bits, 0), Lo: ^uint64(0) << min(128-bits, 64)}
}

// Match reports whether the filter takes an event. It allocates nothing.
func (p *Program) Match(e *Event) bool {
	at := p.start
	for at >= 0 {
		s := &p.steps[at]
		if s.matches(e) {
			at = s.yes
		} else {
			at = s.no
		}
	}
	return at == accept
}

func (s *step) matches(e *Event) bool {
	switch s.kind {
	case kindVerdict:
		return (e.Drop != packet.NotDropped) == (s.first == 1)
	case kindReason:
		if s.first == uint16(packet.NumDrops) {
			return e.OutOfWindow
		}
		return e.Drop == packet.Drop(s.first)
	case kindFlow:
		return e.Standing == Standing(s.first)
	case kindAttachment:
		return s.sides(e.From >= 0 && has(s.set, uint32(e.From)), e.To >= 0 && has(s.set, uint32(e.To)))
	case kindNSG, kindRule:
		for _, slot := range e.Rules[:e.N] {
			if has(s.set, slot) {
				return true
			}
		}
		return false
	}
	return s.matchesTuple(&e.Packet.Tuple, &e.Packet.Fragment) || e.Translated && s.matchesTuple(&e.Arrives, &e.Packet.Fragment)
}

func (s *step) matchesTuple(t *packet.Tuple, f *packet.Fragment) bool {
	if t.Dst == (packet.Addr{}) { // not decoded
		return false
	}
	switch s.kind {
	case kindFamily:
		return t.Dst.Is4() == (s.first == 4)
	case kindProto:
		return t.Proto == uint8(s.first) || s.icmp && t.Proto == packet.ProtoICMPv6
	case kindPort, kindPortRange:
		// A later fragment has none.
		if t.Proto != packet.ProtoTCP && t.Proto != packet.ProtoUDP || f.IsLater() {
			return false
		}
		return s.sides(s.first <= t.SrcPort && t.SrcPort <= s.last, s.first <= t.DstPort && t.DstPort <= s.last)
	}
	return s.sides(s.in(t.Src), s.in(t.Dst))
}

func (s *step) in(a packet.Addr) bool {
	return a.Hi&s.mask.Hi == s.value.Hi && a.Lo&s.mask.Lo == s.value.Lo && a.Is4() == s.is4
}

// sides joins what was found of source and destination.
func (s *step) sides(src, dst bool) bool {
	switch s.side {
	case source:
		return src
	case destination:
		return dst
	case both:
		return src && dst
	}
	return src || dst
}
