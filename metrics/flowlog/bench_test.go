package flowlog

import (
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/conntrack/slab"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// BenchmarkEnded takes a flow from the flow table's hook to its two rows at each of two ends, in logs
// of both versions in files. Beyond the process the rows are in the write-ahead log too.
func BenchmarkEnded(b *testing.B) {
	b.Run("with the process", func(b *testing.B) { benchmarkEnded(b, nil) })
	b.Run("beyond the process", func(b *testing.B) { benchmarkEnded(b, slab.New(nil, nil)) })
}

func benchmarkEnded(b *testing.B, slabs *slab.Slabs) {
	logs := []Log{{Version: NSG, Folder: b.TempDir(), MaxSize: 256 << 20}, {Version: VNet, Folder: b.TempDir(), MaxSize: 256 << 20}}
	r := newRigWith(b, midnight, Options{Logs: logs, Slabs: slabs})
	info := oneFlow(b, r)
	b.ReportAllocs()
	n := uint32(0)
	for b.Loop() {
		n++
		info.Flow, info.Key.SrcPort, info.ReplyKey.DstPort = conntrack.Flow(n%4096), uint16(n), uint16(n)
		r.recorder.ring.push(&info)
		if n%1024 == 0 {
			r.recorder.drain()
		}
	}
	r.end()
}

// BenchmarkWalk walks past live flows without a row that is due.
func BenchmarkWalk(b *testing.B) {
	r := newRig(b, midnight, Log{Version: NSG, Folder: b.TempDir()}, Log{Version: VNet, Folder: b.TempDir()})
	const flows = 4000
	for port := range uint16(flows) {
		r.send(vmA, packettest.UDP(packettest.Spec{Src: addrA, Dst: addrB, SrcPort: 1000 + port, DstPort: 123}))
	}
	var spent time.Duration
	for b.Loop() {
		began := time.Now()
		r.recorder.walk(false, func() {})
		spent += time.Since(began)
		for i := range r.recorder.flows {
			if f := &r.recorder.flows[i]; f.walked != 0 {
				f.walked = r.recorder.walked
			}
		}
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N)/flows, "ns/flow")
	r.end()
}

// oneFlow begins a flow between the two NICs and returns its record of the flow table.
func oneFlow(b testing.TB, r *rig) (info conntrack.FlowInfo) {
	r.send(vmA, packettest.UDP(packettest.Spec{Src: addrA, Dst: addrB, SrcPort: 1000, DstPort: 123, Payload: 100}))
	for i := range r.engine.Flows().Flows {
		info = *i
	}
	if info.Packets[conntrack.Original] != 1 {
		b.Fatal("no flow")
	}
	return info
}
