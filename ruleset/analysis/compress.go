package analysis

import "slices"

// compression stands for addresses by the classes of a chain: a class is a value, in the order of the classes' lowest
// addresses. Service tags of thousands of prefixes become a few spans that way. Nil is none.
type compression struct {
	classes [families][fields]division
	full    [families][fields]map[*set]*set // what they were, by compressed
}

// wideSet is how many spans a set has at least that makes compression worthwhile.
const wideSet = 100

// compress replaces the addresses of a chain, and of the packets that the question is about, where it has wide sets.
func (q *query) compress(c Chain) Chain {
	if !slices.ContainsFunc(c, func(l *List) bool { return slices.ContainsFunc(l.rules, rule.wide) }) {
		return c
	}
	q.compression = &compression{}
	out := make(Chain, len(c))
	for i, l := range c {
		out[i] = &List{rules: slices.Clone(l.rules)}
	}
	for family := range families {
		for _, f := range [...]int{source, destination} {
			within := q.within[family*protocolsOfFamily][f] // the same for all protocols
			sets := []*set{within}
			for _, l := range c {
				for i := range l.rules {
					sets = append(sets, l.rules[i].field(f, family))
				}
			}
			compressed := q.compression.of(family, f, sets)
			for _, l := range out {
				for i := range l.rules {
					side := &l.rules[i].sources
					if f == destination {
						side = &l.rules[i].destinations
					}
					side[family] = compressed[side[family]]
				}
			}
			for i := range protocolsOfFamily {
				q.within[family*protocolsOfFamily+i][f] = compressed[within]
			}
		}
	}
	return out
}

func (r rule) wide() bool {
	return slices.ContainsFunc([]*set{r.sources[ipv4], r.sources[ipv6], r.destinations[ipv4], r.destinations[ipv6]},
		func(s *set) bool { return len(s.spans) >= wideSet })
}

// of compresses the sets of a field.
func (k *compression) of(family, f int, sets []*set) map[*set]*set {
	d := divided(sets, addresses[family])
	compressed := map[*set]*set{}
	for bit, s := range sets {
		if compressed[s] != nil {
			continue
		}
		var spans []span
		for c := range d.classes {
			if d.classes[c].alive[bit/64]>>(bit%64)&1 != 0 {
				v := value{Lo: uint64(c)}
				spans = append(spans, span{v, v})
			}
		}
		compressed[s] = newSet(spans)
	}
	k.classes[family][f], k.full[family][f] = d, map[*set]*set{}
	return compressed
}

// decompressed is a box of addresses again.
func (k *compression) decompressed(s *slice, b box) box {
	if k == nil {
		return b
	}
	for _, f := range [...]int{source, destination} {
		known := k.full[s.family][f]
		if known[b[f]] == nil {
			var classes []int
			for _, p := range b[f].spans {
				for c := p.first.Lo; c <= p.last.Lo; c++ {
					classes = append(classes, int(c))
				}
			}
			known[b[f]] = k.classes[s.family][f].values(bitmapOf(classes))
		}
		b[f] = known[b[f]]
	}
	return b
}
