package conntrack

import (
	"fmt"
	"os"
	"testing"

	"github.com/nsgd/nsgd/conntrack/slab"
	"github.com/nsgd/nsgd/dataplane/packet"
	"golang.org/x/sys/unix"
)

// BenchmarkAdopt makes a table of the flows that another process has left: half of them share a translated address.
func BenchmarkAdopt(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("flows=%d", n), func(b *testing.B) {
			left := kept{slab.New(nil, nil)}
			options := Options{Max: n, MaxPerZone: n, Images: left, Workers: 2}
			table, err := New(options)
			if err != nil {
				b.Fatal(err)
			}
			w := table.Worker(0)
			for i := range n {
				p := benchPacket(i)
				init := Init{ReplyZone: 1}
				if i%2 == 0 {
					init.Marks, init.Arrives = Translated|Shared, &packet.Tuple{Src: host(1<<22 + i>>16), Dst: p.Dst, SrcPort: uint16(i), DstPort: p.DstPort, Proto: p.Proto}
				}
				k := Key{p.Tuple, 0}
				w.Insert(&k, &init, p, 0)
			}
			live := table.Stats().Flows
			b.ResetTimer()
			for b.Loop() {
				b.StopTimer()
				fd, err := unix.FcntlInt(left.slabs.Files()["flows"].Fd(), unix.F_DUPFD_CLOEXEC, 0)
				if err != nil {
					b.Fatal(err)
				}
				next := kept{slab.New(map[string]*os.File{"flows": os.NewFile(uintptr(fd), "flows")}, nil)}
				options.Images = next
				b.StartTimer()
				table, err := New(options)
				if err != nil || int64(table.Adoption().Flows) != live {
					b.Fatal(err, table.Adoption())
				}
				b.StopTimer()
				if err := next.slabs.Release("flows"); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(live), "flows")
		})
	}
}
