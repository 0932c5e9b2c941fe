package packet_test

import (
	"slices"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

func TestDecodeQuote(t *testing.T) {
	sent := packettest.Spec{Src: "10.0.1.4", Dst: "203.0.113.10", SrcPort: 40000, DstPort: 53, Payload: 100}
	sent6 := packettest.Spec{Src: "fd00::4", Dst: "2001:db8::1", SrcPort: 40000, DstPort: 53, Payload: 100}
	with := func(s packettest.Spec, f func(*packettest.Spec)) packettest.Spec { f(&s); return s }
	options := []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	// quoting builds an error from router to the host that sent q.
	quoting := func(router, host string, typ, code uint8, q []byte) []byte {
		return packettest.ICMPError(packettest.Spec{Src: router, Dst: host, ICMPType: typ, ICMPCode: code}, q)
	}
	back := func(q []byte) []byte { return quoting("203.0.113.1", "10.0.1.4", 3, 3, q) }
	back6 := func(typ uint8, q []byte) []byte { return quoting("2001:db8::ff", "fd00::4", typ, 0, q) }

	tests := []struct {
		name  string
		bytes []byte
		want  packet.Tuple
		ok    bool
	}{
		{"port unreachable for a datagram", back(packettest.UDP(sent)), tuple(17, "10.0.1.4", "203.0.113.10", 40000, 53), true},
		{"with no more than the eight bytes that RFC 792 asks for", back(packettest.UDP(sent)[:28]), tuple(17, "10.0.1.4", "203.0.113.10", 40000, 53), true},
		{"time exceeded for a segment", quoting("203.0.113.1", "10.0.1.4", 11, 0, packettest.TCP(sent)[:28]), tuple(6, "10.0.1.4", "203.0.113.10", 40000, 53), true},
		{"parameter problem", quoting("203.0.113.1", "10.0.1.4", 12, 0, packettest.TCP(sent)), tuple(6, "10.0.1.4", "203.0.113.10", 40000, 53), true},
		{"a quoted header with options", back(packettest.UDP(with(sent, func(s *packettest.Spec) { s.IPOptions = options }))), tuple(17, "10.0.1.4", "203.0.113.10", 40000, 53), true},
		{"a quoted echo request", back(packettest.ICMP(with(sent, func(s *packettest.Spec) { s.ICMPType, s.ICMPID = 8, 77 }))), tuple(1, "10.0.1.4", "203.0.113.10", 77, 0), true},
		{"a quoted first fragment", back(packettest.UDP(with(sent, func(s *packettest.Spec) { s.MoreFragments = true }))), tuple(17, "10.0.1.4", "203.0.113.10", 40000, 53), true},
		{"packet too big over IPv6", back6(2, packettest.UDP(sent6)), tuple(17, "fd00::4", "2001:db8::1", 40000, 53), true},
		{"time exceeded over IPv6", back6(3, packettest.TCP(sent6)), tuple(6, "fd00::4", "2001:db8::1", 40000, 53), true},
		{"a quoted IPv6 packet with extension headers", back6(3, packettest.Extend(packettest.UDP(sent6), packettest.Options(0, 1), packettest.Options(60, 2))), tuple(17, "fd00::4", "2001:db8::1", 40000, 53), true},

		{"a quote that ends inside an IPv6 extension header", back6(3, packettest.Extend(packettest.UDP(sent6), packettest.Options(60, 4))[:60]), packet.Tuple{}, false},
		{"a quoted later IPv6 fragment, which has no ports", back6(3, packettest.Extend(packettest.UDP(sent6), packettest.FragmentHeader(2, true, 1))[:48]), tuple(17, "fd00::4", "2001:db8::1", 0, 0), true},
		{"seven bytes of the transport header", back(packettest.UDP(sent)[:27]), packet.Tuple{}, false},
		{"half an IPv4 header", back(packettest.UDP(sent)[:19]), packet.Tuple{}, false},
		{"nothing quoted", back(nil), packet.Tuple{}, false},
		{"half an IPv6 header", back6(1, packettest.UDP(sent6)[:39]), packet.Tuple{}, false},
		{"an IPv6 packet quoted over IPv4", back(packettest.UDP(sent6)), packet.Tuple{}, false},
		{"an IPv4 packet quoted over IPv6", back6(1, packettest.UDP(sent)), packet.Tuple{}, false},
		{"a quoted header length beyond the quote", back(damage(packettest.UDP(sent)[:30], set(0, 0x4f))), packet.Tuple{}, false},
		{"a quoted header length of 16 bytes", back(damage(packettest.UDP(sent), set(0, 0x44))), packet.Tuple{}, false},
		{"a quoted later fragment, which has no ports", back(packettest.UDP(with(sent, func(s *packettest.Spec) { s.FragmentOffset = 3 }))), tuple(17, "10.0.1.4", "203.0.113.10", 0, 0), true},
		{"a packet of another host than the error goes to", quoting("203.0.113.1", "10.0.1.5", 3, 3, packettest.UDP(sent)), packet.Tuple{}, false},
		// Decode knows no identifier there, so the tuple was of no flow that could be.
		{"an echo request of the other family's ICMP", back6(1, damage(packettest.ICMP(with(sent6, func(s *packettest.Spec) { s.ICMPType = 8 })), set(6, packet.ProtoICMP))), packet.Tuple{}, false},
		{"an error quoted in an error", back(back(packettest.UDP(sent))), packet.Tuple{}, false},
		{"an echo request is no error", packettest.ICMP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", ICMPType: 8, Payload: 100}), packet.Tuple{}, false},
		{"a redirect is no error", quoting("203.0.113.1", "10.0.1.4", 5, 0, packettest.UDP(sent)), packet.Tuple{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d packet.Decoder
			var p packet.Packet
			if drop := d.Decode(tt.bytes, 0, &p); drop != packet.NotDropped {
				t.Fatalf("dropped: %s", drop)
			}
			got, ok := packet.DecodeQuote(tt.bytes, &p)
			if ok != tt.ok || ok && got.Tuple != tt.want {
				t.Errorf("got %v, %v; want %v, %v", got, ok, tt.want, tt.ok)
			}
			if n := testing.AllocsPerRun(10, func() { packet.DecodeQuote(tt.bytes, &p) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// FuzzDecodeQuote holds DecodeQuote to its promise on arbitrary quotes: no panic,
// never a tuple that is not about the error's destination, and about a packet that
// Decode accepts its very tuple, from any prefix that has the transport's first bytes.
func FuzzDecodeQuote(f *testing.F) {
	for _, b := range wholePackets() {
		f.Add(b, uint16(1000))
		f.Add(b, uint16(len(b)-1))
		f.Add(b, uint16(48))
	}
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		if len(b) <= 1000 {
			checkQuote(t, b, int(n))
		}
	})
}

func TestTheQuoteOfAPacketsPrefixGivesItsTuple(t *testing.T) {
	for _, b := range wholePackets() {
		for n := range len(b) + 1 {
			checkQuote(t, b, n)
		}
	}
}

func checkQuote(t *testing.T, b []byte, n int) {
	t.Helper()
	quote := b[:min(n, len(b))]
	for _, s := range []packettest.Spec{{Src: "203.0.113.1", Dst: "10.0.1.4", ICMPType: 3}, {Src: "2001:db8::1", Dst: "fd00::4", ICMPType: 1}} {
		decodeQuote(t, s, quote)
	}
	var d packet.Decoder
	var sent packet.Packet
	if d.Decode(b, 0, &sent) != packet.NotDropped {
		return
	}
	quote = b[:min(n, int(sent.Len))]
	s := packettest.Spec{Src: "203.0.113.1", Dst: sent.Src.String(), ICMPType: 11}
	if !sent.Src.Is4() {
		s.Src, s.ICMPType = "2001:db8::1", 3
	}
	quoted, ok := decodeQuote(t, s, quote)
	refused := false // ICMP that is no query
	switch sent.Proto {
	case packet.ProtoICMP:
		refused = !sent.Src.Is4() || !slices.Contains([]uint8{0, 8, 13, 14}, sent.ICMPType)
	case packet.ProtoICMPv6:
		refused = sent.Src.Is4() || !slices.Contains([]uint8{128, 129}, sent.ICMPType)
	}
	want := len(quote) >= int(sent.HeaderLen)+8 && !refused
	if sent.Fragment.IsLater() { // which has nothing behind its IP headers to be cut off
		want = len(quote) >= int(sent.HeaderLen)
	}
	if ok != want || ok && (quoted.Tuple != sent.Tuple || !sameDatagram(quoted.Fragment, sent.Fragment)) {
		t.Fatalf("%d bytes of %x: %+v, %t; want %t, %+v", n, b, quoted, ok, want, sent)
	}
}

// sameDatagram compares what a quote knows of a fragment.
func sameDatagram(a, b packet.Fragment) bool {
	return a.ID == b.ID && a.Proto == b.Proto && a.Start == b.Start && a.More == b.More
}

// decodeQuote decodes an ICMP error with a quote.
func decodeQuote(t *testing.T, s packettest.Spec, quote []byte) (packet.Quote, bool) {
	t.Helper()
	b := packettest.ICMPError(s, quote)
	var d packet.Decoder
	var p packet.Packet
	if drop := d.Decode(b, 0, &p); drop != packet.NotDropped {
		t.Fatalf("dropped: %s", drop)
	}
	quoted, ok := packet.DecodeQuote(b, &p)
	tuple := quoted.Tuple
	if ok && (tuple.Src != p.Dst || tuple.Src.Is4() != tuple.Dst.Is4()) {
		t.Fatalf("%v is not about a packet from %v", tuple, p.Dst)
	}
	return quoted, ok
}
