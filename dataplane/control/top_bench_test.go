package control_test

import (
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/deploy/lab"
)

// BenchmarkTop is the cost of a reading with a million flows, each between two addresses of its own.
func BenchmarkTop(b *testing.B) {
	const flows = 1_000_000
	dir := b.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		b.Fatal(err)
	}
	files := inspect.NewPolicyFiles("", dir+"/policy")
	set, err := files.Load()
	if err != nil {
		b.Fatal(err)
	}
	engine, err := dataplane.New(set, dataplane.Options{Attachments: specs, Workers: 1, Flows: conntrack.Options{Max: flows, MaxPerZone: flows}})
	if err != nil {
		b.Fatal(err)
	}
	service := inspect.NewService(inspect.Options{Engine: engine, Policy: files, Places: make([]inspect.Place, len(specs))})
	w := engine.Flows().Worker(0)
	for i := range flows {
		p := packet.Packet{Tuple: packet.Tuple{
			Src: packet.Addr{Lo: 0xffff_0a00_0000 + uint64(i)}, Dst: packet.Addr{Lo: 0xffff_0a00_0104},
			SrcPort: uint16(i), DstPort: 53, Proto: packet.ProtoUDP,
		}, Segments: 1, WireLen: 60 + uint32(i%1000)}
		key := conntrack.Key{Tuple: p.Tuple, Zone: internet}
		if _, _, created, drop := w.Insert(&key, &conntrack.Init{}, &p, engine.Now()); !created {
			b.Fatal(drop)
		}
	}
	w.Park()
	for _, q := range []inspect.TopQuestion{
		{View: inspect.TopRules},
		{View: inspect.TopFlows},
		{View: inspect.TopFlows, Filter: "10.0.1. udp"},
		{View: inspect.TopTalkers, Order: "bytes"},
		{View: inspect.TopDrops},
	} {
		name := string(q.View)
		if q.Filter != "" {
			name += "/filtered"
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := service.Top(q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
