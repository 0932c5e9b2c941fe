package translate

import (
	"encoding/binary"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/tun"
)

// rewritten is how many bytes of a quoted transport header may change: up to TCP's checksum.
const rewritten = packet.TCPSumAt + 2

// Error rewrites an ICMP error inside and outside. The quoted packet gets the tuple inner, which
// its sender gave it; the error goes to that sender and seems to come from src. frame and p are
// as for Packet; quoted is what DecodeQuote made of them. Checksums in the quote are updated as
// far as they are quoted.
func Error(frame []byte, p *packet.Packet, quoted *packet.Quote, inner *packet.Tuple, src packet.Addr) {
	b := frame[tun.HeaderLen:]
	quote := b[p.PayloadOffset:p.Len]
	changed := quote[:min(len(quote), int(quoted.HeaderLen)+rewritten)]
	old := tun.Sum(changed)
	requote(quote, quoted, inner)
	d := addresses(b, p, src, inner.Src)
	p.Src, p.Dst = src, inner.Src
	if p.Src.Is4() {
		d = 0 // ICMP has no pseudo-header
	}
	if leftToDo(frame, p) {
		if d != 0 {
			d.partial(b[p.HeaderLen+packet.ICMPSumAt:])
		}
		return
	}
	d.with(uint32(old), uint32(tun.Sum(changed))).whole(b[p.HeaderLen+packet.ICMPSumAt:])
}

// requote rewrites the quoted packet.
func requote(b []byte, quoted *packet.Quote, to *packet.Tuple) {
	outer := packet.Packet{Tuple: quoted.Tuple}
	d := addresses(b, &outer, to.Src, to.Dst)
	if quoted.Fragment.IsLater() {
		return
	}
	t := b[quoted.HeaderLen:]
	outer.ICMPType = t[0]
	transport(t, &quoted.Tuple, outer.IsICMPRequest(), to, d, false)
}

// ErrorFragment gives a later fragment of an ICMP error the addresses that Error gave the first.
func ErrorFragment(frame []byte, p *packet.Packet, src, dst packet.Addr) {
	addresses(frame[tun.HeaderLen:], p, src, dst)
	p.Src, p.Dst = src, dst
}

// Reset writes a TCP RST with tuple t to b and returns the frame, decoded into p.
func Reset(b []byte, t *packet.Tuple, sequence, ack uint32, p *packet.Packet) []byte {
	headerLen := packet.IPv4HeaderLen
	if !t.Src.Is4() {
		headerLen = packet.IPv6HeaderLen
	}
	const tcpLen = packet.TCPHeaderLen
	frame := b[:tun.HeaderLen+headerLen+tcpLen]
	clear(frame)
	ip := frame[tun.HeaderLen:]
	*p = packet.Packet{
		Tuple: *t, TCPFlags: packet.RST | packet.ACK, Seq: sequence, Ack: ack, HeaderLen: uint16(headerLen), PayloadOffset: uint16(headerLen + tcpLen),
		Len: uint32(len(ip)), Segments: 1, WireLen: uint32(len(ip)),
	}
	const hops = 64
	if t.Src.Is4() {
		ip[0] = 4<<4 | 5
		binary.BigEndian.PutUint16(ip[packet.IPv4LenAt:], uint16(len(ip)))
		ip[packet.IPv4FragmentAt] = 0x40 // don't fragment: the identification means nothing (RFC 6864)
		ip[8], ip[9] = hops, packet.ProtoTCP
		binary.BigEndian.PutUint32(ip[packet.IPv4AddressesAt:], t.Src.V4())
		binary.BigEndian.PutUint32(ip[packet.IPv4AddressesAt+4:], t.Dst.V4())
		binary.BigEndian.PutUint16(ip[packet.IPv4SumAt:], ^tun.Sum(ip[:headerLen]))
	} else {
		ip[0] = 6 << 4
		binary.BigEndian.PutUint16(ip[packet.IPv6LenAt:], tcpLen)
		ip[packet.IPv6NextAt], ip[7] = packet.ProtoTCP, hops
		put6(ip[packet.IPv6AddressesAt:], t.Src)
		put6(ip[packet.IPv6AddressesAt+16:], t.Dst)
	}
	tcp := ip[headerLen:]
	binary.BigEndian.PutUint16(tcp, t.SrcPort)
	binary.BigEndian.PutUint16(tcp[2:], t.DstPort)
	binary.BigEndian.PutUint32(tcp[packet.TCPSeqAt:], sequence)
	binary.BigEndian.PutUint32(tcp[packet.TCPAckAt:], ack)
	tcp[packet.TCPOffsetAt], tcp[packet.TCPFlagsAt] = tcpLen/4<<4, p.TCPFlags
	binary.BigEndian.PutUint16(tcp[packet.TCPSumAt:], ^tun.Fold(t.PseudoSum(tcpLen)+uint32(tun.Sum(tcp))))
	return frame
}
