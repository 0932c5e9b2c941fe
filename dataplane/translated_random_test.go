package dataplane

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// slowSum is a one's-complement sum, a byte after the other.
func slowSum(parts ...[]byte) uint32 {
	sum := uint32(0)
	for _, b := range parts {
		for i := range b {
			if sum += uint32(b[i]) << (8 - i%2*8); sum > 0xffff {
				sum -= 0xffff
			}
		}
	}
	return sum
}

// verified reports whether all checksums of a whole packet are right.
func verified(b []byte, p *packet.Packet) bool {
	addresses := b[12:20]
	if !p.Src.Is4() {
		addresses = b[8:40]
	} else if slowSum(b[:p.HeaderLen]) != 0xffff {
		return false
	}
	transport := b[p.HeaderLen:]
	if p.Proto == packet.ProtoICMP {
		return slowSum(transport) == 0xffff
	}
	return slowSum(addresses, []byte{0, p.Proto, byte(len(transport) >> 8), byte(len(transport))}, transport) == 0xffff
}

// mapping is a flow as both of its ends know it.
type mapping struct {
	sent, arrives packet.Tuple
	from, at      int
}

// walk sends random packets through the world of translatedFigure.
type walk struct {
	*rig
	random *rand.Rand
	flows  map[conntrack.Key]mapping // by the key of what is sent
	order  []conntrack.Key           // of flows, as they began
	met    map[string]int
}

func pickOf[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func madeOf(t packet.Tuple, icmpType uint8, payload int) []byte {
	s := with(spec{Flags: "S", Payload: payload}, t.Src.String(), t.SrcPort, t.Dst.String(), t.DstPort)
	switch t.Proto {
	case packet.ProtoTCP:
		return packettest.TCP(s)
	case packet.ProtoUDP:
		return packettest.UDP(s)
	}
	s.ICMPType, s.ICMPID = icmpType, t.SrcPort|t.DstPort
	return packettest.ICMP(s)
}

func (w *walk) fresh() {
	from := w.random.IntN(numAttachments)
	f := pickOf(w.random, translatedFamilies...)
	src := []string{f.vm1, f.vm2, addr3, f.vm4, f.world}[from]
	dst := pickOf(w.random, f.world, f.public1, f.shared, f.vm1, f.vm4, balanced, floats, public2, world2)
	if packetAddr(src).Is4() != packetAddr(dst).Is4() {
		return
	}
	proto := pickOf[uint8](w.random, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP)
	t := packet.Tuple{Src: packet.AddrFrom(packetAddr(src)), Dst: packet.AddrFrom(packetAddr(dst)), Proto: proto,
		SrcPort: uint16(1 + w.random.IntN(40)), DstPort: uint16(79 + w.random.IntN(3))}
	kind := f.ping
	if proto == packet.ProtoICMP {
		if t.DstPort = 0; !t.Src.Is4() {
			t.Proto = packet.ProtoICMPv6
		}
	}
	b := madeOf(t, kind, w.random.IntN(100))
	out := w.pass(from, framed(b))
	if out.at < 0 {
		w.met[out.drop]++
		return
	}
	w.settle(mapping{sent: t, from: from, at: out.at}, b, out)
}

// settle holds a packet that came out against what its flow's others did.
func (w *walk) settle(m mapping, sent []byte, out frameOut) {
	w.t.Helper()
	p := decoded(w.t, out.frame)
	if !verified(out.frame[tun.HeaderLen:], &p) {
		w.t.Fatalf("%v came out with a wrong checksum: %x", m.sent, out.frame)
	}
	m.arrives = p.Tuple
	key := conntrack.Key{Tuple: m.sent, Zone: uint16(m.from)}
	if old, ok := w.flows[key]; ok && old != m {
		w.t.Fatalf("%+v was %+v", m, old)
	}
	// A packet of the answering direction: the flow is known the other way round.
	if _, ok := w.flows[conntrack.Key{Tuple: p.Reverse(), Zone: uint16(out.at)}]; ok {
		return
	}
	if _, ok := w.flows[key]; !ok {
		w.order = append(w.order, key)
	}
	w.flows[key] = m
	// Made from scratch with what it has become, the packet is the same.
	if want := madeOf(p.Tuple, sent[p.HeaderLen], int(p.Len-uint32(p.PayloadOffset))); p.Proto != packet.ProtoICMPv6 && string(want) != string(out.frame[tun.HeaderLen:]) {
		w.t.Fatalf("%v came out as\n%x, want\n%x", m.sent, out.frame[tun.HeaderLen:], want)
	}
}

// answer has a flow's receiver answer, which must reach the sender as an answer to what he sent.
func (w *walk) answer(m mapping) {
	w.t.Helper()
	kind := uint8(0)
	if !m.sent.Src.Is4() {
		kind = 129
	}
	b := madeOf(m.arrives.Reverse(), kind, w.random.IntN(60))
	if m.sent.Proto == packet.ProtoTCP {
		s := with(spec{Flags: "SA"}, m.arrives.Dst.String(), m.arrives.DstPort, m.arrives.Src.String(), m.arrives.SrcPort)
		b = packettest.TCP(s)
	}
	out := w.pass(m.at, framed(b))
	if out.at != m.from {
		w.t.Fatalf("the answer to %+v came out at %d, %s", m, out.at, out.drop)
	}
	p := decoded(w.t, out.frame)
	if p.Tuple != m.sent.Reverse() || !verified(out.frame[tun.HeaderLen:], &p) {
		w.t.Fatalf("the answer to %+v came out as %v", m, p.Tuple)
	}
	w.met["answered"]++
}

// forget drops the flows that are over, and holds those that are left against the table's.
func (w *walk) forget() {
	w.t.Helper()
	live, replies := map[conntrack.Key]mapping{}, map[conntrack.Key]bool{}
	w.engine.Flows().Expire(w.engine.Now(), 1<<16)
	for f := range w.engine.Flows().Flows {
		m, ok := w.flows[f.Key]
		if !ok || m.arrives != f.ReplyKey.Reverse() || m.at != int(f.ReplyKey.Zone) {
			w.t.Fatalf("%+v is in the table as %+v", m, *f)
		}
		if replies[f.ReplyKey] || replies[f.Key] && f.Key != f.ReplyKey {
			w.t.Fatalf("%v is a key of two flows", f.ReplyKey)
		}
		replies[f.ReplyKey] = true
		live[f.Key] = m
	}
	for key := range live {
		if replies[key] {
			w.t.Fatalf("%v is a key of two flows", key)
		}
	}
	w.flows = live
}

func TestForAnySequenceOfPacketsTranslationIsOneToOne(t *testing.T) {
	runs := 40
	if testing.Short() {
		runs = 6
	}
	met := map[string]int{}
	for seed := range runs {
		w := &walk{random: rand.New(rand.NewPCG(uint64(seed), 9)), flows: map[conntrack.Key]mapping{}, met: met,
			rig: newRig(t, translatedFigure(), conntrack.Options{Max: 4096})}
		for range 1500 {
			switch n := w.random.IntN(100); {
			case n < 60:
				w.fresh()
			case n < 97:
				if len(w.order) == 0 {
					continue
				}
				if m, ok := w.flows[pickOf(w.random, w.order...)]; ok && w.alive(m) {
					w.answer(m)
				}
			case n < 99:
				w.clock += time.Duration(w.random.IntN(60)) * time.Second
				w.forget()
			default:
				w.forget()
			}
		}
	}
	for _, what := range []string{"answered", "no_frontend"} {
		if met[what] == 0 {
			t.Errorf("nothing was %s", what)
		}
	}
	t.Log(met)
}

// alive reports whether a flow is still there, which its last packet's time says.
func (w *walk) alive(m mapping) bool {
	k := conntrack.Key{Tuple: m.sent, Zone: uint16(m.from)}
	_, d, ok := w.engine.workers[0].flows.Lookup(&k, w.engine.Now())
	return ok && d == conntrack.Original
}

// Two workers choose ports of one address for one destination at the same time: what both want only
// one gets, and the other takes another.
func TestWorkersThatChoosePortsAtOnceNeverShareOne(t *testing.T) {
	c := carryCase{name: "shared", translates: true, from: vm4, packets: 1 << 13, once: true,
		make: func(worker, i int) []byte {
			return packettest.UDP(spec{Src: addr4, Dst: world, SrcPort: uint16(worker<<13 | i), DstPort: 53})
		},
		took: func(e *Engine) uint64 { return e.Flows().Stats().Created }}
	r := c.rig(t, figureOfTheSeed(), 2)
	f := newFeeder(r, &c)
	f.carry(c.packets / burstPackets)
	f.check()
	ports := map[uint16]bool{}
	for i := range r.engine.Flows().Flows {
		ports[i.ReplyKey.DstPort] = true
	}
	if n := r.engine.Flows().Stats().Flows; n != 1<<14 || len(ports) != 1<<14 {
		t.Errorf("%d flows have %d ports", n, len(ports))
	}
}
