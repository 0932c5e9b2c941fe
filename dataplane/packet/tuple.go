package packet

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
)

// Addr is an IPv4 or IPv6 address in 16 bytes without a pointer: flow records hold nothing for the
// garbage collector to mark. IPv4 has its IPv4-mapped form (::ffff:a.b.c.d). Decode refuses
// IPv6 packets with mapped addresses, so the two families never meet. Comparable with ==.
type Addr struct {
	Hi, Lo uint64 // big-endian halves: Hi holds bytes 0..7
}

const mappedPrefix = 0x0000_ffff_0000_0000 // upper half of Lo for IPv4

// AddrFrom4 makes an Addr of four bytes in network order.
func AddrFrom4(b [4]byte) Addr {
	return Addr{Lo: mappedPrefix | uint64(binary.BigEndian.Uint32(b[:]))}
}

// AddrFrom16 makes an Addr of sixteen bytes in network order.
func AddrFrom16(b [16]byte) Addr {
	return Addr{Hi: binary.BigEndian.Uint64(b[:8]), Lo: binary.BigEndian.Uint64(b[8:])}
}

// AddrFrom converts a netip.Addr without its zone. The zero netip.Addr gives the zero Addr.
func AddrFrom(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}
	return AddrFrom16(a.As16())
}

// Is4 reports whether a is an IPv4 address.
func (a Addr) Is4() bool { return a.Hi == 0 && a.Lo>>32 == mappedPrefix>>32 }

// V4 returns the IPv4 address as a number; valid only when Is4.
func (a Addr) V4() uint32 { return uint32(a.Lo) }

// Netip converts to a netip.Addr, IPv4 unmapped.
func (a Addr) Netip() netip.Addr {
	if a.Is4() {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], a.V4())
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.Hi)
	binary.BigEndian.PutUint64(b[8:], a.Lo)
	return netip.AddrFrom16(b)
}

// String is the usual text form, IPv4 unmapped.
func (a Addr) String() string { return a.Netip().String() }

// Less orders addresses as unsigned 128-bit numbers.
func (a Addr) Less(b Addr) bool { return a.Hi < b.Hi || a.Hi == b.Hi && a.Lo < b.Lo }

// Compare is negative, 0 or positive as a is less than b, equal or greater.
func (a Addr) Compare(b Addr) int { return cmp.Or(cmp.Compare(a.Hi, b.Hi), cmp.Compare(a.Lo, b.Lo)) }

// Next is the number after a; ok is false when a is the highest.
func (a Addr) Next() (next Addr, ok bool) {
	if a.Lo++; a.Lo == 0 {
		a.Hi++
		return a, a.Hi != 0
	}
	return a, true
}

// IP protocol numbers that the filter knows by name.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoGRE    = 47
	ProtoESP    = 50
	ProtoAH     = 51
	ProtoICMPv6 = 58
)

// Tuple identifies one direction of a flow.
//
// Ports are TCP's and UDP's, in host order. For an ICMP request that can begin a flow (echo,
// timestamp) SrcPort holds the identifier and DstPort is 0; its reply has the reverse. With
// identifier 0 a request looks like a reply to the other side; package conntrack tells them
// apart by their types. All other protocols have both ports 0.
type Tuple struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            uint8 // IANA protocol number
}

// Reverse is the tuple of the other direction.
func (t Tuple) Reverse() Tuple {
	return Tuple{Src: t.Dst, Dst: t.Src, SrcPort: t.DstPort, DstPort: t.SrcPort, Proto: t.Proto}
}

// String shows the tuple for people: "TCP 10.0.0.4:49152 -> 10.0.1.4:80".
func (t Tuple) String() string {
	end := func(a Addr, port uint16) string {
		if t.Proto == ProtoTCP || t.Proto == ProtoUDP {
			return netip.AddrPortFrom(a.Netip(), port).String()
		}
		return a.String()
	}
	return fmt.Sprintf("%s %s -> %s", ProtocolName(t.Proto), end(t.Src, t.SrcPort), end(t.Dst, t.DstPort))
}

// ProtocolName is the short name of an IP protocol, or its number.
func ProtocolName(proto uint8) string {
	switch proto {
	case ProtoICMP:
		return "ICMP"
	case ProtoTCP:
		return "TCP"
	case ProtoUDP:
		return "UDP"
	case ProtoGRE:
		return "GRE"
	case ProtoESP:
		return "ESP"
	case ProtoAH:
		return "AH"
	case ProtoICMPv6:
		return "ICMPv6"
	}
	return strconv.Itoa(int(proto))
}

// IsMulticast reports an IPv4 224.0.0.0/4 or IPv6 ff00::/8 address.
func (a Addr) IsMulticast() bool {
	if a.Is4() {
		return a.V4()>>28 == 0xe
	}
	return a.Hi>>56 == 0xff
}

// IsLinkLocalMulticast reports a multicast address that routers never forward:
// IPv4 224.0.0.0/24, IPv6 ff01::/16 and ff02::/16.
func (a Addr) IsLinkLocalMulticast() bool {
	if a.Is4() {
		return a.V4()>>8 == 0xe0_0000
	}
	scope := a.Hi >> 48 & 0xff0f
	return scope == 0xff01 || scope == 0xff02
}

// IsBroadcast reports the IPv4 limited broadcast address, 255.255.255.255.
func (a Addr) IsBroadcast() bool { return a.Is4() && a.V4() == 0xffff_ffff }

// IsLinkLocal reports an IPv4 169.254.0.0/16 or IPv6 fe80::/10 address.
func (a Addr) IsLinkLocal() bool {
	if a.Is4() {
		return a.V4()>>16 == 0xa9fe
	}
	return a.Hi>>54 == 0xfe80>>6
}

// IsUnspecified reports 0.0.0.0 or ::.
func (a Addr) IsUnspecified() bool {
	return a == Addr{} || a.Is4() && a.V4() == 0
}

// IsReserved reports an address that no host has: IPv4 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 and
// 240.0.0.0/4; IPv6 ::/96, which holds ::, ::1 and the IPv4-compatible addresses, and ff00::/8.
func (a Addr) IsReserved() bool {
	if a.Is4() {
		first := a.V4() >> 24
		return first == 0 || first == 127 || first >= 224
	}
	return a.Hi>>56 == 0xff || a.Hi == 0 && a.Lo>>32 == 0
}
