package translate_test

import (
	"encoding/binary"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/tun"
)

// slowSum is the one's-complement sum of bytes (RFC 1071), a word after the other.
func slowSum(parts ...[]byte) uint16 {
	sum := 0
	for _, b := range parts {
		for i := range b {
			word := int(b[i])
			if i%2 == 0 {
				word <<= 8
			}
			if sum += word; sum > 0xffff {
				sum -= 0xffff
			}
		}
	}
	return uint16(sum)
}

// sumAt is where a protocol's checksum is in its header, pseudo whether that counts a pseudo-header.
func sumAt(p *packet.Packet) (at int, pseudo bool) {
	switch p.Proto {
	case packet.ProtoTCP:
		return 16, true
	case packet.ProtoUDP:
		return 6, true
	case packet.ProtoICMPv6:
		return 2, true
	}
	return 2, false
}

// slowChecksums makes all checksums of a whole packet from scratch; of none says that UDP has none.
func slowChecksums(b []byte, p *packet.Packet, partial, none bool) {
	addresses := b[12:20]
	if b[0]>>4 == 6 {
		addresses = b[8:40]
	} else {
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:p.HeaderLen]))
	}
	at, pseudo := sumAt(p)
	transport := b[p.HeaderLen:p.Len]
	field := transport[at:]
	field[0], field[1] = 0, 0
	header := append([]byte(nil), addresses...)
	if header = append(header, 0, p.Proto, byte(len(transport)>>8), byte(len(transport))); !pseudo {
		header = nil
	}
	sum := ^slowSum(header, transport)
	switch {
	case partial:
		sum = slowSum(header)
	case none:
		sum = 0
	case p.Proto == packet.ProtoUDP && sum == 0:
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(field, sum)
}

// slowly is a whole packet with another tuple: a copy whose fields are set one by one, and whose
// checksums are made from scratch.
func slowly(frame []byte, p *packet.Packet, to *packet.Tuple, partial, none bool) []byte {
	frame = append([]byte(nil), frame...)
	b := frame[tun.HeaderLen:]
	src, dst := to.Src.Netip().AsSlice(), to.Dst.Netip().AsSlice()
	if b[0]>>4 == 4 {
		copy(b[12:], append(src, dst...))
	} else {
		copy(b[8:], append(src, dst...))
	}
	t := b[p.HeaderLen:]
	switch p.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		binary.BigEndian.PutUint16(t, to.SrcPort)
		binary.BigEndian.PutUint16(t[2:], to.DstPort)
	default: // one of the two is the identifier, the other is 0
		binary.BigEndian.PutUint16(t[4:], to.SrcPort|to.DstPort)
	}
	slowChecksums(b, p, partial, none)
	return frame
}
