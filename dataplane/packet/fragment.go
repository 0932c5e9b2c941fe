package packet

import "encoding/binary"

// maxDatagram is the length of the largest IP packet, and of the largest IPv6 payload.
const maxDatagram = 65_535

// Fragment says which part of its datagram a packet is. Offsets count bytes of the fragmentable
// part: what stands behind the IPv4 header or the IPv6 fragment header. The zero value is a
// whole packet, also one with an IPv6 fragment header (an "atomic fragment", RFC 6946).
type Fragment struct {
	// ID is the identification: 16 bits in IPv4, 32 in IPv6.
	ID uint32
	// Start and End are where the fragment's bytes begin and end.
	Start, End uint16
	// HeaderEnd is where the transport header ends; valid for a first fragment.
	HeaderEnd uint16
	// More says that other fragments follow.
	More bool
	// Proto is the protocol in the datagram's identity: IPv4's (RFC 791). It is 0 for IPv6,
	// where fragments of one datagram may name different next headers (RFC 8200 section 4.5).
	Proto uint8
}

// IsFragment reports whether the packet is a part of a datagram.
func (f *Fragment) IsFragment() bool { return f.More || f.Start > 0 }

// IsLater reports whether the packet is a fragment other than the first. It has no transport
// header.
func (f *Fragment) IsLater() bool { return f.Start > 0 }

// setIPv4 reads bytes 4 to 7 of an IPv4 header.
func (f *Fragment) setIPv4(header []byte) {
	field := binary.BigEndian.Uint16(header[IPv4FragmentAt:])
	*f = Fragment{Start: field & 0x1fff << 3, More: field&0x2000 != 0}
	if f.IsFragment() {
		f.ID, f.Proto = uint32(binary.BigEndian.Uint16(header[IPv4IDAt:])), header[ipv4ProtoAt]
	}
}

// setIPv6 reads a fragment header.
func (f *Fragment) setIPv6(header []byte) {
	field := binary.BigEndian.Uint16(header[2:])
	*f = Fragment{Start: field &^ 7, More: field&1 != 0}
	if f.IsFragment() {
		f.ID = binary.BigEndian.Uint32(header[4:])
	}
}

// place sets where the fragment ends. length is the fragment's; before is that of the headers
// which the whole datagram's length field counts too.
func (f *Fragment) place(before, length int) Drop {
	// An empty fragment fills no gap, and all but the last count in eights.
	if length == 0 || f.More && length%8 != 0 {
		return DropFragmentLength
	}
	if before+int(f.Start)+length > maxDatagram { // the ping of death
		return DropFragmentTooLong
	}
	f.End = f.Start + uint16(length)
	return NotDropped
}

// checkLater refuses a later fragment that begins within the shortest transport header of its
// protocol: it would replace ports or flags that were judged (RFC 1858, RFC 3128). Only the
// first fragment knows the header's real length.
func (p *Packet) checkLater() Drop {
	shortest := 0
	switch p.Proto {
	case ProtoTCP:
		shortest = TCPHeaderLen
	case ProtoUDP:
		shortest = UDPHeaderLen
	case ProtoICMP, ProtoICMPv6:
		shortest = icmpHeaderLen
	}
	if int(p.Fragment.Start) < shortest {
		return DropFragmentHeader
	}
	return NotDropped
}
