package dataplane

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// slowQueue is a queue whose first writes take a millisecond of the engine's clock. Later ones wait at a
// gate, and take no time.
type slowQueue struct {
	tun.Queue
	clock *atomic.Int64
	slow  atomic.Int64 // writes
	gate  chan struct{}
}

func (q *slowQueue) Write(frame []byte) error {
	if q.slow.Add(-1) >= 0 {
		q.clock.Add(int64(time.Millisecond))
	} else {
		<-q.gate
	}
	return q.Queue.Write(frame)
}

// A receiver whose own network stack is slow delays only itself, and is written to as others are once it
// is fast again.
func TestHostile14ReceiverStack(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	w := r.engine.workers[0]
	var clock atomic.Int64
	clock.Store(int64(time.Hour))
	r.engine.clock = func() time.Duration { return time.Duration(clock.Load()) }
	slow := &slowQueue{Queue: w.queues[vm2], clock: &clock, gate: make(chan struct{})}
	slow.slow.Store(burstPackets/2 + timedWrites)
	w.queues[vm2] = slow
	defer w.endLanes()
	sent := uint64(0)
	turn := func(to ...string) {
		t.Helper()
		for i, addr := range to {
			p := packettest.UDP(packettest.Spec{Src: addr1, Dst: addr, SrcPort: uint16(1 + i), DstPort: 53, Payload: 10})
			if !r.devices[vm1].Inject(0, append(make([]byte, tun.HeaderLen), p...)) {
				t.Fatal("memory device is full")
			}
			if addr == addr2 {
				sent++
			}
		}
		woken, before := r.engine.clock(), w.counters.packets.Load()
		if err := w.burst(vm1); err != nil {
			t.Fatal(err)
		}
		w.timeWrites(r.engine.clock()-woken, w.counters.packets.Load()-before)
		r.devices[vm2].Drain(0, nil)
	}
	both := make([]string, 0, burstPackets)
	for range burstPackets / 2 {
		both = append(both, addr2, addr4)
	}
	turn(both...) // long
	turn(both...) // timed; then its stack is busy, for as long as it likes
	if !w.outlets[vm2].slow || w.outlets[vm4].slow {
		t.Fatal("the slow receiver has no lane of its own, or the other one has")
	}
	r.devices[vm4].Drain(0, nil)
	for range 2 * laneFrames / (burstPackets / 2) {
		turn(both...)
		arrived := 0
		r.devices[vm4].Drain(0, func([]byte) { arrived++ })
		if arrived != burstPackets/2 {
			t.Fatalf("%d of %d packets reached the bystander", arrived, burstPackets/2)
		}
	}
	if n := r.engine.Drops()[packet.DropSlowReceiver]; n == 0 {
		t.Error("nothing is dropped for a receiver that takes nothing")
	}
	close(slow.gate)
	for deadline := time.Now().Add(time.Minute); w.outlets[vm2].slow; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("a fast receiver is still written to by its lane")
		}
		turn(addr2)
	}
	if got := r.engine.AttachmentCounts()[vm2].TransmitPackets + r.engine.Drops()[packet.DropSlowReceiver] + r.engine.Drops()[packet.DropTransmit]; got != sent {
		t.Errorf("%d of %d packets are accounted for", got, sent)
	}
}
