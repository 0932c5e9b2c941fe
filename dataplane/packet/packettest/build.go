// Package packettest builds packets for tests with gopacket's serialiser: no test holds a hex
// dump. It also makes superpackets and cuts them, slowly and obviously.
package packettest

import (
	"cmp"
	"net"
	"net/netip"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Spec describes a packet; the zero value of a field is a usable default.
type Spec struct {
	Src, Dst         string // addresses of one family
	SrcPort, DstPort uint16
	// Flags is a set of letters of "FSRPAU" for TCP; "" is no flag.
	Flags string
	// Seq and Ack are TCP's numbers. 0 is what both sides begin with, and what they go on with when they send
	// nothing but flags: 0 in a SYN, else 1.
	Seq, Ack uint32
	// Window is TCP's; 0: 65535. NoWindow makes it 0.
	Window   uint16
	NoWindow bool
	Payload  int // bytes of transport payload
	// ID is the IPv4 identification or the IPv6 flow label.
	ID uint16
	// TTL is the IPv4 time to live or the IPv6 hop limit; 0: 64.
	TTL uint8
	// TCPOptions are appended to the TCP header.
	TCPOptions []layers.TCPOption
	// IPOptions are appended to the IPv4 header.
	IPOptions []layers.IPv4Option
	ICMPType  uint8
	ICMPCode  uint8
	ICMPID    uint16
	// MoreFragments and FragmentOffset (8-byte units) make an IPv4 fragment.
	MoreFragments  bool
	FragmentOffset uint16
}

// TCP builds a TCP segment.
func TCP(s Spec) []byte {
	l := &layers.TCP{SrcPort: layers.TCPPort(s.SrcPort), DstPort: layers.TCPPort(s.DstPort), Seq: s.Seq, Ack: s.Ack,
		Window: cmp.Or(s.Window, 65535), Options: s.TCPOptions}
	if s.NoWindow {
		l.Window = 0
	}
	if !strings.Contains(s.Flags, "S") {
		l.Seq = cmp.Or(s.Seq, 1)
	}
	if strings.Contains(s.Flags, "A") {
		l.Ack = cmp.Or(s.Ack, 1)
	}
	for _, f := range s.Flags {
		switch f {
		case 'F':
			l.FIN = true
		case 'S':
			l.SYN = true
		case 'R':
			l.RST = true
		case 'P':
			l.PSH = true
		case 'A':
			l.ACK = true
		case 'U':
			l.URG = true
		}
	}
	ip := s.network(layers.IPProtocolTCP)
	must(l.SetNetworkLayerForChecksum(ip.(gopacket.NetworkLayer)))
	return serialize(ip, l, gopacket.Payload(make([]byte, s.Payload)))
}

// UDP builds a UDP datagram.
func UDP(s Spec) []byte {
	l := &layers.UDP{SrcPort: layers.UDPPort(s.SrcPort), DstPort: layers.UDPPort(s.DstPort)}
	ip := s.network(layers.IPProtocolUDP)
	must(l.SetNetworkLayerForChecksum(ip.(gopacket.NetworkLayer)))
	b := serialize(ip, l, gopacket.Payload(make([]byte, s.Payload)))
	if l.Checksum == 0 { // it would mean "none" (RFC 768), which gopacket leaves to its callers
		field := b[len(b)-s.Payload-2:]
		field[0], field[1] = 0xff, 0xff
	}
	return b
}

// ICMP builds an ICMP or, for IPv6 addresses, an ICMPv6 message with an identifier.
func ICMP(s Spec) []byte {
	if s.is4() {
		l := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(s.ICMPType, s.ICMPCode), Id: s.ICMPID}
		return serialize(s.network(layers.IPProtocolICMPv4), l, gopacket.Payload(make([]byte, s.Payload)))
	}
	ip := s.network(layers.IPProtocolICMPv6)
	l := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(s.ICMPType, s.ICMPCode)}
	must(l.SetNetworkLayerForChecksum(ip.(gopacket.NetworkLayer)))
	id := []byte{byte(s.ICMPID >> 8), byte(s.ICMPID), 0, 1}
	return serialize(ip, l, gopacket.Payload(append(id, make([]byte, s.Payload)...)))
}

// ICMPError builds an ICMP or, for IPv6 addresses, an ICMPv6 error that quotes a packet.
func ICMPError(s Spec, quote []byte) []byte {
	if s.is4() {
		l := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(s.ICMPType, s.ICMPCode)}
		return serialize(s.network(layers.IPProtocolICMPv4), l, gopacket.Payload(quote))
	}
	ip := s.network(layers.IPProtocolICMPv6)
	l := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(s.ICMPType, s.ICMPCode)}
	must(l.SetNetworkLayerForChecksum(ip.(gopacket.NetworkLayer)))
	return serialize(ip, l, gopacket.Payload(append(make([]byte, 4), quote...)))
}

// Raw builds a packet of any other protocol.
func Raw(s Spec, protocol uint8) []byte {
	return serialize(s.network(layers.IPProtocol(protocol)), gopacket.Payload(make([]byte, s.Payload)))
}

func (s *Spec) is4() bool { return netip.MustParseAddr(s.Src).Is4() }

func (s *Spec) network(protocol layers.IPProtocol) gopacket.SerializableLayer {
	src, dst := net.ParseIP(s.Src), net.ParseIP(s.Dst)
	ttl := cmp.Or(s.TTL, 64)
	if s.is4() {
		ip := &layers.IPv4{Version: 4, Id: s.ID, TTL: ttl, Protocol: protocol, SrcIP: src, DstIP: dst, Options: s.IPOptions, FragOffset: s.FragmentOffset}
		if s.MoreFragments {
			ip.Flags = layers.IPv4MoreFragments
		}
		return ip
	}
	return &layers.IPv6{Version: 6, FlowLabel: uint32(s.ID), HopLimit: ttl, NextHeader: protocol, SrcIP: src, DstIP: dst}
}

func serialize(l ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	must(gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...))
	return b.Bytes()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Extension is one IPv6 extension header. Bytes are all of it; Extend sets the first one, the
// next header.
type Extension struct {
	Protocol uint8
	Bytes    []byte
}

// Options is a hop-by-hop (0), routing (43) or destination options (60) header of n times eight
// bytes. It is filled with Pad1 options; a routing header has type 4.
func Options(protocol uint8, n int) Extension {
	b := make([]byte, 8*n)
	b[1] = uint8(n - 1)
	if protocol == 43 {
		b[2] = 4
	}
	return Extension{protocol, b}
}

// FragmentHeader is an IPv6 fragment header; offset counts eight bytes.
func FragmentHeader(offset uint16, more bool, id uint32) Extension {
	b := make([]byte, 8)
	b[2], b[3] = byte(offset>>5), byte(offset<<3)
	if more {
		b[3] |= 1
	}
	b[4], b[5], b[6], b[7] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
	return Extension{44, b}
}

// Extend puts extension headers into an IPv6 packet, in their order.
func Extend(b []byte, headers ...Extension) []byte {
	out := append([]byte(nil), b[:40]...)
	last := 6 // where the protocol of the next header goes
	upper := b[6]
	for _, h := range headers {
		out[last] = h.Protocol
		last = len(out)
		out = append(out, h.Bytes...)
	}
	out[last] = upper
	out = append(out, b[40:]...)
	payload := len(out) - 40
	out[4], out[5] = byte(payload>>8), byte(payload)
	return out
}

// Fragments cuts a packet into fragments. Sizes count bytes behind the IP header and need not be
// valid; the last fragment takes the rest. IPv6 extension headers are in the fragmentable part.
func Fragments(b []byte, id uint32, sizes ...int) [][]byte {
	headerLen := 40
	if b[0]>>4 == 4 {
		headerLen = int(b[0]&0xf) * 4
	}
	var list [][]byte
	rest := b[headerLen:]
	for offset := 0; ; {
		n := len(rest)
		if len(list) < len(sizes) {
			n = min(n, sizes[len(list)])
		}
		more := len(list) < len(sizes)
		list = append(list, FragmentAt(b[:headerLen], rest[:n], id, offset, more))
		offset, rest = offset+n, rest[n:]
		if !more {
			return list
		}
	}
}

// FragmentAt builds one fragment: a copy of an IP header and a part of the datagram's bytes. The
// offset is rounded down to a multiple of eight.
func FragmentAt(header, part []byte, id uint32, offset int, more bool) []byte {
	if header[0]>>4 == 6 {
		return Extend(append(append([]byte(nil), header[:40]...), part...), FragmentHeader(uint16(offset/8), more, id))
	}
	b := append(append([]byte(nil), header...), part...)
	field := uint16(offset / 8)
	if more {
		field |= 0x2000
	}
	b[2], b[3] = byte(len(b)>>8), byte(len(b))
	b[4], b[5], b[6], b[7] = byte(id>>8), byte(id), byte(field>>8), byte(field)
	b[10], b[11] = 0, 0
	sum := checksum(b[:len(header)])
	b[10], b[11] = byte(sum>>8), byte(sum)
	return b
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Choices hands out small numbers read from bytes, and zeroes when they have run out. A test or a
// fuzzer draws packets and policies from it.
type Choices []byte

// Next returns a number from 0 to n-1; n is at most 256.
func (c *Choices) Next(n int) int {
	if len(*c) == 0 {
		return 0
	}
	b := (*c)[0]
	*c = (*c)[1:]
	return int(b) % n
}

// Pick returns one of a list.
func Pick[T any](c *Choices, of ...T) T { return of[c.Next(len(of))] }
