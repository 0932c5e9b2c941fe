package packet

import (
	"github.com/google/gopacket/layers"
)

const (
	// maxExtensions and maxExtensionBytes bound the chain of extension headers. Hosts send
	// fewer: RFC 8200 section 4.1 lists six.
	maxExtensions     = 8
	maxExtensionBytes = 1024

	fragmentHeaderLen = 8
)

// walkIPv6 walks the extension headers of the IPv6 packet b, which must end where its payload does.
// It returns the upper protocol and the offset of its header. For a fragment it sets f, and
// fragmentable is the offset behind the fragment header. A later fragment has no upper header:
// protocol and offset are what the fragment header leads to.
//
// The chain is RFC 8200's plus AH. Any other header, such as ESP or no-next-header, ends it as
// the upper protocol. What stands behind an unknown header is not read, so it never passes for
// ports (nebula issue 1840).
func walkIPv6(b []byte, f *Fragment) (protocol uint8, offset, fragmentable int, drop Drop) {
	protocol, offset = b[IPv6NextAt], IPv6HeaderLen
	for n := 0; ; n++ {
		switch layers.IPProtocol(protocol) {
		case layers.IPProtocolIPv6HopByHop:
			if n > 0 { // RFC 8200 section 4.1: first or not at all
				return protocol, offset, fragmentable, DropExtension
			}
		case layers.IPProtocolIPv6Fragment:
			if fragmentable > 0 { // a fragment of a fragment
				return protocol, offset, fragmentable, DropExtension
			}
		case layers.IPProtocolIPv6Routing, layers.IPProtocolIPv6Destination, layers.IPProtocolAH:
		default:
			return protocol, offset, fragmentable, NotDropped
		}
		h := b[min(offset, len(b)):]
		if len(h) < 8 { // the shortest of them
			return protocol, offset, fragmentable, f.truncated()
		}
		length := (int(h[1]) + 1) * 8
		switch layers.IPProtocol(protocol) {
		case layers.IPProtocolIPv6Routing:
			if leadsOn(h[2], h[3]) {
				return protocol, offset, fragmentable, DropRoutingHeader
			}
		case layers.IPProtocolIPv6Fragment:
			length = fragmentHeaderLen
			fragmentable = offset + length
			if f.setIPv6(h); f.IsLater() {
				return h[0], fragmentable, fragmentable, NotDropped
			}
		case layers.IPProtocolAH:
			length = (int(h[1]) + 2) * 4 // RFC 4302 section 2.2
		}
		protocol, offset = h[0], offset+length
		if offset > len(b) {
			return protocol, offset, fragmentable, f.truncated()
		}
		if n+1 > maxExtensions || offset-IPv6HeaderLen > maxExtensionBytes {
			return protocol, offset, fragmentable, DropExtensionLimit
		}
	}
}

// leadsOn reports a routing header that leads a packet past the destination that is judged: type 0, which RFC 5095 forbids, and
// others with segments left. One of type 2 leads to another address of the same host (RFC 6275 section 6.4).
func leadsOn(kind, segmentsLeft byte) bool {
	const sourceRoute, homeAddress = 0, 2
	return kind == sourceRoute || kind != homeAddress && segmentsLeft > 0
}

// truncated is the reason to drop a packet when a part of its headers is missing.
func (f *Fragment) truncated() Drop {
	if f.IsFragment() {
		return DropFragmentTiny
	}
	return DropTruncated
}
