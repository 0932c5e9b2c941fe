package packet_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// FuzzDecode holds Decode against gopacket's packet-at-once decoder and against the
// reasons of the slow reference. Whatever the bytes are it must not panic; what it
// accepts gopacket must read alike, and no reason may hold; the reason for
// which it drops must.
func FuzzDecode(f *testing.F) {
	for _, b := range wholePackets() {
		f.Add(b, uint16(0))
	}
	for _, b := range wholePackets()[:4] {
		f.Add(b, uint16(2))
	}
	for _, tt := range dropTests {
		f.Add(tt.bytes, uint16(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, segment uint16) {
		if len(b) <= 65_535 {
			checkDecode(t, b, segment)
		}
	})
}

// wholePackets are packets of every kind that Decode accepts.
func wholePackets() (list [][]byte) {
	v4 := packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", SrcPort: 1, DstPort: 2, Flags: "S", Payload: 5, ICMPType: 8, ICMPID: 3}
	v6 := v4
	v6.Src, v6.Dst, v6.ICMPType = "fd00::4", "fd00::5", 128
	for _, s := range []packettest.Spec{v4, v6} {
		list = append(list, packettest.TCP(s), packettest.UDP(s), packettest.ICMP(s), packettest.Raw(s, packet.ProtoESP), packettest.Raw(s, packet.ProtoGRE))
		reply := s
		reply.ICMPType = map[uint8]uint8{8: 0, 128: 129}[s.ICMPType]
		list = append(list, packettest.ICMP(reply), packettest.ICMPError(s, packettest.TCP(s)))
		options := s
		options.TCPOptions = []layers.TCPOption{{OptionType: 1}, {OptionType: 2, OptionLength: 4, OptionData: []byte{5, 180}}, {OptionType: 1}}
		list = append(list, packettest.TCP(options))
	}
	options := v4
	options.IPOptions = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	list = append(list, packettest.UDP(options), packettest.Raw(v4, packet.ProtoAH))
	ah := packettest.Extension{Protocol: packet.ProtoAH, Bytes: append([]byte{0, 4}, make([]byte, 22)...)}
	list = append(list,
		packettest.Extend(packettest.TCP(v6), packettest.Options(0, 1), packettest.Options(43, 2), packettest.Options(60, 1)),
		packettest.Extend(packettest.UDP(v6), packettest.FragmentHeader(0, false, 1)),
		packettest.Extend(packettest.ICMP(v6), packettest.Options(60, 1), ah))
	for _, whole := range [][]byte{packettest.TCP(v4), packettest.UDP(v4), packettest.ICMP(v4), packettest.TCP(v6), packettest.UDP(v6), packettest.ICMP(v6)} {
		list = append(list, packettest.Fragments(append(whole, make([]byte, 64)...), 7, 24, 16)...)
	}
	return list
}

func TestDamagedPacketsDecodeAsGopacketAndTheReferenceSay(t *testing.T) {
	rounds := 20_000
	if testing.Short() {
		rounds = 5_000
	}
	random := rand.New(rand.NewPCG(1, 9))
	undamaged := wholePackets()
	for _, tt := range dropTests {
		undamaged = append(undamaged, tt.bytes)
	}
	for _, b := range undamaged {
		checkDecode(t, b, 0)
	}
	for range rounds {
		b := append([]byte(nil), undamaged[random.IntN(len(undamaged))]...)
		for range 1 + random.IntN(3) {
			switch random.IntN(8) {
			case 0:
				b = b[:random.IntN(len(b)+1)]
			case 1:
				b = append(b, make([]byte, random.IntN(16))...)
			default:
				if n := min(len(b), 80); n > 0 {
					b[random.IntN(n)] ^= 1 << random.IntN(8)
				}
			}
		}
		checkDecode(t, b, uint16(random.IntN(2)*random.IntN(8)))
	}
}

func checkDecode(t *testing.T, b []byte, segment uint16) {
	t.Helper()
	var d packet.Decoder
	var p packet.Packet
	drop := d.Decode(b, segment, &p)
	a := dissect(b)
	if drop != packet.NotDropped {
		if holds := reasons[drop]; holds == nil || !holds(&a) {
			t.Fatalf("%x was dropped under %s, which does not hold", b, drop)
		}
		return
	}
	for reason, holds := range reasons {
		if holds(&a) {
			t.Fatalf("%x was accepted although %s holds: %+v", b, reason, p)
		}
	}
	if int(p.Len) != a.total || int(p.HeaderLen) != a.start || p.Proto != a.upper || p.Fragment != a.fragment(int(p.PayloadOffset)) {
		t.Fatalf("%x: %+v, want %+v", b, p, a)
	}
	if a.isFragment() {
		segment = 0 // no superpacket, whatever its header claims
	}
	checkSegments(t, &p, segment)
	compare(t, b[:p.Len], &p)
}

// checkSegments cuts the payload as a wire would have it, one segment after the other.
func checkSegments(t *testing.T, p *packet.Packet, size uint16) {
	t.Helper()
	headers := uint32(p.PayloadOffset)
	if headers > p.Len {
		t.Fatalf("impossible lengths: %+v", p)
	}
	segments, bytes := uint32(0), uint32(0)
	for left := p.Len - headers; ; {
		n := left
		if size > 0 {
			n = min(left, uint32(size))
		}
		segments, bytes, left = segments+1, bytes+headers+n, left-n
		if left == 0 {
			break
		}
	}
	if p.Segments != segments || p.WireLen != bytes {
		t.Fatalf("%d segments of %d bytes, want %d of %d: %+v", p.Segments, p.WireLen, segments, bytes, p)
	}
}

// compare holds what Decode made of b, which ends where the packet does, against
// gopacket's layers. gopacket gives up on options that an end host skips, on
// extension headers with such options and on what it takes for a jumbogram; only
// there it may have read less.
func compare(t *testing.T, b []byte, p *packet.Packet) {
	t.Helper()
	list, failure := gopacketLayers(b, p)
	proto, offset := uint8(0), 0
	for ; len(list) > 0; list = list[1:] {
		next, ok := networkHeader(list[0], p, offset)
		if !ok {
			break
		}
		proto, offset = next, offset+len(list[0].LayerContents())
	}
	fixed := 20
	if !p.Src.Is4() {
		fixed = 40
	}
	mayStop := failure != nil && (int(p.HeaderLen) > fixed || p.Len == 40)
	switch {
	case proto == p.Proto && offset == int(p.HeaderLen):
	case mayStop:
		return
	default:
		t.Fatalf("gopacket finds protocol %d at %d in %x (%v), Decode %+v", proto, offset, b, failure, p)
	}
	if len(list) == 0 || p.Fragment.IsLater() {
		list = []gopacket.Layer{nil}
	}
	if read, ok := transportHeader(list, p); read != *p && (ok || !mayStop) {
		t.Fatalf("gopacket reads %+v in %x (%v), Decode %+v", read, b, failure, *p)
	}
}

// gopacketLayers are gopacket's layers of a packet, and why it gave up. It stops at
// fragments, so it is made to look behind the fragment header of an IPv6 packet's first
// fragment and gets an IPv4 packet's as if it were a whole one.
func gopacketLayers(b []byte, p *packet.Packet) (list []gopacket.Layer, failure error) {
	first := gopacket.Decoder(layers.LayerTypeIPv4)
	if b[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	} else if !p.Fragment.IsLater() {
		b = slices.Clone(b)
		b[6], b[7] = 0, 0
	}
	for first != nil {
		full := gopacket.NewPacket(b, first, gopacket.NoCopy)
		first = nil
		for _, l := range full.Layers() {
			if l, ok := l.(gopacket.ErrorLayer); ok {
				failure = l.Error()
				break
			}
			list = append(list, l)
			if fragment, ok := l.(*layers.IPv6Fragment); ok {
				if p.Fragment.IsLater() {
					return list, nil
				}
				first, b = fragment.NextHeader, fragment.Payload
				break
			}
		}
	}
	return list, failure
}

// networkHeader reads the protocol behind one of the IP headers, at offset; ok is
// false for what is behind them, a tunnel's inner headers among it.
func networkHeader(l gopacket.Layer, p *packet.Packet, offset int) (proto uint8, ok bool) {
	if _, isOuter := l.(gopacket.NetworkLayer); isOuter && offset > 0 {
		return 0, false
	}
	switch l := l.(type) {
	case *layers.IPv4:
		same := packet.AddrFrom4([4]byte(l.SrcIP.To4())) == p.Src && packet.AddrFrom4([4]byte(l.DstIP.To4())) == p.Dst && uint32(l.Length) == p.Len
		return uint8(l.Protocol), same
	case *layers.IPv6:
		same := packet.AddrFrom16([16]byte(l.SrcIP)) == p.Src && packet.AddrFrom16([16]byte(l.DstIP)) == p.Dst && 40+uint32(l.Length) == p.Len
		return uint8(l.NextHeader), same
	}
	if p.Src.Is4() || offset == 0 {
		return 0, false
	}
	switch l := l.(type) {
	case *layers.IPv6HopByHop:
		return uint8(l.NextHeader), true
	case *layers.IPv6Routing:
		return uint8(l.NextHeader), true
	case *layers.IPv6Destination:
		return uint8(l.NextHeader), true
	case *layers.IPv6Fragment:
		return uint8(l.NextHeader), true
	case *layers.IPSecAH:
		return uint8(l.NextHeader), true
	}
	return 0, false
}

// transportHeader is p with the transport header's fields as gopacket reads them; ok is
// false when it has not come so far.
func transportHeader(list []gopacket.Layer, p *packet.Packet) (read packet.Packet, ok bool) {
	read = *p
	read.SrcPort, read.DstPort, read.TCPFlags, read.ICMPType, read.ICMPCode = 0, 0, 0, 0, 0
	read.Seq, read.Ack, read.Window, read.WindowScale, read.SACKed = 0, 0, 0, 0, 0
	read.PayloadOffset = p.HeaderLen
	icmp := func(typeCode, id uint16, requests, replies []uint8) {
		read.ICMPType, read.ICMPCode = uint8(typeCode>>8), uint8(typeCode)
		read.PayloadOffset += 8
		if slices.Contains(requests, read.ICMPType) {
			read.SrcPort = id
		}
		if slices.Contains(replies, read.ICMPType) {
			read.DstPort = id
		}
	}
	switch l := list[0].(type) {
	case *layers.TCP:
		read.SrcPort, read.DstPort = uint16(l.SrcPort), uint16(l.DstPort)
		for bit, set := range []bool{l.FIN, l.SYN, l.RST, l.PSH, l.ACK, l.URG, l.ECE, l.CWR} {
			if set {
				read.TCPFlags |= 1 << bit
			}
		}
		read.PayloadOffset += uint16(len(l.Contents))
		read.Seq, read.Ack, read.Window = l.Seq, l.Ack, l.Window
		for _, o := range l.Options {
			switch {
			case o.OptionType == layers.TCPOptionKindWindowScale && len(o.OptionData) == 1 && l.SYN:
				read.WindowScale = min(o.OptionData[0], 14) + 1
			case o.OptionType == layers.TCPOptionKindSACK && len(o.OptionData)%8 == 0:
				for at := 4; at < len(o.OptionData); at += 8 {
					if edge := int32(binary.BigEndian.Uint32(o.OptionData[at:]) - l.Ack); edge > int32(read.SACKed) {
						read.SACKed = uint32(edge)
					}
				}
			}
		}
	case *layers.UDP:
		read.SrcPort, read.DstPort = uint16(l.SrcPort), uint16(l.DstPort)
		read.PayloadOffset += 8
	case *layers.ICMPv4:
		if !p.Src.Is4() { // ICMP over IPv6 is a protocol like any other
			return read, true
		}
		icmp(uint16(l.TypeCode), l.Id, []uint8{8, 13}, []uint8{0, 14})
	case *layers.ICMPv6:
		if p.Src.Is4() {
			return read, true
		}
		id := uint16(0)
		if len(list) > 1 {
			if echo, ok := list[1].(*layers.ICMPv6Echo); ok {
				id = echo.Identifier
			}
		}
		icmp(uint16(l.TypeCode), id, []uint8{128}, []uint8{129})
	default:
		if p.Fragment.IsLater() {
			return read, true
		}
		return read, !slices.Contains([]uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6}, p.Proto)
	}
	return read, true
}
