package translate

import (
	"encoding/binary"

	"github.com/nsgd/nsgd/tun"
)

// delta is what a one's-complement sum grows by. Of the two forms of zero, with gives 0xffff.
type delta uint32

// with adds to d the change from a sum old to a sum new, each of at most 2^16 words.
func (d delta) with(old, new uint32) delta {
	return delta(tun.Fold(uint32(d) + uint32(tun.Fold(new)) + uint32(^tun.Fold(old))))
}

// whole updates a checksum, which is the complement of a sum.
func (d delta) whole(field []byte) {
	sum := uint32(^binary.BigEndian.Uint16(field))
	binary.BigEndian.PutUint16(field, ^tun.Fold(sum+uint32(d)))
}

// partial updates the sum of a pseudo-header.
func (d delta) partial(field []byte) {
	binary.BigEndian.PutUint16(field, tun.Fold(uint32(binary.BigEndian.Uint16(field))+uint32(d)))
}

// wholeUDP is whole for UDP, where 0 means no checksum (RFC 768).
func (d delta) wholeUDP(field []byte) {
	if field[0]|field[1] == 0 {
		return
	}
	if d.whole(field); field[0]|field[1] == 0 {
		field[0], field[1] = 0xff, 0xff
	}
}
