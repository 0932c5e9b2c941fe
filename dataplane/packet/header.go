package packet

// Lengths of headers without options, in bytes.
const (
	IPv4HeaderLen = 20
	IPv6HeaderLen = 40
	TCPHeaderLen  = 20
	UDPHeaderLen  = 8
	icmpHeaderLen = 8
)

// MaxWindowScale is the largest shift that a window scale option means (RFC 7323 section 2.3).
const MaxWindowScale = 14

// Offsets of fields in their headers, in bytes.
const (
	IPv4LenAt, IPv4IDAt, IPv4FragmentAt = 2, 4, 6 // IPv4FragmentAt: flags and offset
	ipv4ProtoAt                         = 9
	IPv4SumAt, IPv4AddressesAt          = 10, 12
	IPv6LenAt, IPv6NextAt               = 4, 6
	IPv6AddressesAt                     = 8
	TCPSeqAt, TCPAckAt                  = 4, 8
	TCPOffsetAt, TCPFlagsAt             = 12, 13
	TCPWindowAt, TCPSumAt, TCPUrgentAt  = 14, 16, 18
	UDPLenAt, UDPSumAt                  = 4, 6
	ICMPSumAt, ICMPIDAt                 = 2, 4
)

// PseudoSum is the one's-complement sum of the pseudo-header before a transport packet of length
// bytes, not folded (RFC 9293 section 3.1, RFC 8200 section 8.1).
func (t *Tuple) PseudoSum(length int) uint32 {
	return uint32(t.Proto) + uint32(length) + t.Src.Sum() + t.Dst.Sum()
}

// Sum is the sum of the address's 16-bit words, not folded.
func (a Addr) Sum() uint32 {
	if a.Is4() {
		v := a.V4()
		return v>>16 + v&0xffff
	}
	return sumWords(a.Hi) + sumWords(a.Lo)
}

func sumWords(v uint64) uint32 {
	return uint32(v>>48) + uint32(v>>32&0xffff) + uint32(v>>16&0xffff) + uint32(v&0xffff)
}
