package dataplane

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/logring/logringtest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/tun"
)

// want makes these NICs attached, each behind a new device if it has none.
func (c *comings) want(nics ...int) *Arrangement {
	c.t.Helper()
	for nic := range c.attached {
		if !slices.Contains(nics, nic) {
			delete(c.attached, nic)
		}
	}
	for _, nic := range nics {
		if c.attached[nic] == nil {
			c.attached[nic] = newMemory(c.t, 2, 64)
		}
	}
	c.order = nics
	return c.rearrange()
}

// numbered is a datagram that a NIC sends to another.
func numbered(from, to int) []byte {
	return framed(packettest.UDP(packettest.Spec{Src: movingAddress(from), Dst: movingAddress(to), SrcPort: 1000, DstPort: 2000, Payload: 8}))
}

// carry has worker 0 carry a packet of a NIC, and returns how many came out at another.
func (c *comings) carry(from, to int, slot int) int {
	c.t.Helper()
	if !c.attached[from].Inject(0, numbered(from, to)) {
		c.t.Fatal("memory device is full")
	}
	if err := c.engine.workers[0].carryBurst(slot); err != nil {
		c.t.Fatal(err)
	}
	return c.attached[to].Drain(0, nil)
}

func TestASlotIsUsedAgainBehindAGracePeriod(t *testing.T) {
	var clock time.Duration = time.Hour
	c := newComings(t, 8)
	c.engine.clock = func() time.Duration { return clock }
	quiesce := func() {
		for _, w := range c.engine.workers {
			w.flows.Quiesce()
		}
	}
	if slots := c.want(0, 1, 2, 3).Slots; !slices.Equal(slots, []int{0, 1, 2, 3}) {
		t.Fatalf("slots %v", slots)
	}
	first := c.engine.Snapshot().Generation
	if slots := c.want(0, 1, 3).Slots; !slices.Equal(slots, []int{0, 1, 3}) {
		t.Fatalf("slots of those that stay: %v", slots)
	}
	clock += time.Hour
	if slots := c.want(0, 1, 3, 4).Slots; slots[3] != 4 {
		t.Fatalf("slot %d is used again though a worker may be in a burst still", slots[3])
	}
	for range 3 {
		quiesce()
		c.engine.flows.Mark()
	}
	clock -= time.Hour
	if slots := c.want(0, 1, 3, 4, 5).Slots; slots[4] != 5 {
		t.Fatalf("slot %d is used again though a fragment may mean it", slots[4])
	}
	clock += time.Hour
	s := c.want(0, 1, 3, 4, 5, 6)
	if slots := s.Slots; slots[5] != 2 {
		t.Fatalf("slot %d, want the one that is free", slots[5])
	}
	if then, now := s.Snapshot.NameSince(2, first), s.Snapshot.NameSince(2, s.Snapshot.Generation); then != "" || now != movingName(6) {
		t.Errorf("slot 2 was %q in the first generation, and is %q", then, now)
	}
	if was := c.engine.Snapshot().NameSince(3, first); was != movingName(3) {
		t.Errorf("slot 3 was %q", was)
	}
}

func TestRoomIsBounded(t *testing.T) {
	c := newComings(t, 3)
	c.want(0, 1, 2)
	_, err := c.engine.Arrange(&Wanted{Policy: c.set, Attachments: append(c.specs(), topology.Spec{Kind: topology.NetworkInterface, Reference: movingName(3)})})
	if err == nil {
		t.Error("a fourth attachment has a slot of three")
	}
	if _, err := New(c.set, Options{Attachments: c.specs(), Room: MaxAttachments + 1}); err == nil || !strings.HasPrefix(err.Error(), "dataplane: ") {
		t.Errorf("more room than the flow table has zones for: %v", err)
	}
}

func TestALimitOfNICsHoldsForThoseThatCome(t *testing.T) {
	c := newComings(t, 8)
	a, err := c.engine.Arrange(&Wanted{Policy: c.set, Attachments: append(c.specs(), topology.Spec{Kind: topology.Internet},
		topology.Spec{Kind: topology.NetworkInterface, Reference: movingName(2)})})
	if err != nil {
		t.Fatal(err)
	}
	devices := []tun.Device{c.attached[0], c.attached[1], newMemory(t, 2, 8), newMemory(t, 2, 8)}
	if err := c.engine.Rearrange(a, func(*topology.Snapshot) ([]tun.Device, error) { return devices, nil }, nil); err != nil {
		t.Fatal(err)
	}
	for slot, want := range []bool{true, true, false, true} {
		if _, limited := c.engine.flows.ZoneLimit(uint16(slot)); limited != want {
			t.Errorf("slot %d has a limit: %v", slot, limited)
		}
	}
}

func TestCountersOfAnAttachmentGoOnWhenItComesBack(t *testing.T) {
	c := newComings(t, 8)
	slot := c.want(0, 1, 2).Slots[2]
	if n := c.carry(2, 1, slot); n != 1 {
		t.Fatalf("%d packets", n)
	}
	was := c.engine.AttachmentCounts()[slot]
	for range 5 { // more than fit the device
		c.attached[2].Inject(1, make([]byte, 9000))
	}
	drops := c.engine.KernelDrops()[slot]
	c.want(0, 1)
	slot = c.want(0, 1, 3, 2).Slots[3]
	if now := c.engine.AttachmentCounts()[slot]; now != was || now.ReceivePackets != 1 {
		t.Errorf("counts %+v, before %+v", now, was)
	}
	if now := c.engine.KernelDrops()[slot]; now != drops || now.Receive != 5 {
		t.Errorf("the kernel's %+v, before %+v", now, drops)
	}
	// The device of another comes with what it has dropped, which is not the new one's.
	for range 2 {
		c.attached[2].Inject(1, make([]byte, 9000))
	}
	c.attached[4], c.attached[2] = c.attached[2], newMemory(t, 2, 64)
	slots := c.want(0, 1, 4, 2).Slots
	if now := c.engine.KernelDrops(); now[slots[2]].Receive != 0 || now[slots[3]].Receive != 7 {
		t.Errorf("the kernel's %+v", now)
	}
	c.carry(4, 1, slots[2])
	if now := c.engine.AttachmentCounts(); now[slots[2]].ReceivePackets != 1 || now[slots[3]] != was {
		t.Errorf("counts %+v", now)
	}
}

func TestWhatWasPreparedForOtherAttachmentsIsRefused(t *testing.T) {
	c := newComings(t, 8)
	s, err := c.engine.Prepare(c.set)
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.engine.Arrange(&Wanted{Policy: c.set, Attachments: c.specs()})
	if err != nil {
		t.Fatal(err)
	}
	c.want(0, 1, 2)
	if err := c.engine.Swap(s, nil); err != ErrPrepared {
		t.Errorf("a policy: %v", err)
	}
	if err := c.engine.Rearrange(a, nil, nil); err != ErrPrepared {
		t.Errorf("an arrangement: %v", err)
	}
	try, err := c.engine.Arrange(&Wanted{Policy: c.set, Attachments: c.specs(), Try: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.engine.Rearrange(try, nil, nil); err != ErrPrepared {
		t.Errorf("one to look at: %v", err)
	}
}

func TestAPacketFromAVacantSlotIsDropped(t *testing.T) {
	c := newComings(t, 8)
	slot := c.want(0, 1, 2).Slots[2]
	old := c.attached[2]
	w := c.engine.workers[0]
	queue := w.queues[slot]
	c.want(0, 1)
	w.queues[slot] = queue // as for a worker that has read before it heard of it
	old.Inject(0, numbered(2, 1))
	old.Inject(0, framed(packettest.UDP(packettest.Spec{Src: "203.0.113.10", Dst: movingAddress(1), SrcPort: 1000, DstPort: 2000})))
	if err := w.carryBurst(slot); err != nil {
		t.Fatal(err)
	}
	if n := c.attached[1].Drain(0, nil); n != 0 {
		t.Error("it was carried")
	}
	w.queues[slot] = tun.ClosedQueue{}
	if drop := w.write(slot, numbered(0, 2), &w.group[0].packet, 0); drop == packet.NotDropped {
		t.Error("a packet was written to nobody")
	}
	var d verdict.Decision
	before := *c.engine.Snapshot()
	before.Attachments = before.Attachments[:2]
	if d.RouteFromSlot(&before, slot, &w.group[0].packet.Tuple); d.Way.To != nil {
		t.Error("a slot has a way in a policy that does not know it")
	}
}

func TestADetachedDeviceIsLeftAlone(t *testing.T) {
	var log logringtest.Buffer
	c := newComings(t, 8)
	c.engine.log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.engine.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	c.want(0, 1, 2, 3, 4)
	old := c.attached[2]
	c.want(0, 1, 3, 4)
	for range 16 {
		old.Inject(0, numbered(2, 1))
		old.Inject(1, numbered(2, 1))
		c.probe(3, 4)
	}
	cancel()
	running.Wait()
	if s := log.String(); s != "" {
		t.Error(s)
	}
	n, b := 0, make([]byte, 9000)
	for _, q := range old.Queues() {
		for _, err := q.Read(b); err == nil; _, err = q.Read(b) {
			n++
		}
	}
	if n != 32 {
		t.Errorf("%d of 32 packets are still in the device of one that is gone", n)
	}
}
