// Package coalesce puts consecutive small packets of one flow together. They leave as one
// superpacket, which a device takes in the time of one packet.
//
// The receiving kernel cuts the superpacket into the same packets again, byte by byte and in
// their order. So packets go together only if all of this holds:
//   - their headers differ only in the IPv4 identification and the TCP sequence number, as
//     segmentation counts them up;
//   - their payloads have one length; the last one may be shorter;
//   - their checksums are right, or left to do.
package coalesce

import (
	"bytes"
	"encoding/binary"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/tun"
)

// Train is a run of packets of one flow that can leave together. The zero value is
// empty. It is owned by one worker.
type Train struct {
	// parts are the first packet's frame and the others' payloads. The memory is the caller's
	// and must not change until the train is sent.
	parts [tun.MaxParts][]byte
	n     int
	first packet.Packet
	size  int // payload of each packet but the last one
	total int // payload of all
	full  bool
	push  bool // the last packet has PSH
}

// Start makes p the first packet of a train. It reports false and leaves t empty when p can only
// go alone.
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

// Append adds p, the flow's next packet, and reports whether it fits.
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
		if p.HeaderLen != packet.IPv6HeaderLen { // a routing header would change the pseudo-header
			return false
		}
	} else if tun.Sum(b[:p.HeaderLen]) != 0xffff || b[packet.IPv4SumAt]&b[packet.IPv4SumAt+1] == 0xff { // 0xffff would become 0
		return false
	}
	t := b[p.HeaderLen:]
	sumAt := packet.TCPSumAt
	switch p.Proto {
	case packet.ProtoTCP:
		if p.TCPFlags&^packet.PSH != packet.ACK {
			return false
		}
	case packet.ProtoUDP:
		if sumAt = packet.UDPSumAt; int(binary.BigEndian.Uint16(t[packet.UDPLenAt:])) != len(t) {
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
			binary.BigEndian.Uint16(t[sumAt:]) == tun.Fold(p.PseudoSum(len(t)))
	case p.Proto == packet.ProtoUDP && t[packet.UDPSumAt]|t[packet.UDPSumAt+1] == 0: // none (RFC 768)
		return false
	}
	return h.Flags&tun.FlagDataValid != 0 || tun.Fold(p.PseudoSum(len(t))+uint32(tun.Sum(t))) == 0xffff
}

// follows reports whether b has the headers that the kernel would give the train's next segment.
func (t *Train) follows(b []byte, p *packet.Packet) bool {
	a := t.parts[0][tun.HeaderLen:]
	if !sameNetwork(a, b, int(p.HeaderLen), t.n) {
		return false
	}
	a, b = a[p.HeaderLen:p.PayloadOffset], b[p.HeaderLen:p.PayloadOffset]
	if p.Proto == packet.ProtoUDP {
		return bytes.Equal(a[:packet.UDPLenAt], b[:packet.UDPLenAt])
	}
	return bytes.Equal(a[:packet.TCPSeqAt], b[:packet.TCPSeqAt]) &&
		binary.BigEndian.Uint32(b[packet.TCPSeqAt:]) == binary.BigEndian.Uint32(a[packet.TCPSeqAt:])+uint32(t.total) &&
		bytes.Equal(a[packet.TCPAckAt:packet.TCPFlagsAt], b[packet.TCPAckAt:packet.TCPFlagsAt]) &&
		bytes.Equal(a[packet.TCPWindowAt:packet.TCPSumAt], b[packet.TCPWindowAt:packet.TCPSumAt]) &&
		bytes.Equal(a[packet.TCPUrgentAt:], b[packet.TCPUrgentAt:])
}

// sameNetwork compares the IP headers of a train's first packet and of the one behind n packets.
// Segmentation counts the IPv4 identification up.
func sameNetwork(a, b []byte, headerLen, n int) bool {
	if a[0]>>4 == 6 {
		return bytes.Equal(a[:packet.IPv6LenAt], b[:packet.IPv6LenAt]) && bytes.Equal(a[packet.IPv6NextAt:headerLen], b[packet.IPv6NextAt:headerLen])
	}
	return bytes.Equal(a[:packet.IPv4LenAt], b[:packet.IPv4LenAt]) &&
		binary.BigEndian.Uint16(b[packet.IPv4IDAt:]) == binary.BigEndian.Uint16(a[packet.IPv4IDAt:])+uint16(n) &&
		bytes.Equal(a[packet.IPv4FragmentAt:packet.IPv4SumAt], b[packet.IPv4FragmentAt:packet.IPv4SumAt]) &&
		bytes.Equal(a[packet.IPv4AddressesAt:headerLen], b[packet.IPv4AddressesAt:headerLen])
}

// Len is the number of packets.
func (t *Train) Len() int { return t.n }

// WireLen is the length of all packets with their headers, in bytes.
func (t *Train) WireLen() int { return t.n*int(t.first.PayloadOffset) + t.total }

// Frame returns the train as one frame in parts and empties it. The parts are valid until the next
// Start. A train of one packet is that packet's frame, unchanged.
func (t *Train) Frame() [][]byte {
	if t.n > 1 {
		t.finish()
	}
	parts := t.parts[:t.n]
	t.n = 0
	return parts
}

// finish turns the first packet's headers into those of the superpacket.
func (t *Train) finish() {
	p, frame := &t.first, t.parts[0]
	b := frame[tun.HeaderLen:]
	h := tun.Header{
		Flags: tun.FlagNeedsCsum, HdrLen: p.PayloadOffset, GSOSize: uint16(t.size), CsumStart: p.HeaderLen, CsumOffset: packet.TCPSumAt,
	}
	length := int(p.PayloadOffset) + t.total
	if b[0]>>4 == 4 {
		h.GSOType = tun.GSOTCPv4
		binary.BigEndian.PutUint16(b[packet.IPv4LenAt:], uint16(length))
		binary.BigEndian.PutUint16(b[packet.IPv4SumAt:], 0)
		binary.BigEndian.PutUint16(b[packet.IPv4SumAt:], ^tun.Sum(b[:p.HeaderLen]))
	} else {
		h.GSOType = tun.GSOTCPv6
		binary.BigEndian.PutUint16(b[packet.IPv6LenAt:], uint16(length-packet.IPv6HeaderLen))
	}
	transport := b[p.HeaderLen:]
	length -= int(p.HeaderLen)
	if p.Proto == packet.ProtoUDP {
		h.GSOType, h.CsumOffset = tun.GSOUDPL4, packet.UDPSumAt
		binary.BigEndian.PutUint16(transport[packet.UDPLenAt:], uint16(length))
	} else if t.push {
		transport[packet.TCPFlagsAt] |= packet.PSH // segmentation leaves it to the last segment
	}
	binary.BigEndian.PutUint16(transport[h.CsumOffset:], tun.Fold(p.PseudoSum(length)))
	h.Encode((*[tun.HeaderLen]byte)(frame))
}
