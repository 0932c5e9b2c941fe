// Package translate rewrites packets: addresses, ports and ICMP identifiers. It updates the
// checksums that cover them by what has changed (RFC 1624). Nothing else of a packet changes.
// Rewriting a packet back gives the same packet again, with a wrong checksum if it had one.
//
// There is one exception: a checksum of 0xffff comes back as 0, the same number. Outside UDP only
// a message of zeros has it. In UDP 0 means that there is no checksum, and stays.
//
// Where a virtio-net header leaves a checksum to do, the field holds the pseudo-header's sum.
// Only the addresses change that.
package translate

import (
	"encoding/binary"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/tun"
)

// Packet gives a packet another tuple, of the same protocol and address family. frame is its
// virtio-net header and its bytes; p is what Decode made of it, and is updated. A later fragment
// has no ports: it gets only the addresses.
func Packet(frame []byte, p *packet.Packet, to *packet.Tuple) {
	b := frame[tun.HeaderLen:]
	d := addresses(b, p, to.Src, to.Dst)
	if !p.Fragment.IsLater() {
		transport(b[p.HeaderLen:], &p.Tuple, p.IsICMPRequest(), to, d, leftToDo(frame, p))
		p.SrcPort, p.DstPort = to.SrcPort, to.DstPort
	}
	p.Src, p.Dst = to.Src, to.Dst
}

// leftToDo reports whether the transport checksum is only the pseudo-header's sum.
func leftToDo(frame []byte, p *packet.Packet) bool {
	if frame[0]&tun.FlagNeedsCsum == 0 {
		return false
	}
	var h tun.Header
	h.Decode((*[tun.HeaderLen]byte)(frame))
	return h.CsumStart == p.HeaderLen // otherwise the header means a checksum within the payload
}

// addresses writes the IP header's addresses and updates its checksum. It returns the change of
// the addresses' sum.
func addresses(b []byte, p *packet.Packet, src, dst packet.Addr) (d delta) {
	if src == p.Src && dst == p.Dst {
		return 0
	}
	d = d.with(p.Src.Sum()+p.Dst.Sum(), src.Sum()+dst.Sum())
	if b[0]>>4 == 6 {
		put6(b[packet.IPv6AddressesAt:], src)
		put6(b[packet.IPv6AddressesAt+16:], dst)
		return d
	}
	binary.BigEndian.PutUint32(b[packet.IPv4AddressesAt:], src.V4())
	binary.BigEndian.PutUint32(b[packet.IPv4AddressesAt+4:], dst.V4())
	d.whole(b[packet.IPv4SumAt:])
	return d
}

func put6(b []byte, a packet.Addr) {
	binary.BigEndian.PutUint64(b, a.Hi)
	binary.BigEndian.PutUint64(b[8:], a.Lo)
}

// transport writes ports or an identifier and updates the checksum, if b reaches that far: a
// packet that an ICMP error quotes may be cut off. d is the change of the addresses.
func transport(b []byte, from *packet.Tuple, request bool, to *packet.Tuple, d delta, partial bool) {
	switch {
	case from.Proto == packet.ProtoTCP || from.Proto == packet.ProtoUDP:
		ports(b, from, to, d, partial)
	case from.Proto == packet.ProtoICMP && from.Src.Is4(): // has no pseudo-header
		identifier(b, from, request, to, 0, partial)
	case from.Proto == packet.ProtoICMPv6 && !from.Src.Is4():
		identifier(b, from, request, to, d, partial)
	}
}

func ports(b []byte, from, to *packet.Tuple, d delta, partial bool) {
	at := packet.TCPSumAt
	if from.Proto == packet.ProtoUDP {
		at = packet.UDPSumAt
	}
	binary.BigEndian.PutUint16(b, to.SrcPort)
	binary.BigEndian.PutUint16(b[2:], to.DstPort)
	if !partial {
		d = d.with(uint32(from.SrcPort)+uint32(from.DstPort), uint32(to.SrcPort)+uint32(to.DstPort))
	}
	switch {
	case len(b) < at+2:
	case partial:
		d.partial(b[at:])
	case at == packet.UDPSumAt:
		d.wholeUDP(b[at:])
	default:
		d.whole(b[at:])
	}
}

func identifier(b []byte, from *packet.Tuple, request bool, to *packet.Tuple, d delta, partial bool) {
	old, new := from.DstPort, to.DstPort
	if request {
		old, new = from.SrcPort, to.SrcPort
	}
	binary.BigEndian.PutUint16(b[packet.ICMPIDAt:], new)
	switch {
	case !partial:
		if d = d.with(uint32(old), uint32(new)); d != 0xffff {
			d.whole(b[packet.ICMPSumAt:])
		}
	case d != 0:
		d.partial(b[packet.ICMPSumAt:])
	}
}

// delta is what a one's-complement sum grows by. Of the two forms of zero, with gives 0xffff.
type delta uint32

// with adds to d the change from a sum old to a sum new, each of at most 2^16 words.
func (d delta) with(old, new uint32) delta {
	return delta(tun.Fold(uint32(d) + uint32(tun.Fold(new)) + uint32(^tun.Fold(old))))
}

// whole updates a checksum, which is the complement of a sum.
func (d delta) whole(field []byte) {
	sum := uint32(^binary.BigEndian.Uint16(field))
	binary.BigEndian.PutUint16(field, ^tun.Fold(sum+uint32(d)))
}

// partial updates the sum of a pseudo-header.
func (d delta) partial(field []byte) {
	binary.BigEndian.PutUint16(field, tun.Fold(uint32(binary.BigEndian.Uint16(field))+uint32(d)))
}

// wholeUDP is whole for UDP, where 0 means no checksum (RFC 768).
func (d delta) wholeUDP(field []byte) {
	if field[0]|field[1] == 0 {
		return
	}
	if d.whole(field); field[0]|field[1] == 0 {
		field[0], field[1] = 0xff, 0xff
	}
}
