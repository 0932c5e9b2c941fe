package dataplane

import (
	"context"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/tun"
)

func TestARuleRemembersItsLastVerdict(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := newRigWith(t, figureOfTheSeed(), Options{Flows: conntrack.Options{Max: 1024}, Now: func() time.Time { return now }})
	last := func(rule string) int64 {
		keys := r.engine.Registry().Keys()
		for i, at := range r.engine.Counters().LastHits(len(keys)) {
			if k := keys[i]; k.NetworkSecurityGroup == "NSG1" && k.Direction == ruleset.Inbound && k.Rule == rule {
				return at
			}
		}
		t.Fatalf("no rule %s", rule)
		return 0
	}
	if at := last("AllowHttpInBound"); at != 0 {
		t.Errorf("%d before the first verdict", at)
	}
	first := now
	r.send(internet, syn(world, addr2, 80))
	now = now.Add(time.Minute)
	r.send(internet, syn(world, addr2, 22))
	if got := last("DenyAllInBound"); got != now.UnixNano() {
		t.Errorf("denied at %d, want %d", got, now.UnixNano())
	}
	r.send(internet, syn(world, addr2, 80)) // of the flow that lives, which is no verdict
	if got := last("AllowHttpInBound"); got != first.UnixNano() {
		t.Errorf("allowed at %d, want %d", got, first.UnixNano())
	}
}

func TestWorkersCountBurstsPacketsAndTheTimeTheyTake(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	const packets = burstPackets + 1
	for i := range packets {
		p := packettest.UDP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: uint16(1 + i), DstPort: 53})
		r.devices[vm1].Inject(0, append(make([]byte, tun.HeaderLen), p...))
	}
	w := r.engine.workers[0]
	for range 3 { // the third finds nothing
		if err := w.carryBurst(vm1); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := r.engine.Counters().Workers()[0], (counter.Worker{Bursts: 2, Packets: packets}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}

	// A clock that moves by a second with each look at it: one look begins the work, one is
	// the burst's own, and one ends it.
	looks := time.Duration(0)
	r.engine.clock = func() time.Duration { looks += time.Second; return looks }
	r.devices[vm1].Inject(0, append(make([]byte, tun.HeaderLen), syn(addr1, addr4, 80)...))
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.run(ctx) }()
	eventually(t, "a burst's time is counted", func() bool { return r.engine.Counters().Workers()[0].Worked > 0 })
	cancel()
	w.wake()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// A signal that ends a wait early has the worker look once more.
	if got := r.engine.Counters().Workers()[0]; got.Bursts != 3 || got.Packets != packets+1 || got.Worked < 2*time.Second {
		t.Errorf("got %+v", got)
	}
}
