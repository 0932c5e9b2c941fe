package classifier

import (
	"cmp"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// plus is a+n, or the highest value if that overflows.
func plus(a value, n uint64) value {
	lo, carry := bits.Add64(a.Lo, n, 0)
	hi, carry := bits.Add64(a.Hi, 0, carry)
	if carry != 0 {
		return ipv6Last
	}
	return value{Hi: hi, Lo: lo}
}

// scattered has no pattern that would suit an index.
func scattered(r *rand.Rand, n int) []value {
	out := make([]value, n)
	for i := range out {
		out[i] = value{Hi: r.Uint64(), Lo: r.Uint64()}
	}
	return out
}

// placements are ways to place n borders, as 128-bit values. Narrow fields use the top bits.
var placements = []struct {
	name  string
	place func(r *rand.Rand, n int) []value
}{
	{"anywhere", scattered},
	{"side by side", func(r *rand.Rand, n int) []value {
		out := scattered(r, 1)
		for len(out) < n {
			out = append(out, plus(out[len(out)-1], 1))
		}
		return out
	}},
	{"side by side in the units of IPv4 addresses", func(r *rand.Rand, n int) []value {
		out := scattered(r, 1)
		for len(out) < n {
			last := out[len(out)-1]
			out = append(out, value{Hi: last.Hi + 1<<32, Lo: last.Lo})
		}
		return out
	}},
	{"in clusters within clusters", func(r *rand.Rand, n int) []value {
		out := scattered(r, 3)
		for len(out) < n {
			near := out[r.IntN(len(out))]
			shift := r.IntN(128)
			out = append(out, value{Hi: near.Hi ^ r.Uint64()>>shift, Lo: near.Lo ^ r.Uint64()>>max(0, shift-64)})
		}
		return out
	}},
	{"each half as far from zero as the one before", func(r *rand.Rand, n int) []value {
		out := []value{ipv6Last}
		for len(out) < min(n, 129) {
			last := out[len(out)-1]
			out = append(out, value{Hi: last.Hi >> 1, Lo: last.Lo>>1 | last.Hi<<63})
		}
		return out
	}},
	{"each half as far from the end as the one before", func(r *rand.Rand, n int) []value {
		var out []value
		for i := range min(n, 128) {
			out = append(out, value{Hi: ^(ipv6Last.Hi >> i), Lo: ^(ipv6Last.Lo >> max(0, i-64))})
		}
		return out
	}},
	{"at both ends", func(r *rand.Rand, n int) []value {
		out := make([]value, n)
		for i := range out {
			if out[i] = (value{Lo: uint64(i)}); i%2 == 1 {
				out[i] = value{Hi: ^uint64(0), Lo: ^uint64(i)}
			}
		}
		return out
	}},
	{"at the starts of blocks", func(r *rand.Rand, n int) []value {
		out := make([]value, n)
		for i := range out {
			out[i] = value{Hi: uint64(i%32) << 58 >> r.IntN(24)}
		}
		return out
	}},
}

// bordersAt numbers the intervals that begin at 0 and at the starts given.
func bordersAt(starts []value) []border {
	starts = append([]value{{}}, starts...)
	slices.SortFunc(starts, value.Compare)
	var out []border
	for i, s := range slices.Compact(starts) {
		out = append(out, border{start: s, class: uint32(i)})
	}
	return out
}

// reference reads the borders one by one.
func reference(borders []border, a value) uint32 {
	class := borders[0].class
	for _, b := range borders {
		if !a.Less(b.start) {
			class = b.class
		}
	}
	return class
}

// probes are the borders, their neighbours, both ends, and values in between.
func probes(r *rand.Rand, borders []border) []value {
	out := append(scattered(r, 100), value{}, ipv6Last)
	for i := range 300 {
		b := borders[r.IntN(len(borders))].start
		if i < len(borders) {
			b = borders[i].start
		}
		lo, borrow := bits.Sub64(b.Lo, 1, 0)
		out = append(out, b, plus(b, 1), value{Hi: b.Hi - borrow, Lo: lo}, plus(b, r.Uint64()>>r.IntN(64)), value{Hi: b.Hi + r.Uint64()>>r.IntN(64), Lo: b.Lo})
	}
	return out
}

func eachPlacement(t *testing.T, test func(t *testing.T, r *rand.Rand, starts []value)) {
	for _, tt := range placements {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []int{0, 1, 2, 3, 4, 5, 8, 16, 17, 100, 128, 3000} {
				r := rand.New(rand.NewPCG(21, uint64(n)))
				var starts []value
				if n > 0 {
					starts = tt.place(r, n)
				}
				test(t, r, starts)
			}
		})
	}
}

func TestWideIntervalsAgreeWithReadingTheBordersOneByOne(t *testing.T) {
	eachPlacement(t, func(t *testing.T, r *rand.Rand, starts []value) {
		borders := bordersAt(starts)
		v := newWideIntervals(borders)
		for _, a := range probes(r, borders) {
			if got, want := v.class(a), reference(borders, a); got != want {
				t.Fatalf("%d borders: interval %d, want %d for %x", len(borders), got, want, a)
			}
		}
		checkSize(t, 128, len(borders), len(v.slots), len(v.nodes))
	})
}

func TestIntervalsAgreeWithReadingTheBordersOneByOne(t *testing.T) {
	for _, width := range []int{16, 32} {
		t.Run(fmt.Sprintf("%d bits", width), func(t *testing.T) {
			eachPlacement(t, func(t *testing.T, r *rand.Rand, starts []value) {
				top := func(a value) value { return value{Lo: a.Hi >> (64 - width)} }
				narrowed := make([]value, len(starts))
				for i := range starts {
					// Both ends of the wide values, so that small differences count too.
					if narrowed[i] = top(starts[i]); i%2 == 1 {
						narrowed[i].Lo = starts[i].Lo & (1<<width - 1)
					}
				}
				borders := bordersAt(narrowed)
				v := newIntervals(borders)
				for _, a := range probes(r, borders) {
					a = value{Lo: a.Lo & (1<<width - 1)}
					if got, want := v.class(uint32(a.Lo)), reference(borders, a); got != want {
						t.Fatalf("%d borders: interval %d, want %d for %#x", len(borders), got, want, a.Lo)
					}
				}
				checkSize(t, width, len(borders), len(v.slots), len(v.nodes))
			})
		})
	}
}

// checkSize checks that the index is a small multiple of its borders, wherever they lie. A
// node has at most four slots for each border. The more borders a level has, the fewer bits
// it leaves to the next.
func checkSize(t *testing.T, width, borders, slots, nodes int) {
	t.Helper()
	levels := 1 + width/bits.Len(uint(borders))
	if slots > 4*borders*levels || nodes > borders {
		t.Errorf("%d borders: %d slots and %d nodes, want at most %d and %d", borders, slots, nodes, 4*borders*levels, borders)
	}
}

func TestSortUpperSortsByTheUpperHalf(t *testing.T) {
	for _, n := range []int{0, 1, 2, 1023, 1024, 1025, 50_000} {
		for _, keep := range []uint64{1<<64 - 1, 0xff << 32, 0xffff_0000_ffff_ffff, 1<<32 - 1} {
			r := rand.New(rand.NewPCG(22, uint64(n)))
			a := make([]uint64, n)
			for i := range a {
				a[i] = r.Uint64() & keep
			}
			want := slices.Sorted(slices.Values(a))
			got := sortUpper(a)
			if !slices.IsSortedFunc(got, func(x, y uint64) int { return cmp.Compare(x>>32, y>>32) }) {
				t.Errorf("%d numbers of %#x are not sorted", n, keep)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%d numbers of %#x are not the same numbers", n, keep)
			}
		}
	}
}
