package replay

import (
	"encoding/binary"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/pcap"
	"github.com/nsgd/nsgd/tun"
)

// Skip is why a packet of a capture is not judged.
type Skip uint8

// The reasons.
const (
	NotSkipped Skip = iota
	SkipNotIP       // such as ARP
	SkipLink        // of a link type that is not read
	SkipOthers      // neither from nor to an address of the NICs
	SkipCut         // captured too short for a verdict
	numSkips
)

// String is the reason's name in a summary.
func (s Skip) String() string {
	return [numSkips]string{"none", "not_ip", "link_type", "other_addresses", "cut_headers"}[s]
}

func skipOf(c pcap.Content) Skip {
	return [...]Skip{pcap.IP: NotSkipped, pcap.NotIP: SkipNotIP, pcap.Cut: SkipCut, pcap.UnknownLink: SkipLink}[c]
}

// padding is how many bytes stand in for what was not captured: beyond the first of
// them nothing can be understood anyway.
const padding = 512

// frameWith makes a frame of an IP packet. What the capture has cut off is made up; whole is
// false when that could change the verdict.
func (r *Replay) frameWith(ip []byte, length int) (frame []byte, whole bool) {
	buffer := r.frame[:]
	clear(buffer[:tun.HeaderLen])
	b := buffer[tun.HeaderLen:]
	length = min(length, tun.MaxPacket)
	captured := copy(b, ip[:min(len(ip), length)])
	total := min(lengthOf(b[:captured], length), length)
	if captured >= total {
		return buffer[:tun.HeaderLen+captured], true
	}
	var decoded [3]packet.Packet
	var quotes [3]packet.Quote
	var drops [3]packet.Drop
	for i, filler := range []byte{0, 0xff, 0} {
		fill(b[captured:min(total, captured+padding)], filler)
		if i == 2 {
			completeTransport(b[:total], captured, &decoded[0])
		}
		drops[i] = r.decoder.Decode(b[:total], 0, &decoded[i])
		quotes[i], _ = packet.DecodeQuote(b[:total], &decoded[i])
		decoded[i].Window, decoded[i].WindowScale, decoded[i].SACKed = 0, 0, 0 // no rule asks for them; made up they are wide
	}
	same := func(i, j int) bool { return drops[i] == drops[j] && decoded[i] == decoded[j] && quotes[i] == quotes[j] }
	// Of a TCP header's options, where the payload begins is not asked.
	return buffer[:tun.HeaderLen+total], same(0, 1) && same(1, 2)
}

// completeTransport makes the lengths of a transport header well-formed where the capture has cut them off: made up at
// random they would drop the packet.
func completeTransport(b []byte, captured int, p *packet.Packet) {
	set := func(at int, v byte) {
		if at += int(p.HeaderLen); at >= captured && at < len(b) {
			b[at] = v
		}
	}
	switch length := len(b) - int(p.HeaderLen); p.Proto {
	case packet.ProtoTCP:
		set(packet.TCPOffsetAt, packet.TCPHeaderLen/4<<4)
	case packet.ProtoUDP:
		set(packet.UDPLenAt, byte(length>>8))
		set(packet.UDPLenAt+1, byte(length))
	}
}

func fill(b []byte, with byte) {
	for i := range b {
		b[i] = with
	}
}

// lengthOf is how long an IP packet says that it is; length where it does not say. A host that leaves
// segmenting to its network card may hand over, and capture, packets that say 0.
func lengthOf(b []byte, length int) int {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		if binary.BigEndian.Uint16(b[2:]) == 0 && b[9] == packet.ProtoTCP {
			binary.BigEndian.PutUint16(b[2:], uint16(length))
		}
		return int(binary.BigEndian.Uint16(b[2:]))
	case len(b) >= 40 && b[0]>>4 == 6:
		return 40 + int(binary.BigEndian.Uint16(b[4:]))
	}
	return length
}

// segment marks a superpacket that a comment tells of as one. All segments but the last are of one size, so
// the smallest that does not give more of them gives as many.
func (r *Replay) segment(frame, comment []byte) {
	segments := recordedOf(comment).segments
	if segments < 2 {
		return
	}
	var p packet.Packet
	if r.decoder.Decode(frame[tun.HeaderLen:], 0, &p) != packet.NotDropped || int(p.Len) != len(frame)-tun.HeaderLen {
		return
	}
	payload := p.Len - uint32(p.PayloadOffset)
	h := tun.Header{GSOSize: uint16((payload + segments - 1) / segments)}
	switch {
	case p.Proto == packet.ProtoUDP:
		h.GSOType = tun.GSOUDPL4
	case p.Proto == packet.ProtoTCP && p.Src.Is4():
		h.GSOType = tun.GSOTCPv4
	case p.Proto == packet.ProtoTCP:
		h.GSOType = tun.GSOTCPv6
	}
	if h.GSOType != tun.GSONone && h.GSOSize > 0 {
		h.Encode((*[tun.HeaderLen]byte)(frame))
	}
}
