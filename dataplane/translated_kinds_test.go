package dataplane

import (
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// translatedFamily is the world of translatedFigure as one version of IP knows it.
type translatedFamily struct {
	family
	public1, shared, router string
	exceeded                uint8 // ICMP type
}

var translatedFamilies = []translatedFamily{
	{families[0], public1, shared, router, 11}, {families[1], public16, shared6, "2001:db8::1", 3},
}

func TestEchoesAreTranslatedByTheirIdentifier(t *testing.T) {
	for _, f := range translatedFamilies {
		t.Run(f.name, func(t *testing.T) {
			r := newRig(t, translatedFigure(), conntrack.Options{Max: 4096})
			ping := func(src, dst string, id uint16) []byte { return echo(src, dst, f.ping, id) }
			pong := func(src, dst string, id uint16) []byte { return echo(src, dst, f.pong, id) }
			r.becomes(vm1, ping(f.vm1, f.world, 7), internet, ping(f.public1, f.world, 7))
			r.becomes(internet, pong(f.world, f.public1, 7), vm1, pong(f.world, f.vm1, 7))
			r.becomes(internet, ping(f.world, f.public1, 9), vm1, ping(f.world, f.vm1, 9))
			r.becomes(vm1, pong(f.vm1, f.world, 9), internet, pong(f.public1, f.world, 9))

			first := portOut(t, r.pass(vm4, framed(ping(f.vm4, f.world, 7))))
			second := portOut(t, r.pass(vm4, framed(ping(f.vm4, f.world, 8))))
			if first == second || first < sharedLow || second < sharedLow {
				t.Errorf("identifiers %d and %d", first, second)
			}
			r.becomes(vm4, ping(f.vm4, f.world, 7), internet, ping(f.shared, f.world, first))
			r.becomes(internet, pong(f.world, f.shared, second), vm4, pong(f.world, f.vm4, 8))
			r.becomes(internet, pong(f.world, f.shared, first), vm4, pong(f.world, f.vm4, 7))
			r.refuses(internet, ping(f.world, f.shared, first), packet.DropNoFrontend)
		})
	}
}

func TestICMPErrorsAreTranslatedInsideAndOutside(t *testing.T) {
	for _, f := range translatedFamilies {
		report := func(kind uint8, from, to string, quote []byte) []byte {
			return packettest.ICMPError(spec{Src: from, Dst: to, ICMPType: kind}, quote)
		}
		for _, p := range transports {
			s := spec{Flags: "S", Payload: 40}
			answer := spec{Flags: "SA", Payload: 40}
			t.Run(f.name+" "+p.name+" about what a gateway let out", func(t *testing.T) {
				r := newRig(t, translatedFigure(), conntrack.Options{Max: 4096})
				sent := p.make(with(s, f.vm4, 40000, f.world, 80))
				port := portOut(t, r.pass(vm4, framed(sent)))
				seen := p.make(with(s, f.shared, port, f.world, 80))
				r.becomes(internet, report(f.exceeded, f.router, f.shared, seen), vm4, report(f.exceeded, f.router, f.vm4, sent))
				r.becomes(internet, report(f.unreachable, f.world, f.shared, seen), vm4, report(f.unreachable, f.world, f.vm4, sent))
				n := len(seen) - 32 // as much as every router quotes
				r.becomes(internet, report(f.unreachable, f.world, f.shared, seen[:n]), vm4, report(f.unreachable, f.world, f.vm4, sent[:n]))
				// What comes back may be too much for somebody behind the gateway.
				back, came := p.make(with(answer, f.world, 80, f.shared, port)), p.make(with(answer, f.world, 80, f.vm4, 40000))
				r.becomes(internet, back, vm4, came)
				r.becomes(vm4, report(f.unreachable, f.vm4, f.world, came), internet, report(f.unreachable, f.shared, f.world, back))
				r.refuses(internet, report(f.unreachable, f.world, f.shared, p.make(with(s, f.shared, port+1, f.world, 80))), packet.DropICMPNoFlow)
			})
			t.Run(f.name+" "+p.name+" about what came to a public address", func(t *testing.T) {
				r := newRig(t, translatedFigure(), conntrack.Options{Max: 4096})
				sent, came := p.make(with(s, f.world, 50000, f.public1, 80)), p.make(with(s, f.world, 50000, f.vm1, 80))
				r.becomes(internet, sent, vm1, came)
				r.becomes(vm1, report(f.unreachable, f.vm1, f.world, came), internet, report(f.unreachable, f.public1, f.world, sent))
				answered, back := p.make(with(answer, f.vm1, 80, f.world, 50000)), p.make(with(answer, f.public1, 80, f.world, 50000))
				r.becomes(vm1, answered, internet, back)
				r.becomes(internet, report(f.exceeded, f.router, f.public1, back), vm1, report(f.exceeded, f.router, f.vm1, answered))
			})
		}
	}
}

func TestFragmentsOfATranslatedFlowFollowTheirFirst(t *testing.T) {
	for _, f := range translatedFamilies {
		for _, p := range transports {
			t.Run(f.name+" "+p.name, func(t *testing.T) {
				r := newRigWith(t, translatedFigure(), Options{Flows: conntrack.Options{Max: 4096}, Fragments: fragment.Options{Hold: 8}})
				s, answer := spec{Flags: "A", Payload: 100}, spec{Flags: "A", Payload: 90}
				whole := spec{Flags: "S", Payload: 1}
				port := portOut(t, r.pass(vm4, framed(p.make(with(whole, f.vm4, 40000, f.world, 80)))))
				cut := func(s spec, id uint32) [][]byte { return packettest.Fragments(p.make(s), id, 40, 24) }
				sent, seen := cut(with(s, f.vm4, 40000, f.world, 80), 5), cut(with(s, f.shared, port, f.world, 80), 5)
				for i := range sent {
					r.becomes(vm4, sent[i], internet, seen[i])
				}
				back, came := cut(with(answer, f.world, 80, f.shared, port), 6), cut(with(answer, f.world, 80, f.vm4, 40000), 6)
				for i := range back {
					r.becomes(internet, back[i], vm4, came[i])
				}
				// A router quotes a later fragment as it saw it.
				report := func(to string, quote []byte) []byte {
					return packettest.ICMPError(spec{Src: f.router, Dst: to, ICMPType: f.exceeded}, quote)
				}
				r.becomes(internet, report(f.shared, seen[1]), vm4, report(f.vm4, sent[1]))
				// Those that overtook the first one wait for it.
				sent, seen = cut(with(s, f.vm4, 40000, f.world, 80), 7), cut(with(s, f.shared, port, f.world, 80), 7)
				if early := r.inject(vm4, internet, sent[2], sent[1]); len(early) > 0 {
					t.Fatalf("%d came out before their first", len(early))
				}
				late := r.inject(vm4, internet, sent[0])
				if len(late) != 3 || late[0] != string(seen[0]) || late[1] != string(seen[2]) || late[2] != string(seen[1]) {
					t.Errorf("%d came out, or others than those sent", len(late))
				}
			})
		}
	}
}

func TestAFragmentedErrorIsTranslatedAsAWhole(t *testing.T) {
	r := newRig(t, translatedFigure(), conntrack.Options{Max: 4096})
	s := spec{Payload: 200}
	sent := packettest.UDP(with(s, addr4, 40000, world, 80))
	port := portOut(t, r.pass(vm4, framed(sent)))
	seen := packettest.UDP(with(s, shared, port, world, 80))
	before := packettest.Fragments(unreachable(world, shared, seen), 3, 64)
	after := packettest.Fragments(unreachable(world, addr4, sent), 3, 64)
	for i := range before {
		r.becomes(internet, before[i], vm4, after[i])
	}
}

// partialFrame is a packet whose checksum is left to do, a superpacket if size is not 0.
func partialFrame(b []byte, kind uint8, size uint16) []byte {
	h := tun.Header{Flags: tun.FlagNeedsCsum, GSOType: kind, GSOSize: size, HdrLen: 40, CsumStart: 20, CsumOffset: 16}
	if b[0]>>4 == 6 {
		h.CsumStart = 40
	}
	proto := uint32(packet.ProtoTCP)
	if kind == tun.GSOUDPL4 {
		h.CsumOffset, proto = 6, packet.ProtoUDP
	}
	frame := framed(b)
	h.Encode((*[tun.HeaderLen]byte)(frame))
	ip := frame[tun.HeaderLen:]
	addresses := ip[12:20]
	if h.CsumStart == 40 {
		addresses = ip[8:40]
	}
	sum := tun.Fold(uint32(tun.Sum(addresses)) + proto + uint32(len(ip)) - uint32(h.CsumStart))
	at := h.CsumStart + h.CsumOffset
	ip[at], ip[at+1] = byte(sum>>8), byte(sum)
	return frame
}

func TestSuperpacketsStayWholeAndTheirChecksumsAreLeftToDo(t *testing.T) {
	for _, f := range translatedFamilies {
		for _, k := range []struct {
			name       string
			kind, six  uint8
			size       uint16
			make       func(spec) []byte
			payloadLen int
		}{
			{"one segment of TCP", tun.GSONone, tun.GSONone, 0, packettest.TCP, 500},
			{"TCP", tun.GSOTCPv4, tun.GSOTCPv6, 1000, packettest.TCP, 7000},
			{"UDP", tun.GSOUDPL4, tun.GSOUDPL4, 1000, packettest.UDP, 7000},
		} {
			t.Run(f.name+" "+k.name, func(t *testing.T) {
				r := newRig(t, translatedFigure(), conntrack.Options{Max: 4096})
				kind := k.kind
				if f.name == "IPv6" {
					kind = k.six
				}
				s := spec{Flags: "S"}
				port := portOut(t, r.pass(vm4, framed(k.make(with(s, f.vm4, 40000, f.world, 80)))))
				s = spec{Flags: "A", Payload: k.payloadLen}
				for _, way := range []struct {
					from, to   int
					sent, seen spec
				}{
					{vm4, internet, with(s, f.vm4, 40000, f.world, 80), with(s, f.shared, port, f.world, 80)},
					{internet, vm4, with(s, f.world, 80, f.shared, port), with(s, f.world, 80, f.vm4, 40000)},
				} {
					want := partialFrame(k.make(way.seen), kind, k.size)
					got := r.pass(way.from, partialFrame(k.make(way.sent), kind, k.size))
					if got.at != way.to || string(got.frame) != string(want) {
						t.Fatalf("came out at %d %q\n%x, want\n%x", got.at, got.drop, got.frame[:min(80, len(got.frame))], want[:80])
					}
				}
			})
		}
	}
}

func TestPacketsOfATranslatedFlowAreGathered(t *testing.T) {
	r := gatherRigFor(t, translatedFigure(), tun.USO, 256)
	s := spec{Payload: 100}
	sent, want := make([][]byte, 20), make([][]byte, 20)
	for i := range sent {
		s.ID = uint16(i)
		sent[i] = framed(packettest.UDP(with(s, addr1, 40000, world, 80)))
		want[i] = packettest.UDP(with(s, public1, 40000, world, 80))
	}
	r.burst(vm1, sent[:1])
	out := r.burst(vm1, sent[1:])[internet]
	if len(out) > 2 {
		t.Errorf("%d frames", len(out))
	}
	for i, p := range wirePackets(out) {
		if string(p) != string(want[i+1]) {
			t.Fatalf("packet %d left as\n%x, want\n%x", i, p, want[i+1])
		}
	}
}
