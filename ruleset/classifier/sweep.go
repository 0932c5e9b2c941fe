package classifier

import (
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// value is a value of any field, as a 128-bit number: addresses as packet.Addr
// holds them, ports as their number. It is wider than ports and IPv4 need, and
// used only while compiling.
type value = packet.Addr

// span is an inclusive range of values.
type span struct{ first, last value }

// What each field's values range over.
var (
	ipv6Last   = value{Hi: 1<<64 - 1, Lo: 1<<64 - 1}
	portValues = span{last: value{Lo: 65535}}
	ipv4Values = span{first: packet.AddrFrom4([4]byte{}), last: packet.AddrFrom4([4]byte{255, 255, 255, 255})}
	ipv6Values = span{last: ipv6Last}
)

// list is one field's spans, sorted and neither overlapping nor touching, and
// the rules that have them.
type list struct {
	spans []span
	rules members
}

// lists gathers one field of all rules. Rules that share one slice share one
// list: a service tag's ten thousand prefixes in a hundred rules are sorted and
// swept once.
func lists[E any](rules []Rule, field func(*Rule) []E, spans func([]E) []span) []list {
	type identity struct {
		first *E
		n     int
	}
	var out []list
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
			out = append(out, list{spans: merge(spans(elements))})
		}
		out[at].rules.add(i)
	}
	return out
}

// merge sorts spans and joins those that overlap or touch.
func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return compare(a.first, b.first) })
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 {
			// No successor means that the last span reaches the highest value.
			after, ok := successor(out[n-1].last)
			if !ok || !after.Less(s.first) {
				if out[n-1].last.Less(s.last) {
					out[n-1].last = s.last
				}
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

// border is where an interval starts, and the bitmap of the rules that match
// the interval's values.
type border struct {
	start value
	class uint32
}

// sweep cuts the values of within into intervals and returns their borders in
// ascending order; the first is within.first, and neighbours differ in class.
func (p *pool) sweep(within span, all []list) []border {
	type event struct {
		at   value
		list int32
	}
	n := 0
	for _, l := range all {
		n += 2 * len(l.spans)
	}
	events := make([]event, 0, n)
	for i, l := range all {
		for _, s := range l.spans {
			events = append(events, event{s.first, int32(i)})
			if s.last != within.last {
				after, _ := successor(s.last)
				events = append(events, event{after, int32(i)})
			}
		}
	}
	slices.SortFunc(events, func(a, b event) int { return compare(a.at, b.at) })

	var out []border
	current := p.empty()
	for at := within.first; ; at = events[0].at {
		// A list's spans don't touch, so each event flips its rules once.
		for len(events) > 0 && events[0].at == at {
			current.flip(all[events[0].list].rules)
			events = events[1:]
		}
		class := p.intern(current)
		if len(out) == 0 || out[len(out)-1].class != class {
			out = append(out, border{at, class})
		}
		if len(events) == 0 {
			return out
		}
	}
}

// portSpans are the ranges that hold a port.
func portSpans(ranges []ruleset.PortRange) []span {
	out := make([]span, 0, len(ranges))
	for _, r := range ranges {
		if r.First <= r.Last {
			out = append(out, span{value{Lo: uint64(r.First)}, value{Lo: uint64(r.Last)}})
		}
	}
	return out
}

func ipv4Spans(prefixes []netip.Prefix) []span { return familySpans(prefixes, true) }
func ipv6Spans(prefixes []netip.Prefix) []span { return familySpans(prefixes, false) }

// familySpans are the prefixes of one family; invalid prefixes match nothing.
func familySpans(prefixes []netip.Prefix, ipv4 bool) []span {
	var out []span
	for _, p := range prefixes {
		p = unmap(p)
		if !p.IsValid() || p.Addr().Is4() != ipv4 {
			continue
		}
		if out == nil { // most lists are of one family
			out = make([]span, 0, len(prefixes))
		}
		host := p.Addr().BitLen() - p.Bits()
		mask := value{Lo: 1<<min(host, 64) - 1}
		if host > 64 {
			mask.Hi = 1<<(host-64) - 1
		}
		a := packet.AddrFrom(p.Addr())
		out = append(out, span{
			first: value{Hi: a.Hi &^ mask.Hi, Lo: a.Lo &^ mask.Lo},
			last:  value{Hi: a.Hi | mask.Hi, Lo: a.Lo | mask.Lo},
		})
	}
	return out
}

func compare(a, b value) int {
	switch {
	case a.Less(b):
		return -1
	case b.Less(a):
		return 1
	}
	return 0
}

// successor is the value after a; ok is false when a is the highest.
func successor(a value) (after value, ok bool) {
	a.Lo++
	if a.Lo == 0 {
		a.Hi++
		return a, a.Hi != 0
	}
	return a, true
}
