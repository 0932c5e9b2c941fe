package packet

import (
	"encoding/binary"

	"github.com/google/gopacket/layers"
)

const (
	// maxExtensions and maxExtensionBytes bound the chain of extension headers: more
	// than any host sends (RFC 8200 section 4.1 lists six), and little work for us.
	maxExtensions     = 8
	maxExtensionBytes = 1024

	fragmentHeaderLen = 8
)

// walkIPv6 walks the extension headers of the IPv6 packet b, which ends where its
// payload does, and returns the upper protocol and the offset of its header.
//
// The chain is that of RFC 8200 plus AH. Any other header ends it as the upper
// protocol, ESP and no-next-header among them: what stands behind an unknown
// header is not looked at, so it can never pass for ports (nebula issue 1840).
func walkIPv6(b []byte) (protocol uint8, offset int, drop Drop) {
	protocol, offset = b[6], ipv6HeaderLen
	for n := 0; ; n++ {
		length := 0
		switch layers.IPProtocol(protocol) {
		case layers.IPProtocolIPv6HopByHop:
			if n > 0 { // RFC 8200 section 4.1: first or not at all
				return protocol, offset, DropExtension
			}
		case layers.IPProtocolIPv6Routing, layers.IPProtocolIPv6Destination, layers.IPProtocolAH:
		case layers.IPProtocolIPv6Fragment:
			length = fragmentHeaderLen
		default:
			return protocol, offset, NotDropped
		}
		h := b[min(offset, len(b)):]
		if len(h) < 8 { // the shortest of them
			return protocol, offset, DropTruncated
		}
		if drop := checkExtension(protocol, h); drop != NotDropped {
			return protocol, offset, drop
		}
		switch {
		case length > 0:
		case layers.IPProtocol(protocol) == layers.IPProtocolAH:
			length = (int(h[1]) + 2) * 4 // RFC 4302 section 2.2
		default:
			length = (int(h[1]) + 1) * 8
		}
		protocol, offset = h[0], offset+length
		if offset > len(b) {
			return protocol, offset, DropTruncated
		}
		if n+1 > maxExtensions || offset-ipv6HeaderLen > maxExtensionBytes {
			return protocol, offset, DropExtensionLimit
		}
	}
}

// checkExtension refuses what must not pass whatever follows: routing header type 0
// (RFC 5095) and a fragment. A fragment header on a whole packet, an "atomic
// fragment", is a header like any other (RFC 6946).
func checkExtension(protocol uint8, h []byte) Drop {
	switch layers.IPProtocol(protocol) {
	case layers.IPProtocolIPv6Routing:
		if h[2] == 0 {
			return DropRoutingHeader
		}
	case layers.IPProtocolIPv6Fragment:
		if binary.BigEndian.Uint16(h[2:])&0xfff9 != 0 { // offset, or more to come
			return DropFragment
		}
	}
	return NotDropped
}
