// Package virtio reads what a TUN device gives: a virtio-net header and an IP packet.
package virtio

import (
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/tun"
)

// Decode reads the virtio-net header and the packet, and holds them against each
// other: a superpacket must be of the protocol that its header claims, and a checksum that is
// left to do must not change what is judged. A sender with a packet socket chooses the header.
func Decode(d *packet.Decoder, frame []byte, p *packet.Packet) packet.Drop {
	var h tun.Header
	h.Decode((*[tun.HeaderLen]byte)(frame))
	size := h.GSOSize
	if h.GSOType == tun.GSONone {
		size = 0
	}
	if drop := d.Decode(frame[tun.HeaderLen:], size, p); drop != packet.NotDropped {
		return drop
	}
	ok := false
	switch h.GSOType &^ tun.GSOECN {
	case tun.GSONone:
		// GSOECN by itself says nothing, and the kernel takes no such header.
		if h.GSOType == tun.GSONone && (h.Flags&tun.FlagNeedsCsum == 0 || checksumsItself(&h, p) || checksumsPayload(&h, p)) {
			return packet.NotDropped
		}
		return packet.DropOffload
	case tun.GSOTCPv4:
		ok = p.Proto == packet.ProtoTCP && p.Src.Is4()
	case tun.GSOTCPv6:
		ok = p.Proto == packet.ProtoTCP && !p.Src.Is4()
	case tun.GSOUDPL4:
		ok = p.Proto == packet.ProtoUDP
	}
	if !ok || h.GSOSize == 0 || p.Fragment.IsFragment() || p.Len != uint32(len(frame)-tun.HeaderLen) ||
		h.Flags&tun.FlagNeedsCsum != 0 && !checksumsItself(&h, p) {
		return packet.DropOffload
	}
	return packet.NotDropped
}

// checksumsItself reports whether the checksum that h leaves to do is the transport
// header's own.
func checksumsItself(h *tun.Header, p *packet.Packet) bool {
	if h.CsumStart != p.HeaderLen || p.Fragment.IsFragment() {
		return false
	}
	switch p.Proto {
	case packet.ProtoTCP:
		return h.CsumOffset == 16
	case packet.ProtoUDP:
		return h.CsumOffset == 6
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return h.CsumOffset == 2
	}
	return false
}

// checksumsPayload reports whether the checksum that h leaves to do lies in what nobody
// judges, such as a tunnel's inner packet or a GRE header. What an ICMP error quotes is judged.
func checksumsPayload(h *tun.Header, p *packet.Packet) bool {
	return p.Proto != packet.ProtoICMP && p.Proto != packet.ProtoICMPv6 && !p.Fragment.IsFragment() && uint32(h.CsumStart)+uint32(h.CsumOffset) >= uint32(p.PayloadOffset)
}
