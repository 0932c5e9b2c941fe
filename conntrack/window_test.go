package conntrack

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/nsgd/nsgd/conntrack/conntracktest"
	"github.com/nsgd/nsgd/dataplane/packet"
)

func TestARecordAndItsWindowsTake160Bytes(t *testing.T) {
	if n := unsafe.Sizeof(record{}) + unsafe.Sizeof(sides{}); n > 160 {
		t.Errorf("%d bytes", n)
	}
}

// established opens the connection of tcp and returns its flow.
func established(t *testing.T, r *rig) Flow {
	t.Helper()
	f := r.create(0, 1, tcp("S"))
	for _, step := range []string{"<SA", ">A"} {
		r.step(step)
	}
	if r.w.Class(f) != ClassTCPEstablished {
		t.Fatal(r.w.Class(f).State())
	}
	return f
}

func TestAFlowThatWaitsEndsWithTheOther(t *testing.T) {
	r := newRig(t, Options{})
	f := established(t, r)
	r.step(">S")
	if s := r.Stats(); s.Flows != 2 {
		t.Fatalf("%d flows", s.Flows)
	}
	r.w.End(f, EndFlushed)
	if s := r.Stats(); s.Flows != 0 || r.ZoneFlows(0) != 0 {
		t.Errorf("%d flows, %d in a zone", s.Flows, r.ZoneFlows(0))
	}
}

func TestAnEndedFlowDoesNotWait(t *testing.T) {
	r := newRig(t, Options{})
	f := established(t, r)
	r.step(">S")
	next := Flow(r.records[f].successor.Load() - 1)
	r.w.End(next, EndEvicted)
	if n := r.records[f].successor.Load(); n != 0 {
		t.Fatalf("flow %d is to follow", n-1)
	}
	r.step("<SA") // a repeated one
	if r.w.Class(f) != ClassTCPEstablished {
		t.Error("the connection has ended")
	}
	if _, _, ok := r.w.Lookup(&Key{tcp("A").Tuple, 0}, r.now); !ok {
		t.Error("no flow is left")
	}
}

// Two workers may find the answer, and a sweep may end either flow meanwhile.
func TestOfTwoAnswersOneCounts(t *testing.T) {
	r := newRig(t, Options{Workers: 2})
	f := established(t, r)
	r.step(">S")
	p := reversed(tcp("SA"))
	if !r.w.Accepts(f, Reply, p, r.now) || r.Worker(1).Accepts(f, Reply, p, r.now) {
		t.Error("not accepted once")
	}
	if s := r.Stats(); s.Flows != 1 || s.Ended[EndRestarted] != 1 {
		t.Errorf("%+v", s)
	}
}

func TestWithoutWindowsEverySegmentCounts(t *testing.T) {
	r := newRig(t, Options{WindowsOff: true})
	f := established(t, r)
	p := tcp("R")
	p.Seq = 0xdeadbeef
	if r.send(0, 1, p); r.w.Class(f) != ClassTCPReset {
		t.Errorf("after a reset anywhere it is %s", r.w.Class(f).State())
	}
}

// BenchmarkWindow is Pass for segments of a connection that moves on, one in two an acknowledgement, and
// BenchmarkHit has those of one that stands still.
func BenchmarkWindow(b *testing.B) {
	r := newRig(b, Options{})
	f := r.create(0, 1, tcp("S"))
	r.w.Pass(f, Reply, reversed(tcp("SA")), r.now)
	data, ack := tcp("A"), reversed(tcp("A"))
	r.w.Pass(f, Original, data, r.now)
	data.Len += 1000
	for b.Loop() {
		r.w.Pass(f, Original, data, r.now)
		data.Seq += 1000
		ack.Ack = data.Seq
		r.w.Pass(f, Reply, ack, r.now)
	}
	if n := r.Stats().OutOfWindow; n != 0 {
		b.Fatalf("%d segments out of their window", n)
	}
}

// A sender probes a window of nothing with one byte (RFC 9293 section 3.8.6.1), and may go on behind it.
func TestASYNACKWithoutAWindowAllowsAProbe(t *testing.T) {
	r := newRig(t, Options{})
	r.create(0, 1, tcp("S"))
	closed := reversed(tcp("SA"))
	closed.Window = 0
	r.send(1, 0, closed)
	behind := tcp("A")
	behind.Seq++
	if r.send(0, 1, behind); r.Stats().OutOfWindow != 0 {
		t.Error("what follows the probe is out of the window")
	}
	behind.Seq++
	if r.send(0, 1, behind); r.Stats().OutOfWindow != 1 {
		t.Error("a window of nothing allows more than a probe")
	}
}

func TestAFragmentEndsTheLookAtWindows(t *testing.T) {
	r := newRig(t, Options{})
	f := established(t, r)
	part := tcp("A")
	part.Fragment = packet.Fragment{More: true, ID: 7, Proto: packet.ProtoTCP}
	r.send(0, 1, part)
	ack := reversed(tcp("A"))
	ack.Ack = 5000 // of the later fragments, which have no numbers
	r.send(1, 0, ack)
	if n := r.Stats().OutOfWindow; n != 0 || r.w.Class(f) != ClassTCPEstablished {
		t.Errorf("%d segments out of their window", n)
	}
}

// The table and the slow reference get the same connections. Segments are in, out or at the edge of their windows.
func TestWindowsAgreeWithTheReference(t *testing.T) {
	runs, length := 3000, 60
	if testing.Short() {
		runs = 600
	}
	met := map[string]int{}
	for seed := range runs {
		windowRun(t, rand.New(rand.NewPCG(uint64(seed), 3)), length, met)
	}
	for _, what := range []string{"in", "out", "picked up", "scaled", "SACK", "established", "closing", "time_wait", "reset"} {
		if met[what] == 0 {
			t.Errorf("never: %s", what)
		}
	}
}

func windowRun(t *testing.T, random *rand.Rand, length int, met map[string]int) {
	t.Helper()
	r := newRig(t, Options{})
	near := func(edges []uint32) uint32 { return edges[random.IntN(len(edges))] + uint32(random.IntN(5)) - 2 }
	start := [2]uint32{random.Uint32(), random.Uint32()}
	if random.IntN(2) == 0 {
		start = [2]uint32{-uint32(random.IntN(200_000)), -uint32(random.IntN(200_000))} // numbers wrap
	}
	segment := func(d int, flags string, seq, ack uint32) *packet.Packet {
		p := tcp(flags)
		if d == conntracktest.Reply {
			p = reversed(p)
		}
		p.Seq, p.Ack = seq, ack
		p.Window = []uint16{0, 1, 1000, 65535}[random.IntN(4)]
		if random.IntN(4) > 0 {
			p.Len += []uint32{0, 1, 1000, 64_000}[random.IntN(4)]
		}
		return p
	}
	var f *conntracktest.Flow
	carry := func(d int, p *packet.Packet) {
		t.Helper()
		zone := uint16(d)
		if f == nil {
			f = conntracktest.Begin(p, 0)
			r.create(zone, 1-zone, p)
			return
		}
		before := r.Stats().OutOfWindow
		k := Key{p.Tuple, zone}
		flow, _, ok := r.w.Lookup(&k, r.now)
		if !ok {
			t.Fatal("no flow")
		}
		drop, want := r.w.Pass(flow, Direction(d), p, r.now), f.Pass(d, p, 0)
		_, state, _ := f.State()
		if drop != want || r.w.Class(flow).State() != state {
			t.Fatalf("%+v: %s, %s; want %s, %s", *p, drop, r.w.Class(flow).State(), want, state)
		}
		for side := range start {
			got, want := r.sides[flow][side].read(), f.Numbers(side)
			if got.end != want.End || int64(got.window) != want.Window || got.next != want.Next {
				t.Fatalf("%+v: side %d has %+v, want %+v", *p, side, got, want)
			}
		}
		met[state]++
		if r.Stats().OutOfWindow > before {
			met["out"]++
		} else {
			met["in"]++
		}
	}
	if picked := random.IntN(4) == 0; picked {
		met["picked up"]++
		carry(0, segment(0, "A", start[0], start[1]))
	} else {
		syn, answer := segment(0, "S", start[0], 0), segment(1, "SA", start[1], start[0]+1)
		syn.Len, answer.Len = uint32(syn.PayloadOffset), uint32(syn.PayloadOffset)
		// Up to 13: with the largest windows three of them are more than half of all numbers.
		syn.WindowScale, answer.WindowScale = uint8(random.IntN(15)), uint8(random.IntN(15))
		if syn.WindowScale > 1 && answer.WindowScale > 1 {
			met["scaled"]++
		}
		carry(0, syn)
		carry(1, answer)
		carry(0, segment(0, "A", start[0]+1, start[1]+1))
	}
	for range length {
		d := random.IntN(2)
		seq, ack := f.Edges(d)
		flags := []string{"A", "A", "A", "A", "A", "A", "A", "PA", "PA", "FA", "SA", "R"}[random.IntN(12)]
		if flags == "R" && random.IntN(4) > 0 {
			flags = "A"
		}
		p := segment(d, flags, near(seq), near(ack))
		if random.IntN(2) == 0 {
			p.Seq, p.Ack = seq[0], ack[0] // as an honest host goes on
		}
		if random.IntN(4) == 0 {
			p.SACKed = []uint32{1, 1000, 66_000, uint32(random.IntN(200_000))}[random.IntN(4)]
			met["SACK"]++
		}
		carry(d, p)
	}
}
