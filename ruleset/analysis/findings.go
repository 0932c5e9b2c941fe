package analysis

import "slices"

// findingKey is who decides, before and now.
type findingKey struct{ old, new Decision }

// finding collects the boxes of a key.
type finding struct {
	findingKey
	boxes []sliceBox
	more  bool
}

// findings are in the order in which they were found.
type findings struct {
	byKey map[findingKey]*finding
	list  []*finding
}

func (f *findings) of(key findingKey) *finding {
	one := f.byKey[key]
	if one == nil {
		if f.byKey == nil {
			f.byKey = map[findingKey]*finding{}
		}
		one = &finding{findingKey: key}
		f.byKey[key] = one
		f.list = append(f.list, one)
	}
	return one
}

// solution is the answer about a region, of which slices with the same rules have the same.
type solution struct {
	region    *region
	lists     []stageList
	parts     []part
	undecided bool // parts of the answer are missing
}

// part is the packets of a region that are decided by a key.
type part struct {
	findingKey
	boxes []box
	more  bool
}

// like reports whether the other region has the same packets, but for the protocol, and the same rules.
func (s *solution) like(o *solution) bool {
	return s.region.slice.family == o.region.slice.family && s.region.slice.lacks == o.region.slice.lacks && s.region.box.equal(&o.region.box) &&
		slices.EqualFunc(s.lists, o.lists, func(a, b stageList) bool {
			return slices.EqualFunc(a.candidates, b.candidates, func(a, b *candidate) bool { return a.rule == b.rule })
		})
}

// solve answers for each slice in which an owner matches something. lists are the candidates of a region, and
// walk makes the answer.
func (q *query) solve(owner *rule, lists func(*region) []stageList, walk func(*solution), found *findings, undecided func(*region)) {
	var known []*solution
	q.regions(owner, func(r *region) {
		s := &solution{region: r, lists: lists(r)}
		if at := slices.IndexFunc(known, s.like); at >= 0 {
			s = known[at]
		} else {
			walk(s)
			known = append(known, s)
		}
		if s.undecided {
			undecided(r)
		}
		for _, p := range s.parts {
			f := found.of(p.findingKey)
			f.more = f.more || p.more
			for _, b := range p.boxes {
				f.boxes = append(f.boxes, sliceBox{r.slice, b})
			}
		}
	})
}

// parts are the boxes that lead to leaves, by key and in the order in which the keys are found.
func (d *diagram) parts(root *node, limit int, key func(leaf *decision) findingKey) (out []part) {
	index := map[findingKey]int{}
	var cells [][]cell
	d.paths(root, limit, func(leaf *node, c *cell, more bool) {
		k := key(leaf.decision)
		at, known := index[k]
		if !known {
			at = len(out)
			index[k] = at
			out, cells = append(out, part{findingKey: k}), append(cells, nil)
		}
		cells[at] = append(cells[at], *c)
		out[at].more = out[at].more || more
	})
	for i := range out {
		for _, c := range cellJoiner.joined(cells[i]) {
			out[i].boxes = append(out[i].boxes, d.box(&c))
		}
	}
	return out
}

func (f *findings) changes(k *compression) []Change {
	changes := make([]Change, len(f.list))
	ranges := rangesOf{}
	for i, one := range f.list {
		boxes := boxJoiner.joined(one.boxes)
		for j := range boxes {
			boxes[j].box = k.decompressed(boxes[j].slice, boxes[j].box)
		}
		shown, witnesses := ranges.shownBoxes(boxes)
		changes[i] = Change{Old: one.old, New: one.new, More: one.more, Witness: witnesses[0], Boxes: shown}
	}
	return changes
}
