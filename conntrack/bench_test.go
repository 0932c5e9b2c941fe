package conntrack

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// sizes are the numbers of flows that benchmarks are run with.
var sizes = []int{1_000, 100_000, 1_000_000, 4_000_000}

// filled is a table of n established flows and their packets in random order.
func filled(b *testing.B, n, workers int) (*Table, []packet.Packet) {
	b.Helper()
	table, err := New(Options{Max: max(n, 1024), MaxPerZone: n, Zones: 2, Workers: workers, Seed: [2]uint64{1, 2}})
	if err != nil {
		b.Fatal(err)
	}
	w := table.Worker(0)
	packets := make([]packet.Packet, n)
	for i := range packets {
		packets[i] = *benchPacket(i)
		p := packets[i]
		k := Key{p.Tuple, 0}
		if _, _, created, drop := w.Insert(&k, &Init{ReplyZone: 1}, &p, 0); !created {
			b.Fatal(drop)
		}
		k = Key{p.Reverse(), 1}
		f, d, _ := w.Lookup(&k, 0)
		w.Pass(f, d, &p, 0)
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { packets[i], packets[j] = packets[j], packets[i] })
	return table, packets
}

func benchPacket(i int) *packet.Packet {
	p := newPacket(packet.ProtoTCP, i>>8, 1<<20+i&255, uint16(i*7919), 443)
	p.TCPFlags = packet.ACK
	return p
}

func BenchmarkHit(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("flows=%d", n), func(b *testing.B) {
			table, packets := filled(b, n, 1)
			w := table.Worker(0)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				hit(b, w, &packets[i])
				if i++; i == n {
					i = 0
				}
				if i&63 == 0 {
					w.Quiesce()
				}
			}
		})
	}
}

func hit(b *testing.B, w *Worker, p *packet.Packet) {
	k := Key{p.Tuple, 0}
	f, d, ok := w.Lookup(&k, 1)
	if !ok || w.Pass(f, d, p, 1) != packet.NotDropped {
		b.Error("no hit")
	}
}

func BenchmarkParallelHit(b *testing.B) {
	const workers = 2
	for _, shared := range []bool{false, true} {
		name := map[bool]string{false: "own flows", true: "shared flows"}[shared]
		b.Run(name, func(b *testing.B) {
			table, packets := filled(b, 100_000, workers)
			var running sync.WaitGroup
			b.ResetTimer()
			for id := range workers {
				mine := packets
				if !shared {
					half := len(packets) / workers
					mine = packets[id*half : (id+1)*half]
				}
				w := table.Worker(id)
				running.Go(func() {
					defer w.Park()
					for i := range b.N / workers {
						hit(b, w, &mine[i%len(mine)])
						if i&63 == 0 {
							w.Quiesce()
						}
					}
				})
			}
			running.Wait()
		})
	}
}

func BenchmarkMiss(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("flows=%d", n), func(b *testing.B) {
			table, packets := filled(b, n, 1)
			w := table.Worker(0)
			i := 0
			for b.Loop() {
				k := Key{packets[i].Tuple, 1}
				if _, _, ok := w.Lookup(&k, 1); ok {
					b.Fatal("hit")
				}
				if i++; i == n {
					i = 0
				}
			}
		})
	}
}

// BenchmarkInsert fills a table again and again; emptying it is not timed.
func BenchmarkInsert(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("flows=%d", n), func(b *testing.B) { benchmarkInsert(b, n) })
	}
}

func benchmarkInsert(b *testing.B, n int) {
	table, packets := filled(b, n, 1)
	w := table.Worker(0)
	init := Init{ReplyZone: 1}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%n == 0 {
			b.StopTimer()
			empty(table, w)
			b.StartTimer()
		}
		p := &packets[i%n]
		k := Key{p.Tuple, 0}
		if _, _, created, drop := w.Insert(&k, &init, p, 1); !created {
			b.Fatal(drop)
		}
		if i&63 == 0 {
			w.Quiesce()
		}
	}
}

// BenchmarkInsertIntoFullTable evicts a flow for every new one, as under a flood.
func BenchmarkInsertIntoFullTable(b *testing.B) {
	table, packets := filled(b, 100_000, 1)
	w := table.Worker(0)
	init := Init{ReplyZone: 1}
	empty(table, w)
	b.ResetTimer()
	for i := range b.N {
		p := &packets[i%len(packets)]
		k := Key{p.Tuple, 0}
		k.DstPort = uint16(i / len(packets))
		if _, _, created, drop := w.Insert(&k, &init, p, 1); !created && drop != packet.NotDropped {
			b.Fatal(drop)
		}
		if i&63 == 0 {
			w.Quiesce()
		}
	}
}

func empty(table *Table, w *Worker) {
	table.Flush()
	for table.waiting.Load() > 0 {
		w.Quiesce()
		table.Expire(1, 0)
	}
}

// BenchmarkExpire is the cost for one record, of a flow that lives and of one that is over.
func BenchmarkExpire(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("live/flows=%d", n), func(b *testing.B) {
			table, _ := filled(b, n, 1)
			b.ResetTimer()
			for i := 0; i < b.N; i += expireAtOnce {
				table.Expire(1, expireAtOnce)
			}
		})
		b.Run(fmt.Sprintf("over/flows=%d", n), func(b *testing.B) { benchmarkExpireOver(b, n) })
	}
}

// expireAtOnce is less than the smallest table holds.
const expireAtOnce = 500

func benchmarkExpireOver(b *testing.B, n int) {
	table, packets := filled(b, n, 1)
	w := table.Worker(0)
	over := Tick(time.Hour / TickLength)
	b.ResetTimer()
	for i := 0; i < b.N; i += expireAtOnce {
		if table.live.Load() == 0 {
			b.StopTimer()
			empty(table, w)
			for j := range packets {
				k := Key{packets[j].Tuple, 0}
				w.Insert(&k, &Init{ReplyZone: 1}, &packets[j], 1)
			}
			b.StartTimer()
		}
		table.Expire(over, expireAtOnce)
		w.Quiesce()
	}
}

// BenchmarkInsertIntoFullZone is refused for a zone whose flows are all missed, among many others.
func BenchmarkInsertIntoFullZone(b *testing.B) {
	r := newRig(b, Options{Max: 100_000, MaxPerZone: 1000, Timeouts: Timeouts{UDPTwoWay: MaxTimeout}, UnlimitedZones: func(zone uint16) bool { return zone > 0 }})
	begin := func(zone uint16, n int) {
		for i := range n {
			p := newPacket(packet.ProtoUDP, i, 2, 1, zone)
			r.create(zone, 1, p)
			r.send(1, zone, reversed(p))
			r.send(zone, 1, p)
		}
	}
	begin(0, 1000)
	begin(2, 90_000)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		p := newPacket(packet.ProtoUDP, i, 3, 1, 1)
		if _, _, created, _ := r.send(0, 1, p); created {
			b.Fatal("created")
		}
		if i&63 == 0 {
			r.now++
			r.w.Quiesce()
		}
	}
}
