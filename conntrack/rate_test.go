package conntrack

import (
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

func TestFlowsBeginNoFasterThanTheRate(t *testing.T) {
	begin := func(r *rig, zone, peer uint16, n int) (created, refused int) {
		r.t.Helper()
		for range n {
			p := newPacket(packet.ProtoUDP, int(r.Stats().Created), 2, 1, 1)
			switch _, _, ok, drop := r.send(zone, peer, p); {
			case ok:
				created++
			case drop == packet.DropFlowRate:
				refused++
			default:
				r.t.Fatalf("dropped under %s", drop)
			}
		}
		return created, refused
	}
	tests := []struct {
		name       string
		wait       time.Duration // after a second's worth has begun
		zone, peer uint16
		want       int // of 100 further ones
	}{
		{"none is left after a second's worth", 0, 0, 1, 0},
		{"a tenth of a second later a tenth of them", 100 * time.Millisecond, 0, 1, 5},
		{"never more than a second's worth", time.Hour, 0, 1, 50},
		{"another zone has its own", 0, 2, 3, 50},
		{"either end counts", 0, 2, 1, 0},
		{"either way round", 0, 2, 0, 0},
		{"an unlimited zone limits nobody", 0, 4, 2, 50},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Options{NewPerSecond: 50, UnlimitedZones: func(zone uint16) bool { return zone == 4 }})
			if created, _ := begin(r, 0, 1, 60); created != 50 {
				t.Fatalf("%d began at once, want 50", created)
			}
			r.wait(tt.wait)
			created, refused := begin(r, tt.zone, tt.peer, 100)
			if created != tt.want || refused != 100-tt.want {
				t.Errorf("%d began and %d were refused, want %d of 100", created, refused, tt.want)
			}
			if n := r.Stats().Refused[RefusedRate]; n != uint64(10+refused) {
				t.Errorf("%d counted as refused, want %d", n, 10+refused)
			}
		})
	}
}

func TestARefusalAtOneEndTakesNothingFromTheOther(t *testing.T) {
	r := newRates(&Options{NewPerSecond: 50, Zones: 2})
	for r.takeOne(1, 1) { // nothing is left at the far end
	}
	for range 1000 {
		if r.take(0, 1, 1) {
			t.Fatal("taken")
		}
	}
	left := 0
	for r.takeOne(0, 1) {
		left++
	}
	if left != 50 {
		t.Errorf("%d of 50 are left at the near end", left)
	}
}

func TestWhatWasNotBegunIsGivenBack(t *testing.T) {
	r := newRates(&Options{NewPerSecond: 1, Zones: 2})
	for range 100 {
		if !r.take(0, 1, 1) {
			t.Fatal("not given back")
		}
		r.give(0, 1)
	}
}

// Ticks are compared modulo their range: an empty bucket that was not touched for 248 days
// would have stayed empty for as long again.
func TestABucketOutlivesTheTicksRange(t *testing.T) {
	const day = Tick(24 * time.Hour / TickLength)
	r := newRates(&Options{NewPerSecond: 1, Zones: 2})
	now := Tick(1)
	for r.takeOne(0, now) {
	}
	for range 300 { // beyond half of the range
		now += day
		r.refresh(now)
		r.refresh(now)
	}
	if !r.takeOne(0, now) {
		t.Error("still empty after 300 days")
	}
}

func TestARefusedRateLetsPacketsOfLiveFlowsPass(t *testing.T) {
	r := newRig(t, Options{NewPerSecond: 1})
	r.create(0, 1, udp(1))
	if _, _, _, drop := r.send(0, 1, udp(2)); drop != packet.DropFlowRate {
		t.Errorf("a second flow: %s", drop)
	}
	if _, _, _, drop := r.send(1, 0, reversed(udp(1))); drop != packet.NotDropped {
		t.Errorf("the first one's reply: %s", drop)
	}
}

func TestWorkersShareARate(t *testing.T) {
	r := newRates(&Options{NewPerSecond: 1000, Zones: 2})
	var taken [4]int
	var group sync.WaitGroup
	for w := range taken {
		group.Go(func() {
			for i := range 10_000 {
				if r.take(0, 1, Tick(1+i/100)) { // a second passes for each of them
					taken[w]++
				}
			}
		})
	}
	group.Wait()
	sum := 0
	for _, n := range taken {
		sum += n
	}
	// A bucket that was full, and a second's worth at most.
	if sum < 1000 || sum > 2000 {
		t.Errorf("%d taken, want 1000 to 2000", sum)
	}
}
