package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/sweep"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// source is a device of a benchmark: Read makes the next packet of a sequence of flows,
// Write throws away. It costs about 10 ns a packet, so that what is measured is the pipeline.
type source struct {
	tun.Device
	frame []byte // a UDP packet from the internet, or with reply one to it
	reply bool
	next  func() int
	left  int // packets of the burst
	sent  int
}

func newSource(dst string) *source {
	s := packettest.Spec{Src: "11.0.0.0", Dst: dst, SrcPort: 1, DstPort: 53, Payload: 64}
	return &source{frame: append(make([]byte, tun.HeaderLen), packettest.UDP(s)...)}
}

func (s *source) Name() string              { return "source" }
func (s *source) Queues() []tun.Queue       { return []tun.Queue{s} }
func (s *source) FD() int                   { return -1 }
func (s *source) Write([]byte) error        { return nil }
func (s *source) WriteParts([][]byte) error { return nil }
func (s *source) Offload() tun.Offload      { return tun.Off }
func (s *source) SetSlow(bool)              {}

func (s *source) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, tun.ErrAgain
	}
	s.left--
	s.sent++
	n := copy(b, s.frame)
	flow := uint32(s.next())
	address, port := tun.HeaderLen+12, tun.HeaderLen+21
	if s.reply {
		address, port = address+4, port+2
	}
	binary.BigEndian.PutUint32(b[address:], 11<<24|flow>>8)
	b[port] = byte(flow)
	return n, nil
}

// inOrder and atRandom are sequences of n flows.
func inOrder(n int) func() int {
	i := -1
	return func() int { i = (i + 1) % n; return i }
}

func atRandom(n int, seed uint64) func() int {
	return func() int {
		seed = seed*6364136223846793005 + 1442695040888963407
		hi, _ := bits.Mul64(seed, uint64(n))
		return int(hi)
	}
}

// crowd is an engine with n live flows from the internet to VM4, one worker for each source.
func crowd(b testing.TB, n int, sources ...*source) *Engine {
	b.Helper()
	return crowdUnder(b, figureOfTheSeed(), n, max(n, 1024), sources...)
}

// crowdUnder is crowd under another policy, which lets the flows begin, with room for limit flows.
func crowdUnder(b testing.TB, policy *policy.Set, n, limit int, sources ...*source) *Engine {
	b.Helper()
	o := Options{Attachments: figureSpecs, Workers: len(sources), Flows: conntrack.Options{Max: limit, MaxPerZone: limit, Seed: [2]uint64{1, 2}}}
	e, err := New(policy, o)
	if err != nil {
		b.Fatal(err)
	}
	for i, w := range e.workers {
		for slot := range figureSpecs {
			w.attach()
			w.queues[slot], w.takes[slot] = sources[i], sources[i].Offload()
		}
	}
	sources[0].next = inOrder(n)
	for left := n; left > 0; left -= burstPackets {
		burst(b, e.workers[0], sources[0], min(burstPackets, left))
	}
	if live := e.Flows().Stats().Flows; live != int64(n) {
		b.Fatalf("%d flows, want %d", live, n)
	}
	return e
}

func burst(b testing.TB, w *worker, s *source, packets int) {
	s.left = packets
	if err := w.carryBurst(internet); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCarryFlows is the pipeline over live flows met in random order; one operation is
// one packet.
func BenchmarkCarryFlows(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000, 1_000_000, 4_000_000} {
		b.Run(fmt.Sprintf("flows=%d", n), func(b *testing.B) {
			s := newSource(addr4)
			e := crowd(b, n, s)
			s.next = atRandom(n, 1)
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N; left > 0; left -= burstPackets {
				burst(b, e.workers[0], s, burstPackets)
			}
			b.StopTimer()
			if created := e.Flows().Stats().Created; created != uint64(n) {
				b.Errorf("%d flows began", created-uint64(n))
			}
		})
	}
}

// BenchmarkCarryWorkers is the same with a goroutine for each of one or two workers, each
// with flows of its own. Compare the operations a second.
func BenchmarkCarryWorkers(b *testing.B) {
	const flows = 10_000
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			var sources []*source
			for range workers {
				sources = append(sources, newSource(addr4))
			}
			e := crowd(b, flows*workers, sources...)
			for i, s := range sources {
				next := atRandom(flows, uint64(i))
				s.next = func() int { return i*flows + next() }
			}
			b.ResetTimer()
			var group sync.WaitGroup
			for i, s := range sources {
				group.Go(func() {
					w := e.workers[i]
					w.flows.Unpark()
					defer w.flows.Park()
					for left := b.N / workers; left > 0; left -= burstPackets {
						burst(b, w, s, burstPackets)
					}
				})
			}
			group.Wait()
		})
	}
}

// BenchmarkEstablished is what a packet of a live flow costs from its bytes to the
// counters, without a device: decode, admit, flow, counters. Beside it, in the same run, gopacket's
// own decode of the same packet, layers called directly with reused values.
func BenchmarkEstablished(b *testing.B) {
	timestamps := []layers.TCPOption{{OptionType: 1}, {OptionType: 1}, {OptionType: 8, OptionLength: 10, OptionData: make([]byte, 8)}}
	for _, k := range []struct {
		name  string
		flags []string // of the packets that begin the flow, to and fro
		make  func(packettest.Spec) []byte
	}{
		{"TCP", []string{"S", "SA", "A"}, packettest.TCP},
		{"UDP", []string{"", "", ""}, packettest.UDP},
	} {
		to := packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 40000, DstPort: 80, Payload: 64, TCPOptions: timestamps}
		fro := packettest.Spec{Src: addr4, Dst: addr1, SrcPort: 80, DstPort: 40000, TCPOptions: timestamps}
		b.Run(k.name+"/pipeline", func(b *testing.B) {
			r := newRig(b, figureOfTheSeed(), conntrack.Options{Max: 1024})
			for i, s := range []*packettest.Spec{&to, &fro, &to} {
				s.Flags = k.flags[i]
				r.send([]int{vm1, vm4}[i%2], k.make(*s))
			}
			w := r.engine.workers[0]
			for i := range w.queues {
				w.queues[i] = &source{}
			}
			frame := append(make([]byte, tun.HeaderLen), k.make(to)...)
			group := w.group[:]
			for i := range group {
				group[i].frame = append([]byte(nil), frame...)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N; left > 0; left -= burstPackets {
				for range burstPackets / groupPackets {
					w.carryGroup(vm1, group)
				}
				w.counters.Flush()
				w.flows.Quiesce()
			}
			b.StopTimer()
			if drops := r.engine.Drops(); drops != [packet.NumDrops]uint64{} {
				b.Fatal(drops)
			}
		})
		b.Run(k.name+"/gopacket", func(b *testing.B) {
			to.Flags = k.flags[2]
			frame := k.make(to)
			var ip layers.IPv4
			var tcp layers.TCP
			var udp layers.UDP
			b.ReportAllocs()
			for b.Loop() {
				err := ip.DecodeFromBytes(frame, gopacket.NilDecodeFeedback)
				if k.name == "TCP" {
					err = errors.Join(err, tcp.DecodeFromBytes(ip.Payload, gopacket.NilDecodeFeedback))
				} else {
					err = errors.Join(err, udp.DecodeFromBytes(ip.Payload, gopacket.NilDecodeFeedback))
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLongestPause is how long bursts of 64 packets take while the flow table expires and
// the garbage collector runs: over a million live flows; over an engine that has a
// thousand; and for a loop that only makes the packets, which shows what the machine itself does
// to a goroutine. One operation is one burst.
func BenchmarkLongestPause(b *testing.B) {
	for _, n := range []int{1_000_000, 1_000} {
		b.Run(fmt.Sprintf("flows=%d", n), func(b *testing.B) {
			s := newSource(addr4)
			e := crowd(b, n, s)
			s.next = atRandom(n, 1)
			pauses(b, func() { e.Flows().Expire(e.Now(), sweep.Budget) }, func() { burst(b, e.workers[0], s, burstPackets) })
		})
	}
	b.Run("no table", func(b *testing.B) {
		s := newSource(addr4)
		s.next = atRandom(1_000_000, 1)
		var buffer [2048]byte
		pauses(b, func() {}, func() {
			for s.left = burstPackets; s.left > 0; {
				if _, err := s.Read(buffer[:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// pauses times every call of f while expire runs as often as in an engine, and the garbage
// collector ten times a second.
func pauses(b *testing.B, expire, f func()) {
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		tick := time.NewTicker(sweep.Every)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				expire()
				runtime.GC()
			}
		}
	})
	times := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for range b.N {
		start := time.Now()
		f()
		times = append(times, time.Since(start))
	}
	b.StopTimer()
	close(stop)
	others.Wait()
	slices.Sort(times)
	at := func(share float64) float64 {
		return float64(times[int(share*float64(len(times)-1))]) / float64(time.Microsecond)
	}
	b.ReportMetric(at(0.5), "p50-µs")
	b.ReportMetric(at(0.999), "p99.9-µs")
	b.ReportMetric(at(1), "max-µs")
}
