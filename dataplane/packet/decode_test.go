package packet_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

func addr(s string) packet.Addr { return packet.AddrFrom(netip.MustParseAddr(s)) }

func tuple(proto uint8, src, dst string, sport, dport uint16) packet.Tuple {
	return packet.Tuple{Src: addr(src), Dst: addr(dst), SrcPort: sport, DstPort: dport, Proto: proto}
}

func TestDecode(t *testing.T) {
	v4 := packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", SrcPort: 49152, DstPort: 80, Flags: "S"}
	v6 := packettest.Spec{Src: "fd00::4", Dst: "2001:db8::1", SrcPort: 49152, DstPort: 80, Flags: "SA"}
	with := func(s packettest.Spec, f func(*packettest.Spec)) packettest.Spec { f(&s); return s }
	timestamps := layers.TCPOption{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: make([]byte, 8)}

	tests := []struct {
		name    string
		bytes   []byte
		segment uint16
		want    packet.Packet
	}{
		{"an IPv4 SYN", packettest.TCP(v4), 0, packet.Packet{
			Tuple: tuple(6, "10.0.1.4", "10.0.2.4", 49152, 80), TCPFlags: packet.SYN, Window: 65535,
			HeaderLen: 20, PayloadOffset: 40, Len: 40, Segments: 1, WireLen: 40}},
		{"an IPv6 SYN+ACK", packettest.TCP(v6), 0, packet.Packet{
			Tuple: tuple(6, "fd00::4", "2001:db8::1", 49152, 80), TCPFlags: packet.SYN | packet.ACK, Window: 65535, Ack: 1,
			HeaderLen: 40, PayloadOffset: 60, Len: 60, Segments: 1, WireLen: 60}},
		{"TCP options are skipped by the data offset",
			packettest.TCP(with(v4, func(s *packettest.Spec) { s.TCPOptions = []layers.TCPOption{timestamps}; s.Payload = 3 })), 0,
			packet.Packet{Tuple: tuple(6, "10.0.1.4", "10.0.2.4", 49152, 80), TCPFlags: packet.SYN, Window: 65535,
				HeaderLen: 20, PayloadOffset: 52, Len: 55, Segments: 1, WireLen: 55}},
		{"IPv4 options are skipped by the header length",
			packettest.UDP(with(v4, func(s *packettest.Spec) {
				s.IPOptions = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
			})), 0,
			packet.Packet{Tuple: tuple(17, "10.0.1.4", "10.0.2.4", 49152, 80),
				HeaderLen: 24, PayloadOffset: 32, Len: 32, Segments: 1, WireLen: 32}},
		{"a superpacket counts the segments and headers that a wire would carry",
			packettest.TCP(with(v4, func(s *packettest.Spec) { s.Payload = 3001 })), 1460,
			packet.Packet{Tuple: tuple(6, "10.0.1.4", "10.0.2.4", 49152, 80), TCPFlags: packet.SYN, Window: 65535,
				HeaderLen: 20, PayloadOffset: 40, Len: 3041, Segments: 3, WireLen: 3001 + 3*40}},
		{"a superpacket's header on a single segment counts one",
			packettest.UDP(with(v4, func(s *packettest.Spec) { s.Payload = 100 })), 100,
			packet.Packet{Tuple: tuple(17, "10.0.1.4", "10.0.2.4", 49152, 80),
				HeaderLen: 20, PayloadOffset: 28, Len: 128, Segments: 1, WireLen: 128}},
		{"an echo request has its identifier as source port",
			packettest.ICMP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", ICMPType: 8, ICMPID: 77}), 0,
			packet.Packet{Tuple: tuple(1, "10.0.1.4", "10.0.2.4", 77, 0), ICMPType: 8,
				HeaderLen: 20, PayloadOffset: 28, Len: 28, Segments: 1, WireLen: 28}},
		{"an echo reply has it as destination port, so that it reverses the request",
			packettest.ICMP(packettest.Spec{Src: "10.0.2.4", Dst: "10.0.1.4", ICMPType: 0, ICMPID: 77}), 0,
			packet.Packet{Tuple: tuple(1, "10.0.2.4", "10.0.1.4", 0, 77), ICMPType: 0,
				HeaderLen: 20, PayloadOffset: 28, Len: 28, Segments: 1, WireLen: 28}},
		{"an ICMPv6 echo request likewise",
			packettest.ICMP(packettest.Spec{Src: "fd00::4", Dst: "fd00::5", ICMPType: 128, ICMPID: 9}), 0,
			packet.Packet{Tuple: tuple(58, "fd00::4", "fd00::5", 9, 0), ICMPType: 128,
				HeaderLen: 40, PayloadOffset: 48, Len: 48, Segments: 1, WireLen: 48}},
		{"ESP has no ports", packettest.Raw(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", Payload: 30}, 50), 0,
			packet.Packet{Tuple: tuple(50, "10.0.1.4", "10.0.2.4", 0, 0),
				HeaderLen: 20, PayloadOffset: 20, Len: 50, Segments: 1, WireLen: 50}},
		{"IPv6 extension headers are skipped to the transport header",
			packettest.Extend(packettest.UDP(v6), packettest.Options(0, 1), packettest.Options(60, 2), packettest.Options(43, 3)), 0,
			packet.Packet{Tuple: tuple(17, "fd00::4", "2001:db8::1", 49152, 80),
				HeaderLen: 88, PayloadOffset: 96, Len: 96, Segments: 1, WireLen: 96}},
		{"AH over IPv6 is walked, in units of four bytes",
			packettest.Extend(packettest.TCP(v6), packettest.Extension{Protocol: 51, Bytes: append([]byte{0, 4}, make([]byte, 22)...)}), 0,
			packet.Packet{Tuple: tuple(6, "fd00::4", "2001:db8::1", 49152, 80), TCPFlags: packet.SYN | packet.ACK, Window: 65535, Ack: 1,
				HeaderLen: 64, PayloadOffset: 84, Len: 84, Segments: 1, WireLen: 84}},
		{"an IPv6 atomic fragment is a whole packet",
			packettest.Extend(packettest.UDP(v6), packettest.FragmentHeader(0, false, 7)), 0,
			packet.Packet{Tuple: tuple(17, "fd00::4", "2001:db8::1", 49152, 80),
				HeaderLen: 48, PayloadOffset: 56, Len: 56, Segments: 1, WireLen: 56}},
		// nebula issue 1840: bytes behind an unknown header were read as ports.
		{"an unknown header ends the chain, and what follows is no port",
			packettest.Extend(packettest.UDP(v6), packettest.Options(60, 1), packettest.Extension{Protocol: 253, Bytes: make([]byte, 8)}), 0,
			packet.Packet{Tuple: tuple(253, "fd00::4", "2001:db8::1", 0, 0),
				HeaderLen: 48, PayloadOffset: 48, Len: 64, Segments: 1, WireLen: 64}},
		{"no next header", packettest.Extend(packettest.Raw(v6, 59)), 0,
			packet.Packet{Tuple: tuple(59, "fd00::4", "2001:db8::1", 0, 0),
				HeaderLen: 40, PayloadOffset: 40, Len: 40, Segments: 1, WireLen: 40}},
		{"eight extension headers",
			packettest.Extend(packettest.UDP(v6), slices.Repeat([]packettest.Extension{packettest.Options(60, 1)}, 8)...), 0,
			packet.Packet{Tuple: tuple(17, "fd00::4", "2001:db8::1", 49152, 80),
				HeaderLen: 104, PayloadOffset: 112, Len: 112, Segments: 1, WireLen: 112}},
		{"the first IPv4 fragment has its ports, and says where the header ends",
			packettest.Fragments(packettest.TCP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", SrcPort: 49152, DstPort: 80, Flags: "S", Payload: 9}), 7, 24)[0], 0,
			packet.Packet{Tuple: tuple(6, "10.0.1.4", "10.0.2.4", 49152, 80), TCPFlags: packet.SYN, Window: 65535,
				HeaderLen: 20, PayloadOffset: 40, Len: 44, Segments: 1, WireLen: 44,
				Fragment: packet.Fragment{ID: 7, End: 24, HeaderEnd: 20, More: true, Proto: 6}}},
		{"a later one has none",
			packettest.FragmentAt(packettest.TCP(v4)[:20], make([]byte, 16), 7, 24, true), 0,
			packet.Packet{Tuple: tuple(6, "10.0.1.4", "10.0.2.4", 0, 0),
				HeaderLen: 20, PayloadOffset: 20, Len: 36, Segments: 1, WireLen: 36,
				Fragment: packet.Fragment{ID: 7, Start: 24, End: 40, More: true, Proto: 6}}},
		{"the last one may have any length",
			packettest.FragmentAt(packettest.UDP(v4)[:20], make([]byte, 5), 0xffff, 65_504, false), 0,
			packet.Packet{Tuple: tuple(17, "10.0.1.4", "10.0.2.4", 0, 0),
				HeaderLen: 20, PayloadOffset: 20, Len: 25, Segments: 1, WireLen: 25,
				Fragment: packet.Fragment{ID: 0xffff, Start: 65_504, End: 65_509, Proto: 17}}},
		{"the first UDP fragment has the length of the whole datagram",
			packettest.Fragments(packettest.UDP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", SrcPort: 1, DstPort: 2, Payload: 100}), 1, 8)[0], 0,
			packet.Packet{Tuple: tuple(17, "10.0.1.4", "10.0.2.4", 1, 2),
				HeaderLen: 20, PayloadOffset: 28, Len: 28, Segments: 1, WireLen: 28,
				Fragment: packet.Fragment{ID: 1, End: 8, HeaderEnd: 8, More: true, Proto: 17}}},
		{"the first IPv6 fragment counts the headers behind the fragment header",
			packettest.Fragments(packettest.Extend(packettest.UDP(packettest.Spec{Src: "fd00::4", Dst: "fd00::5", SrcPort: 1, DstPort: 2, Payload: 8}),
				packettest.Options(60, 1)), 0x12345678, 16)[0], 0,
			packet.Packet{Tuple: tuple(17, "fd00::4", "fd00::5", 1, 2),
				HeaderLen: 56, PayloadOffset: 64, Len: 64, Segments: 1, WireLen: 64,
				Fragment: packet.Fragment{ID: 0x12345678, End: 16, HeaderEnd: 16, More: true}}},
		{"a later IPv6 fragment ends the walk, whatever its bytes are",
			packettest.Extend(packettest.FragmentAt(damage(packettest.UDP(v6)[:40], set(6, 60)), make([]byte, 8), 9, 8, false), packettest.Options(0, 1)), 0,
			packet.Packet{Tuple: tuple(60, "fd00::4", "2001:db8::1", 0, 0),
				HeaderLen: 56, PayloadOffset: 56, Len: 64, Segments: 1, WireLen: 64,
				Fragment: packet.Fragment{ID: 9, Start: 8, End: 16}}},
		{"bytes behind the total length are not the packet's",
			append(packettest.UDP(v4), 1, 2, 3), 0,
			packet.Packet{Tuple: tuple(17, "10.0.1.4", "10.0.2.4", 49152, 80),
				HeaderLen: 20, PayloadOffset: 28, Len: 28, Segments: 1, WireLen: 28}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d packet.Decoder
			var got packet.Packet
			if drop := d.Decode(tt.bytes, tt.segment, &got); drop != packet.NotDropped {
				t.Fatalf("dropped: %s", drop)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// damage returns a packet with some of its bytes overwritten or cut off.
func damage(b []byte, f func([]byte) []byte) []byte { return f(append([]byte(nil), b...)) }

func set(i int, v ...byte) func([]byte) []byte {
	return func(b []byte) []byte { copy(b[i:], v); return b }
}

func cut(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }

var dropTests = func() []struct {
	name  string
	bytes []byte
	want  packet.Drop
} {
	v4 := packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", SrcPort: 49152, DstPort: 80, Flags: "S", Payload: 8}
	v6 := packettest.Spec{Src: "fd00::4", Dst: "fd00::5", SrcPort: 49152, DstPort: 80, Flags: "S", Payload: 8}
	tcp, udp, tcp6, udp6 := packettest.TCP(v4), packettest.UDP(v4), packettest.TCP(v6), packettest.UDP(v6)
	echo := packettest.ICMP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", ICMPType: 8})
	v4.IPOptions = slices.Repeat([]layers.IPv4Option{{OptionType: 1, OptionLength: 1}}, 8)
	optional := packettest.TCP(v4) // with eight bytes of IPv4 options
	shorten := func(total int) func([]byte) []byte {
		return func(b []byte) []byte { b[2], b[3] = byte(total>>8), byte(total); return b }
	}
	return []struct {
		name  string
		bytes []byte
		want  packet.Drop
	}{
		{"nothing", nil, packet.DropTruncated},
		{"half an IPv4 header", tcp[:19], packet.DropTruncated},
		{"half an IPv6 header", tcp6[:39], packet.DropTruncated},
		{"version 5", damage(tcp, set(0, 0x55)), packet.DropVersion},
		{"IPv4 header of 16 bytes", damage(tcp, set(0, 0x44)), packet.DropIPv4Header},
		{"IPv4 header longer than the packet", damage(tcp[:20], set(0, 0x4f)), packet.DropIPv4Header},
		{"a loose source route", damage(optional, set(20, 131, 7, 4, 10, 0, 1, 5, 0)), packet.DropSourceRoute},
		{"a strict source route", damage(optional, set(20, 137, 7, 4, 10, 0, 1, 5, 0)), packet.DropSourceRoute},
		{"a source route behind other options", damage(optional, set(20, 1, 148, 4, 0, 0, 131, 3, 4)), packet.DropSourceRoute},
		{"a source route in a later fragment", packettest.FragmentAt(damage(optional, set(20, 131, 7, 4, 10, 0, 1, 5, 0))[:28], make([]byte, 16), 1, 32, false), packet.DropSourceRoute},
		{"a source route behind an option without a length", damage(optional, set(20, 7, 0, 131, 3, 4, 0, 0, 0)), packet.DropIPv4Header},
		{"an option beyond the header", damage(optional, set(20, 7, 9, 4, 0, 0, 0, 0, 0)), packet.DropIPv4Header},
		{"an option without room for its length", damage(optional, set(20, 1, 1, 1, 1, 1, 1, 1, 7)), packet.DropIPv4Header},
		{"IPv4 total length 0, which gopacket takes for a superpacket", damage(tcp, set(2, 0, 0)), packet.DropIPLength},
		{"IPv4 total length beyond the data", damage(tcp, cut(len(tcp)-1)), packet.DropIPLength},
		// tailscale issue 21231: a total length that ends inside the transport header.
		{"IPv4 total length inside the TCP header", damage(tcp, shorten(30)), packet.DropTruncated},
		{"IPv4 total length inside the UDP header", damage(udp, shorten(27)), packet.DropTruncated},
		{"IPv4 total length inside the ICMP header", damage(echo, shorten(27)), packet.DropTruncated},
		{"IPv6 payload length beyond the data", damage(tcp6, cut(len(tcp6)-1)), packet.DropIPLength},
		{"IPv6 payload length inside the TCP header", damage(tcp6, set(4, 0, 19)), packet.DropTruncated},
		{"IPv6 payload length 0 with a TCP header", damage(tcp6, set(4, 0, 0)), packet.DropTruncated},
		{"IPv6 with an IPv4-mapped source", damage(tcp6, set(8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1)), packet.DropMappedAddress},
		{"IPv6 with an IPv4-mapped destination", damage(tcp6, set(24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1)), packet.DropMappedAddress},
		{"IPv6 hop-by-hop header behind another", packettest.Extend(udp6, packettest.Options(60, 1), packettest.Options(0, 1)), packet.DropExtension},
		{"IPv6 routing header type 0", packettest.Extend(udp6, packettest.Extension{Protocol: 43, Bytes: make([]byte, 8)}), packet.DropRoutingHeader},
		{"IPv6 routing header type 0 behind others", packettest.Extend(udp6, packettest.Options(0, 1), packettest.Options(60, 1), packettest.Extension{Protocol: 43, Bytes: make([]byte, 8)}), packet.DropRoutingHeader},
		{"IPv6 segment routing header with a segment left", packettest.Extend(udp6, packettest.Extension{Protocol: 43, Bytes: []byte{0, 0, 4, 1, 0, 0, 0, 0}}), packet.DropRoutingHeader},
		{"IPv6 routing header of an unknown type with a segment left", packettest.Extend(udp6, packettest.Extension{Protocol: 43, Bytes: []byte{0, 0, 253, 1, 0, 0, 0, 0}}), packet.DropRoutingHeader},
		{"nine IPv6 extension headers", packettest.Extend(udp6, slices.Repeat([]packettest.Extension{packettest.Options(60, 1)}, 9)...), packet.DropExtensionLimit},
		{"more than 1024 bytes of IPv6 extension headers", packettest.Extend(udp6, packettest.Options(60, 129)), packet.DropExtensionLimit},
		{"IPv6 extension header beyond the packet", packettest.Extend(udp6[:40], packettest.Extension{Protocol: 60, Bytes: []byte{0, 1, 0, 0, 0, 0, 0, 0}}), packet.DropTruncated},
		{"half an IPv6 extension header", packettest.Extend(udp6[:40], packettest.Extension{Protocol: 60, Bytes: make([]byte, 7)}), packet.DropTruncated},
		{"IPv6 next header without a header", packettest.Extend(damage(udp6[:40], set(6, 60))), packet.DropTruncated},
		{"AH beyond the packet", packettest.Extend(udp6, packettest.Extension{Protocol: 51, Bytes: []byte{0, 200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}), packet.DropTruncated},
		{"a fragment of a fragment", packettest.Extend(udp6, packettest.FragmentHeader(0, false, 1), packettest.FragmentHeader(0, false, 2)), packet.DropExtension},
		{"an empty fragment", packettest.FragmentAt(tcp[:20], nil, 1, 32, false), packet.DropFragmentLength},
		{"an empty IPv6 fragment", packettest.FragmentAt(tcp6[:40], nil, 1, 32, false), packet.DropFragmentLength},
		{"a fragment of 15 bytes that is not the last", packettest.FragmentAt(tcp[:20], make([]byte, 15), 1, 32, true), packet.DropFragmentLength},
		{"a first IPv6 fragment of 27 bytes", packettest.Fragments(tcp6, 1, 27)[0], packet.DropFragmentLength},
		{"a fragment that ends behind the largest IPv4 packet", packettest.FragmentAt(tcp[:20], make([]byte, 12), 1, 65_504, false), packet.DropFragmentTooLong},
		{"a fragment that ends behind the largest IPv6 payload", packettest.FragmentAt(tcp6[:40], make([]byte, 8), 1, 65_528, false), packet.DropFragmentTooLong},
		{"one whose headers before the fragment header make it so", packettest.Extend(packettest.FragmentAt(tcp6[:40], make([]byte, 16), 1, 65_512, false), packettest.Options(60, 1)), packet.DropFragmentTooLong},
		{"a first fragment with half a TCP header", packettest.Fragments(tcp, 1, 16)[0], packet.DropFragmentTiny},
		{"a first fragment without the TCP options", packettest.Fragments(damage(tcp, set(32, 0x70)), 1, 24)[0], packet.DropFragmentTiny},
		{"a first fragment with half an IPv6 TCP header", packettest.Fragments(tcp6, 1, 16)[0], packet.DropFragmentTiny},
		// RFC 7112
		{"a first IPv6 fragment whose extension headers are not all there", packettest.Fragments(packettest.Extend(tcp6, packettest.Options(60, 4)), 1, 24)[0], packet.DropFragmentTiny},
		{"a first IPv6 fragment that ends with its extension headers", packettest.Fragments(packettest.Extend(tcp6, packettest.Options(60, 3)), 1, 24)[0], packet.DropFragmentTiny},
		{"a later fragment at offset 8 of TCP", packettest.FragmentAt(tcp[:20], make([]byte, 32), 1, 8, false), packet.DropFragmentHeader},
		{"a later fragment at offset 16 of TCP over IPv6", packettest.FragmentAt(tcp6[:40], make([]byte, 32), 1, 16, false), packet.DropFragmentHeader},
		{"TCP data offset of 16 bytes", damage(tcp, set(32, 0x40)), packet.DropTCPHeader},
		{"TCP data offset beyond the packet", damage(tcp, set(32, 0xf0)), packet.DropTCPHeader},
		{"UDP length 7", damage(udp, set(24, 0, 7)), packet.DropUDPLength},
		{"UDP length 0", damage(udp, set(24, 0, 0)), packet.DropUDPLength},
		{"UDP length beyond the packet", damage(udp, set(24, 0xff, 0)), packet.DropUDPLength},
	}
}()

func TestDecodeDrops(t *testing.T) {
	for _, tt := range dropTests {
		t.Run(tt.name, func(t *testing.T) {
			var d packet.Decoder
			var p packet.Packet
			if got := d.Decode(tt.bytes, 0, &p); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	var d packet.Decoder
	var p packet.Packet
	cases := [][]byte{
		packettest.TCP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", Flags: "A", Payload: 100,
			// gopacket allocates an error for an option that is longer than the header.
			TCPOptions: []layers.TCPOption{{OptionType: 8, OptionLength: 200, OptionData: make([]byte, 10)}}}),
		packettest.UDP(packettest.Spec{Src: "fd00::4", Dst: "fd00::5", Payload: 100}),
		packettest.ICMP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", ICMPType: 8}),
	}
	for _, tt := range dropTests {
		cases = append(cases, tt.bytes)
	}
	for _, b := range cases {
		if n := testing.AllocsPerRun(100, func() { d.Decode(b, 0, &p) }); n != 0 {
			t.Errorf("%d bytes %x: %v allocations", len(b), b, n)
		}
	}
}

func TestAddr(t *testing.T) {
	for _, s := range []string{"0.0.0.0", "10.0.1.4", "255.255.255.255", "::", "::1", "fd00::4", "2001:db8::ffff:10.0.0.1"} {
		if got := addr(s).String(); got != netip.MustParseAddr(s).String() {
			t.Errorf("%s became %s", s, got)
		}
	}
	kinds := []struct {
		addr string
		is   func(packet.Addr) bool
		want bool
	}{
		{"224.0.0.251", packet.Addr.IsLinkLocalMulticast, true},
		{"224.0.1.1", packet.Addr.IsLinkLocalMulticast, false},
		{"224.0.1.1", packet.Addr.IsMulticast, true},
		{"ff02::2", packet.Addr.IsLinkLocalMulticast, true},
		{"ff05::2", packet.Addr.IsLinkLocalMulticast, false},
		{"ff05::2", packet.Addr.IsMulticast, true},
		{"fe80::1", packet.Addr.IsLinkLocal, true},
		{"fec0::1", packet.Addr.IsLinkLocal, false},
		{"169.254.169.254", packet.Addr.IsLinkLocal, true},
		{"255.255.255.255", packet.Addr.IsBroadcast, true},
		{"::", packet.Addr.IsUnspecified, true},
		{"0.0.0.0", packet.Addr.IsUnspecified, true},
		{"::1", packet.Addr.IsUnspecified, false},
		{"0.1.2.3", packet.Addr.IsReserved, true},
		{"127.0.0.53", packet.Addr.IsReserved, true},
		{"126.255.255.255", packet.Addr.IsReserved, false},
		{"128.0.0.1", packet.Addr.IsReserved, false},
		{"223.255.255.255", packet.Addr.IsReserved, false},
		{"224.0.0.1", packet.Addr.IsReserved, true},
		{"240.0.0.1", packet.Addr.IsReserved, true},
		{"255.255.255.255", packet.Addr.IsReserved, true},
		{"::", packet.Addr.IsReserved, true},
		{"::1", packet.Addr.IsReserved, true},
		{"::10.0.1.4", packet.Addr.IsReserved, true},
		{"ff05::2", packet.Addr.IsReserved, true},
		{"fd00::1", packet.Addr.IsReserved, false},
		{"2001:db8::1", packet.Addr.IsReserved, false},
	}
	for _, k := range kinds {
		if k.is(addr(k.addr)) != k.want {
			t.Errorf("%s: want %v", k.addr, k.want)
		}
	}
}

func TestClassificationOfICMPHasTheTypeAsDestinationPort(t *testing.T) {
	var d packet.Decoder
	var p packet.Packet
	d.Decode(packettest.ICMP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", ICMPType: 8, ICMPID: 77}), 0, &p)
	var scratch packet.Tuple
	if got, want := *p.Classification(&p.Tuple, &scratch), tuple(1, "10.0.1.4", "10.0.2.4", 0, 8); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func BenchmarkDecode(b *testing.B) {
	timestamps := []layers.TCPOption{{OptionType: 1}, {OptionType: 1},
		{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: make([]byte, 8)}}
	for _, bb := range []struct {
		name  string
		bytes []byte
	}{
		{"IPv4-TCP", packettest.TCP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", Flags: "A", Payload: 64})},
		{"IPv4-TCP-timestamps", packettest.TCP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", Flags: "A", Payload: 64, TCPOptions: timestamps})},
		{"IPv4-UDP", packettest.UDP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", Payload: 64})},
		{"IPv6-UDP", packettest.UDP(packettest.Spec{Src: "fd00::4", Dst: "fd00::5", Payload: 64})},
		{"IPv4-ICMP", packettest.ICMP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", ICMPType: 8})},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var d packet.Decoder
			var p packet.Packet
			b.ReportAllocs()
			for b.Loop() {
				if d.Decode(bb.bytes, 0, &p) != packet.NotDropped {
					b.Fatal("dropped")
				}
			}
		})
	}
}

func TestTCPOptionsOfWindows(t *testing.T) {
	nop := layers.TCPOption{OptionType: layers.TCPOptionKindNop, OptionLength: 1}
	option := func(kind layers.TCPOptionKind, data ...byte) layers.TCPOption {
		return layers.TCPOption{OptionType: kind, OptionLength: uint8(2 + len(data)), OptionData: data}
	}
	scale := func(n byte) layers.TCPOption { return option(layers.TCPOptionKindWindowScale, n) }
	sack := option(layers.TCPOptionKindSACK, 0, 0, 0, 110, 0, 0, 0, 120, 0, 0, 0, 150, 0, 0, 0, 190, 0, 0, 0, 1, 0, 0, 0, 50)
	timestamps := option(layers.TCPOptionKindTimestamps, make([]byte, 8)...)
	for _, tt := range []struct {
		name    string
		flags   string
		options []layers.TCPOption
		scale   uint8
		sacked  uint32
	}{
		{"a scale of 7", "S", []layers.TCPOption{nop, scale(7)}, 8, 0},
		{"a scale of 0 is one", "SA", []layers.TCPOption{scale(0), nop}, 1, 0},
		{"a scale beyond 14", "S", []layers.TCPOption{nop, scale(200)}, 15, 0},
		{"a scale outside a SYN means nothing", "A", []layers.TCPOption{nop, scale(7)}, 0, 0},
		{"the highest block counts", "A", []layers.TCPOption{nop, nop, sack}, 0, 90},
		{"timestamps alone", "A", []layers.TCPOption{nop, nop, timestamps}, 0, 0},
		{"blocks behind timestamps", "A", []layers.TCPOption{nop, nop, timestamps, nop, nop, option(layers.TCPOptionKindSACK, 0, 0, 0, 110, 0, 0, 0, 120)}, 0, 20},
		{"nothing follows the end of the list", "S", []layers.TCPOption{{OptionType: layers.TCPOptionKindEndList, OptionLength: 1}, scale(7)}, 0, 0},
	} {
		b := packettest.TCP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.4", Flags: tt.flags, Ack: 100, TCPOptions: tt.options})
		var d packet.Decoder
		var p packet.Packet
		if drop := d.Decode(b, 0, &p); drop != packet.NotDropped || p.WindowScale != tt.scale || p.SACKed != tt.sacked {
			t.Errorf("%s: %s, scale %d, SACK %d; want %d, %d", tt.name, drop, p.WindowScale, p.SACKed, tt.scale, tt.sacked)
		}
		for at := 40; at < len(b); at++ { // a length that leads out of the header, or nowhere
			for _, length := range []byte{0, 1, 255} {
				bad := append([]byte(nil), b...)
				bad[at] = length
				d.Decode(bad, 0, &p)
			}
		}
	}
}
