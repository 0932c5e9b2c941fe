package analysis

// search looks for packets that rules leave over.
type search struct {
	arena
	steps int       // that are left; below 0 nothing is known
	kept  [][]*cell // by depth, the covers that a box still has
}

// gap finds a part of a box that no cover matches; ok is false when there is none, or no steps
// are left. The part's bitmaps are valid until the arena is set back.
//
// A cover that matches the box in all fields but one cuts it, and the others are asked again about what is
// left. Where none does so, the box without one cover falls apart into a box for each field.
func (s *search) gap(b cell, covers []*cell) (part cell, ok bool) { return s.gapAt(0, b, covers) }

func (s *search) gapAt(depth int, b cell, covers []*cell) (part cell, ok bool) {
	if depth == len(s.kept) {
		s.kept = append(s.kept, nil)
	}
	for {
		if s.steps -= 1 + len(covers)/64; s.steps < 0 {
			return part, false
		}
		var by *cell // leaves the fewest parts
		cut, fewest := false, fields+1
		kept := s.kept[depth][:0]
		for _, c := range covers {
			if !b.meets(c) {
				continue
			}
			open, at := b.outside(c)
			switch {
			case open == 0:
				return part, false
			case open == 1:
				b[at], cut = s.without(b[at], c[at]), true
				continue
			case open < fewest:
				by, fewest = c, open
			}
			kept = append(kept, c)
		}
		s.kept[depth], covers = kept, kept
		switch {
		case len(kept) == 0:
			return b, true
		case cut:
			continue
		}
		if part, ok = s.inside(depth, &b, by, kept); ok || s.steps < 0 {
			return part, ok
		}
	}
}

// inside looks into the parts of a box that a cover leaves, but the largest: the small ones have few other
// covers. It leaves the largest in b.
func (s *search) inside(depth int, b *cell, by *cell, covers []*cell) (part cell, ok bool) {
	mark := s.words
	common, first := *b, -1
	for f := range fields {
		if b[f].within(by[f]) {
			continue
		}
		if first < 0 {
			first = f
		}
		common[f] = s.and(b[f], by[f])
	}
	for f := fields - 1; f > first; f-- {
		common[f] = b[f]
		if b[f].within(by[f]) {
			continue
		}
		small := common
		small[f] = s.without(b[f], by[f])
		inner := s.words
		if part, ok = s.gapAt(depth+1, small, covers); ok || s.steps < 0 {
			return part, ok
		}
		s.words = inner
	}
	s.words = mark
	b[first] = s.without(b[first], by[first])
	return part, false
}

// outside counts the fields in which a box has values that another one has not, and names one.
func (c *cell) outside(o *cell) (n, at int) {
	for f := range fields {
		if !c[f].within(o[f]) {
			n, at = n+1, f
		}
	}
	return n, at
}
