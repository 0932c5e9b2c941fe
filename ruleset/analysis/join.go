package analysis

import "slices"

// product is a set of packets with a set for each field.
type product[T any] interface {
	*T
	// hashBut is of all but one field; equalBut tells whether two products are equal there.
	hashBut(f int) uint64
	equalBut(o *T, f int) bool
	// join adds the values that others have in a field.
	join(others []*T, f int)
}

// joined joins products that differ in one field only. They have no packet in common.
func joined[T any, P product[T]](all []T) []T {
	for before := len(all) + 1; len(all) < before; {
		before = len(all)
		for _, f := range [...]int{port, sourcePort, source, destination} {
			all = joinedAlong[T, P](all, f)
		}
	}
	return all
}

// joinedAlong joins products that differ in one field.
func joinedAlong[T any, P product[T]](all []T, f int) []T {
	var out []T
	var others [][]*T // by product of out
	byHash := map[uint64][]int{}
	for i := range all {
		p := P(&all[i])
		h := p.hashBut(f)
		at := slices.IndexFunc(byHash[h], func(i int) bool { return p.equalBut(&out[i], f) })
		if at >= 0 {
			others[byHash[h][at]] = append(others[byHash[h][at]], &all[i])
			continue
		}
		byHash[h] = append(byHash[h], len(out))
		out, others = append(out, all[i]), append(others, nil)
	}
	for i := range out {
		if len(others[i]) > 0 {
			P(&out[i]).join(others[i], f)
		}
	}
	return out
}

func (c *cell) hashBut(f int) (h uint64) {
	for other := range fields {
		if other != f {
			h = mix(h, c[other].hash())
		}
	}
	return h
}

func (c *cell) equalBut(o *cell, f int) bool {
	like := *c
	like[f] = o[f]
	return like.equal(o)
}

func (c *cell) join(others []*cell, f int) {
	sets := []bitmap{c[f]}
	for _, o := range others {
		sets = append(sets, o[f])
	}
	c[f] = or(sets)
}

// sliceBox is a box of a slice.
type sliceBox struct {
	slice *slice
	box   box
}

func (b *sliceBox) hashBut(f int) uint64 {
	h := uint64(b.slice.index)
	for other := range fields {
		if other != f {
			h = mix(h, b.box[other].hash)
		}
	}
	return h
}

func (b *sliceBox) equalBut(o *sliceBox, f int) bool {
	like := b.box
	like[f] = o.box[f]
	return o.slice == b.slice && o.box.equal(&like)
}

func (b *sliceBox) join(others []*sliceBox, f int) {
	spans := slices.Clone(b.box[f].spans)
	for _, o := range others {
		spans = append(spans, o.box[f].spans...)
	}
	b.box[f] = newSet(spans)
}
