package packet_test

import (
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// FuzzDecode holds Decode against gopacket's packet-at-once decoder: whatever
// the bytes are it must not panic, and what it accepts gopacket must read alike.
func FuzzDecode(f *testing.F) {
	s := packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", SrcPort: 1, DstPort: 2, Flags: "S", Payload: 5, ICMPType: 8, ICMPID: 3}
	s6 := s
	s6.Src, s6.Dst, s6.ICMPType = "fd00::4", "fd00::5", 128
	for _, b := range [][]byte{packettest.TCP(s), packettest.UDP(s), packettest.ICMP(s), packettest.TCP(s6), packettest.UDP(s6), packettest.ICMP(s6)} {
		f.Add(b, uint16(0))
		f.Add(b, uint16(2))
	}
	f.Add(packettest.Extend(packettest.TCP(s6), packettest.Options(0, 1), packettest.Options(43, 2), packettest.Options(60, 1)), uint16(0))
	f.Add(packettest.Extend(packettest.UDP(s6), packettest.FragmentHeader(0, false, 1)), uint16(0))
	for _, tt := range dropTests {
		f.Add(tt.bytes, uint16(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, segment uint16) {
		if len(b) > 65_535 {
			return
		}
		var d packet.Decoder
		var p packet.Packet
		if d.Decode(b, segment, &p) != packet.NotDropped {
			return
		}
		if p.Segments < 1 || p.WireLen < p.Len || int(p.Len) > len(b) || uint32(p.PayloadOffset) > p.Len {
			t.Fatalf("impossible lengths: %+v", p)
		}
		compare(t, b, &p)
	})
}

func compare(t *testing.T, b []byte, p *packet.Packet) {
	first := layers.LayerTypeIPv4
	if b[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	full := gopacket.NewPacket(b, first, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	// gopacket refuses options that an end host accepts; only what it read counts.
	// Only the outermost header: an IPv6 packet may carry IPv4 (protocol 4).
	if l, ok := full.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok && first == layers.LayerTypeIPv4 {
		if packet.AddrFrom4([4]byte(l.SrcIP.To4())) != p.Src || uint8(l.Protocol) != p.Proto {
			t.Fatalf("IPv4 %v %v, decoded %+v", l.SrcIP, l.Protocol, p)
		}
	}
	if p.Proto == packet.ProtoTCP {
		if l, ok := full.Layer(layers.LayerTypeTCP).(*layers.TCP); ok {
			if uint16(l.SrcPort) != p.SrcPort || uint16(l.DstPort) != p.DstPort || l.SYN != (p.TCPFlags&packet.SYN != 0) {
				t.Fatalf("TCP %v -> %v, decoded %+v", l.SrcPort, l.DstPort, p)
			}
		}
	}
	if p.Proto == packet.ProtoUDP {
		if l, ok := full.Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
			if uint16(l.SrcPort) != p.SrcPort || uint16(l.DstPort) != p.DstPort {
				t.Fatalf("UDP %v -> %v, decoded %+v", l.SrcPort, l.DstPort, p)
			}
		}
	}
}
