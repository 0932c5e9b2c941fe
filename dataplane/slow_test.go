package dataplane

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/lane"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// slowQueue is a queue whose first writes take a millisecond of the engine's clock. Later ones wait at a
// gate, and take no time.
type slowQueue struct {
	tun.Queue
	clock *atomic.Int64
	slow  atomic.Int64 // writes
	gate  chan struct{}
	told  bool // what SetSlow said last
}

func (q *slowQueue) SetSlow(slow bool) { q.told = slow }

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
	r.engine.busy = r.engine.clock
	slow := &slowQueue{Queue: w.queues[vm2], clock: &clock, gate: make(chan struct{})}
	slow.slow.Store(2*burstPackets/2 + lane.TimedWrites)
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
		begun := w.beginTurn()
		if err := w.carryBurst(vm1); err != nil {
			t.Fatal(err)
		}
		w.endTurn(begun)
		r.devices[vm2].Drain(0, nil)
	}
	both := make([]string, 0, burstPackets)
	for range burstPackets / 2 {
		both = append(both, addr2, addr4)
	}
	turn(both...) // long
	turn(both...) // long by its processor time
	turn(both...) // timed; then its stack is busy, for as long as it likes
	if !w.outlets[vm2].Slow || w.outlets[vm4].Slow {
		t.Fatal("the slow receiver has no lane of its own, or the other one has")
	}
	r.devices[vm4].Drain(0, nil)
	for range 2 * lane.MaxFrames / (burstPackets / 2) {
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
	for deadline := time.Now().Add(time.Minute); w.outlets[vm2].Slow; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("a fast receiver is still written to by its lane")
		}
		turn(addr2)
	}
	if got := r.engine.AttachmentCounts()[vm2].TransmitPackets + r.engine.Drops()[packet.DropSlowReceiver] + r.engine.Drops()[packet.DropTransmit]; got != sent {
		t.Errorf("%d of %d packets are accounted for", got, sent)
	}
}

// Who is woken by a write may take the processor before the write is over. That makes no receiver slow, and no write is timed.
func TestAWriterThatLosesItsProcessorMakesNoReceiverSlow(t *testing.T) {
	s := newSlowRig(t, 1, 1)
	s.engine.busy = func() time.Duration { return 0 }
	for range 4 * lane.TimedWrites {
		if n := s.turn(); n != 1 {
			t.Fatalf("%d packets reached the bystander", n)
		}
		if s.w.doubts != timedTurns || s.w.timed > 0 || s.w.suspects[numAttachments] {
			t.Fatalf("processor time is asked for in %d turns, writes of %d are timed", s.w.doubts, s.w.timed)
		}
	}
	if made, _ := s.engine.lanes.Count(); made > 0 {
		t.Errorf("%d lanes", made)
	}
}

// A turn may be long for another reason than its writes: enough of them are timed to tell, and no more until it is asked again.
func TestAFastReceiverIsTimedForAWhile(t *testing.T) {
	s := newSlowRig(t, 1, 1)
	asked := 0
	s.engine.busy = func() time.Duration {
		if asked++; s.w.timed > 0 {
			return 0
		}
		return s.engine.clock()
	}
	for range 2 {
		s.turn()
	}
	if s.w.timed != timedTurns {
		t.Fatalf("%d turns with timed writes are left of %d", s.w.timed, timedTurns)
	}
	for range lane.TimedWrites {
		if !s.w.suspects[numAttachments] {
			t.Fatal("too few writes are timed")
		}
		s.turn()
	}
	asked = 0
	for s.w.timed > 1 {
		s.turn()
		if s.w.suspects[numAttachments] {
			t.Fatal("too many writes are timed")
		}
	}
	if most := 2 * timedTurns; asked > most {
		t.Errorf("processor time was asked for %d times, %d at most", asked, most)
	}
	if made, _ := s.engine.lanes.Count(); made > 0 {
		t.Errorf("%d lanes", made)
	}
}

// A write of a superpacket takes longer than one of a packet. It makes no turn long.
func TestSuperpacketsMakeNoTurnLong(t *testing.T) {
	for _, step := range []struct {
		writes []uint64
		took   time.Duration
		want   bool
	}{
		{[]uint64{1}, 70 * time.Microsecond, true},
		{[]uint64{45}, 250 * time.Microsecond, false},
		{[]uint64{45}, 300 * time.Microsecond, true},
		{[]uint64{1, 7000}, 500 * time.Microsecond, true}, // a sender says so
	} {
		s := newSlowRig(t, 0, 1)
		begun := s.w.beginTurn()
		for _, packets := range step.writes {
			s.w.wrote(packets)
		}
		s.clock.Add(int64(step.took))
		if s.w.endTurn(begun); (s.w.doubts > 0) != step.want {
			t.Errorf("%v for writes of %d packets: long %t", step.took, step.writes, s.w.doubts > 0)
		}
	}
}

// Who is slow now and then is found too, and so is who has superpackets dropped beside.
func TestAReceiverThatHidesItsSlownessIsFound(t *testing.T) {
	s := newSlowRig(t, 1, 1)
	noise := packettest.TCP(packettest.Spec{Src: addr1, Dst: "198.51.100.7", SrcPort: 1, DstPort: 2, Payload: 7000, Flags: "A"})
	h := tun.Header{GSOType: tun.GSOTCPv4, HdrLen: 40, GSOSize: 1}
	for turns := 0; s.w.outlets[numAttachments].lane == nil; turns++ {
		if turns > 100 {
			t.Fatal("it is not found")
		}
		frame := append(make([]byte, tun.HeaderLen), noise...)
		h.Encode((*[tun.HeaderLen]byte)(frame))
		if !s.devices[vm1].Inject(0, frame) {
			t.Fatal("memory device is full")
		}
		s.turn()
		begun := s.w.beginTurn() // somebody else's
		s.w.endTurn(begun)
	}
}

// slowRig is the figure with more VMs. The first ones have slow queues.
type slowRig struct {
	*rig
	w       *worker
	clock   atomic.Int64
	queues  []*slowQueue
	address []string
}

func newSlowRig(t *testing.T, slow, others int) *slowRig {
	t.Helper()
	set := figureOfTheSeed()
	specs := slices.Clone(figureSpecs)
	s := &slowRig{}
	subnet := set.VirtualNetworks[0].Subnets[2]
	for i := range slow + others {
		name, address := fmt.Sprintf("more%d", i), fmt.Sprintf("10.0.3.%d", 100+i)
		set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: name, ID: "/nic/" + name,
			IPConfigurations: []policy.IPConfiguration{{Name: "ipconfig1", Address: netip.MustParseAddr(address), Subnet: subnet, Primary: true}}})
		specs = append(specs, topology.Spec{Kind: topology.NetworkInterface, Reference: name})
		s.address = append(s.address, address)
	}
	s.rig = newRigWith(t, set, Options{Attachments: specs, Flows: conntrack.Options{Max: 1024}})
	s.w = s.engine.workers[0]
	s.rig.clock = 0 // not used
	s.clock.Store(int64(time.Hour))
	s.engine.clock = func() time.Duration { return time.Duration(s.clock.Load()) }
	s.engine.busy = s.engine.clock
	for i := range slow {
		q := &slowQueue{Queue: s.w.queues[numAttachments+i], clock: &s.clock, gate: make(chan struct{})}
		q.slow.Store(1 << 20)
		s.w.queues[numAttachments+i] = q
		s.queues = append(s.queues, q)
	}
	t.Cleanup(s.w.endLanes)
	return s
}

// turn sends a packet to each of the first VMs, and reports how many of the last ones have got theirs.
func (s *slowRig) turn() (arrived int) {
	s.t.Helper()
	for _, to := range s.address {
		p := packettest.UDP(packettest.Spec{Src: addr1, Dst: to, SrcPort: 1, DstPort: 53, Payload: 10})
		if !s.devices[vm1].Inject(0, append(make([]byte, tun.HeaderLen), p...)) {
			s.t.Fatal("memory device is full")
		}
	}
	begun := s.w.beginTurn()
	if err := s.w.carryBurst(vm1); err != nil {
		s.t.Fatal(err)
	}
	s.w.endTurn(begun)
	for i := range s.address {
		n := s.devices[numAttachments+i].Drain(0, nil)
		if i >= len(s.queues) {
			arrived += n
		}
	}
	return arrived
}

// Of five receivers that take nothing at all any more, two bystanders see nothing.
func TestHostile14ManySlowReceivers(t *testing.T) {
	const slow, bystanders = 5, 2
	s := newSlowRig(t, slow, bystanders)
	sent := uint64(0)
	for range 3 + lane.TimedWrites { // two long turns, then each receiver is timed, and then its lane is made
		s.turn()
		sent += slow + bystanders
	}
	for i, q := range s.queues {
		if o := &s.w.outlets[numAttachments+i]; o.lane == nil || !q.told {
			t.Fatalf("slow receiver %d has no lane, or its queue does not know", i)
		}
		q.slow.Store(0)
	}
	for range 2 * lane.MaxFrames {
		sent += slow + bystanders
		if n := s.turn(); n != bystanders {
			t.Fatalf("%d of %d packets reached the bystanders", n, bystanders)
		}
	}
	if _, n := s.engine.lanes.Count(); n != slow {
		t.Errorf("%d of %d lanes are busy", n, slow)
	}
	for _, q := range s.queues {
		close(q.gate)
	}
	s.w.endLanes()
	if made, busy := s.engine.lanes.Count(); made != 0 || busy != 0 {
		t.Errorf("%d lanes are left, %d busy", made, busy)
	}
	got := s.engine.Drops()[packet.DropSlowReceiver] + s.engine.Drops()[packet.DropTransmit]
	for _, c := range s.engine.AttachmentCounts() {
		got += c.TransmitPackets
	}
	if got != sent {
		t.Errorf("%d of %d packets are accounted for", got, sent)
	}
}

// A slow receiver without a lane gets a packet now and then, and all of them once it is fast.
func TestASlowReceiverWithoutALane(t *testing.T) {
	s := newSlowRig(t, 1, 1)
	for range lane.MaxLanes { // of others
		other := s.engine.lanes.Make(s.w.queues[numAttachments+1], nil, nil, nil)
		defer other.End()
	}
	for range 2 + lane.TimedWrites {
		s.turn()
	}
	o := &s.w.outlets[numAttachments]
	if made, _ := s.engine.lanes.Count(); !o.Slow || o.lane != nil || made != lane.MaxLanes {
		t.Fatalf("slow %t, lane %p, %d lanes", o.Slow, o.lane, made)
	}
	left := s.queues[0].slow.Load()
	for range 10 {
		s.turn()
	}
	if n := left - s.queues[0].slow.Load(); n != 0 {
		t.Errorf("%d packets went to it within %v", n, retryEvery)
	}
	s.clock.Add(int64(retryEvery))
	s.turn()
	if n := left - s.queues[0].slow.Load(); n != 1 || !o.Slow {
		t.Errorf("%d packets went to it after %v", n, retryEvery)
	}
	s.queues[0].slow.Store(0)
	close(s.queues[0].gate) // from now on it is fast
	s.clock.Add(int64(retryEvery))
	if s.turn(); o.Slow {
		t.Error("a fast receiver counts as slow")
	}
}
