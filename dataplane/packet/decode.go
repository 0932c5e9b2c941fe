package packet

import (
	"encoding/binary"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Decoder holds the gopacket layers that Decode reuses for every packet. The zero value is ready.
// It is owned by one goroutine. Its layers alias the packet's bytes and mean nothing after
// Decode returns.
type Decoder struct {
	ip4   layers.IPv4
	ip6   layers.IPv6
	tcp   layers.TCP
	udp   layers.UDP
	icmp4 layers.ICMPv4
	icmp6 layers.ICMPv6
	// scratch holds a header without its options. gopacket would allocate an error for each
	// bad option, and refuse some that hosts accept.
	scratch [IPv6HeaderLen]byte
}

// Decode reads one IP packet from b and overwrites p. segmentSize is the payload of each wire
// segment of a superpacket (the virtio-net header's GSO size), otherwise 0. Every length is
// checked before a layer uses it, and nothing is allocated whatever the bytes are. On a drop
// the fields that were not reached are zero.
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

// fragment decodes the transport header of a first fragment, which must have all of it; later ones
// have none. A first fragment with a part would be judged by ports or flags that it does not
// hold (RFC 1858, RFC 7112).
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
	// gopacket takes a total length of 0 for a superpacket's. On a TUN it is wrong.
	total := int(binary.BigEndian.Uint16(b[IPv4LenAt:]))
	if total < headerLen || total > len(b) {
		return DropIPLength
	}
	header := b[:total]
	if headerLen > IPv4HeaderLen {
		if drop := checkOptions(b[IPv4HeaderLen:headerLen]); drop != NotDropped {
			return drop
		}
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

// checkOptions drops IPv4 options with a loose or strict source route: it leads a packet past the destination that is
// judged. Behind an option whose length is wrong one might hide; hosts drop such a packet too.
func checkOptions(options []byte) Drop {
	const end, noOperation, loose, strict = 0, 1, 131, 137
	for len(options) > 0 {
		switch options[0] {
		case end:
			return NotDropped
		case noOperation:
			options = options[1:]
			continue
		case loose, strict:
			return DropSourceRoute
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return DropIPv4Header
		}
		options = options[options[1]:]
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
		// gopacket gets the fixed header alone: it takes payload length 0 for a jumbogram's,
		// and allocates when it decodes a hop-by-hop header.
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
	// An IPv4-mapped address in an IPv6 header would meet IPv4's rules (RFC 4942 section 2.2).
	if p.Src.Is4() || p.Dst.Is4() {
		return DropMappedAddress
	}
	protocol, offset, fragmentable, drop := walkIPv6(b[:total], &p.Fragment)
	p.Proto, p.HeaderLen = protocol, uint16(offset)
	if drop == NotDropped && p.Fragment.IsFragment() {
		// The whole datagram has no fragment header.
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
	// Neighbours are not copied one after the other: the compiler would read both with one load, which waits
	// until gopacket's two stores are in the cache.
	p.SrcPort = uint16(d.tcp.SrcPort)
	p.Seq = d.tcp.Seq
	p.DstPort = uint16(d.tcp.DstPort)
	p.TCPFlags = b[TCPFlagsAt]
	p.Ack = d.tcp.Ack
	p.Window = d.tcp.Window
	p.PayloadOffset = p.HeaderLen + uint16(headerLen)
	if headerLen > TCPHeaderLen && !onlyTimestamps(b[TCPHeaderLen:headerLen]) {
		p.tcpOptions(b[TCPHeaderLen:headerLen])
	}
	return NotDropped
}

// onlyTimestamps reports the options of nearly all segments: two NOPs and a timestamp (RFC 7323 appendix A).
func onlyTimestamps(options []byte) bool {
	return len(options) == 12 && binary.BigEndian.Uint32(options) == 0x0101080a
}

// tcpOptions reads the options that say something of windows. Hosts ignore what follows a bad length, and so does this.
func (p *Packet) tcpOptions(b []byte) {
	for len(b) > 0 {
		switch layers.TCPOptionKind(b[0]) {
		case layers.TCPOptionKindEndList:
			return
		case layers.TCPOptionKindNop:
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return
		}
		option := b[2:b[1]]
		switch layers.TCPOptionKind(b[0]) {
		case layers.TCPOptionKindWindowScale:
			if p.TCPFlags&SYN != 0 && len(option) == 1 {
				p.WindowScale = 1 + min(option[0], MaxWindowScale)
			}
		case layers.TCPOptionKindSACK:
			p.sacked(option)
		}
		b = b[b[1]:]
	}
}

// sacked reads the blocks of a SACK option.
func (p *Packet) sacked(blocks []byte) {
	if len(blocks)%8 != 0 {
		return
	}
	for ; len(blocks) > 0; blocks = blocks[8:] {
		beyond := binary.BigEndian.Uint32(blocks[4:]) - p.Ack
		if int32(beyond) > int32(p.SACKed) {
			p.SACKed = beyond
		}
	}
}

func (d *Decoder) udpHeader(b []byte, p *Packet) Drop {
	if len(b) < UDPHeaderLen {
		return p.Fragment.truncated()
	}
	// In a first fragment the field is the whole datagram's length.
	if n := int(binary.BigEndian.Uint16(b[UDPLenAt:])); n < UDPHeaderLen || n > len(b) && !p.Fragment.IsFragment() {
		return DropUDPLength
	}
	if d.udp.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil {
		return DropUDPLength
	}
	p.SrcPort = uint16(d.udp.SrcPort) // see tcpHeader
	p.PayloadOffset = p.HeaderLen + UDPHeaderLen
	p.DstPort = uint16(d.udp.DstPort)
	return NotDropped
}

// ICMP types of queries. A request can begin a flow; a reply can only belong to one.
const (
	ICMPv4EchoReply        = 0
	ICMPv4EchoRequest      = 8
	ICMPv4TimestampRequest = 13
	ICMPv4TimestampReply   = 14
	ICMPv6EchoRequest      = 128
	ICMPv6EchoReply        = 129
)

// icmpIdentifier sets a query's identifier as Tuple documents it.
func (p *Packet) icmpIdentifier(id uint16) {
	switch {
	case p.IsICMPRequest():
		p.SrcPort = id
	case p.isICMPReply():
		p.DstPort = id
	}
	p.PayloadOffset += icmpHeaderLen
}

// IsICMPRequest reports whether p is an ICMP message that can begin a flow.
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

// IsICMPError reports whether p is an ICMP error, which quotes the packet that it is about (RFC
// 792, RFC 4443).
func (p *Packet) IsICMPError() bool {
	if p.Proto == ProtoICMP {
		return p.ICMPType == 3 || p.ICMPType == 11 || p.ICMPType == 12
	}
	return p.Proto == ProtoICMPv6 && p.ICMPType >= 1 && p.ICMPType <= 4
}

// countSegments derives how many packets a superpacket is on a wire. It uses the decoded length of
// headers: the kernel's hint may be wrong on forwarded packets.
func (p *Packet) countSegments(size uint16) {
	p.Segments, p.WireLen = 1, p.Len
	payload := p.Len - uint32(p.PayloadOffset)
	if size == 0 || payload <= uint32(size) {
		return
	}
	p.Segments = (payload + uint32(size) - 1) / uint32(size)
	p.WireLen += (p.Segments - 1) * uint32(p.PayloadOffset)
}
