package ask

import (
	"net/netip"
	"slices"
)

// span is a run of addresses of one family, both ends included.
type span struct{ first, last netip.Addr }

// spansOf are the addresses of one family in a list of prefixes: sorted, and with a gap
// between any two.
func spansOf(prefixes []netip.Prefix, ipv6 bool) []span {
	var spans []span
	for _, p := range prefixes {
		if p.Addr().Is6() == ipv6 {
			spans = append(spans, span{p.Addr(), lastAddr(p)})
		}
	}
	return merge(spans)
}

// merge sorts spans and joins those that overlap or touch.
func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return a.first.Compare(b.first) })
	var merged []span
	for _, s := range spans {
		n := len(merged)
		if n == 0 || merged[n-1].last.Next().IsValid() && merged[n-1].last.Next().Less(s.first) {
			merged = append(merged, s)
		} else if merged[n-1].last.Less(s.last) {
			merged[n-1].last = s.last
		}
	}
	return merged
}

// lastAddr is the highest address of a masked prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(bytes); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

// coverage says how much of a set something holds.
type coverage uint8

const (
	nothing coverage = iota
	some
	everything
)

// cover says how much of set the spans hold; both are as spansOf gives them.
func cover(spans, set []span) coverage {
	i, all, any := 0, true, false
	for _, s := range set {
		for i < len(spans) && spans[i].last.Less(s.first) {
			i++
		}
		if i == len(spans) || s.last.Less(spans[i].first) {
			all = false
			continue
		}
		any = true
		// Spans have gaps between them, so only a single one can hold all of s.
		all = all && !s.first.Less(spans[i].first) && !spans[i].last.Less(s.last)
	}
	switch {
	case any && all:
		return everything
	case any:
		return some
	}
	return nothing
}

// firstOutside is the lowest address of set that is in none of holes; both are as spansOf
// gives them.
func firstOutside(set, holes []span) (netip.Addr, bool) {
	i := 0
	for _, s := range set {
		for i < len(holes) && holes[i].last.Less(s.first) {
			i++
		}
		if i == len(holes) || s.first.Less(holes[i].first) {
			return s.first, true
		}
		// The hole has a gap behind it.
		if free := holes[i].last.Next(); free.IsValid() && !s.last.Less(free) {
			return free, true
		}
	}
	return netip.Addr{}, false
}
