package tun

import (
	"encoding/binary"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Flags of a superpacket that only its last segment has, and only its first one (CWR, RFC 3168).
const lastFlags, firstFlags = packet.FIN | packet.PSH, 0x80

// segmenter cuts a superpacket into the packets that it stands for, as a kernel does before the
// wire.
type segmenter struct {
	packet    []byte // without the virtio-net header
	transport int    // offset of the transport header
	payload   int    // offset of the payload
	size      int    // payload of a segment
	tcp, ipv4 bool
	at        int // offset of the next segment's payload
}

// begin reports whether frame is a superpacket with a sound header.
func (s *segmenter) begin(frame []byte) bool {
	var h Header
	h.Decode((*[HeaderLen]byte)(frame))
	*s = segmenter{packet: frame[HeaderLen:], transport: int(h.CsumStart), size: int(h.GSOSize)}
	// No superpacket has a finished checksum (virtio 1.2, section 5.1.6.2).
	if h.Flags&FlagNeedsCsum == 0 || s.size == 0 || len(s.packet) > MaxPacket || len(s.packet) < packet.TCPHeaderLen {
		return false
	}
	s.ipv4 = s.packet[0]>>4 == 4
	least, length := packet.IPv6HeaderLen, packet.IPv6HeaderLen+int(binary.BigEndian.Uint16(s.packet[packet.IPv6LenAt:]))
	if s.ipv4 {
		least, length = int(s.packet[0]&0xf)*4, int(binary.BigEndian.Uint16(s.packet[packet.IPv4LenAt:]))
	}
	if length > len(s.packet) {
		return false
	}
	s.packet = s.packet[:length] // a kernel trims too
	switch h.GSOType &^ GSOECN {
	case GSOTCPv4, GSOTCPv6:
		s.tcp = true
		if least < packet.IPv4HeaderLen || s.transport < least || s.transport+packet.TCPHeaderLen > len(s.packet) || h.CsumOffset != packet.TCPSumAt {
			return false
		}
		length := int(s.packet[s.transport+packet.TCPOffsetAt]>>4) * 4
		if length < packet.TCPHeaderLen {
			return false
		}
		s.payload = s.transport + length
	case GSOUDPL4:
		if least < packet.IPv4HeaderLen || s.transport < least || s.transport+packet.UDPHeaderLen > len(s.packet) || h.CsumOffset != packet.UDPSumAt {
			return false
		}
		s.payload = s.transport + packet.UDPHeaderLen
	default:
		return false
	}
	s.at = s.payload
	return s.payload < len(s.packet)
}

// more reports whether a segment is left.
func (s *segmenter) more() bool { return s.at < len(s.packet) }

// next puts a zero Header and the next segment, a complete packet, into buf and returns their
// length. buf must have room for the superpacket.
func (s *segmenter) next(buf []byte) int {
	size := min(s.size, len(s.packet)-s.at)
	clear(buf[:HeaderLen])
	b := buf[HeaderLen:][:s.payload+size]
	copy(b, s.packet[:s.payload])
	copy(b[s.payload:], s.packet[s.at:s.at+size])
	number := (s.at - s.payload) / s.size
	s.setLength(b, number)
	t := b[s.transport:]
	sumAt := packet.UDPSumAt
	if s.tcp {
		sumAt = packet.TCPSumAt
		binary.BigEndian.PutUint32(t[packet.TCPSeqAt:], binary.BigEndian.Uint32(t[packet.TCPSeqAt:])+uint32(s.at-s.payload))
		if s.at+size < len(s.packet) {
			t[packet.TCPFlagsAt] &^= lastFlags
		}
		if number > 0 {
			t[packet.TCPFlagsAt] &^= firstFlags
		}
	} else {
		binary.BigEndian.PutUint16(t[packet.UDPLenAt:], uint16(len(t)))
	}
	// The field holds the sum of a pseudo-header with the superpacket's length.
	sum := uint32(binary.BigEndian.Uint16(t[sumAt:])) + uint32(^uint16(len(s.packet)-s.transport)) + uint32(len(t))
	binary.BigEndian.PutUint16(t[sumAt:], Fold(sum))
	completeChecksum(b, &Header{CsumStart: uint16(s.transport), CsumOffset: uint16(sumAt)})
	s.at += size
	return HeaderLen + len(b)
}

// setLength sets the length of the IP header of segment number, and what depends on it.
func (s *segmenter) setLength(b []byte, number int) {
	if !s.ipv4 {
		binary.BigEndian.PutUint16(b[packet.IPv6LenAt:], uint16(len(b)-packet.IPv6HeaderLen))
		return
	}
	header := b[:int(b[0]&0xf)*4]
	binary.BigEndian.PutUint16(header[packet.IPv4LenAt:], uint16(len(b)))
	binary.BigEndian.PutUint16(header[packet.IPv4IDAt:], binary.BigEndian.Uint16(header[packet.IPv4IDAt:])+uint16(number))
	binary.BigEndian.PutUint16(header[packet.IPv4SumAt:], 0)
	binary.BigEndian.PutUint16(header[packet.IPv4SumAt:], ^Sum(header))
}
