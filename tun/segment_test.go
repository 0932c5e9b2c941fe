package tun

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// superpacket makes a frame of a packet with size bytes of payload a segment, as a kernel
// gives it: the checksum field holds the sum of the pseudo-header alone.
func superpacket(packet []byte, gsoType uint8, size uint16) []byte {
	frame := append(make([]byte, HeaderLen), packet...)
	b := frame[HeaderLen:]
	h := Header{Flags: FlagNeedsCsum, GSOType: gsoType, GSOSize: size, CsumStart: ipv6HeaderLen, CsumOffset: udpSumAt}
	if b[0]>>4 == 4 {
		h.CsumStart = uint16(b[0]&0xf) * 4
	}
	protocol := uint16(layers.IPProtocolUDP)
	if gsoType != GSOUDPL4 {
		h.CsumOffset, protocol = tcpSumAt, uint16(layers.IPProtocolTCP)
	}
	h.Encode((*[HeaderLen]byte)(frame))
	addresses := b[12:20]
	if b[0]>>4 == 6 {
		addresses = b[8:40]
	}
	pseudo := binary.BigEndian.AppendUint16(bytes.Clone(addresses), protocol)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(b))-h.CsumStart)
	binary.BigEndian.PutUint16(b[h.CsumStart+h.CsumOffset:], slowSum(pseudo))
	return frame
}

// slowSegments is what a superpacket stands for, built anew layer by layer.
func slowSegments(t *testing.T, packet []byte, size int) [][]byte {
	first := layers.LayerTypeIPv6
	if packet[0]>>4 == 4 {
		first = layers.LayerTypeIPv4
	}
	p := gopacket.NewPacket(packet, first, gopacket.Default)
	payload := p.TransportLayer().LayerPayload()
	var segments [][]byte
	for at := 0; at < len(payload); at += size {
		chunk := payload[at:min(at+size, len(payload))]
		var network, transport gopacket.SerializableLayer
		switch ip := p.NetworkLayer().(type) {
		case *layers.IPv4:
			c := *ip
			c.Id += uint16(len(segments))
			network = &c
		case *layers.IPv6:
			c := *ip
			network = &c
		}
		switch l := p.TransportLayer().(type) {
		case *layers.TCP:
			c := *l
			c.Seq += uint32(at)
			last := at+size >= len(payload)
			c.FIN, c.PSH, c.CWR = l.FIN && last, l.PSH && last, l.CWR && at == 0
			c.SetNetworkLayerForChecksum(network.(gopacket.NetworkLayer))
			transport = &c
		case *layers.UDP:
			c := *l
			c.SetNetworkLayerForChecksum(network.(gopacket.NetworkLayer))
			transport = &c
		}
		b := gopacket.NewSerializeBuffer()
		err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, network, transport, gopacket.Payload(chunk))
		if err != nil {
			t.Fatal(err)
		}
		segment := bytes.Clone(b.Bytes())
		if transport.LayerType() == layers.LayerTypeTCP {
			header := segment[len(segment)-len(chunk)-len(p.TransportLayer().LayerContents()):]
			if sum := header[tcpSumAt:]; sum[0]|sum[1] == 0 {
				sum[0], sum[1] = 0xff, 0xff // the same value, see completeChecksum
			}
		}
		segments = append(segments, segment)
	}
	return segments
}

func checkSegments(t *testing.T, frame []byte, size int) {
	t.Helper()
	want := slowSegments(t, bytes.Clone(frame[HeaderLen:]), size)
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
				checkSegments(t, superpacket(p, family.tcp, uint16(test.size)), test.size)
			})
			t.Run(family.name+" UDP "+test.name, func(t *testing.T) {
				p := packettest.UDP(packettest.Spec{Src: family.src, Dst: family.dst, SrcPort: 1, DstPort: 2, ID: 9, Payload: test.payload})
				checkSegments(t, superpacket(p, GSOUDPL4, uint16(test.size)), test.size)
			})
		}
	}
	t.Run("CWR goes with the first one", func(t *testing.T) {
		p := packettest.TCP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", SrcPort: 1, DstPort: 2, Flags: "A", Payload: 3000})
		p[20+tcpFlagsAt] |= tcpFirstFlags
		checkSegments(t, superpacket(p, GSOTCPv4|GSOECN, 1000), 1000)
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
			h.GSOType, h.CsumOffset, b[20+tcpOffsetAt] = GSOTCPv4, tcpSumAt, 1<<4
		}},
		{"a TCP header longer than the packet", func(h *Header, b []byte) {
			h.CsumStart, h.GSOType, h.CsumOffset, b[80+tcpOffsetAt] = 80, GSOTCPv4, tcpSumAt, 15<<4
		}},
		{"an IPv4 header of 4 bytes", func(_ *Header, b []byte) { b[0] = 0x41 }},
	} {
		frame := superpacket(p, GSOUDPL4, 10)
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
	f.Add(uint16(1), uint16(1448), true, false, uint16(0), superpacket(packettest.UDP(packettest.Spec{Src: "::1", Dst: "::2", Payload: 30}), GSOUDPL4, 7))
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
		checkSegments(t, superpacket(build(spec), gsoType, size), int(size))
	})
}

func BenchmarkSegment(b *testing.B) {
	for _, size := range []uint16{64, 1448} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			p := packettest.TCP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", SrcPort: 1, DstPort: 2, Flags: "A", Payload: 64_000})
			frame, buf := superpacket(p, GSOTCPv4, size), make([]byte, BufferLen)
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
