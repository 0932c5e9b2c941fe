package ask

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// held is what a row has of a place.
type held struct {
	place  int
	ranges []netipx.IPRange
}

func heldOf(places []place, ranges []netipx.IPRange) (list []held) {
	all := rangesOfSet(ranges)
	for i := range places {
		first := places[i].ranges[0].From()
		from, _ := slices.BinarySearchFunc(all, first, func(r netipx.IPRange, a netip.Addr) int { return r.To().Compare(a) })
		if some := overlap(places[i].ranges, all[from:]); len(some) > 0 {
			list = append(list, held{places[i].index, some})
		}
	}
	return list
}

// rangesOfSet are ranges in ascending order, those that touch as one.
func rangesOfSet(ranges []netipx.IPRange) []netipx.IPRange {
	var b netipx.IPSetBuilder
	addRanges(&b, ranges)
	return setOf(&b).Ranges()
}

// overlap is the addresses of both lists. The ranges of each are in ascending order and do not touch.
func overlap(a, b []netipx.IPRange) (both []netipx.IPRange) {
	for len(a) > 0 && len(b) > 0 {
		first, last := a[0].From(), a[0].To()
		if b[0].From().Compare(first) > 0 {
			first = b[0].From()
		}
		if b[0].To().Compare(last) < 0 {
			last = b[0].To()
		}
		if first.Compare(last) <= 0 {
			both = append(both, netipx.IPRangeFrom(first, last))
		}
		if a[0].To() == last {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return both
}

// side is the senders or the receivers of a row. Sides of one question with the same addresses are one.
type side struct {
	held   []held
	places *side // equal for sides of the same places
}

// without is what must be equal of sides that are joined.
func (s *side) without(which places) *side {
	if which == anyPlaces {
		return nil
	}
	return s.places
}

// sides are those of a question.
type sides struct{ known map[string]*side }

func newSides() *sides { return &sides{map[string]*side{}} }

// of is the side with some places, in their order.
func (s *sides) of(list []held) *side {
	var key, places []byte
	for i := range list {
		places = binary.AppendUvarint(places, uint64(list[i].place))
		key = binary.AppendUvarint(binary.AppendUvarint(key, uint64(list[i].place)), uint64(len(list[i].ranges)))
		for _, r := range list[i].ranges {
			first, last := r.From().As16(), r.To().As16()
			key = append(append(key, first[:]...), last[:]...)
		}
	}
	one := s.known["a"+string(key)]
	if one == nil {
		one = &side{held: list, places: s.known["p"+string(places)]}
		if one.places == nil {
			one.places = &side{}
			s.known["p"+string(places)] = one.places
		}
		s.known["a"+string(key)] = one
	}
	return one
}

// union is what some sides have together.
func (s *sides) union(of []*side) *side {
	ranges := map[int][]netipx.IPRange{}
	seen := map[*side]bool{}
	for _, one := range of {
		if seen[one] {
			continue
		}
		seen[one] = true
		for _, h := range one.held {
			ranges[h.place] = append(ranges[h.place], h.ranges...)
		}
	}
	if len(seen) == 1 {
		return of[0]
	}
	var list []held
	for _, place := range slices.Sorted(maps.Keys(ranges)) {
		list = append(list, held{place, rangesOfSet(ranges[place])})
	}
	return s.of(list)
}

// apart divides rows so that two places are in one row only if they are in all rows together.
func (s *sides) apart(rows []reachRow, sideOf func(*reachRow) **side) (out []reachRow) {
	class, classes := map[int]int{}, 0 // by place: equal for those that are in the same rows so far
	for i := range rows {
		divided := map[int]int{} // by the class before
		for _, h := range (*sideOf(&rows[i])).held {
			before := class[h.place]
			if divided[before] == 0 {
				classes++
				divided[before] = classes
			}
			class[h.place] = divided[before]
		}
	}
	parts := map[*side][]*side{}
	for i := range rows {
		whole := *sideOf(&rows[i])
		if parts[whole] == nil {
			parts[whole] = s.parts(whole, class)
		}
		for _, part := range parts[whole] {
			row := rows[i]
			*sideOf(&row) = part
			row.Rules = slices.Clone(row.Rules)
			out = append(out, row)
		}
	}
	return out
}

// parts divides a side by the classes of its places.
func (s *sides) parts(whole *side, class map[int]int) (list []*side) {
	at := map[int]int{}
	var parts [][]held
	for _, h := range whole.held {
		i, known := at[class[h.place]]
		if !known {
			i = len(parts)
			at[class[h.place]] = i
			parts = append(parts, nil)
		}
		parts[i] = append(parts[i], h)
	}
	for _, part := range parts {
		list = append(list, s.of(part))
	}
	return list
}
