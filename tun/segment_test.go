package tun

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

func checkSegments(t *testing.T, frame []byte, size int) {
	t.Helper()
	want := packettest.Segments(bytes.Clone(frame[HeaderLen:]), size)
	var s segmenter
	if !s.begin(frame) {
		t.Fatal("refused")
	}
	buf := make([]byte, BufferLen)
	n := 0
	for ; s.more(); n++ {
		got := buf[:s.next(buf)]
		if n >= len(want) {
			break
		}
		if !bytes.Equal(got[HeaderLen:], want[n]) || !bytes.Equal(got[:HeaderLen], make([]byte, HeaderLen)) {
			t.Fatalf("segment %d of %d:\n got %x\nwant %x", n, len(want), got[HeaderLen:], want[n])
		}
	}
	if n != len(want) {
		t.Errorf("%d segments, want %d", n, len(want))
	}
}

func TestASuperpacketBecomesThePacketsThatItStandsFor(t *testing.T) {
	options := []layers.TCPOption{{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte("12345678")}}
	for _, family := range []struct {
		name, src, dst string
		tcp            uint8
	}{{"IPv4", "10.0.1.4", "10.0.3.4", GSOTCPv4}, {"IPv6", "fd00::4", "fd00::5", GSOTCPv6}} {
		for _, test := range []struct {
			name          string
			payload, size int
			flags         string
		}{
			{"equal segments", 3000, 1000, "A"},
			{"a short last one", 3001, 1000, "A"},
			{"FIN and PSH go with the last one", 2500, 1000, "FPA"},
			{"one segment", 900, 1000, "PA"},
			{"as long as can be", 65_400, 1448, "A"},
			{"segments of a byte", 70, 1, "A"},
		} {
			t.Run(family.name+" TCP "+test.name, func(t *testing.T) {
				p := packettest.TCP(packettest.Spec{Src: family.src, Dst: family.dst, SrcPort: 1, DstPort: 2, Seq: 1<<32 - 1500, Ack: 7,
					ID: 0xfffe, Flags: test.flags, TCPOptions: options, Payload: test.payload})
				checkSegments(t, packettest.Superpacket(p, family.tcp, uint16(test.size)), test.size)
			})
			t.Run(family.name+" UDP "+test.name, func(t *testing.T) {
				p := packettest.UDP(packettest.Spec{Src: family.src, Dst: family.dst, SrcPort: 1, DstPort: 2, ID: 9, Payload: test.payload})
				checkSegments(t, packettest.Superpacket(p, GSOUDPL4, uint16(test.size)), test.size)
			})
		}
	}
	t.Run("CWR goes with the first one", func(t *testing.T) {
		p := packettest.TCP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", SrcPort: 1, DstPort: 2, Flags: "A", Payload: 3000})
		p[20+packet.TCPFlagsAt] |= firstFlags
		checkSegments(t, packettest.Superpacket(p, GSOTCPv4|GSOECN, 1000), 1000)
	})
}

func TestHeadersThatNoSuperpacketHasAreRefused(t *testing.T) {
	p := packettest.UDP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", SrcPort: 1, DstPort: 2, Payload: 100})
	for _, test := range []struct {
		name  string
		spoil func(h *Header, packet []byte)
	}{
		{"no size", func(h *Header, _ []byte) { h.GSOSize = 0 }},
		{"a finished checksum", func(h *Header, _ []byte) { h.Flags = 0 }},
		{"an unknown kind", func(h *Header, _ []byte) { h.GSOType = 3 }},
		{"a transport header inside the IP header", func(h *Header, _ []byte) { h.CsumStart = 12 }},
		{"a transport header behind the end", func(h *Header, _ []byte) { h.CsumStart = 125 }},
		{"no payload", func(h *Header, _ []byte) { h.CsumStart = 120 }},
		{"a checksum somewhere else", func(h *Header, _ []byte) { h.CsumOffset = 4 }},
		{"a TCP header of 4 bytes", func(h *Header, b []byte) {
			h.GSOType, h.CsumOffset, b[20+packet.TCPOffsetAt] = GSOTCPv4, packet.TCPSumAt, 1<<4
		}},
		{"a TCP header longer than the packet", func(h *Header, b []byte) {
			h.CsumStart, h.GSOType, h.CsumOffset, b[80+packet.TCPOffsetAt] = 80, GSOTCPv4, packet.TCPSumAt, 15<<4
		}},
		{"an IP length beyond the packet", func(_ *Header, b []byte) { b[packet.IPv4LenAt+1]++ }},
		{"an IPv4 header of 4 bytes", func(_ *Header, b []byte) { b[0] = 0x41 }},
	} {
		frame := packettest.Superpacket(p, GSOUDPL4, 10)
		var h Header
		h.Decode((*[HeaderLen]byte)(frame))
		test.spoil(&h, frame[HeaderLen:])
		h.Encode((*[HeaderLen]byte)(frame))
		if new(segmenter).begin(frame) {
			t.Errorf("%s: accepted", test.name)
		}
	}
}

// FuzzSegmentsAreTheSlowOnes takes the packet's shape from the input, and hands the input
// as it is to the segmenter, which must not fall over it.
func FuzzSegmentsAreTheSlowOnes(f *testing.F) {
	f.Add(uint16(3000), uint16(1000), true, true, uint16(7), []byte{})
	f.Add(uint16(65_000), uint16(1), false, true, uint16(0xffff), []byte("E"))
	f.Add(uint16(1), uint16(1448), true, false, uint16(0), packettest.Superpacket(packettest.UDP(packettest.Spec{Src: "::1", Dst: "::2", Payload: 30}), GSOUDPL4, 7))
	f.Fuzz(func(t *testing.T, payload, size uint16, tcp, ipv4 bool, id uint16, raw []byte) {
		if len(raw) > HeaderLen {
			var s segmenter
			if raw = raw[:min(len(raw), BufferLen)]; s.begin(raw) {
				for s.more() {
					s.next(make([]byte, BufferLen))
				}
			}
		}
		payload = payload%65_000 + 1
		size = max(size, payload/200, 1) // the slow ones take their time
		spec := packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", SrcPort: 1, DstPort: 2, Seq: uint32(id) << 16, ID: id, Flags: "PA", Payload: int(payload)}
		if !ipv4 {
			spec.Src, spec.Dst = "fd00::4", "fd00::5"
		}
		build, gsoType := packettest.UDP, uint8(GSOUDPL4)
		if tcp {
			build, gsoType = packettest.TCP, GSOTCPv6
			if ipv4 {
				gsoType = GSOTCPv4
			}
		}
		checkSegments(t, packettest.Superpacket(build(spec), gsoType, size), int(size))
	})
}

func BenchmarkSegment(b *testing.B) {
	for _, size := range []uint16{64, 1448} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			p := packettest.TCP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", SrcPort: 1, DstPort: 2, Flags: "A", Payload: 64_000})
			frame, buf := packettest.Superpacket(p, GSOTCPv4, size), make([]byte, BufferLen)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				var s segmenter
				for s.begin(frame); s.more(); {
					s.next(buf)
				}
			}
		})
	}
}
