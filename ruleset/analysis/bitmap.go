package analysis

import (
	"math/bits"
	"slices"
)

// bitmap is a set of small numbers: bit i of words[w] is the number 64*(first+w)+i. The words at both ends
// are not zero, so a set of few neighbours is small. Bitmaps are immutable.
type bitmap struct {
	first int
	words []uint64
}

func (b bitmap) end() int { return b.first + len(b.words) }

func (b bitmap) empty() bool { return len(b.words) == 0 }

func (b bitmap) equal(o bitmap) bool { return b.first == o.first && slices.Equal(b.words, o.words) }

// hash is equal for equal sets.
func (b bitmap) hash() uint64 { return mix(uint64(b.first), hashWords(b.words)) }

// bitmapOf is the set of numbers in ascending order.
func bitmapOf(numbers []int) bitmap {
	b := bitmap{first: numbers[0] / 64}
	b.words = make([]uint64, numbers[len(numbers)-1]/64-b.first+1)
	for _, n := range numbers {
		b.words[n/64-b.first] |= 1 << (n % 64)
	}
	return b
}

// or is all numbers of some sets, none of which is empty.
func or(sets []bitmap) bitmap {
	out := bitmap{first: sets[0].first}
	end := 0
	for _, b := range sets {
		out.first, end = min(out.first, b.first), max(end, b.end())
	}
	out.words = make([]uint64, end-out.first)
	for _, b := range sets {
		for i, w := range b.words {
			out.words[b.first-out.first+i] |= w
		}
	}
	return out
}

func (b bitmap) contains(n int) bool {
	w := n/64 - b.first
	return w >= 0 && w < len(b.words) && b.words[w]>>(n%64)&1 != 0
}

// lowest is the lowest number of a set that is not empty.
func (b bitmap) lowest() int { return b.first*64 + bits.TrailingZeros64(b.words[0]) }

// each calls f for the numbers in ascending order.
func (b bitmap) each(f func(n int)) {
	for i, w := range b.words {
		for ; w != 0; w &= w - 1 {
			f((b.first+i)*64 + bits.TrailingZeros64(w))
		}
	}
}

// meets reports whether two sets have a number in common.
func (b bitmap) meets(o bitmap) bool {
	for i, end := max(b.first, o.first), min(b.end(), o.end()); i < end; i++ {
		if b.words[i-b.first]&o.words[i-o.first] != 0 {
			return true
		}
	}
	return false
}

// within reports whether b is a subset of o.
func (b bitmap) within(o bitmap) bool {
	if b.first < o.first || b.end() > o.end() {
		return b.empty()
	}
	same := o.words[b.first-o.first:]
	if len(b.words) > 0 && &b.words[0] == &same[0] {
		return true
	}
	for i, w := range b.words {
		if w&^same[i] != 0 {
			return false
		}
	}
	return true
}

// trimmed is a bitmap of words that may have zeroes at their ends.
func trimmed(first int, words []uint64) bitmap {
	for len(words) > 0 && words[0] == 0 {
		first, words = first+1, words[1:]
	}
	for len(words) > 0 && words[len(words)-1] == 0 {
		words = words[:len(words)-1]
	}
	return bitmap{first, words}
}

// arena is memory for bitmaps that a search makes on its way down and gives back on its way up.
type arena struct {
	words   []uint64
	largest []uint64 // the last one that was made, which is free while words is another one
}

// take is n words with any content.
func (a *arena) take(n int) []uint64 {
	if cap(a.words)-len(a.words) < n {
		if cap(a.largest) < n || cap(a.largest) <= cap(a.words) {
			a.largest = make([]uint64, max(1024, 2*cap(a.largest), n))
		}
		a.words = a.largest[:0]
	}
	at := len(a.words)
	a.words = a.words[:at+n]
	return a.words[at : at+n : at+n]
}

// and is what two sets have in common.
func (a *arena) and(b, o bitmap) bitmap {
	if b.within(o) {
		return b
	}
	first, end := max(b.first, o.first), min(b.end(), o.end())
	if first >= end {
		return bitmap{}
	}
	words := a.take(end - first)
	for i := range words {
		words[i] = b.words[first+i-b.first] & o.words[first+i-o.first]
	}
	return trimmed(first, words)
}

// without is b without o.
func (a *arena) without(b, o bitmap) bitmap {
	words := a.take(len(b.words))
	copy(words, b.words)
	for i, end := max(b.first, o.first), min(b.end(), o.end()); i < end; i++ {
		words[i-b.first] &^= o.words[i-o.first]
	}
	return trimmed(b.first, words)
}
