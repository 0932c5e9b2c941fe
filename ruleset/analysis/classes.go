package analysis

import (
	"cmp"
	"slices"
)

// divide makes the classes of each field and chooses the order of fields.
func (d *diagram) divide(region *box) {
	var divisions [fields]division
	sets := make([]*set, len(d.candidates))
	for f := range fields {
		for bit, c := range d.candidates {
			if c != nil {
				sets[bit] = c.sets[f]
			}
		}
		d.order[f] = f
		divisions[f] = divided(sets, region[f])
	}
	slices.SortStableFunc(d.order[:], func(a, b int) int { return cmp.Compare(len(divisions[a].classes), len(divisions[b].classes)) })
	for level, f := range d.order {
		d.divisions[level] = divisions[f]
		d.memo[level] = map[uint64]*visit{}
	}
}

// toggle is what changes at a value: members begin or cease to have the values.
type toggle struct {
	at  value
	set int // index of a set and its members
}

// division is a field's values in classes.
type division struct {
	classes []class // in the order of their lowest values
	spans   []span  // all values in ascending order
	class   []int   // of each span
	known   map[uint64][]knownValues
}

// knownValues are the values of some classes.
type knownValues struct {
	classes bitmap
	values  *set
}

// divided sweeps over the sets of a field's members; nil is none. Members that share a set are switched
// together.
func divided(sets []*set, domain *set) (d division) {
	index := map[*set]int{}
	var members [][]int
	var toggles []toggle
	current := make([]uint64, (len(sets)+63)/64)
	for bit, s := range sets {
		if s == nil {
			continue
		}
		if s == domain {
			current[bit/64] |= 1 << (bit % 64)
			continue
		}
		i, known := index[s]
		if !known {
			i = len(members)
			index[s] = i
			members = append(members, nil)
			toggles = slices.Grow(toggles, 2*len(s.spans))
			for _, p := range s.spans {
				toggles = append(toggles, toggle{p.first, i})
				if after, ok := p.last.Next(); ok {
					toggles = append(toggles, toggle{after, i})
				}
			}
		}
		members[i] = append(members[i], bit)
	}
	d.spans, d.class = make([]span, 0, len(domain.spans)+len(toggles)), make([]int, 0, len(domain.spans)+len(toggles))
	slices.SortFunc(toggles, func(a, b toggle) int { return a.at.Compare(b.at) })
	byHash := map[uint64][]int{}
	for _, part := range domain.spans {
		for from := part.first; ; {
			for ; len(toggles) > 0 && !from.Less(toggles[0].at); toggles = toggles[1:] {
				for _, bit := range members[toggles[0].set] {
					current[bit/64] ^= 1 << (bit % 64)
				}
			}
			last := part.last
			if len(toggles) > 0 && !last.Less(toggles[0].at) {
				last = predecessor(toggles[0].at)
			}
			d.add(byHash, current, span{from, last})
			if last == part.last {
				break
			}
			from = toggles[0].at
		}
	}
	return d
}

// add adds values to the class of the candidates that match them.
func (d *division) add(byHash map[uint64][]int, alive []uint64, values span) {
	h := hashWords(alive)
	at := slices.IndexFunc(byHash[h], func(i int) bool { return slices.Equal(d.classes[i].alive, alive) })
	i := len(d.classes)
	if at >= 0 {
		i = byHash[h][at]
	} else {
		byHash[h] = append(byHash[h], i)
		d.classes = append(d.classes, class{alive: slices.Clone(alive)})
	}
	d.spans, d.class = append(d.spans, values), append(d.class, i)
}

// values are the values of some classes. Equal classes have the same set.
func (d *division) values(classes bitmap) *set {
	h := classes.hash()
	for _, k := range d.known[h] {
		if k.classes.equal(classes) {
			return k.values
		}
	}
	spans := make([]span, 0, min(len(d.spans), 64))
	for i, p := range d.spans {
		if !classes.contains(d.class[i]) {
			continue
		}
		if n := len(spans); n > 0 && !isAfter(p.first, spans[n-1].last) {
			spans[n-1].last = p.last
			continue
		}
		spans = append(spans, p)
	}
	values := sealed(spans)
	if d.known == nil {
		d.known = map[uint64][]knownValues{}
	}
	d.known[h] = append(d.known[h], knownValues{classes, values})
	return values
}

func hashWords(words []uint64) uint64 {
	var h uint64
	for _, w := range words {
		h = mix(h, w)
	}
	return h
}

// compareContent finds, from the last level up, who matches all of the region and who is alike.
func (d *diagram) compareContent(region *box) {
	words := len(d.candidates) / 64
	d.full[fields] = make([]uint64, words)
	for access := range d.access {
		d.access[access] = make([]uint64, words)
	}
	below := make([]uint32, len(d.candidates))
	for bit, c := range d.candidates {
		if c != nil {
			d.full[fields][bit/64] |= 1 << (bit % 64)
			d.access[c.access][bit/64] |= 1 << (bit % 64)
			below[bit] = uint32(c.access)
		}
	}
	for level := fields - 1; level >= 0; level-- {
		f := d.order[level]
		d.full[level] = make([]uint64, words)
		d.content[level] = make([]uint32, len(d.candidates))
		type key struct {
			below uint32
			hash  uint64
		}
		known := map[key][]int{} // bits of unlike candidates
		n := uint32(0)
		for bit, c := range d.candidates {
			if c == nil {
				continue
			}
			if c.sets[f] == region[f] {
				d.full[level][bit/64] |= d.full[level+1][bit/64] & (1 << (bit % 64))
			}
			k := key{below[bit], c.sets[f].hash}
			alike := slices.IndexFunc(known[k], func(o int) bool { return d.candidates[o].sets[f].equal(c.sets[f]) })
			if alike >= 0 {
				d.content[level][bit] = d.content[level][known[k][alike]]
				continue
			}
			known[k] = append(known[k], bit)
			d.content[level][bit] = n
			n++
		}
		below = d.content[level]
	}
}
