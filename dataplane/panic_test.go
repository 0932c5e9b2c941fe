package dataplane

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/logring/logringtest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// faulty is a queue whose writes panic at a packet from a port.
type faulty struct {
	tun.Queue
	port uint16
}

func (q *faulty) Write(frame []byte) error {
	const sourcePort = tun.HeaderLen + 20
	if port := uint16(frame[sourcePort])<<8 | uint16(frame[sourcePort+1]); port == q.port {
		panic("a fault for a test")
	}
	return q.Queue.Write(frame)
}

// TestAPanicCostsOnePacket injects a fault at one packet of a group. The others of the group pass, those of the next turn
// too, and flows stay.
func TestAPanicCostsOnePacket(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	log := &logringtest.Buffer{}
	r.engine.log = slog.New(slog.NewTextHandler(log, nil))
	w := r.engine.workers[0]
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	const poison, packets = 1007, 12
	w.queues[vm2] = &faulty{Queue: w.queues[vm2], port: poison}
	turn := func() (arrived int) {
		t.Helper()
		for i := range packets {
			p := packettest.UDP(packettest.Spec{Src: addr1, Dst: addr2, SrcPort: uint16(1000 + i), DstPort: 53, Payload: 10})
			if !r.devices[vm1].Inject(0, append(make([]byte, tun.HeaderLen), p...)) {
				t.Fatal("memory device is full")
			}
		}
		if err := w.turn([]int{vm1}); err != nil {
			t.Fatal(err)
		}
		r.devices[vm2].Drain(0, func([]byte) { arrived++ })
		return arrived
	}
	for i := range 3 {
		if got := turn(); got != packets-1 {
			t.Errorf("turn %d: %d packets arrived, want %d", i, got, packets-1)
		}
	}
	if got := r.engine.Counters().Drops()[packet.DropPanic]; got != 3 {
		t.Errorf("%d packets are counted as dropped by a panic, want 3", got)
	}
	if got := r.engine.Flows().Stats().Flows; got != packets {
		t.Errorf("%d flows, want %d", got, packets)
	}
	if text := log.String(); strings.Count(text, "a fault for a test") != 1 || !strings.Contains(text, "faulty") {
		t.Errorf("the log has not one line with the panic and its stack: %s", text)
	}
}

// TestAPanicWithinAStreakLosesNoCount injects a fault between packets of one flow, which are counted together.
func TestAPanicWithinAStreakLosesNoCount(t *testing.T) {
	const packets = 8
	for fault := range packets {
		r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
		w := r.engine.workers[0]
		writes := 0
		w.queues[vm2] = &tellingQueue{Queue: w.queues[vm2], written: func([]byte) {
			if writes++; writes == fault+1 {
				panic("a fault for a test")
			}
		}}
		for range packets {
			p := packettest.UDP(packettest.Spec{Src: addr1, Dst: addr2, SrcPort: 1000, DstPort: 53, Payload: 10})
			r.devices[vm1].Inject(0, append(make([]byte, tun.HeaderLen), p...))
		}
		if _, err := w.serve(vm1, w.queues[vm1], true); err != nil {
			t.Fatal(err)
		}
		r.engine.Flows().Flows(func(f *conntrack.FlowInfo) bool {
			if f.Packets != [2]uint64{packets, 0} {
				t.Errorf("write %d panics: the flow has counted %v packets, want %d", fault, f.Packets, packets)
			}
			return true
		})
		if w.streak.lasts {
			t.Errorf("write %d panics: a streak lasts beyond its burst", fault)
		}
	}
}

// TestAPanicInsideTheFlowTableEndsTheProcess holds that nobody goes on with a table whose locks may be held.
func TestAPanicInsideTheFlowTableEndsTheProcess(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	w := r.engine.workers[0]
	defer func() {
		if recover() == nil {
			t.Error("the worker goes on")
		}
	}()
	func() {
		defer w.survive()
		w.flows.Insert(nil, &conntrack.Init{}, &packet.Packet{}, 0) // it needs a key
	}()
}
