package fragment

import "github.com/nsgd/nsgd/dataplane/packet"

// maxSpans bounds the gaps in one datagram. Fragments in order, or in reverse, make none.
const maxSpans = 8

// span is a range of a datagram's bytes that fragments have covered.
type span struct{ start, end uint16 }

// coverage is which bytes of a datagram have been seen: disjoint spans in ascending order, and
// where the datagram ends.
type coverage struct {
	spans [maxSpans]span
	n     uint8
	ended bool   // total is known
	total uint16 // where the last fragment ends
}

// add notes a fragment. It refuses one that contradicts what is known: bytes that are covered
// already, an end beyond the datagram's, or a second last fragment.
func (c *coverage) add(f *packet.Fragment) packet.Drop {
	i := 0 // index of the first span behind f
	for i < int(c.n) && c.spans[i].start < f.Start {
		i++
	}
	switch {
	case i > 0 && c.spans[i-1].end > f.Start, i < int(c.n) && c.spans[i].start < f.End:
		return packet.DropFragmentOverlap
	case c.ended && (!f.More || f.End > c.total):
		return packet.DropFragmentOverlap
	case !f.More && i < int(c.n): // there is something behind the last fragment
		return packet.DropFragmentOverlap
	}
	if !c.insert(i, span{f.Start, f.End}) {
		return packet.DropFragmentGaps
	}
	if !f.More {
		c.ended, c.total = true, f.End
	}
	return packet.NotDropped
}

// insert puts a span at index i, joined with neighbours that it touches. It reports false when
// there are too many spans.
func (c *coverage) insert(i int, s span) bool {
	before := i > 0 && c.spans[i-1].end == s.start
	behind := i < int(c.n) && c.spans[i].start == s.end
	switch {
	case before && behind:
		c.spans[i-1].end = c.spans[i].end
		copy(c.spans[i:c.n], c.spans[i+1:c.n])
		c.n--
	case before:
		c.spans[i-1].end = s.end
	case behind:
		c.spans[i].start = s.start
	case c.n == maxSpans:
		return false
	default:
		copy(c.spans[i+1:c.n+1], c.spans[i:c.n])
		c.spans[i] = s
		c.n++
	}
	return true
}

// complete reports whether every byte of the datagram has been seen.
func (c *coverage) complete() bool {
	return c.ended && c.n == 1 && c.spans[0] == span{0, c.total}
}
