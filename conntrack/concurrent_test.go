package conntrack

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// TestWorkersShareFlowsWithoutLosingAPacket lets several workers look up, create,
// restart, end and pass on a few keys while others expire, list, flush and count. A flow that a
// worker holds must stay the flow of its key, and every packet that passed must be found in
// a live flow or among those of ended ones.
func TestWorkersShareFlowsWithoutLosingAPacket(t *testing.T) {
	const workers = 4
	rounds := 60_000
	if testing.Short() {
		rounds = 15_000
	}
	table, err := New(Options{Max: 24, Zones: 4, Workers: workers, Seed: [2]uint64{3, 4}})
	if err != nil {
		t.Fatal(err)
	}
	var clock atomic.Uint32
	var passed, octets atomic.Uint64
	var running sync.WaitGroup
	for i := range workers {
		w := table.Worker(i)
		running.Go(func() {
			hammer(t, w, rand.New(rand.NewPCG(uint64(i), 1)), rounds, &clock, &passed, &octets)
			w.Park()
		})
	}
	var stop atomic.Bool
	var observing sync.WaitGroup
	observing.Go(func() {
		for n := 0; !stop.Load(); n++ {
			table.Expire(Tick(clock.Load()), 100)
			table.Stats()
			for i := range table.Flows {
				arrives := i.Key.Tuple
				if arrives.Src == host(3) {
					arrives.Src = host(4)
				}
				if i.ReplyKey.Tuple != arrives.Reverse() {
					t.Errorf("a flow of two keys: %+v", *i)
				}
			}
			if n%64 == 0 {
				table.Flush()
			}
		}
	})
	running.Wait()
	stop.Store(true)
	observing.Wait()

	for range 8 { // all workers are parked: make all that ended reusable
		table.Expire(Tick(clock.Load()), 0)
	}
	s := table.Stats()
	packets, bytes := s.EndedPackets, s.EndedBytes
	live := int64(0)
	for i := range table.records {
		if r := &table.records[i]; status(r.status.Load()).live() {
			live++
			p, b := r.counted()
			packets, bytes = packets+p, bytes+b
		}
	}
	if packets != passed.Load() || bytes != octets.Load() {
		t.Errorf("%d packets and %d bytes counted, %d and %d passed", packets, bytes, passed.Load(), octets.Load())
	}
	checkAtRest(t, table, s, live)
	t.Logf("%+v", s)
}

// checkAtRest compares the counts with each other and with the index, when no worker runs.
func checkAtRest(t *testing.T, table *Table, s Stats, live int64) {
	var classes, ended int64
	for _, n := range s.Live {
		classes += n
	}
	for _, n := range s.Ended {
		ended += int64(n)
	}
	if live != s.Flows || classes != s.Flows || int64(s.Created)-ended != s.Flows {
		t.Errorf("%d live records: %+v", live, s)
	}
	entries := int64(0)
	for i := range table.index.heads {
		for e := ref(table.index.heads[i].Load()); e != 0; entries++ {
			e = ref(table.records[e.flow()].links[e.direction()].Load())
		}
	}
	want := int64(0)
	for i := range table.records {
		if status(table.records[i].status.Load()).live() {
			want++
			if original, reply := table.keys(Flow(i)); original != reply {
				want++
			}
		}
	}
	if entries != want {
		t.Errorf("%d entries in the index, want %d", entries, want)
	}
	if n := table.waiting.Load(); n != 0 {
		t.Errorf("%d records still wait", n)
	}
}

// hammer is what one worker does.
func hammer(t *testing.T, w *Worker, random *rand.Rand, rounds int, clock *atomic.Uint32, passed, octets *atomic.Uint64) {
	for range rounds / 16 {
		if random.IntN(8) == 0 {
			clock.Add(random.Uint32N(800))
		}
		now := Tick(clock.Load())
		for range 16 {
			zone, peer, p := randomPacket(random)
			k := Key{p.Tuple, zone}
			f, d, ok := w.Lookup(&k, now)
			drop := packet.DropRule
			switch {
			case ok && w.Restarts(f, d, p):
				w.End(f, EndRestarted)
			case ok:
				drop = w.Pass(f, d, p, now)
			}
			if !ok && MayCreate(p, false) == packet.NotDropped {
				init := Init{ReplyZone: peer, Generation: uint32(p.Src.Lo)}
				if p.Src == host(3) { // is seen as host 4
					arrives := p.Tuple
					arrives.Src = host(4)
					init.Marks, init.Arrives = Translated, &arrives
				}
				var created bool
				if f, d, created, drop = w.Insert(&k, &init, p, now); created {
					w.Count(f, d, p)
				}
				ok = drop != packet.DropFlowLimit && drop != packet.DropFlowConflict
			}
			if drop == packet.NotDropped {
				passed.Add(uint64(p.Segments))
				octets.Add(uint64(p.WireLen))
			}
			if !ok {
				continue
			}
			held, reply := w.table.keys(f)
			if d == Reply {
				held = reply
			}
			if held != k {
				t.Errorf("a flow held for %v is that of %v", k, held)
				return
			}
		}
		w.Quiesce()
		runtime.Gosched() // or the others wait for a time slice before records can be reused
		if random.IntN(32) == 0 {
			w.Park()
			w.Unpark()
		}
	}
}

func randomPacket(random *rand.Rand) (zone, peer uint16, p *packet.Packet) {
	a, b := random.IntN(4), random.IntN(5)
	p = newPacket(packet.ProtoUDP, a, b, uint16(a%3), uint16(b%3+random.IntN(2)))
	if random.IntN(2) == 0 {
		p = newPacket(packet.ProtoTCP, a, b, uint16(a%3), uint16(b%3))
		p.TCPFlags = []uint8{packet.SYN, packet.SYN | packet.ACK, packet.ACK, packet.ACK, packet.FIN | packet.ACK, packet.RST | packet.ACK}[random.IntN(6)]
	}
	p.Segments = 1 + random.Uint32N(3)
	p.WireLen = p.Segments * packetLen
	return uint16(a), uint16(b % 4), p
}

// TestWorkersThatCreateTheSameFlowAtOnceGetOneFlow includes both ends that begin at once.
func TestWorkersThatCreateTheSameFlowAtOnceGetOneFlow(t *testing.T) {
	const workers = 4
	table, err := New(Options{Max: 4096, Zones: 2, Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	for port := range uint16(500) {
		var created atomic.Int32
		var running sync.WaitGroup
		for i := range workers {
			w := table.Worker(i)
			running.Go(func() {
				p, zone := udp(port), uint16(i%2)
				if zone == 1 {
					p = reversed(p)
				}
				k := Key{p.Tuple, zone}
				f, d, first, drop := w.Insert(&k, &Init{ReplyZone: 1 - zone}, p, 0)
				if first {
					w.Count(f, d, p)
					created.Add(1)
				}
				if drop != packet.NotDropped {
					t.Errorf("dropped: %s", drop)
				}
				w.Park()
			})
		}
		running.Wait()
		if n := created.Load(); n != 1 {
			t.Fatalf("created %d times", n)
		}
	}
	table.Expire(Tick(time.Second/TickLength), 0)
	for i := range table.Flows {
		if i.Packets[0]+i.Packets[1] != workers {
			t.Errorf("%v: %v packets", i.Key, i.Packets)
		}
	}
}
