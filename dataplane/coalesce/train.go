// Package coalesce puts consecutive small packets of one flow together, so that
// they leave as one superpacket: a device takes one in the time of one packet.
//
// Nothing is lost by it. The receiving kernel cuts a superpacket into packets that equal
// those that came, byte by byte and in their order: only packets are put together whose
// headers differ in nothing but what counts up by itself (IPv4 identification, TCP sequence number),
// whose payloads are equally long but for a shorter last one, and whose checksums are right or not made yet.
package coalesce

import (
	"bytes"
	"encoding/binary"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/tun"
)

// Offsets in headers.
const (
	ipv4Len, ipv4ID, ipv4Sum = 2, 4, 10
	ipv4FromFlags            = 6 // fragment bits, time to live, protocol
	ipv4FromSource           = 12
	ipv6Len, ipv6FromNext    = 4, 6
	ipv6HeaderLen            = 40
	tcpSeq, tcpFromAck       = 4, 8
	tcpFlags, tcpFromWindow  = 13, 14
	tcpSum, tcpFromUrgent    = 16, 18
	udpLen, udpSum           = 4, 6
)

// Train is a run of packets of one flow that can leave together. The zero value is
// empty. It is owned by one worker.
type Train struct {
	// parts are the first packet's frame and the others' payloads; they are the caller's
	// memory, which stays as it is until the train is sent.
	parts [tun.MaxParts][]byte
	n     int
	first packet.Packet
	size  int // payload of each packet but the last one
	total int // payload of all
	full  bool
	push  bool // the last packet has PSH
}

// Start makes p, whose frame is given, the first packet of a train. It reports false, and
// leaves t empty, when p can only go alone.
func (t *Train) Start(frame []byte, p *packet.Packet) bool {
	payload := p.Len - uint32(p.PayloadOffset)
	if !fit(frame, p) || p.Proto == packet.ProtoTCP && p.TCPFlags&packet.PSH != 0 {
		return false
	}
	t.first, t.n, t.full, t.push = *p, 1, false, false
	t.parts[0] = frame
	t.size, t.total = int(payload), int(payload)
	return true
}

// Append adds p, the flow's next packet, and reports whether it could.
func (t *Train) Append(frame []byte, p *packet.Packet) bool {
	payload := int(p.Len) - int(p.PayloadOffset)
	if t.full || t.n == len(t.parts) || payload > t.size ||
		p.HeaderLen != t.first.HeaderLen || p.PayloadOffset != t.first.PayloadOffset ||
		int(p.PayloadOffset)+t.total+payload > tun.MaxPacket ||
		!t.follows(frame[tun.HeaderLen:], p) || !fit(frame, p) {
		return false
	}
	t.parts[t.n] = frame[tun.HeaderLen+int(p.PayloadOffset):]
	t.n++
	t.total += payload
	t.push = p.Proto == packet.ProtoTCP && p.TCPFlags&packet.PSH != 0
	t.full = payload < t.size || t.push
	return true
}

// fit reports whether p may be part of a train at all.
func fit(frame []byte, p *packet.Packet) bool {
	b := frame[tun.HeaderLen:]
	if p.Segments != 1 || uint32(len(b)) != p.Len || p.Len <= uint32(p.PayloadOffset) || p.Fragment.IsFragment() {
		return false
	}
	if b[0]>>4 == 6 {
		if p.HeaderLen != ipv6HeaderLen { // a routing header would change what is summed
			return false
		}
	} else if tun.Sum(b[:p.HeaderLen]) != 0xffff || b[ipv4Sum]&b[ipv4Sum+1] == 0xff { // a zero's other form
		return false
	}
	t := b[p.HeaderLen:]
	sumAt := tcpSum
	switch p.Proto {
	case packet.ProtoTCP:
		if p.TCPFlags&^packet.PSH != packet.ACK {
			return false
		}
	case packet.ProtoUDP:
		if sumAt = udpSum; int(binary.BigEndian.Uint16(t[udpLen:])) != len(t) {
			return false
		}
	default:
		return false
	}
	var h tun.Header
	h.Decode((*[tun.HeaderLen]byte)(frame))
	switch {
	case h.GSOType != tun.GSONone:
		return false
	case h.Flags&tun.FlagNeedsCsum != 0:
		return h.CsumStart == p.HeaderLen && int(h.CsumOffset) == sumAt &&
			binary.BigEndian.Uint16(t[sumAt:]) == tun.Fold(pseudoSum(p, len(t)))
	case p.Proto == packet.ProtoUDP && t[udpSum]|t[udpSum+1] == 0: // none (RFC 768)
		return false
	}
	return h.Flags&tun.FlagDataValid != 0 || tun.Fold(pseudoSum(p, len(t))+uint32(tun.Sum(t))) == 0xffff
}

// follows reports whether b is what the kernel would make of the train's next segment's
// headers.
func (t *Train) follows(b []byte, p *packet.Packet) bool {
	a := t.parts[0][tun.HeaderLen:]
	if !sameNetwork(a, b, int(p.HeaderLen), t.n) {
		return false
	}
	a, b = a[p.HeaderLen:p.PayloadOffset], b[p.HeaderLen:p.PayloadOffset]
	if p.Proto == packet.ProtoUDP {
		return bytes.Equal(a[:udpLen], b[:udpLen])
	}
	return bytes.Equal(a[:tcpSeq], b[:tcpSeq]) &&
		binary.BigEndian.Uint32(b[tcpSeq:]) == binary.BigEndian.Uint32(a[tcpSeq:])+uint32(t.total) &&
		bytes.Equal(a[tcpFromAck:tcpFlags], b[tcpFromAck:tcpFlags]) &&
		bytes.Equal(a[tcpFromWindow:tcpSum], b[tcpFromWindow:tcpSum]) &&
		bytes.Equal(a[tcpFromUrgent:], b[tcpFromUrgent:])
}

// sameNetwork compares the IP headers of a train's first packet and of the one that
// follows n packets. Segmentation counts the IPv4 identification up.
func sameNetwork(a, b []byte, headerLen, n int) bool {
	if a[0]>>4 == 6 {
		return bytes.Equal(a[:ipv6Len], b[:ipv6Len]) && bytes.Equal(a[ipv6FromNext:headerLen], b[ipv6FromNext:headerLen])
	}
	return bytes.Equal(a[:ipv4Len], b[:ipv4Len]) &&
		binary.BigEndian.Uint16(b[ipv4ID:]) == binary.BigEndian.Uint16(a[ipv4ID:])+uint16(n) &&
		bytes.Equal(a[ipv4FromFlags:ipv4Sum], b[ipv4FromFlags:ipv4Sum]) &&
		bytes.Equal(a[ipv4FromSource:headerLen], b[ipv4FromSource:headerLen])
}

// Len is the number of packets.
func (t *Train) Len() int { return t.n }

// WireLen is the number of bytes of all packets with their headers.
func (t *Train) WireLen() int { return t.n*int(t.first.PayloadOffset) + t.total }

// Frame makes the train one frame, in pieces, and empties it. The pieces are valid until
// the next Start. A train of one packet is that packet's frame, unchanged.
func (t *Train) Frame() [][]byte {
	if t.n > 1 {
		t.finish()
	}
	parts := t.parts[:t.n]
	t.n = 0
	return parts
}

// finish makes the first packet's headers those of the whole.
func (t *Train) finish() {
	p, frame := &t.first, t.parts[0]
	b := frame[tun.HeaderLen:]
	h := tun.Header{
		Flags: tun.FlagNeedsCsum, HdrLen: p.PayloadOffset, GSOSize: uint16(t.size), CsumStart: p.HeaderLen, CsumOffset: tcpSum,
	}
	length := int(p.PayloadOffset) + t.total
	if b[0]>>4 == 4 {
		h.GSOType = tun.GSOTCPv4
		binary.BigEndian.PutUint16(b[ipv4Len:], uint16(length))
		binary.BigEndian.PutUint16(b[ipv4Sum:], 0)
		binary.BigEndian.PutUint16(b[ipv4Sum:], ^tun.Sum(b[:p.HeaderLen]))
	} else {
		h.GSOType = tun.GSOTCPv6
		binary.BigEndian.PutUint16(b[ipv6Len:], uint16(length-ipv6HeaderLen))
	}
	transport := b[p.HeaderLen:]
	length -= int(p.HeaderLen)
	if p.Proto == packet.ProtoUDP {
		h.GSOType, h.CsumOffset = tun.GSOUDPL4, udpSum
		binary.BigEndian.PutUint16(transport[udpLen:], uint16(length))
	} else if t.push {
		transport[tcpFlags] |= packet.PSH // segmentation leaves it to the last segment
	}
	binary.BigEndian.PutUint16(transport[h.CsumOffset:], tun.Fold(pseudoSum(p, length)))
	h.Encode((*[tun.HeaderLen]byte)(frame))
}

// pseudoSum is the sum of the header that a transport checksum covers besides its own
// packet of that length (RFC 9293 section 3.1, RFC 8200 section 8.1), not folded.
func pseudoSum(p *packet.Packet, length int) uint32 {
	sum := uint32(p.Proto) + uint32(length)
	if p.Src.Is4() {
		src, dst := p.Src.V4(), p.Dst.V4()
		return sum + src>>16 + src&0xffff + dst>>16 + dst&0xffff
	}
	for _, half := range [...]uint64{p.Src.Hi, p.Src.Lo, p.Dst.Hi, p.Dst.Lo} {
		sum += uint32(half>>48) + uint32(half>>32&0xffff) + uint32(half>>16&0xffff) + uint32(half&0xffff)
	}
	return sum
}
