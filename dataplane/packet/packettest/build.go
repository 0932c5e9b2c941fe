// Package packettest builds packets for tests with gopacket's serialiser, so that
// no test holds a hex dump.
package packettest

import (
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Spec describes a packet; the zero value of a field is a usable default.
type Spec struct {
	Src, Dst         string // addresses of one family
	SrcPort, DstPort uint16
	// Flags is a set of letters of "FSRPAU" for TCP; "" is no flag.
	Flags   string
	Payload int // bytes of transport payload
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
	l := &layers.TCP{SrcPort: layers.TCPPort(s.SrcPort), DstPort: layers.TCPPort(s.DstPort), Window: 65535, Options: s.TCPOptions}
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
	return serialize(ip, l, gopacket.Payload(make([]byte, s.Payload)))
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
	if s.is4() {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: src, DstIP: dst, Options: s.IPOptions, FragOffset: s.FragmentOffset}
		if s.MoreFragments {
			ip.Flags = layers.IPv4MoreFragments
		}
		return ip
	}
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, SrcIP: src, DstIP: dst}
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

// Extension is one IPv6 extension header: Bytes are all of it, of which the first,
// the next header, is filled in by Extend.
type Extension struct {
	Protocol uint8
	Bytes    []byte
}

// Options is a hop-by-hop (0), routing (43) or destination options (60) header of n
// times eight bytes, filled with Pad1 options, or for routing a type 4 header.
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
