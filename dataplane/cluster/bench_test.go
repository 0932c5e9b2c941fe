package cluster

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkFleet is an apply until every host carries it: with hosts of 100 network interfaces each, all in this process,
// whose daemons carry nothing. So it is the time of etcd and the agents, on this machine's processors.
func BenchmarkFleet(b *testing.B) {
	for _, hosts := range []int{3, 50} {
		b.Run(fmt.Sprint("hosts=", hosts), func(b *testing.B) {
			s := newServer(b)
			store := s.open()
			var all []*host
			for n := range hosts {
				var nics []string
				for i := range 100 {
					nics = append(nics, fmt.Sprintf("/nic/%d-%d", n, i))
				}
				all = append(all, newHost(b, s, fmt.Sprint("host", n), nics...))
			}
			mustApply(b, store, applyOf(b, "first"))
			for _, h := range all {
				eventually(b, "every host has its network interfaces", func() error {
					h.mu.Lock()
					defer h.mu.Unlock()
					if len(h.attached) != 100 {
						return fmt.Errorf("%s has %d", h.agent.Host, len(h.attached))
					}
					return nil
				})
			}
			before := s.written(b)
			n := 0
			for b.Loop() {
				n++
				mustApply(b, store, applyOf(b, fmt.Sprint("change ", n)))
			}
			b.ReportMetric((s.written(b)-before)/float64(n), "etcd-bytes/op")
			b.ReportMetric(b.Elapsed().Seconds()*1000/float64(n), "ms/op")
		})
	}
}

// written are the bytes that etcd has written to its log.
func (s *server) written(b *testing.B) float64 {
	r, err := http.Get(s.client + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if value, ok := strings.CutPrefix(line, "etcd_debugging_mvcc_total_put_size_in_bytes "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	return 0
}
