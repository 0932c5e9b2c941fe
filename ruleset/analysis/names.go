package analysis

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"go4.org/netipx"
)

// Names are sets of addresses that people know by a name, such as service tags. The zero value has
// none. Safe for concurrent use once no more are added.
type Names struct{ list []namedSet }

type namedSet struct {
	name  string
	sets  [families]*set
	sizes [families]float64
}

// Add adds a name for the addresses of prefixes.
func (n *Names) Add(name string, prefixes []netip.Prefix) {
	sets := prefixSets(prefixes)
	n.list = append(n.list, namedSet{name, sets, [families]float64{sets[ipv4].size(), sets[ipv6].size()}})
	slices.SortStableFunc(n.list, func(a, b namedSet) int { return cmp.Compare(b.size(), a.size()) })
}

// With is n and one name more.
func (n *Names) With(name string, prefixes []netip.Prefix) *Names {
	more := &Names{list: slices.Clone(n.list)}
	more.Add(name, prefixes)
	return more
}

func (n *namedSet) size() float64 { return n.sizes[ipv4]*0x1p96 + n.sizes[ipv6] }

// Text is ranges of one family as people write them: names, then prefixes and ranges, or "everything
// except", a name except, or a prefix except, these where that is shorter. A long list is cut, and says so.
func (n *Names) Text(ranges []netipx.IPRange) string {
	if len(ranges) == 0 {
		return "nothing"
	}
	family := ipv6
	if ranges[0].From().Is4() {
		family = ipv4
	}
	spans := make([]span, len(ranges))
	for i, r := range ranges {
		spans[i] = span{packet.AddrFrom(r.From()), packet.AddrFrom(r.To())}
	}
	s := newSet(spans).intersect(addresses[family])
	if s.equal(addresses[family]) {
		return everywhere[family].String()
	}
	for i := range n.list {
		if n.list[i].sets[family].equal(s) {
			return n.list[i].name
		}
	}
	prefix, best, most := "", n.parts(s, family), mostParts
	shorter := func(whole *set, name string) {
		if but := n.parts(s.outOf(whole), family); 0 < len(but) && len(but) < len(best) {
			prefix, best, most = name+" except ", but, mostExceptions
		}
	}
	shorter(addresses[family], "everything")
	for i := range n.list {
		if named := &n.list[i]; named.sets[family].holds(s) {
			shorter(named.sets[family], named.name)
		}
	}
	if around := coveringPrefix(s, family); around.Bits() > 0 {
		shorter(sealed([]span{prefixSpan(around)}), around.String())
	}
	return prefix + cutList(best, ", ", most)
}

// coveringPrefix is the smallest prefix that holds a set.
func coveringPrefix(s *set, family int) netip.Prefix {
	first, last := netipOf(s.spans[0].first, family), netipOf(s.spans[len(s.spans)-1].last, family)
	for bits := first.BitLen(); ; bits-- {
		if p := netip.PrefixFrom(first, bits).Masked(); p.Contains(last) {
			return p
		}
	}
}

// parts names what can be named of a set, and lists the rest. Where that is longer it lists all.
func (n *Names) parts(s *set, family int) []string {
	plain := texts(addressRanges(s, family))
	rest := s
	var named []string
	for i := range n.list {
		one := n.list[i].sets[family]
		if one.empty() || !s.holds(one) {
			continue
		}
		if left := one.outOf(rest); !left.equal(rest) {
			named, rest = append(named, n.list[i].name), left
		}
	}
	if named = append(named, texts(addressRanges(rest, family))...); len(named) <= len(plain) {
		return named
	}
	return plain
}

func texts(ranges []netipx.IPRange) (list []string) {
	for _, r := range ranges {
		list = append(list, AddressRange(r))
	}
	return list
}

// How many parts a text lists, and how many exceptions.
const (
	mostParts      = 4
	mostExceptions = 3
)

func cutList(parts []string, between string, most int) string {
	if len(parts) <= most {
		return strings.Join(parts, between)
	}
	return fmt.Sprintf("%s and %d more", strings.Join(parts[:most], between), len(parts)-most)
}

// outOf is o without s.
func (s *set) outOf(o *set) *set {
	var out []span
	for _, p := range o.spans {
		left := true
		for i := s.at(p.first); left && i < len(s.spans) && !p.last.Less(s.spans[i].first); i++ {
			if p.first.Less(s.spans[i].first) {
				out = append(out, span{p.first, predecessor(s.spans[i].first)})
			}
			after, ok := s.spans[i].last.Next()
			left, p.first = ok && !p.last.Less(after), after
		}
		if left {
			out = append(out, p)
		}
	}
	return sealed(out)
}
