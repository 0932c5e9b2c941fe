// Package simulate is one long random test of the engine. Twenty hosts in two virtual networks with the same
// addresses, and outside, send, spoof, flood, reset, fragment and are translated; rules change, devices
// refuse and end, clocks run and memory is short. A plain model says of each packet that came out why it may, and
// of some packets that they must.
package simulate

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

var (
	seedFlag = flag.Uint64("simulate.seed", 0, "replay the round of this `seed` alone; 0: fresh ones")
	timeFlag = flag.Duration("simulate.time", 0, "go on for this long; 0: some rounds")
)

const (
	rounds      = 40
	shortRounds = 4
	roundSteps  = 1500
)

// found are seeds of rounds that once failed. Each one is played again first.
var found = []uint64{
	13462941899431057324, // wrong bits make a header so long that it holds the packet's number
	11637444499580594674, // a reload ends a conversation while its next packet begins another, which a device refuses
}

// figures are what rounds have done.
type figures struct{ rounds, packets, swaps, spoken int }

// round plays the round of a seed.
func (f *figures) round(t *testing.T, seed uint64) {
	t.Helper()
	w, err := newRun(seed)
	if err != nil {
		t.Fatal(err)
	}
	err = w.steps(roundSteps)
	if closing := w.close(); err == nil {
		err = closing
	}
	if err != nil {
		t.Fatalf("seed %d: %v\nagain: go test ./test/simulate -run 'TestSimulation$' -simulate.seed=%d", seed, err, seed)
	}
	f.rounds, f.packets, f.swaps, f.spoken = f.rounds+1, f.packets+w.packets, f.swaps+w.swaps, f.spoken+w.spoken
	if f.rounds == 1 {
		t.Logf("seed %d: %v", seed, w.model.passed)
	}
}

func TestSimulation(t *testing.T) {
	if *seedFlag != 0 {
		new(figures).round(t, *seedFlag)
		return
	}
	f := &figures{}
	for _, seed := range found {
		f.round(t, seed)
	}
	first := rand.Uint64() | 1
	began, told, seed := time.Now(), time.Now(), first
	n := rounds
	if testing.Short() {
		n = shortRounds
	}
	for i := 0; i < n || time.Since(began) < *timeFlag; i++ {
		seed = first + uint64(i)
		f.round(t, seed)
		if time.Since(told) >= time.Minute {
			told = time.Now()
			t.Logf("%v: seed %d, %d rounds, %d packets, %d policy changes, %d conversations", time.Since(began).Round(time.Second), seed, f.rounds, f.packets, f.swaps, f.spoken)
		}
	}
	t.Logf("seeds %d to %d: %d rounds, %d packets, %d policy changes, %d conversations", first, seed, f.rounds, f.packets, f.swaps, f.spoken)
}
