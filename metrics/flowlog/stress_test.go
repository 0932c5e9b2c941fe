package flowlog

import (
	"context"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/metrics/flowlog/flowlogtest"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// Workers begin and evict flows all the time in a small table, so that records of the flow table
// change hands between and within walks. No packet may be logged twice or be missing.
func TestNoPacketIsMissedWhileRecordsChangeHands(t *testing.T) {
	const workers, perWorker = 2, 20_000
	folder := t.TempDir()
	engine, err := dataplane.New(testPolicy("web", "no-evil"), dataplane.Options{
		Attachments: []topology.Spec{{Kind: topology.NetworkInterface, Reference: "a"}, {Kind: topology.Internet}},
		Workers:     workers, Flows: conntrack.Options{Max: 100},
	})
	if err != nil {
		t.Fatal(err)
	}
	var memory []*tuntest.Memory
	var devices []tun.Device
	for range 2 {
		d, err := tuntest.NewMemory("eth0", workers, 512, tuntest.WithSlotLen(2048))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		memory, devices = append(memory, d), append(devices, d)
	}
	if err := engine.Attach(devices); err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{Engine: engine, Logs: []Log{{Version: VNet, Folder: folder}}, Interval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- engine.Run(ctx) }()
	go func() { done <- r.Run(ctx) }()
	for w := range workers {
		go func() {
			for n := range perWorker {
				// Each port several times, soon and late, from both workers.
				p := packettest.UDP(packettest.Spec{Src: addrA, Dst: world, SrcPort: uint16(1000 + n/3%700), DstPort: 123, Payload: n % 100})
				for !memory[0].Inject(w, append(make([]byte, tun.HeaderLen), p...)) {
					memory[1].Drain(w, nil)
				}
			}
		}()
	}
	eventually(t, "all is carried", func() bool {
		// A reload can overtake a packet that begins a flow. The packet then begins another flow.
		s, err := engine.Prepare(testPolicy("web", "no-evil"))
		if err == nil {
			err = engine.Swap(s, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		for w := range workers {
			memory[1].Drain(w, nil)
		}
		return engine.AttachmentCounts()[0].ReceivePackets == workers*perWorker
	})
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	rows, err := flowlogtest.ReadFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	flows, err := flowlogtest.Flows(rows)
	if err != nil {
		t.Fatal(err)
	}
	packets, bytes := uint64(0), uint64(0)
	for _, f := range flows {
		packets, bytes = packets+f.Counters[0], bytes+f.Counters[1]
		if f.Over.IsZero() || f.Counters[0] == 0 {
			t.Errorf("%+v", *f)
		}
	}
	s, lost := engine.Flows().Stats(), r.Stats()
	out := engine.Counters().Rules(len(engine.Registry().Keys()))
	carried := counter.Rule{}
	for slot, k := range engine.Registry().Keys() {
		if k.Rule == "AllowInternetOutBound" && k.NetworkSecurityGroup == "subnet-nsg" {
			carried = out[slot]
		}
	}
	if uint64(len(flows)) > s.Created || packets != carried.Packets || bytes != carried.Bytes || lost.EndedLost != 0 {
		t.Errorf("%d flows of %d, %d packets of %d, %d bytes of %d, %+v", len(flows), s.Created, packets, carried.Packets, bytes, carried.Bytes, lost)
	}
	t.Logf("%d flows, %d packets, %d walks", len(flows), packets, r.walked)
}
