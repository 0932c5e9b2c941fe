package packet

import (
	"encoding/binary"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Decoder holds the gopacket layers that Decode reuses for every packet. The
// zero value is ready. Owned by one goroutine; nothing that it holds may be
// used after Decode returns, because the layers alias the packet's bytes.
type Decoder struct {
	ip4   layers.IPv4
	ip6   layers.IPv6
	tcp   layers.TCP
	udp   layers.UDP
	icmp4 layers.ICMPv4
	icmp6 layers.ICMPv6
	// scratch holds a header without its options: gopacket would parse them and
	// allocate an error for each bad one, and an end host accepts what it refuses.
	scratch [IPv6HeaderLen]byte
}

// Decode reads one IP packet from b into p, which it overwrites. segmentSize is
// the payload of each wire segment when b is a superpacket (the virtio-net
// header's GSO size), 0 otherwise. Every length is checked before a layer uses
// it; nothing is allocated whatever the bytes are. On a drop the fields that
// were not reached are zero.
func (d *Decoder) Decode(b []byte, segmentSize uint16, p *Packet) Drop {
	*p = Packet{}
	if len(b) < 1 {
		return DropTruncated
	}
	var drop Drop
	switch b[0] >> 4 {
	case 4:
		drop = d.ipv4(b, p)
	case 6:
		drop = d.ipv6(b, p)
	default:
		return DropVersion
	}
	if drop != NotDropped {
		return drop
	}
	if p.Fragment.IsFragment() {
		return d.fragment(b, p)
	}
	if drop = d.transport(b[p.HeaderLen:p.Len], p); drop != NotDropped {
		return drop
	}
	p.countSegments(segmentSize)
	return NotDropped
}

// fragment decodes what a fragment has of the transport header: nothing, or, the
// first one, all of it. A first fragment with a part of it would be judged by
// ports or flags that it does not hold (RFC 1858, RFC 7112).
func (d *Decoder) fragment(b []byte, p *Packet) Drop {
	if p.Fragment.IsLater() {
		p.PayloadOffset = p.HeaderLen
		p.countSegments(0)
		return p.checkLater()
	}
	fragmentable := p.Len - uint32(p.Fragment.End)
	if drop := d.transport(b[p.HeaderLen:p.Len], p); drop != NotDropped {
		return drop
	}
	p.Fragment.HeaderEnd = uint16(uint32(p.PayloadOffset) - fragmentable)
	p.countSegments(0)
	return NotDropped
}

func (d *Decoder) ipv4(b []byte, p *Packet) Drop {
	if len(b) < IPv4HeaderLen {
		return DropTruncated
	}
	headerLen := int(b[0]&0x0f) * 4
	if headerLen < IPv4HeaderLen || headerLen > len(b) {
		return DropIPv4Header
	}
	// gopacket takes a total length of 0 for a superpacket; on a TUN it is a lie.
	total := int(binary.BigEndian.Uint16(b[IPv4LenAt:]))
	if total < headerLen || total > len(b) {
		return DropIPLength
	}
	header := b[:total]
	if headerLen > IPv4HeaderLen {
		header = d.scratch[:copy(d.scratch[:], b[:IPv4HeaderLen])]
		header[0] = 4<<4 | IPv4HeaderLen/4
	}
	if d.ip4.DecodeFromBytes(header, gopacket.NilDecodeFeedback) != nil {
		return DropIPv4Header
	}
	p.Src = AddrFrom4([4]byte(d.ip4.SrcIP))
	p.Dst = AddrFrom4([4]byte(d.ip4.DstIP))
	p.Proto = uint8(d.ip4.Protocol)
	p.HeaderLen, p.Len = uint16(headerLen), uint32(total)
	if p.Fragment.setIPv4(b); p.Fragment.IsFragment() {
		return p.Fragment.place(headerLen, total-headerLen)
	}
	return NotDropped
}

func (d *Decoder) ipv6(b []byte, p *Packet) Drop {
	if len(b) < IPv6HeaderLen {
		return DropTruncated
	}
	total := IPv6HeaderLen + int(binary.BigEndian.Uint16(b[IPv6LenAt:]))
	if total > len(b) {
		return DropIPLength
	}
	header := b[:total]
	if total == IPv6HeaderLen || layers.IPProtocol(b[IPv6NextAt]) == layers.IPProtocolIPv6HopByHop {
		// gopacket takes payload length 0 for a jumbogram and decodes a hop-by-hop header
		// on the spot, with allocations: it gets the fixed header alone.
		header = d.scratch[:copy(d.scratch[:], b[:IPv6HeaderLen])]
		header[IPv6NextAt] = uint8(layers.IPProtocolNoNextHeader)
		binary.BigEndian.PutUint16(header[IPv6LenAt:], 1)
	}
	if d.ip6.DecodeFromBytes(header, gopacket.NilDecodeFeedback) != nil {
		return DropIPLength
	}
	p.Src = AddrFrom16([16]byte(d.ip6.SrcIP))
	p.Dst = AddrFrom16([16]byte(d.ip6.DstIP))
	p.Len = uint32(total)
	// An IPv4-mapped address in an IPv6 header would meet the rules of the
	// other family (RFC 4942 section 2.2).
	if p.Src.Is4() || p.Dst.Is4() {
		return DropMappedAddress
	}
	protocol, offset, fragmentable, drop := walkIPv6(b[:total], &p.Fragment)
	p.Proto, p.HeaderLen = protocol, uint16(offset)
	if drop == NotDropped && p.Fragment.IsFragment() {
		// The fragment header is not in the whole datagram.
		drop = p.Fragment.place(fragmentable-fragmentHeaderLen-IPv6HeaderLen, total-fragmentable)
	}
	return drop
}

// transport decodes b, the bytes behind the IP headers.
func (d *Decoder) transport(b []byte, p *Packet) Drop {
	p.PayloadOffset = p.HeaderLen
	switch {
	case p.Proto == ProtoTCP:
		return d.tcpHeader(b, p)
	case p.Proto == ProtoUDP:
		return d.udpHeader(b, p)
	case p.Proto == ProtoICMP && p.Src.Is4():
		if len(b) < icmpHeaderLen || d.icmp4.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil {
			return p.Fragment.truncated()
		}
		p.ICMPType, p.ICMPCode = d.icmp4.TypeCode.Type(), d.icmp4.TypeCode.Code()
		p.icmpIdentifier(d.icmp4.Id)
	case p.Proto == ProtoICMPv6 && !p.Src.Is4():
		if len(b) < icmpHeaderLen || d.icmp6.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil {
			return p.Fragment.truncated()
		}
		p.ICMPType, p.ICMPCode = d.icmp6.TypeCode.Type(), d.icmp6.TypeCode.Code()
		p.icmpIdentifier(binary.BigEndian.Uint16(b[ICMPIDAt:]))
	}
	return NotDropped
}

func (d *Decoder) tcpHeader(b []byte, p *Packet) Drop {
	if len(b) < TCPHeaderLen {
		return p.Fragment.truncated()
	}
	headerLen := int(b[TCPOffsetAt]>>4) * 4
	if headerLen > len(b) && p.Fragment.IsFragment() {
		return DropFragmentTiny
	}
	if headerLen < TCPHeaderLen || headerLen > len(b) {
		return DropTCPHeader
	}
	header := b
	if headerLen > TCPHeaderLen {
		header = d.scratch[:copy(d.scratch[:], b[:TCPHeaderLen])]
		header[TCPOffsetAt] = TCPHeaderLen / 4 << 4
	}
	if d.tcp.DecodeFromBytes(header, gopacket.NilDecodeFeedback) != nil {
		return DropTCPHeader
	}
	p.SrcPort, p.DstPort = uint16(d.tcp.SrcPort), uint16(d.tcp.DstPort)
	p.TCPFlags = b[TCPFlagsAt]
	p.PayloadOffset = p.HeaderLen + uint16(headerLen)
	return NotDropped
}

func (d *Decoder) udpHeader(b []byte, p *Packet) Drop {
	if len(b) < UDPHeaderLen {
		return p.Fragment.truncated()
	}
	// A first fragment's length field is the whole datagram's.
	if n := int(binary.BigEndian.Uint16(b[UDPLenAt:])); n < UDPHeaderLen || n > len(b) && !p.Fragment.IsFragment() {
		return DropUDPLength
	}
	if d.udp.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil {
		return DropUDPLength
	}
	p.SrcPort, p.DstPort = uint16(d.udp.SrcPort), uint16(d.udp.DstPort)
	p.PayloadOffset = p.HeaderLen + UDPHeaderLen
	return NotDropped
}

// ICMP types of queries: a request can start a flow, its reply can only follow one.
const (
	ICMPv4EchoReply        = 0
	ICMPv4EchoRequest      = 8
	ICMPv4TimestampRequest = 13
	ICMPv4TimestampReply   = 14
	ICMPv6EchoRequest      = 128
	ICMPv6EchoReply        = 129
)

// icmpIdentifier puts a query's identifier where Tuple says that it stands.
func (p *Packet) icmpIdentifier(id uint16) {
	switch {
	case p.IsICMPRequest():
		p.SrcPort = id
	case p.isICMPReply():
		p.DstPort = id
	}
	p.PayloadOffset += icmpHeaderLen
}

// IsICMPRequest reports whether p is an ICMP message that can start a flow.
func (p *Packet) IsICMPRequest() bool {
	if p.Proto == ProtoICMP {
		return p.ICMPType == ICMPv4EchoRequest || p.ICMPType == ICMPv4TimestampRequest
	}
	return p.Proto == ProtoICMPv6 && p.ICMPType == ICMPv6EchoRequest
}

func (p *Packet) isICMPReply() bool {
	if p.Proto == ProtoICMP {
		return p.ICMPType == ICMPv4EchoReply || p.ICMPType == ICMPv4TimestampReply
	}
	return p.Proto == ProtoICMPv6 && p.ICMPType == ICMPv6EchoReply
}

// IsICMPError reports whether p is an ICMP error message, which quotes the packet
// that it is about (RFC 792, RFC 4443).
func (p *Packet) IsICMPError() bool {
	if p.Proto == ProtoICMP {
		return p.ICMPType == 3 || p.ICMPType == 11 || p.ICMPType == 12
	}
	return p.Proto == ProtoICMPv6 && p.ICMPType >= 1 && p.ICMPType <= 4
}

// countSegments derives how many packets a superpacket is on a wire. The
// kernel's own header length hint may be wrong on forwarded packets, so the
// decoded one counts.
func (p *Packet) countSegments(size uint16) {
	p.Segments, p.WireLen = 1, p.Len
	payload := p.Len - uint32(p.PayloadOffset)
	if size == 0 || payload <= uint32(size) {
		return
	}
	p.Segments = (payload + uint32(size) - 1) / uint32(size)
	p.WireLen += (p.Segments - 1) * uint32(p.PayloadOffset)
}
