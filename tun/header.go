package tun

import "encoding/binary"

// HeaderLen is the length in bytes of the virtio-net header before every packet.
const HeaderLen = 10

// MaxPacket is the longest IP packet that a queue hands over. No superpacket is longer: the
// kernel's limit (gso_max_size) is 65,536 less the headers.
const MaxPacket = 65_535

// BufferLen is the length of a buffer that holds whatever Queue.Read delivers. The kernel
// cuts off what a shorter buffer can't hold.
const BufferLen = HeaderLen + MaxPacket

// MaxParts bounds the parts that Queue.WriteParts takes.
const MaxParts = 64

// Bits of Header.Flags.
const (
	// FlagNeedsCsum: the transport checksum holds only the pseudo-header's sum. It must be
	// completed before the packet goes on a wire.
	FlagNeedsCsum = 1
	// FlagDataValid: the checksum has been found right already.
	FlagDataValid = 2
)

// gsoTypeAt is the offset of Header.GSOType.
const gsoTypeAt = 1

// Values of Header.GSOType. GSOECN is a bit beside one of the TCP values.
const (
	GSONone  = 0
	GSOTCPv4 = 1
	GSOTCPv6 = 4
	GSOUDPL4 = 5
	GSOECN   = 0x80
)

// Header is struct virtio_net_hdr, in front of each packet. The zero Header means a complete
// packet.
type Header struct {
	// Flags is 0, FlagNeedsCsum or FlagDataValid; other bits are the kernel's hints.
	Flags uint8
	// GSOType is GSONone or the kind of superpacket.
	GSOType uint8
	// HdrLen is the kernel's idea of the length of all headers. On forwarded packets it can be
	// wrong: parse the packet instead.
	HdrLen uint16
	// GSOSize is the payload of one segment; valid unless GSOType is GSONone.
	GSOSize uint16
	// CsumStart and CsumOffset say where summing starts, counted from the IP header,
	// and where the sum goes, counted from there; valid with FlagNeedsCsum.
	CsumStart, CsumOffset uint16
}

// Decode reads h from b, in the machine's byte order: TUNSETVNETLE, which would change it, is
// not used.
func (h *Header) Decode(b *[HeaderLen]byte) {
	h.Flags = b[0]
	h.GSOType = b[gsoTypeAt]
	h.HdrLen = binary.NativeEndian.Uint16(b[2:])
	h.GSOSize = binary.NativeEndian.Uint16(b[4:])
	h.CsumStart = binary.NativeEndian.Uint16(b[6:])
	h.CsumOffset = binary.NativeEndian.Uint16(b[8:])
}

// Encode writes h to b, the reverse of Decode.
func (h *Header) Encode(b *[HeaderLen]byte) {
	b[0] = h.Flags
	b[gsoTypeAt] = h.GSOType
	binary.NativeEndian.PutUint16(b[2:], h.HdrLen)
	binary.NativeEndian.PutUint16(b[4:], h.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], h.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], h.CsumOffset)
}
