package conntrack

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// sharedFlow begins a flow that leaves with a port of a shared address, as the engine does.
func (r *rig) sharedFlow(sender uint16, n int, dst packet.Addr, first, last, start uint16, contended bool) (Flow, uint16, bool) {
	r.t.Helper()
	p := &packet.Packet{Tuple: packet.Tuple{Src: host(int(sender)), Dst: dst, SrcPort: uint16(n), DstPort: uint16(53 + n>>16), Proto: packet.ProtoUDP}, Segments: 1, WireLen: packetLen}
	reply := sharedReply(dst, start)
	if !r.w.FreePort(&reply, first, last, sender, contended, r.now) {
		return 0, 0, false
	}
	arrives := reply.Tuple.Reverse()
	k := Key{p.Tuple, sender}
	f, _, created, drop := r.w.Insert(&k, &Init{ReplyZone: outside, Marks: Translated | Shared, Arrives: &arrives}, p, r.now)
	if !created {
		r.t.Fatalf("port %d: %s", reply.DstPort, drop)
	}
	return f, reply.DstPort, true
}

const outside = 7 // zone

func sharedReply(dst packet.Addr, port uint16) Key {
	return Key{packet.Tuple{Src: dst, Dst: host(200), SrcPort: 53, DstPort: port, Proto: packet.ProtoUDP}, outside}
}

// Whatever begins and ends, a port is found if and only if the table has no flow with it.
func TestAPortIsFoundWhileOneIsFree(t *testing.T) {
	for _, n := range []uint16{1, 7, 64, 100, 1024, 5000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(n), 1))
			r := newRig(t, Options{Max: 1 << 14})
			first := 1024 + uint16(random.IntN(300))
			last := first + n - 1
			live := map[uint16]Flow{}
			for step := range 6 * int(n) {
				if random.IntN(3) == 0 && len(live) > 0 {
					for port, f := range live {
						r.w.End(f, EndFlushed)
						delete(live, port)
						break
					}
					r.recycle()
					continue
				}
				f, port, ok := r.sharedFlow(1, step, host(100), first, last, first+uint16(random.IntN(int(n))), false)
				if ok != (len(live) < int(n)) {
					t.Fatalf("step %d: found %t with %d of %d taken", step, ok, len(live), n)
				}
				if ok {
					if _, taken := live[port]; taken || port < first || port > last {
						t.Fatalf("step %d: port %d of %d to %d, taken %t", step, port, first, last, taken)
					}
					live[port] = f
				}
			}
			for _, f := range live {
				r.w.End(f, EndFlushed)
			}
			r.recycle()
			if len(r.ports.maps) != 0 {
				t.Errorf("%d maps stay", len(r.ports.maps))
			}
			for i := range r.ports.counts {
				if c := &r.ports.counts[i]; c.flows.Load() != 0 || c.maps.Load() != 0 {
					t.Errorf("count %d: %d flows, %d maps", i, c.flows.Load(), c.maps.Load())
				}
			}
		})
	}
}

// A flow with a port that another way chose, and that no map hears of, costs tries and no port twice.
func TestAPortThatAMapDoesNotKnowOfIsPassedOver(t *testing.T) {
	r := newRig(t, Options{Max: 4096})
	for n := range 30 {
		r.sharedFlow(1, n, host(100), 1024, 1087, 1024, false)
	}
	key := portKey(&[]Key{sharedReply(host(100), 1)}[0])
	m := r.ports.mapOf(&key)
	if m == nil {
		t.Fatal("no map with 30 of 64 ports taken")
	}
	m.chunk(1024).taken[1024>>6&63] = 0 // it forgets all of them
	m.chunk(1024).bits = 0
	if _, port, ok := r.sharedFlow(1, 31, host(100), 1024, 1087, 1024, false); ok && port < 1054 {
		t.Errorf("port %d", port)
	}
}

func TestMapsOfPortsAreBounded(t *testing.T) {
	r := newRig(t, Options{Max: 64}) // room for five maps
	for d := range 7 {
		for range leastMapped + 1 {
			k := sharedReply(destination(d), 1024)
			key := portKey(&k)
			r.portCount(&key).flows.Add(1)
			r.w.FreePort(&k, 1024, 1087, 1, false, r.now)
		}
	}
	if n := len(r.ports.maps); n != 5 {
		t.Errorf("%d maps", n)
	}
}

// Two workers take one port for the same tuple: the second one's packet belongs to the first one's flow.
func TestAFlowThatIsNotRecordedHasNoPort(t *testing.T) {
	r := newRig(t, Options{Max: 64})
	f, _, _ := r.sharedFlow(1, 1, host(100), 1024, 1087, 1024, false)
	k := r.w.OriginalKey(f)
	p := &packet.Packet{Tuple: k.Tuple, Segments: 1, WireLen: packetLen}
	arrives := sharedReply(host(100), 1030).Tuple.Reverse()
	if _, _, created, _ := r.w.Insert(&k, &Init{ReplyZone: outside, Marks: Translated | Shared, Arrives: &arrives}, p, r.now); created {
		t.Fatal("two flows have one key")
	}
	r.w.End(f, EndFlushed)
	r.recycle()
	for i := range r.ports.counts {
		if n := r.ports.counts[i].flows.Load(); n != 0 {
			t.Errorf("%d flows are counted", n)
		}
	}
}

func TestASenderLeavesPortsToOthers(t *testing.T) {
	r := newRig(t, Options{Max: 1 << 14})
	const n = 9000
	got := map[uint16]int{}
	for _, sender := range []uint16{1, 1, 2, 3} {
		for step := range 2 * n {
			if _, _, ok := r.sharedFlow(sender, 70000*int(sender)+got[sender]*3+step%2, host(100), 1024, 1024+n-1, 1024+uint16(step%n), true); ok {
				got[sender]++
			}
		}
	}
	if got[1] < n*7/10 || got[1] > n*9/10 || got[2] < n/15 || got[3] < n/100 {
		t.Errorf("of %d ports the senders got %v", n, got)
	}
	if _, _, ok := r.sharedFlow(1, 999_999, host(101), 1024, 1024+n-1, 2000, true); !ok {
		t.Error("another destination has no port")
	}
}

// A share is of one range of an address. Flows of another range take nothing of it.
func TestASharesPortsAreThoseOfTheRange(t *testing.T) {
	r := newRig(t, Options{Max: 1 << 12})
	for n := range 2000 {
		if _, _, ok := r.sharedFlow(2, n, host(100), 2000, 3999, 2000+uint16(n), false); !ok {
			t.Fatalf("port %d of the other range", n)
		}
	}
	got := 0
	for n := range 200 {
		if _, port, ok := r.sharedFlow(1, 10_000+n, host(100), 1030, 1129, 1030+uint16(n%100), true); ok {
			if got++; port < 1030 || port > 1129 {
				t.Fatalf("port %d", port)
			}
		}
	}
	if got != 80 { // four times what is left
		t.Errorf("%d ports of 100", got)
	}
}

func TestTakenPortsOfARangeAreCounted(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	m, taken := &portMap{senders: map[uint16]int32{}}, map[uint32]bool{}
	for port := uint32(0); port < 1<<16; port += 64 {
		m.chunk(port).known = ^uint64(0)
	}
	for range 200_000 {
		port, take := random.Uint32()>>16, random.IntN(3) > 0
		m.set(port, 1, take)
		taken[port] = take
	}
	for range 200 {
		first := random.Uint32() >> 16
		last := first + random.Uint32N(1<<16-first)
		want := int32(0)
		for port := first; port <= last; port++ {
			if taken[port] {
				want++
			}
		}
		if got := m.takenOf(first, last); got != want {
			t.Fatalf("%d to %d: %d are taken, want %d", first, last, got, want)
		}
	}
}

// BenchmarkFreePortContended is what a sender pays that has its share of an address.
func BenchmarkFreePortContended(b *testing.B) {
	const first, last = 1024, 65535
	r := newRig(b, Options{Max: 1 << 17})
	for n := range last - first + 1 {
		if _, _, ok := r.sharedFlow(1, n, destination(0), first, last, first+uint16(n), true); !ok {
			break
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		k := sharedReply(destination(0), first+uint16(i*31%60000))
		if r.w.FreePort(&k, first, last, 1, true, r.now) {
			b.Fatal("a port above the share")
		}
	}
}

// BenchmarkFreePort is a search in pools that are full towards all destinations, and one with a single
// free port each.
func BenchmarkFreePort(b *testing.B) {
	for _, c := range []struct{ destinations, ports int }{{1, 64512}, {64, 1024}, {4096, 64}} {
		for _, free := range []int{0, 1} {
			b.Run(fmt.Sprintf("destinations=%d/ports=%d/free=%d", c.destinations, c.ports, free), func(b *testing.B) {
				r := newRig(b, Options{Max: 1 << 19})
				first, last := uint16(1024), uint16(1024+c.ports-1)
				for d := range c.destinations {
					for n := range c.ports - free {
						if _, _, ok := r.sharedFlow(1, n, destination(d), first, last, first+uint16(n), false); !ok {
							b.Fatalf("no port %d", n)
						}
					}
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					k := sharedReply(destination(i%c.destinations), first+uint16(i*31%c.ports))
					if r.w.FreePort(&k, first, last, 1, false, r.now) != (free > 0) {
						b.Fatal("wrong")
					}
				}
			})
		}
	}
}

func destination(n int) packet.Addr {
	return packet.AddrFrom4([4]byte{203, 0, byte(n >> 8), byte(n)})
}
