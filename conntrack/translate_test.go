package conntrack

import (
	"testing"
	"time"
	"unsafe"

	"github.com/nsgd/nsgd/dataplane/packet"
)

func TestATranslationFillsACacheLine(t *testing.T) {
	if n := unsafe.Sizeof(translation{}); n != 64 {
		t.Errorf("%d bytes", n)
	}
}

// translated is a rig whose flows from host 1 seem to come from host 9, port 1024.
func translated(t *testing.T, o Options) *rig {
	r := newRig(t, o)
	r.marks = Translated
	r.arrives = udp(5000).Tuple
	r.arrives.Src, r.arrives.SrcPort = host(9), 1024
	return r
}

func TestRepliesToATranslatedFlowAreSentToTheAddressThatTheReceiverSees(t *testing.T) {
	r := translated(t, Options{})
	p := udp(5000)
	f := r.create(0, 1, p)
	answer := newPacket(packet.ProtoUDP, 2, 9, 53, 1024)
	k := Key{answer.Tuple, 1}
	if got, d, ok := r.w.Lookup(&k, r.now); !ok || got != f || d != Reply {
		t.Fatalf("an answer is of flow %d, %s, %t", got, d, ok)
	}
	if got := r.w.Becomes(f, Original); got != r.arrives {
		t.Errorf("a packet arrives as %v", got)
	}
	if got := r.w.Becomes(f, Reply); got != p.Reverse() {
		t.Errorf("an answer arrives as %v", got)
	}
	for what, k := range map[string]Key{
		"to the sender's own address":     {p.Reverse(), 1},
		"from another zone":               {answer.Tuple, 2},
		"sent as the receiver sees it":    {r.arrives, 0},
		"to another port of that address": {newPacket(packet.ProtoUDP, 2, 9, 53, 1025).Tuple, 1},
	} {
		if _, _, ok := r.w.Lookup(&k, r.now); ok {
			t.Errorf("a packet %s is of the flow", what)
		}
	}
	for i := range r.Flows {
		if i.Key.Tuple != p.Tuple || i.ReplyKey != k || i.Marks != Translated || i.Receiver != host(2) {
			t.Errorf("described as %+v", i)
		}
	}
	if n := r.Stats().Translated; n != 1 {
		t.Errorf("%d translated flows are counted", n)
	}
	r.w.End(f, EndFlushed)
	if n := r.Stats().Translated; n != 0 {
		t.Errorf("%d translated flows are counted when there is none", n)
	}
	if _, _, ok := r.w.Lookup(&k, r.now); ok {
		t.Error("an answer is of the flow that has ended")
	}
}

func TestTwoFlowsNeverShareATranslation(t *testing.T) {
	r := translated(t, Options{})
	r.create(0, 1, udp(5000))
	if _, _, created, drop := r.send(0, 1, udp(5001)); created || drop != packet.DropFlowConflict {
		t.Errorf("created %t, %s", created, drop)
	}
	// Nor with what a host sends from that address.
	r.marks = 0
	if f, d, _, drop := r.send(1, 0, newPacket(packet.ProtoUDP, 2, 9, 53, 1024)); d != Reply || drop != packet.NotDropped {
		t.Errorf("an answer is of flow %d, %s: %s", f, d, drop)
	}
	r.marks = Translated
	r.wait(4 * time.Minute)
	r.create(0, 1, udp(5001)) // the port is free again
}

func TestATranslatedUDPFlowKeepsItsPortAsLongAsAnsweredOnes(t *testing.T) {
	r := translated(t, Options{})
	r.established = 4 * time.Minute
	r.create(0, 1, udp(5000))
	r.wait(4*time.Minute - TickLength)
	if got := r.state(0, udp(5000)); got != "one_way" {
		t.Errorf("%s before the timeout", got)
	}
	r.wait(TickLength)
	if got := r.state(0, udp(5000)); got != "none" {
		t.Errorf("%s after the timeout", got)
	}
}

func TestARecordThatIsUsedAgainIsNotTranslated(t *testing.T) {
	r := translated(t, Options{Max: 1})
	r.w.End(r.create(0, 1, udp(5000)), EndFlushed)
	r.marks = 0
	for range 600 { // more than there are records
		r.recycle()
		f := r.create(0, 1, udp(5000))
		if got := r.w.Becomes(f, Original); got != udp(5000).Tuple || r.w.Marks(f) != 0 {
			t.Fatalf("arrives as %v", got)
		}
		r.w.End(f, EndFlushed)
	}
}

func TestTheEndsOfASilentConnectionAreToldWhatTheyExpect(t *testing.T) {
	var told []Silence
	r := newRig(t, Options{Silent: func(s *Silence) { told = append(told, *s) }})
	open := func(marks Marks, port uint16) Flow {
		r.marks, r.arrives = marks, tcp("S").Tuple
		r.arrives.SrcPort = port
		syn, answer, ack := tcp("S"), tcp("SA"), tcp("A")
		for _, p := range []*packet.Packet{syn, answer, ack} {
			p.SrcPort = port
		}
		answer = reversed(answer)
		answer.Len += 99 // data that a SYN+ACK may carry
		f := r.create(0, 1, syn)
		r.w.Pass(f, Reply, answer, r.now)
		r.w.Pass(f, Original, ack, r.now)
		return f
	}
	open(Resets, 1)
	for _, ack := range []uint32{20, 90, 50} { // segments are reordered
		p := tcp("A")
		p.SrcPort, p.Ack = 1, ack
		r.send(0, 1, p)
	}
	open(0, 2)
	open(Translated, 3)
	closed := open(Resets, 4)
	r.w.Pass(closed, Original, tcp("FA"), r.now)
	fin := reversed(tcp("FA"))
	fin.Seq = 100
	r.w.Pass(closed, Reply, fin, r.now)
	r.w.End(open(Resets, 5), EndFlushed)

	r.wait(4*time.Minute - TickLength)
	r.Expire(r.now, 1024)
	if len(told) > 0 {
		t.Fatalf("told before the timeout: %+v", told)
	}
	r.wait(TickLength)
	r.Expire(r.now, 1024)
	want := Silence{Acks: [2]uint32{90, 1}, Known: [2]bool{true, true}}
	want.Key, want.ReplyKey = Key{tcp("S").Tuple, 0}, Key{tcp("S").Reverse(), 1}
	want.Key.SrcPort, want.ReplyKey.DstPort = 1, 1
	if len(told) != 1 || told[0] != want {
		t.Errorf("told %+v, want %+v", told, want)
	}
}

// It would end the live one before anybody has answered.
func TestASYNThatWouldGoAnotherWayEndsNoConnection(t *testing.T) {
	r := newRig(t, Options{})
	p := tcp("S")
	f := r.create(0, 1, p)
	answer := reversed(p)
	number(answer, packet.SYN|packet.ACK)
	r.send(1, 0, answer)
	again := *p
	again.Seq += 1 << 20
	r.marks, r.arrives = Translated, p.Tuple
	r.arrives.Src = host(9)
	for peer := range uint16(2) {
		if _, _, created, drop := r.send(0, 1+peer, &again); created || drop != packet.DropFlowConflict {
			t.Errorf("created %t, %s", created, drop)
		}
		r.marks = 0
	}
	k := Key{p.Tuple, 0}
	if got, _, ok := r.w.Lookup(&k, r.now); !ok || got != f {
		t.Error("the connection has ended")
	}
}
