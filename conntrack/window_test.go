package conntrack

import (
	"testing"
	"unsafe"

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
