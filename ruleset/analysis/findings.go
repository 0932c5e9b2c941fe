package analysis

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

func (f *finding) add(s *slice, b *box, more bool) {
	f.boxes = append(f.boxes, sliceBox{s, *b})
	f.more = f.more || more
}

func (f *findings) changes() []Change {
	changes := make([]Change, len(f.list))
	for i, one := range f.list {
		boxes, witnesses := shownBoxes(merged(one.boxes))
		changes[i] = Change{Old: one.old, New: one.new, More: one.more, Witness: witnesses[0], Boxes: boxes}
	}
	return changes
}
