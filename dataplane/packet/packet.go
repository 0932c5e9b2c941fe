// Package packet turns the bytes of one IP packet into a flat Packet: addresses, ports, TCP flags,
// ICMP type, fragment facts, wire segments. It imports gopacket's layers and nothing of nsgd:
// the flow table, the classifier and the engine share its Tuple without knowing each other.
package packet

// TCP flags as they stand in the TCP header, at TCPFlagsAt.
const (
	FIN = 0x01
	SYN = 0x02
	RST = 0x04
	PSH = 0x08
	ACK = 0x10
	URG = 0x20
)

// Packet is what Decode found. It is flat and holds no reference to the bytes: a worker keeps one
// for each packet of its burst and reuses them.
type Packet struct {
	Tuple

	// TCPFlags are valid for TCP.
	TCPFlags uint8
	// WindowScale is the window scale option of a SYN plus one (RFC 7323), 1 to 15; 0: it has none.
	WindowScale uint8
	// Window is TCP's as the header holds it, not scaled.
	Window uint16
	// Seq and Ack are TCP's numbers. Ack is valid with the flag.
	Seq, Ack uint32
	// SACKed is how far beyond Ack the highest block of a SACK option ends (RFC 2018); 0: none does.
	SACKed uint32
	// ICMPType and ICMPCode are valid for ICMP and ICMPv6.
	ICMPType, ICMPCode uint8

	// Fragment is the zero value for a whole packet. A later fragment has no ports, flags or
	// ICMP type; its Proto is what its IP header names.
	Fragment Fragment

	// HeaderLen is the offset of the transport header in bytes.
	HeaderLen uint16
	// PayloadOffset is the offset of the transport payload in bytes.
	PayloadOffset uint16
	// Len is the length of the IP packet in bytes, headers included.
	Len uint32

	// Segments is the number of packets that this one is on a wire: 1, or more for a
	// superpacket. WireLen is the length of all of them, each with its own headers.
	Segments uint32
	WireLen  uint32
}

// SeqEnd is the sequence number behind a TCP segment, or behind all that a superpacket is made of. SYN and
// FIN count one each.
func (p *Packet) SeqEnd() uint32 {
	return p.Seq + p.Len - uint32(p.PayloadOffset) + uint32(p.TCPFlags&FIN) + uint32(p.TCPFlags&SYN)>>1
}

// Classification is the tuple that security rules see. It differs from the flow's tuple for ICMP
// only: there is no source port, and Azure matches a rule's destination port range against the
// ICMP type (azure-docs issue 51522).
// tuple is the packet's own, or another one of the same protocol. The result is tuple itself, or is
// written to scratch.
func (p *Packet) Classification(tuple, scratch *Tuple) *Tuple {
	if tuple.Proto != ProtoICMP && tuple.Proto != ProtoICMPv6 {
		return tuple
	}
	*scratch = *tuple
	scratch.SrcPort, scratch.DstPort = 0, uint16(p.ICMPType)
	return scratch
}
