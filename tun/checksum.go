package tun

import "encoding/binary"

// completeChecksum does what FlagNeedsCsum leaves to do (virtio 1.2, section 5.1.6.2). It sums
// packet from h.CsumStart to the end and stores the complement; before, the field holds the
// pseudo-header's sum. It reports whether the offsets lie inside the packet.
func completeChecksum(packet []byte, h *Header) bool {
	start := int(h.CsumStart)
	field := start + int(h.CsumOffset)
	if field+2 > len(packet) {
		return false
	}
	sum := ^Sum(packet[start:])
	// 0 means "no checksum" in UDP (RFC 768). 0xffff is the same value in one's complement, and
	// right for every protocol.
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(packet[field:], sum)
	return true
}

// Sum is the one's-complement sum of b in 16 bits (RFC 1071). It is 0xffff for bytes that hold
// their own right checksum, such as an IPv4 header. It takes eight bytes a step.
func Sum(b []byte) uint16 {
	var sum uint64
	for len(b) >= 8 {
		v := binary.BigEndian.Uint64(b)
		sum += v>>32 + v&0xffff_ffff
		b = b[8:]
	}
	for len(b) >= 2 {
		sum += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// Fold brings a one's-complement sum of 16-bit words down to 16 bits.
func Fold(sum uint32) uint16 {
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum&0xffff)
}
