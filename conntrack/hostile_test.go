package conntrack

import (
	"flag"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

var hostileTime = flag.Duration("hostile.time", time.Second, "how long the attack on the flow table lasts")

// Workers begin, find, end, evict and restart flows of few keys, with reply keys that collide, translations
// and shared ports, while others expire, walk, end by key and flush. Afterwards nothing is leaked or lost.
//
//	go test -race ./conntrack -run Hostile20 -hostile.time 10m
func TestHostile20ConntrackStress(t *testing.T) {
	const workers, zones = 4, 3
	short := 20 * time.Millisecond
	table, err := New(Options{Max: 48, MaxPerZone: 30, Zones: zones, Workers: workers, Timeouts: Timeouts{TCPSyn: short, TCPReset: short,
		UDPOneWay: short, UDPTwoWay: 2 * short, TCPEstablished: 3 * short, TCPClosing: short, TCPTimeWait: short / 2}})
	if err != nil {
		t.Fatal(err)
	}
	var told, passed atomic.Uint64
	table.OnEnd(func(i *FlowInfo) { told.Add(i.Packets[Original] + i.Packets[Reply]) })
	seed, begun := rand.Uint64(), time.Now()
	t.Logf("seed %d", seed)
	now := func() Tick { return Tick(0xffffff00) + Tick(time.Since(begun)/TickLength) } // wraps after 2.56 s
	stop := make(chan struct{})
	var running sync.WaitGroup
	until := func(step func()) {
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					step()
					runtime.Gosched()
				}
			}
		})
	}
	for i := range workers {
		a := &attacker{t: t, w: table.Worker(i), random: rand.New(rand.NewPCG(seed, uint64(i))), passed: &passed}
		until(func() {
			for range 1 + a.random.IntN(20) {
				a.packet(now())
			}
			if a.random.IntN(30) == 0 {
				a.w.Park()
				runtime.Gosched()
				a.w.Unpark()
			}
			a.w.Quiesce()
		})
		defer a.w.Park()
	}
	until(func() { table.Expire(now(), 40) })
	random := rand.New(rand.NewPCG(seed, workers))
	until(func() {
		table.Flows(func(f *FlowInfo) bool {
			switch random.IntN(40) {
			case 0:
				table.End(&f.Key)
			case 1:
				table.SetEstablished(&f.Key, time.Duration(random.IntN(100))*time.Millisecond, now())
			}
			return true
		})
		if random.IntN(50) == 0 {
			table.Flush()
		}
	})
	<-time.After(*hostileTime)
	close(stop)
	running.Wait()
	for i := range workers {
		table.workers[i].Park()
	}
	table.Flush()
	for range 10 {
		table.Expire(now(), 1<<20)
	}
	s := table.Stats()
	ended := uint64(0)
	for _, n := range s.Ended {
		ended += n
	}
	if s.Created == 0 || s.Flows != 0 || ended != s.Created || s.Translated != 0 || s.Live != [NumClasses]int64{} || table.busyZones.Load() != 0 {
		t.Errorf("%+v: %d ended", s, ended)
	}
	for zone := range uint16(zones) {
		if n := table.ZoneFlows(zone); n != 0 {
			t.Errorf("zone %d has %d flows", zone, n)
		}
	}
	free := 0
	for n := uint32(table.free.Load()); n != 0 && free <= len(table.records); n = table.records[n-1].next.Load() {
		free++
	}
	if free != int(table.used.Load()) || table.waiting.Load() != 0 || len(table.ports.maps) != 0 {
		t.Errorf("%d records are free of %d, %d wait, %d maps of ports stay", free, table.used.Load(), table.waiting.Load(), len(table.ports.maps))
	}
	if told.Load() != passed.Load() || s.EndedPackets != passed.Load() {
		t.Errorf("%d packets passed, %d are counted, %d were told", passed.Load(), s.EndedPackets, told.Load())
	}
}

// attacker sends packets of few keys through a worker.
type attacker struct {
	t      *testing.T
	w      *Worker
	random *rand.Rand
	passed *atomic.Uint64
}

func (a *attacker) packet(now Tick) {
	k := Key{Zone: uint16(a.random.IntN(3))}
	k.Src, k.Dst = host(a.random.IntN(3)), host(a.random.IntN(3))
	k.SrcPort, k.DstPort = uint16(a.random.IntN(2)), uint16(a.random.IntN(2))
	k.Proto = []uint8{packet.ProtoTCP, packet.ProtoUDP}[a.random.IntN(2)]
	p := &packet.Packet{Tuple: k.Tuple, Segments: 1, WireLen: packetLen, Seq: a.random.Uint32N(4), Ack: a.random.Uint32N(4), Window: 100,
		TCPFlags: []uint8{packet.SYN, packet.ACK, packet.FIN | packet.ACK, packet.RST, packet.SYN | packet.ACK}[a.random.IntN(5)]}
	if f, d, ok := a.w.Lookup(&k, now); ok {
		reply := Key{a.w.Becomes(f, Original).Reverse(), a.w.PeerZone(f, Original)}
		if d == Original && a.w.OriginalKey(f) != k || d == Reply && reply != k {
			a.t.Errorf("%v leads to a flow of %v and %v", k, a.w.OriginalKey(f), reply)
		}
		switch {
		case a.random.IntN(50) == 0:
			a.w.End(f, EndFlushed)
			return
		case !a.w.Restarts(f, d, p):
			if a.w.Pass(f, d, p, now) == packet.NotDropped {
				a.passed.Add(1)
			}
			return
		}
		a.w.End(f, EndRestarted)
	}
	if MayCreate(p, false) != packet.NotDropped {
		return
	}
	init := Init{ReplyZone: uint16(a.random.IntN(3))}
	if a.random.IntN(3) == 0 {
		arrives := k.Tuple
		arrives.Src, arrives.SrcPort = host(a.random.IntN(3)), uint16(1024+a.random.IntN(30))
		init.Marks, init.Arrives = Translated|Shared, &arrives
		reply := init.replyKey(&k)
		if !a.w.FreePort(&reply, 1024, 1053, k.Zone, true, now) {
			return
		}
		arrives.SrcPort = reply.DstPort
	}
	f, d, created, drop := a.w.Insert(&k, &init, p, now)
	switch {
	case created && a.random.IntN(10) == 0: // overtaken by a reload: it has counted nothing
		a.w.End(f, EndFlushed)
	case created:
		a.w.Count(f, d, p)
		a.passed.Add(1)
	case drop == packet.NotDropped:
		a.passed.Add(1)
	}
}
