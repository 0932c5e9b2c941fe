package analysis

import (
	"math/bits"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// axis is one field of a list, divided into classes: values that the same sets of the list have. A set is
// a bitmap of classes then, however many spans it has.
type axis struct {
	values [][]span  // of each class
	sizes  []float64 // how many values each class has
	known  []int     // classes of values that people know

	index   map[*set]int
	bitmaps []bitmap   // by set, as the rest
	rules   [][]int    // that have the set
	meets   [][]uint64 // rules with which the set has a value in common; nil: not asked yet
}

// grid is a list's fields as axes, for questions about each of its rules.
type grid struct {
	rules []rule // of the list, with the one that is not there; equal sets are one
	cells [families][]cell
	axes  [families][fields]*axis
	// Bitmaps of rules: by protocol, and those that match all values of a field.
	named [int(ruleset.AH) + 1][]uint64
	every [fields][]uint64
}

// newGrid divides the fields of a list. within are more sets of addresses that have to be unions of
// classes, by slice.
func newGrid(l *List, within []box) *grid {
	g := &grid{rules: slices.Clone(l.rules)}
	known := sharedSets{}
	for i := range g.rules {
		r := &g.rules[i]
		for _, s := range [...]**set{&r.sources[ipv4], &r.sources[ipv6], &r.destinations[ipv4], &r.destinations[ipv6], &r.sourcePorts, &r.ports} {
			*s = known.shared(*s)
		}
	}
	for p := range g.named {
		g.named[p] = make([]uint64, g.ruleWords())
	}
	for i := range g.rules {
		g.named[g.rules[i].protocol][i/64] |= 1 << (i % 64)
	}
	for family := range families {
		for f := range fields {
			if f >= sourcePort && family > 0 {
				g.axes[family][f] = g.axes[0][f] // ports have no family
				continue
			}
			domain := everyPort
			if f < sourcePort {
				domain = addresses[family]
			}
			g.axes[family][f] = g.axis(f, family, domain, within)
		}
		g.cells[family] = make([]cell, len(g.rules))
		for i := range g.rules {
			for f, a := range g.axes[family] {
				g.cells[family][i][f] = a.bitmap(g.rules[i].field(f, family))
			}
		}
	}
	for _, f := range [...]int{sourcePort, port} {
		g.every[f] = g.axes[0][f].holding(everyPort, g.ruleWords())
	}
	return g
}

// ruleWords is how many words a bitmap of rules has.
func (g *grid) ruleWords() int { return (len(g.rules) + 63) / 64 }

func (g *grid) axis(f, family int, domain *set, within []box) *axis {
	a := &axis{index: map[*set]int{}}
	var sets []*set
	add := func(s *set) int {
		i, known := a.index[s]
		if !known {
			i = len(sets)
			a.index[s], sets = i, append(sets, s)
		}
		return i
	}
	for i := range g.rules {
		at := add(g.rules[i].field(f, family))
		if at == len(a.rules) {
			a.rules = append(a.rules, nil)
		}
		a.rules[at] = append(a.rules[at], i)
	}
	for i := range slicesOfPackets {
		if slicesOfPackets[i].family == family {
			add(slicesOfPackets[i].domain[f])
			add(within[i][f])
		}
	}
	a.divide(sets, domain)
	a.know(f)
	return a
}

// domains are sets that every question has.
var domains = [...]*set{addresses[ipv4], addresses[ipv6], everyPort, everyType, onlyZero, nothing}

// sharedSets are sets by their hash. Equal sets are one there.
type sharedSets map[uint64][]*set

// shared is the set with the same values that came first.
func (p sharedSets) shared(s *set) *set {
	for _, domain := range domains {
		if domain.equal(s) {
			return domain
		}
	}
	same := p[s.hash]
	if i := slices.IndexFunc(same, s.equal); i >= 0 {
		return same[i]
	}
	p[s.hash] = append(same, s)
	return s
}

// field is a rule's set of a field.
func (r *rule) field(f, family int) *set {
	switch f {
	case source:
		return r.sources[family]
	case destination:
		return r.destinations[family]
	case sourcePort:
		return r.sourcePorts
	}
	return r.ports
}

// divide makes the classes, and the bitmap of each set.
func (a *axis) divide(sets []*set, domain *set) {
	d := divided(sets, domain)
	a.values, a.sizes = make([][]span, len(d.classes)), make([]float64, len(d.classes))
	for i, c := range d.class {
		a.values[c] = append(a.values[c], d.spans[i])
		a.sizes[c] += d.spans[i].size()
	}
	words := make([][]uint64, len(sets))
	for i := range words {
		words[i] = make([]uint64, (len(d.classes)+63)/64)
	}
	for c, class := range d.classes {
		for w, alive := range class.alive {
			for ; alive != 0; alive &= alive - 1 {
				words[w*64+bits.TrailingZeros64(alive)][c/64] |= 1 << (c % 64)
			}
		}
	}
	for _, w := range words {
		a.bitmaps = append(a.bitmaps, trimmed(0, w))
	}
	a.meets = make([][]uint64, len(a.rules))
}

// bitmap is the classes of a set that the axis was made with, or of none.
func (a *axis) bitmap(s *set) bitmap {
	if s == nothing {
		return bitmap{}
	}
	return a.bitmaps[a.index[s]]
}

// know finds the classes of values that a witness has rather than others.
func (a *axis) know(f int) {
	values := []value{number(49152), number(443), number(packet.ICMPv4EchoRequest), number(packet.ICMPv6EchoRequest)}
	if f < sourcePort {
		values = exampleAddresses
	}
	for _, v := range values {
		c := slices.IndexFunc(a.values, func(spans []span) bool { return (&set{spans: spans}).contains(v) })
		if c >= 0 {
			a.known = append(a.known, c)
		}
	}
}

// meeting is the rules with which a rule's set has a value in common, as a bitmap of some words.
func (a *axis) meeting(s *set, words int) []uint64 {
	at := a.index[s]
	if a.meets[at] == nil {
		a.meets[at] = make([]uint64, words)
		for o, rules := range a.rules {
			if a.bitmaps[at].meets(a.bitmaps[o]) {
				for _, i := range rules {
					a.meets[at][i/64] |= 1 << (i % 64)
				}
			}
		}
	}
	return a.meets[at]
}

// holding is the rules with a set that holds all of another one, as a bitmap of some words.
func (a *axis) holding(s *set, words int) []uint64 {
	out := make([]uint64, words)
	for o, rules := range a.rules {
		if a.bitmap(s).within(a.bitmaps[o]) {
			for _, i := range rules {
				out[i/64] |= 1 << (i % 64)
			}
		}
	}
	return out
}

// cell is a set of packets of a family, as a box of classes.
type cell [fields]bitmap

// neighbours appends the rules that match some of a rule's packets of a slice, without itself, up to the first
// after it that matches all of them. within is those packets.
func (g *grid) neighbours(to []int, s *slice, owner int, within *cell) []int {
	of := &g.rules[owner]
	var meeting [fields][]uint64
	for f, a := range g.axes[s.family] {
		meeting[f] = a.meeting(of.field(f, s.family), g.ruleWords())
		if s.lacks[f] {
			meeting[f] = g.every[f] // see gate
		}
	}
	for w := range g.ruleWords() {
		some := meeting[source][w] & meeting[destination][w] & meeting[sourcePort][w] & meeting[port][w] & g.naming(s, w)
		for ; some != 0; some &= some - 1 {
			i := w*64 + bits.TrailingZeros64(some)
			c := &g.cells[s.family][i]
			if i == owner || !within.meets(c) {
				continue
			}
			to = append(to, i)
			if i > owner && within.within(c) {
				return to
			}
		}
	}
	return to
}

// naming is a word of the bitmap of rules that name the slice's protocol.
func (g *grid) naming(s *slice, w int) uint64 {
	named := g.named[ruleset.AnyProtocol][w] | g.named[s.named][w]
	if s.named == ruleset.ICMPv6 {
		named |= g.named[ruleset.ICMP][w]
	}
	return named
}

func (c *cell) empty() bool {
	return c[source].empty() || c[destination].empty() || c[sourcePort].empty() || c[port].empty()
}

func (c *cell) meets(o *cell) bool {
	return c[source].meets(o[source]) && c[destination].meets(o[destination]) && c[port].meets(o[port]) && c[sourcePort].meets(o[sourcePort])
}

func (c *cell) within(o *cell) bool {
	return c[source].within(o[source]) && c[destination].within(o[destination]) && c[port].within(o[port]) && c[sourcePort].within(o[sourcePort])
}

func (c *cell) equal(o *cell) bool {
	return c[source].equal(o[source]) && c[destination].equal(o[destination]) && c[port].equal(o[port]) && c[sourcePort].equal(o[sourcePort])
}
