package packet

import "encoding/binary"

// quotedTransport is how many bytes of the transport header every ICMP error quotes (RFC 792): the
// ports, or a query's identifier. RFC 1812 and RFC 4443 quote more.
const quotedTransport = 8

// Quote is the packet that an ICMP error quotes, as its sender sent it. For a fragment, ID, Start,
// More and Proto are set. A later fragment's tuple has no ports; its protocol is what the IP
// header names.
type Quote struct {
	Tuple
	Fragment Fragment
	// HeaderLen is the offset of what stands behind the IP headers: the transport header, but
	// for a later fragment.
	HeaderLen uint16
}

// DecodeQuote reads the packet that an ICMP error quotes. b is the error as a whole IP packet, and
// p what Decode made of it. ok is false when the quote is too short, malformed or of the other
// address family. It is also false when the error's destination has not sent the quoted
// packet: an error that goes anywhere but back is a forgery.
//
// Quotes are cut off, so their lengths promise nothing: only bytes that are there are read.
// Nothing is allocated.
func DecodeQuote(b []byte, p *Packet) (quote Quote, ok bool) {
	if !p.IsICMPError() || p.Len < uint32(p.PayloadOffset) {
		return Quote{}, false
	}
	q := b[p.PayloadOffset:p.Len]
	if p.Src.Is4() {
		q, ok = quote.ipv4(q)
	} else {
		q, ok = quote.ipv6(q)
	}
	if !ok || quote.Src != p.Dst {
		return Quote{}, false
	}
	if quote.Fragment.IsLater() {
		return quote, true
	}
	if len(q) < quotedTransport || !quotedPorts(q, &quote.Tuple) {
		return Quote{}, false
	}
	return quote, true
}

// ipv4 reads the IPv4 header without options and returns what is behind it.
func (q *Quote) ipv4(b []byte) (rest []byte, ok bool) {
	if len(b) < IPv4HeaderLen || b[0]>>4 != 4 {
		return nil, false
	}
	headerLen := int(b[0]&0x0f) * 4
	if headerLen < IPv4HeaderLen || headerLen > len(b) {
		return nil, false
	}
	a := b[IPv4AddressesAt:]
	q.Tuple = Tuple{Src: AddrFrom4([4]byte(a)), Dst: AddrFrom4([4]byte(a[4:])), Proto: b[ipv4ProtoAt]}
	q.Fragment.setIPv4(b)
	q.HeaderLen = uint16(headerLen)
	return b[headerLen:], true
}

// ipv6 walks the extension headers as far as they are quoted.
func (q *Quote) ipv6(b []byte) (rest []byte, ok bool) {
	if len(b) < IPv6HeaderLen || b[0]>>4 != 6 {
		return nil, false
	}
	protocol, offset, _, drop := walkIPv6(b, &q.Fragment)
	if drop != NotDropped {
		return nil, false
	}
	a := b[IPv6AddressesAt:]
	q.Tuple = Tuple{Src: AddrFrom16([16]byte(a)), Dst: AddrFrom16([16]byte(a[16:])), Proto: protocol}
	q.HeaderLen = uint16(offset)
	return b[offset:], !q.Src.Is4() && !q.Dst.Is4()
}

// quotedPorts completes the tuple as Decode would. It knows no errors about errors: hosts never
// send them (RFC 1122 section 3.2.2).
func quotedPorts(q []byte, t *Tuple) bool {
	first, second := binary.BigEndian.Uint16(q), binary.BigEndian.Uint16(q[2:])
	switch t.Proto {
	case ProtoTCP, ProtoUDP:
		t.SrcPort, t.DstPort = first, second
	case ProtoICMP, ProtoICMPv6:
		if (t.Proto == ProtoICMP) != t.Src.Is4() { // for Decode the other family's ICMP has no ports
			return false
		}
		quoted := Packet{Tuple: *t, ICMPType: q[0], ICMPCode: q[1]}
		id := binary.BigEndian.Uint16(q[ICMPIDAt:])
		switch {
		case quoted.IsICMPRequest():
			t.SrcPort = id
		case quoted.isICMPReply():
			t.DstPort = id
		default:
			return false
		}
	}
	return true
}
