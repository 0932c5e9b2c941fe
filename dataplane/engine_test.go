package dataplane

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// eventually polls a condition until it holds or a generous deadline has passed.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestWorkersCountEveryPacketWhilePoliciesChange runs two workers over both
// directions of the same flows, while policies are swapped and counters scraped.
func TestWorkersCountEveryPacketWhilePoliciesChange(t *testing.T) {
	const (
		workers   = 2
		flows     = 50
		perWorker = 5_000
	)
	e, err := New(figureOfTheSeed(), Options{Attachments: figureSpecs, Workers: workers, Flows: conntrack.Options{Max: 4096}})
	if err != nil {
		t.Fatal(err)
	}
	var devices []tun.Device
	var memory []*tuntest.Memory
	for range numAttachments {
		d := newMemory(t, workers, 1024)
		devices, memory = append(devices, d), append(memory, d)
	}
	if err := e.Attach(devices); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()

	var senders sync.WaitGroup
	for q := range workers {
		senders.Go(func() {
			for i := range perWorker {
				s := packettest.Spec{Src: addr1, Dst: addr4, SrcPort: uint16(1000 + i%flows), DstPort: 53}
				from := vm1
				if q == 1 {
					s.Src, s.Dst, s.SrcPort, s.DstPort = s.Dst, s.Src, s.DstPort, s.SrcPort
					from = vm4
				}
				b := append(make([]byte, tun.HeaderLen), packettest.UDP(s)...)
				for !memory[from].Inject(q, b) {
					time.Sleep(time.Microsecond)
				}
			}
		})
	}
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			s, err := e.Prepare(figure([]ruleset.Rule{anyRule("x", 100+i%2, ruleset.Inbound, ruleset.Allow)}, nil))
			if err == nil {
				err = e.Swap(s, nil)
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	others.Go(func() {
		last := map[int]counter.Rule{}
		for {
			select {
			case <-stop:
				return
			default:
			}
			for i, c := range e.Counters().Rules(len(e.Registry().Keys())) {
				if c.Hits < last[i].Hits || c.Packets < last[i].Packets || c.Bytes < last[i].Bytes {
					t.Errorf("counter %d went back: %+v after %+v", i, c, last[i])
				}
				last[i] = c
			}
		}
	})
	sink := func(d *tuntest.Memory, q int) {
		for {
			select {
			case <-stop:
				return
			default:
				if d.Drain(q, nil) == 0 {
					time.Sleep(10 * time.Microsecond)
				}
			}
		}
	}
	for q := range workers {
		others.Go(func() { sink(memory[vm1], q) })
		others.Go(func() { sink(memory[vm4], q) })
	}
	senders.Wait()
	total := func() (received, transmitted, dropped uint64) {
		for _, c := range e.AttachmentCounts() {
			received += c.ReceivePackets
			transmitted += c.TransmitPackets
		}
		for _, n := range e.Drops() {
			dropped += n
		}
		return received, transmitted, dropped
	}
	eventually(t, "every packet is carried or dropped", func() bool {
		received, transmitted, dropped := total()
		return received == workers*perWorker && transmitted+dropped == received
	})
	close(stop)
	others.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestALostDeviceLeavesTheOthersCarrying(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.engine.Run(ctx) }()
	carried := func() bool {
		r.devices[vm1].Inject(0, append(make([]byte, tun.HeaderLen), syn(addr1, addr4, 80)...))
		return r.devices[vm4].Drain(0, nil) > 0
	}
	eventually(t, "the engine runs", carried)
	if err := r.devices[vm2].Close(); err != nil {
		t.Fatal(err)
	}
	r.devices[vm4].Drain(0, nil)
	eventually(t, "a packet between the other two arrives", carried)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSwapRefusedByTheDevicesLeavesThePolicyUntouched(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	before := r.engine.Snapshot()
	s, err := r.engine.Prepare(figure(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	refusal := errors.New("device says no")
	if err := r.engine.Swap(s, func(*topology.Snapshot) error { return refusal }); !errors.Is(err, refusal) {
		t.Errorf("got %v", err)
	}
	if r.engine.Snapshot() != before {
		t.Error("the snapshot was swapped all the same")
	}
}
