package packet

import "encoding/binary"

// quotedTransport is how much of the transport header every ICMP error quotes
// (RFC 792; RFC 1812 and RFC 4443 quote more): the ports, or a query's identifier.
const quotedTransport = 8

// DecodeQuote reads the packet that an ICMP error quotes. b is the error, the
// whole IP packet, and p what Decode made of it. The tuple is that of the quoted
// packet as its sender sent it. ok is false when the quote is too short, malformed, of
// the other address family, a later fragment, or when it is not about a packet of
// the error's destination: an error that travels anywhere but back is a forgery.
//
// A quote is cut off by whoever sends it, so its lengths promise nothing; only
// bytes that are there are read, and nothing is allocated.
func DecodeQuote(b []byte, p *Packet) (t Tuple, ok bool) {
	if !p.IsICMPError() || p.Len < uint32(p.PayloadOffset) {
		return Tuple{}, false
	}
	q := b[p.PayloadOffset:p.Len]
	if p.Src.Is4() {
		t, q, ok = quotedIPv4(q)
	} else {
		t, q, ok = quotedIPv6(q)
	}
	if !ok || t.Src != p.Dst || len(q) < quotedTransport {
		return Tuple{}, false
	}
	return t, quotedPorts(q, &t)
}

// quotedIPv4 reads the IPv4 header, options skipped, and returns what is behind it.
func quotedIPv4(q []byte) (t Tuple, rest []byte, ok bool) {
	if len(q) < ipv4HeaderLen || q[0]>>4 != 4 {
		return t, nil, false
	}
	headerLen := int(q[0]&0x0f) * 4
	laterFragment := binary.BigEndian.Uint16(q[6:])&0x1fff != 0
	if headerLen < ipv4HeaderLen || headerLen > len(q) || laterFragment {
		return t, nil, false
	}
	t = Tuple{Src: AddrFrom4([4]byte(q[12:16])), Dst: AddrFrom4([4]byte(q[16:20])), Proto: q[9]}
	return t, q[headerLen:], true
}

// quotedIPv6 walks the extension headers as far as they are quoted.
func quotedIPv6(q []byte) (t Tuple, rest []byte, ok bool) {
	if len(q) < ipv6HeaderLen || q[0]>>4 != 6 {
		return t, nil, false
	}
	protocol, offset, drop := walkIPv6(q)
	if drop != NotDropped {
		return t, nil, false
	}
	t = Tuple{Src: AddrFrom16([16]byte(q[8:24])), Dst: AddrFrom16([16]byte(q[24:40])), Proto: protocol}
	return t, q[offset:], !t.Src.Is4() && !t.Dst.Is4()
}

// quotedPorts completes the tuple as Decode would have. An error about an error
// is never sent (RFC 1122 section 3.2.2), so one is not looked for.
func quotedPorts(q []byte, t *Tuple) bool {
	first, second := binary.BigEndian.Uint16(q), binary.BigEndian.Uint16(q[2:])
	switch t.Proto {
	case ProtoTCP, ProtoUDP:
		t.SrcPort, t.DstPort = first, second
	case ProtoICMP, ProtoICMPv6:
		quoted := Packet{Tuple: *t, ICMPType: q[0], ICMPCode: q[1]}
		id := binary.BigEndian.Uint16(q[4:])
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
