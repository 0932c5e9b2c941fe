package classifier

import "slices"

// sortUpper sorts numbers by their upper half, in any order where that is equal.
// It may use the slice that it is given for the answer.
func sortUpper(a []uint64) []uint64 {
	// Counting takes steps for each possible digit, however few numbers there are.
	const digit, fewest = 11, 1 << 10
	if len(a) < fewest {
		slices.Sort(a)
		return a
	}
	out := make([]uint64, len(a))
	for shift := 32; shift < 64; shift += digit {
		var next [1 << digit]int
		for _, x := range a {
			next[x>>shift%(1<<digit)]++
		}
		at := 0
		for i, n := range next {
			next[i] = at
			at += n
		}
		for _, x := range a {
			d := x >> shift % (1 << digit)
			out[next[d]] = x
			next[d]++
		}
		a, out = out, a
	}
	return a
}
