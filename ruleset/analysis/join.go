package analysis

import "slices"

// joiner joins values of a type that has a set for each field.
type joiner[T any] struct {
	hashBut  func(one *T, f int) uint64      // of all fields but one
	equalBut func(one, other *T, f int) bool // in all fields but one
	join     func(one *T, others []*T, f int)
}

var (
	cellJoiner = joiner[cell]{(*cell).hashBut, (*cell).equalBut, (*cell).join}
	boxJoiner  = joiner[sliceBox]{(*sliceBox).hashBut, (*sliceBox).equalBut, (*sliceBox).join}
)

// joined joins those that differ in one field only. They have no packet in common.
func (j *joiner[T]) joined(all []T) []T {
	for before := len(all) + 1; len(all) < before; {
		before = len(all)
		for _, f := range [...]int{port, sourcePort, source, destination} {
			all = j.along(all, f)
		}
	}
	return all
}

// along joins those that differ in one field.
func (j *joiner[T]) along(all []T, f int) []T {
	var out []T
	var others [][]*T // by index in out
	byHash := map[uint64][]int{}
	for i := range all {
		h := j.hashBut(&all[i], f)
		at := slices.IndexFunc(byHash[h], func(o int) bool { return j.equalBut(&all[i], &out[o], f) })
		if at >= 0 {
			others[byHash[h][at]] = append(others[byHash[h][at]], &all[i])
			continue
		}
		byHash[h] = append(byHash[h], len(out))
		out, others = append(out, all[i]), append(others, nil)
	}
	for i := range out {
		if len(others[i]) > 0 {
			j.join(&out[i], others[i], f)
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
