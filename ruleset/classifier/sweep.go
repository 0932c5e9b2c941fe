package classifier

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// value is a value of any field as a 128-bit number. IPv6 addresses have the form of
// packet.Addr, IPv4 addresses and ports are their numbers.
type value = packet.Addr

var ipv6Last = value{Hi: 1<<64 - 1, Lo: 1<<64 - 1}

// list is the value of a field, and the rules that share it.
type list[E any] struct {
	elements []E
	rules    members
}

// lists collects one field of all rules. Rules that share a slice share a list: the ten
// thousand prefixes of a service tag in a hundred rules are sorted and swept once.
func lists[E any](rules []Rule, field func(*Rule) []E) []list[E] {
	type identity struct {
		first *E
		n     int
	}
	var out []list[E]
	seen := make(map[identity]int)
	for i := range rules {
		elements := field(&rules[i])
		if len(elements) == 0 {
			continue
		}
		id := identity{&elements[0], len(elements)}
		at, ok := seen[id]
		if !ok {
			at = len(out)
			seen[id] = at
			out = append(out, list[E]{elements: elements})
		}
		out[at].rules.add(i)
	}
	return out
}

// border is the start of an interval, and the class of the rules that match its values.
type border struct {
	start value
	class uint32
}

// sweeper goes over a field's values in ascending order and keeps the rules that match the
// current value. An event is the begin or the end of an element of a list: the list's
// number times two, plus one at an end. An end is at the first value after the element.
type sweeper struct {
	class   func(*bitmap) uint32
	rules   []members // of each list
	open    []uint32  // of each list: how many of its elements hold the current value
	current *bitmap
	always  []uint64 // the rules that match every value so far
	out     []border
}

func newSweeper[E any](p *pool, all []list[E]) *sweeper {
	s := &sweeper{class: p.intern, open: make([]uint32, len(all)), current: p.empty(), always: ones(p.length)}
	for i := range all {
		s.rules = append(s.rules, all[i].rules)
	}
	return s
}

// step handles one event. When one element of a list ends where the next begins, the list's
// rules are flipped twice or not at all, depending on the order of the two events.
func (s *sweeper) step(event uint32) {
	list := event / 2
	if event%2 == 0 {
		s.open[list]++
		if s.open[list] > 1 {
			return
		}
	} else {
		s.open[list]--
		if s.open[list] > 0 {
			return
		}
	}
	s.current.flip(s.rules[list])
}

// cut ends the events of a value. It makes a border only if the class changes.
func (s *sweeper) cut(at value) {
	class := s.class(s.current)
	if n := len(s.out); n == 0 || s.out[n-1].class != class {
		s.out = append(s.out, border{at, class})
		for i, w := range s.current.words {
			s.always[i] &= w
		}
	}
}

// sweep goes over ports or IPv4 addresses. The upper half of an event is its value. The
// first border is at 0.
func (s *sweeper) sweep(events []uint64) []border {
	events = sortUpper(events)
	for at := uint64(0); ; at = events[0] >> 32 {
		for len(events) > 0 && events[0]>>32 == at {
			s.step(uint32(events[0]))
			events = events[1:]
		}
		s.cut(value{Lo: at})
		if len(events) == 0 {
			return s.out
		}
	}
}

// wideEvent is an event of IPv6 addresses.
type wideEvent struct {
	at    value
	event uint32
}

// sweepWide is sweep for IPv6 addresses.
func (s *sweeper) sweepWide(events []wideEvent) []border {
	slices.SortFunc(events, func(a, b wideEvent) int { return a.at.Compare(b.at) })
	for at := (value{}); ; at = events[0].at {
		for len(events) > 0 && events[0].at == at {
			s.step(events[0].event)
			events = events[1:]
		}
		s.cut(at)
		if len(events) == 0 {
			return s.out
		}
	}
}

// span appends the events of an element from first to last: two, or only its begin if last
// is limit, the highest value.
func span(events []uint64, list int, first, last, limit uint32) []uint64 {
	event := uint64(list) * 2
	events = append(events, uint64(first)<<32|event)
	if last != limit {
		events = append(events, (uint64(last)+1)<<32|event|1)
	}
	return events
}

// portEvents leaves out ranges that hold no port.
func portEvents(all []list[ruleset.PortRange]) []uint64 {
	var events []uint64
	for i := range all {
		for _, r := range all[i].elements {
			if r.First <= r.Last {
				events = span(events, i, uint32(r.First), uint32(r.Last), 1<<16-1)
			}
		}
	}
	return events
}

// prefixEvents are the events of IPv4 and of IPv6 prefixes. It skips invalid prefixes.
func prefixEvents(all []list[netip.Prefix]) (ipv4 []uint64, ipv6 []wideEvent) {
	n := 0
	for i := range all {
		n += 2 * len(all[i].elements)
	}
	ipv4 = make([]uint64, 0, n)
	for i := range all {
		for _, p := range all[i].elements {
			p = unmap(p)
			switch {
			case !p.IsValid():
			case p.Addr().Is4():
				a := p.Addr().As4()
				hosts := uint32(1<<(32-p.Bits()) - 1)
				first := binary.BigEndian.Uint32(a[:]) &^ hosts
				ipv4 = span(ipv4, i, first, first|hosts, 1<<32-1)
			default:
				ipv6 = wideSpan(ipv6, i, p)
			}
		}
	}
	return ipv4, ipv6
}

func wideSpan(events []wideEvent, list int, p netip.Prefix) []wideEvent {
	hosts := 128 - p.Bits()
	mask := value{Hi: 1<<max(0, hosts-64) - 1, Lo: 1<<hosts - 1}
	a := packet.AddrFrom(p.Addr())
	first := value{Hi: a.Hi &^ mask.Hi, Lo: a.Lo &^ mask.Lo}
	events = append(events, wideEvent{first, uint32(list) * 2})
	if after, ok := (value{Hi: a.Hi | mask.Hi, Lo: a.Lo | mask.Lo}).Next(); ok {
		events = append(events, wideEvent{after, uint32(list)*2 + 1})
	}
	return events
}

// sortUpper sorts numbers by their upper half. Numbers with the same upper half come in any
// order. It may reuse a for the result.
func sortUpper(a []uint64) []uint64 {
	// Counting takes steps for each possible digit, even for few numbers.
	const digit, fewest = 11, 1 << 10
	if len(a) < fewest {
		slices.Sort(a)
		return a
	}
	out := make([]uint64, len(a))
	for shift := 32; shift < 64; shift += digit {
		var next [1 << digit]int
		for _, x := range a {
			next[x>>shift%(1<<digit)]++
		}
		at := 0
		for i, n := range next {
			next[i] = at
			at += n
		}
		for _, x := range a {
			d := x >> shift % (1 << digit)
			out[next[d]] = x
			next[d]++
		}
		a, out = out, a
	}
	return a
}
