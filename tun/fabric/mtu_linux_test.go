package fabric

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// sized is a datagram of a length; whole: routers may not fragment it.
func sized(src, dst string, length int, whole bool) []byte {
	headers := 28
	if src[0] == 'f' {
		headers = 48
	}
	b := packettest.UDP(packettest.Spec{Src: src, Dst: dst, SrcPort: 1111, DstPort: 2222, Payload: length - headers})
	if whole {
		return unfragmented(b)
	}
	return b
}

// unfragmented sets IPv4's flag that routers must not fragment a packet.
func unfragmented(b []byte) []byte {
	if b[0]>>4 == 4 {
		b[6] |= 0x40
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], packettest.Sum(b[:20])^0xffff)
	}
	return b
}

func TestASenderIsToldWhatFits(t *testing.T) {
	for _, family := range families {
		t.Run(family.name, func(t *testing.T) {
			u := newUnderlay(t, 2, family.address, 0)
			u.serve()
			from, to := u.hosts[0], u.hosts[1]
			from.arrives(to, "red", sized(from.nic4(), to.nic4(), tunMTU, true))
			from.arrives(to, "red", sized(from.nic6(), to.nic6(), tunMTU, true))

			big := sized(from.nic4(), to.nic4(), tunMTU+1, true)
			from.send("red", big)
			p := gopacket.NewPacket(from.receive("red"), layers.LayerTypeIPv4, gopacket.Default)
			ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
			icmp, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
			if !ok || icmp.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || icmp.Seq != tunMTU || !bytes.HasPrefix(big, icmp.Payload) || len(icmp.Payload) != quoted {
				t.Fatalf("IPv4: got %v", p)
			}
			if ip.SrcIP.String() != to.nic4() || ip.DstIP.String() != from.nic4() {
				t.Errorf("IPv4: got %v to %v", ip.SrcIP, ip.DstIP)
			}

			big = sized(from.nic6(), to.nic6(), tunMTU+1, true)
			from.send("red", big)
			p = gopacket.NewPacket(from.receive("red"), layers.LayerTypeIPv6, gopacket.Default)
			icmp6, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
			if !ok || icmp6.TypeCode != layers.CreateICMPv6TypeCode(2, 0) || binary.BigEndian.Uint32(icmp6.Payload) != tunMTU || !bytes.HasPrefix(big, icmp6.Payload[4:]) {
				t.Fatalf("IPv6: got %v", p)
			}
			if got, want := from.dropped(red), "map[too_big:2]"; got != want {
				t.Errorf("dropped: got %v, want %v", got, want)
			}
			if large := sized(from.nic4(), to.nic4(), tunMTU+40, false); family.name == "IPv4" {
				from.arrives(to, "red", large) // fragmented outside
			} else {
				from.send("red", large)
				from.receive("red")
			}
		})
	}
}

func TestNoErrorIsSentForAnErrorOrALaterFragment(t *testing.T) {
	quote := packettest.UDP(packettest.Spec{Src: "10.0.2.4", Dst: "10.0.1.4", Payload: 100})
	quote6 := packettest.UDP(packettest.Spec{Src: "fd00::2", Dst: "fd00::1", Payload: 100})
	for _, test := range []struct {
		name   string
		packet []byte
		told   bool
	}{
		{"a datagram", quote, true},
		{"a datagram over IPv6", quote6, true},
		{"an echo request", packettest.ICMP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", ICMPType: 8, Payload: 100}), true},
		{"an error", packettest.ICMPError(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", ICMPType: 3}, quote), false},
		{"an error over IPv6", packettest.ICMPError(packettest.Spec{Src: "fd00::1", Dst: "fd00::2", ICMPType: 1}, quote6), false},
		{"a later fragment", packettest.Fragments(quote, 1, 8)[1], false},
		{"a source that is nobody", packettest.UDP(packettest.Spec{Src: "0.0.0.0", Dst: "10.0.2.4", Payload: 100}), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := tooBig(test.packet[:quoted], 1400); (got != nil) != test.told {
				t.Errorf("got %x", got)
			}
		})
	}
}

func TestSuperpacketsStayWhole(t *testing.T) {
	for _, family := range families {
		t.Run(family.name, func(t *testing.T) {
			u := newUnderlay(t, 2, family.address, 1500)
			u.serve()
			from, to := u.hosts[0], u.hosts[1]
			for _, test := range []struct {
				name, src, dst string
				kind           uint8
				headers        int
			}{{"TCP", from.nic4(), to.nic4(), tun.GSOTCPv4, 40}, {"TCP over IPv6", from.nic6(), to.nic6(), tun.GSOTCPv6, 60}} {
				t.Run(test.name, func(t *testing.T) {
					size := tunMTU - test.headers
					packet := unfragmented(packettest.TCP(packettest.Spec{Src: test.src, Dst: test.dst, SrcPort: 1, DstPort: 2, Flags: "A", Payload: 40 * size}))
					frame := packettest.Superpacket(packet, test.kind, uint16(size))
					u.must(from.queues["red"].Write(bytes.Clone(frame)))
					head, got := to.receiveFrame("red")
					if head.GSOType != test.kind || int(head.GSOSize) != size || head.Flags&tun.FlagNeedsCsum == 0 || !bytes.Equal(got, frame[tun.HeaderLen:]) {
						t.Errorf("got %+v and %d bytes, want segments of %d in %d bytes", head, len(got), size, len(packet))
					}
					frame = packettest.Superpacket(packet, test.kind, uint16(size+1)) // each segment is too large
					u.must(from.queues["red"].Write(frame))
					u.must(from.queues["red"].Write(packettest.Superpacket(packet, test.kind, uint16(size))))
					if head, _ := to.receiveFrame("red"); int(head.GSOSize) != size {
						t.Errorf("segments of %d bytes came", head.GSOSize)
					}
				})
			}
		})
	}
}
