package classifier

import (
	"fmt"
	"testing"
)

// TestInternKeepsBitmapsApartWhenTheirHashesCollide forces what a good hash
// makes too rare to meet: different bitmaps with one hash.
func TestInternKeepsBitmapsApartWhenTheirHashesCollide(t *testing.T) {
	for _, rules := range []int{10, 200, 5000} {
		t.Run(fmt.Sprintf("%d rules", rules), func(t *testing.T) {
			p := newPool(rules)
			var offsets []uint32
			for round := range 2 {
				for rule := range 10 {
					b := p.empty()
					var m members
					m.add(rule * rules / 10)
					b.flip(m)
					b.hash = 42
					at := p.intern(b)
					if round == 0 {
						offsets = append(offsets, at)
					} else if at != offsets[rule] {
						t.Errorf("rule %d alone is stored at %d, and again at %d", rule, offsets[rule], at)
					}
				}
			}
			seen := make(map[uint32]bool)
			for _, at := range offsets {
				if seen[at] {
					t.Fatalf("two bitmaps share offset %d", at)
				}
				seen[at] = true
			}
		})
	}
}

func TestFlipTwiceRestoresABitmapAndItsHash(t *testing.T) {
	p := newPool(5000)
	b := p.empty()
	var m members
	for rule := 0; rule < 5000; rule += 7 {
		m.add(rule)
	}
	before := p.intern(b)
	b.flip(m)
	if b.hash == 0 || p.intern(b) == before {
		t.Fatal("flipping changed nothing")
	}
	b.flip(m)
	if b.hash != 0 || p.intern(b) != before {
		t.Errorf("hash %#x and offset %d after flipping twice, want 0 and %d", b.hash, p.intern(b), before)
	}
}
