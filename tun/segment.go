package tun

import "encoding/binary"

// Offsets in the headers that segmentation rewrites.
const (
	ipv4LenAt, ipv4IDAt, ipv4SumAt = 2, 4, 10
	ipv6LenAt, ipv6HeaderLen       = 4, 40
	tcpSeqAt, tcpOffsetAt          = 4, 12
	tcpFlagsAt, tcpSumAt           = 13, 16
	udpLenAt, udpSumAt             = 4, 6
	tcpHeaderLen, udpHeaderLen     = 20, 8
	// Flags of a superpacket that only its last segment has (FIN, PSH) and only its first one
	// (CWR, RFC 3168).
	tcpLastFlags, tcpFirstFlags = 0x01 | 0x08, 0x80
)

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
	if h.Flags&FlagNeedsCsum == 0 || s.size == 0 || len(s.packet) > MaxPacket || len(s.packet) < tcpHeaderLen {
		return false
	}
	s.ipv4 = s.packet[0]>>4 == 4
	least, length := ipv6HeaderLen, ipv6HeaderLen+int(binary.BigEndian.Uint16(s.packet[ipv6LenAt:]))
	if s.ipv4 {
		least, length = int(s.packet[0]&0xf)*4, int(binary.BigEndian.Uint16(s.packet[ipv4LenAt:]))
	}
	if length > len(s.packet) {
		return false
	}
	s.packet = s.packet[:length] // a kernel trims too
	switch h.GSOType &^ GSOECN {
	case GSOTCPv4, GSOTCPv6:
		s.tcp = true
		if least < 20 || s.transport < least || s.transport+tcpHeaderLen > len(s.packet) || h.CsumOffset != tcpSumAt {
			return false
		}
		length := int(s.packet[s.transport+tcpOffsetAt]>>4) * 4
		if length < tcpHeaderLen {
			return false
		}
		s.payload = s.transport + length
	case GSOUDPL4:
		if least < 20 || s.transport < least || s.transport+udpHeaderLen > len(s.packet) || h.CsumOffset != udpSumAt {
			return false
		}
		s.payload = s.transport + udpHeaderLen
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
	sumAt := udpSumAt
	if s.tcp {
		sumAt = tcpSumAt
		binary.BigEndian.PutUint32(t[tcpSeqAt:], binary.BigEndian.Uint32(t[tcpSeqAt:])+uint32(s.at-s.payload))
		if s.at+size < len(s.packet) {
			t[tcpFlagsAt] &^= tcpLastFlags
		}
		if number > 0 {
			t[tcpFlagsAt] &^= tcpFirstFlags
		}
	} else {
		binary.BigEndian.PutUint16(t[udpLenAt:], uint16(len(t)))
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
		binary.BigEndian.PutUint16(b[ipv6LenAt:], uint16(len(b)-ipv6HeaderLen))
		return
	}
	header := b[:int(b[0]&0xf)*4]
	binary.BigEndian.PutUint16(header[ipv4LenAt:], uint16(len(b)))
	binary.BigEndian.PutUint16(header[ipv4IDAt:], binary.BigEndian.Uint16(header[ipv4IDAt:])+uint16(number))
	binary.BigEndian.PutUint16(header[ipv4SumAt:], 0)
	binary.BigEndian.PutUint16(header[ipv4SumAt:], ^Sum(header))
}
