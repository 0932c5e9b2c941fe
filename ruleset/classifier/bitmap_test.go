package classifier

import (
	"fmt"
	"testing"
)

// TestInternKeepsBitmapsApartWhenTheirHashesCollide gives one hash to different bitmaps and
// to different blocks, which a good hash makes too rare to meet.
func TestInternKeepsBitmapsApartWhenTheirHashesCollide(t *testing.T) {
	for _, rules := range []int{10, 200, 5000} {
		t.Run(fmt.Sprintf("%d rules", rules), func(t *testing.T) {
			p := newPool(rules)
			const different = 10
			var classes, offsets [2 * different]uint32
			for i := range classes {
				b := p.empty()
				var m members
				m.add(i % different * rules / different)
				b.flip(m)
				first := i % different * rules / different / 64 / blockWords * blockWords
				offsets[i] = p.block(42, append([]uint64(nil), b.words[first:min(first+blockWords, len(b.words))]...))
				if p.flat {
					classes[i] = offsets[i]
					continue
				}
				p.settle(b)
				b.hash = 42
				classes[i] = p.intern(b)
			}
			for i := range different {
				if classes[i] != classes[i+different] || offsets[i] != offsets[i+different] {
					t.Errorf("bitmap %d is class %d with its block at %d, and again class %d with its block at %d",
						i, classes[i], offsets[i], classes[i+different], offsets[i+different])
				}
				for j := range i {
					if classes[i] == classes[j] {
						t.Errorf("bitmaps %d and %d share class %d", j, i, classes[i])
					}
				}
			}
		})
	}
}

func TestFlipTwiceRestoresABitmapAndItsHash(t *testing.T) {
	p := newPool(40_000)
	b := p.empty()
	var m members
	for rule := 33_000; rule < 40_000; rule += 7 { // beyond 64 blocks
		m.add(rule)
	}
	before := p.intern(b)
	b.flip(m)
	if p.intern(b) == before || b.hash == 0 {
		t.Fatal("flipping changed nothing")
	}
	b.flip(m)
	if p.intern(b) != before || b.hash != 0 {
		t.Errorf("hash %#x and class %d after flipping twice, want 0 and %d", b.hash, p.intern(b), before)
	}
}
