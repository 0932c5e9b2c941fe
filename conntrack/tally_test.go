package conntrack

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

func TestATallyIsExactWhateverItCounts(t *testing.T) {
	for _, tt := range []struct {
		name            string
		segments, bytes uint32 // at most, of a packet
	}{
		{"small packets", 1, 1500},
		{"both numbers give units away", 1 << 24, 1<<32 - 1},
		{"packets alone give units away", 1 << 24, 1},
		{"bytes alone give units away", 1, 1<<32 - 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			var c tally
			var packets, bytes uint64
			for i := range 10_000 {
				s, b := 1+random.Uint32N(tt.segments), random.Uint32N(tt.bytes)
				c.add(s, b)
				if i%3 == 0 {
					c.subtract(s, b)
				} else {
					packets, bytes = packets+uint64(s), bytes+uint64(b)
				}
				if p, o := c.sum(); p != packets || o != bytes {
					t.Fatalf("packet %d: %d packets and %d bytes, want %d and %d", i, p, o, packets, bytes)
				}
				if few := packets <= 1; c.atMost(1) != few {
					t.Fatalf("packet %d: at most one of %d packets: %v", i, packets, !few)
				}
			}
			if c.reset(); !c.atMost(0) {
				t.Error("a reset leaves packets")
			}
		})
	}
}

func TestATallyIsNotReadWhileAUnitMoves(t *testing.T) {
	var c tally
	c.add(7, 9)
	c.moved.Add(moverBit)
	if _, _, ok := c.read(); ok {
		t.Error("it was read")
	}
	c.moved.Store(0)
	if p, b, ok := c.read(); p != 7 || b != 9 || !ok {
		t.Errorf("%d packets and %d bytes, %v", p, b, ok)
	}
	m := c.moved.Load()
	c.add(2*packetsUnit, 1) // moves a unit between the looks
	if p, _, ok := c.added(m, c.recent.Load()); ok {
		t.Errorf("a read of %d packets missed a unit that moved meanwhile", p)
	}
}

func TestATallyOfSeveralWorkersNeverGoesBack(t *testing.T) {
	const workers, each, segments, bytes = 4, 20_000, 1 << 20, 1 << 30
	var c tally
	var adding, reading sync.WaitGroup
	var over atomic.Bool
	reading.Go(func() {
		var before, octets uint64
		for !over.Load() {
			p, b := c.sum()
			if p < before || b < octets || b != p*(bytes/segments) {
				t.Errorf("%d packets and %d bytes after %d and %d", p, b, before, octets)
				return
			}
			before, octets = p, b
		}
	})
	for range workers {
		adding.Go(func() {
			for range each {
				c.add(segments, bytes)
			}
		})
	}
	adding.Wait()
	over.Store(true)
	reading.Wait()
	if p, b := c.sum(); p != workers*each*segments || b != workers*each*bytes {
		t.Errorf("%d packets and %d bytes, want %d and %d", p, b, workers*each*segments, workers*each*bytes)
	}
}
