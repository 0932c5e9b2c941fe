package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// conversation is two ends whose packets belong to one flow, if there is one. Packets
// come from a small pool of conversations, so that flows are met again and again.
type conversation struct {
	protocol uint8
	family   int
	host     [2]int
	address  [2]netip.Addr
	port     [2]uint16 // of TCP and UDP; of ICMP the first is the identifier
	query    uint8     // type of the ICMP request
	tcp      tcpHistory
	heard    [2]bool  // by side: anything carried from it
	said     []string // what was sent so far, for the report of a disagreement
}

// newConversation lets two hosts that are not the same talk. serial is unique among
// the conversations between the same addresses.
func newConversation(r *rand.Rand, s *scenario, protocol uint8, serial uint16) *conversation {
	c := &conversation{protocol: protocol, family: r.IntN(2)}
	c.host[0] = r.IntN(figureHosts)
	c.host[1] = (c.host[0] + 1 + r.IntN(figureHosts-1)) % figureHosts
	for side, host := range c.host {
		c.address[side] = s.addressOf(r, host, c.family)
	}
	switch protocol {
	case packet.ProtoTCP, packet.ProtoUDP:
		c.port = [2]uint16{40000 + serial, servicePorts[r.IntN(len(servicePorts))]}
	case packet.ProtoICMP:
		c.port[0], c.query = 1+serial, pick[uint8](r, packet.ICMPv4EchoRequest, packet.ICMPv4EchoRequest, packet.ICMPv4TimestampRequest)
		if c.family == 1 {
			c.protocol, c.query = packet.ProtoICMPv6, packet.ICMPv6EchoRequest
		}
	}
	return c
}

// addressOf is an address that the host speaks for.
func (s *scenario) addressOf(r *rand.Rand, host, family int) netip.Addr {
	if host == figureInternet {
		return outside[family][r.IntN(len(outside[family]))]
	}
	return s.address[host][family]
}

// renewable reports whether a conversation can be ended for another one between the same
// hosts: without ports, that would go on in the same flow. Only renewable ones say what
// one lane alone may begin a flow for.
func (c *conversation) renewable() bool { return c.port[0] != 0 }

func (c *conversation) String() string {
	return fmt.Sprintf("%s %v:%d (host %d) and %v:%d (host %d)", packet.ProtocolName(c.protocol),
		c.address[0], c.port[0], c.host[0], c.address[1], c.port[1], c.host[1])
}

// spec is a packet from a side to the other one.
func (c *conversation) spec(side int) packettest.Spec {
	return packettest.Spec{Src: c.address[side].String(), Dst: c.address[1-side].String(),
		SrcPort: c.port[side], DstPort: c.port[1-side]}
}

// build makes the packet that a spec of the conversation means.
func (c *conversation) build(s packettest.Spec) []byte {
	switch c.protocol {
	case packet.ProtoTCP:
		return packettest.TCP(s)
	case packet.ProtoUDP:
		return packettest.UDP(s)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return packettest.ICMP(s)
	}
	return packettest.Raw(s, c.protocol)
}

// queryReply is the type that answers the conversation's requests.
func (c *conversation) queryReply() uint8 {
	switch c.query {
	case packet.ICMPv4EchoRequest:
		return packet.ICMPv4EchoReply
	case packet.ICMPv4TimestampRequest:
		return packet.ICMPv4TimestampReply
	}
	return packet.ICMPv6EchoReply
}

// otherReply answers another kind of request with the same identifier.
func (c *conversation) otherReply() uint8 {
	switch c.query {
	case packet.ICMPv4EchoRequest:
		return packet.ICMPv4TimestampReply
	case packet.ICMPv4TimestampRequest:
		return packet.ICMPv4EchoReply
	}
	return 140 // of a node information query
}

// example is an ordinary packet from a side, such as an ICMP error quotes.
func (c *conversation) example(side int) []byte {
	s := c.spec(side)
	switch c.protocol {
	case packet.ProtoTCP:
		c.sequence(&s, side, "A")
	case packet.ProtoICMP, packet.ProtoICMPv6:
		s.ICMPType, s.ICMPID = c.query, c.port[0]
	default:
		s.Payload = 8
	}
	return c.build(s)
}

// sequence fills in numbers that fit whatever was said before: nobody sends data, so
// each side is at its initial number or one beyond it.
func (c *conversation) sequence(s *packettest.Spec, side int, flags string) {
	s.Flags = flags
	s.Seq = uint32(1+side) * 100_000
	bits := flagBits(flags)
	if bits&packet.SYN == 0 {
		s.Seq++
	}
	if bits&packet.ACK != 0 {
		s.Ack = uint32(2-side)*100_000 + 1
	}
}

func flagBits(letters string) (bits uint8) {
	for _, l := range letters {
		bits |= map[rune]uint8{'F': packet.FIN, 'S': packet.SYN, 'R': packet.RST, 'P': packet.PSH, 'A': packet.ACK, 'U': packet.URG}[l]
	}
	return bits
}

// controlBits are the flags that decide what a segment is.
const controlBits = packet.SYN | packet.ACK | packet.RST | packet.FIN

// tcpHistory is what both lanes have carried of the connection that stands now. Listed
// differences are told by it.
type tcpHistory struct {
	live              bool
	opener            int
	heard             [2]bool // by side: anything carried from it
	syn, synack       [2]bool
	shaken            bool // a SYN+ACK was acknowledged
	finished, aborted bool // somebody's FIN, somebody's RST
	// restarted: it began in place of one that was closing, which the kernel, unless it
	// was in TIME-WAIT or reset, lets the SYN through for but goes on with.
	restarted bool
	// forgotten: the RST came while one side was silent, upon which the kernel forgets
	// the connection at once.
	forgotten bool
}

// closing reports a connection in whose place a SYN asks for a new one: one that is
// closing, or one that was joined in mid-stream and never answered.
func (h *tcpHistory) closing() bool {
	joined := !h.syn[0] && !h.syn[1] && !h.synack[0] && !h.synack[1]
	return h.live && (h.finished || h.aborted || joined && !h.heard[1-h.opener])
}

// carried takes note of a segment that went through both lanes.
func (h *tcpHistory) carried(side int, flags uint8) {
	bareSYN := flags&controlBits == packet.SYN
	if !h.live || bareSYN && h.closing() {
		*h = tcpHistory{live: true, opener: side, restarted: h.live}
	}
	h.forgotten = h.forgotten || flags&packet.RST != 0 && !h.heard[1-h.opener]
	h.heard[side] = true
	switch {
	case bareSYN:
		h.syn[side] = true
	case flags&packet.SYN != 0:
		h.synack[side] = true
	case flags&packet.ACK != 0 && h.synack[1-side]:
		h.shaken = true
	}
	h.finished = h.finished || flags&packet.FIN != 0
	h.aborted = h.aborted || flags&packet.RST != 0
}

// nextSegment is who speaks next and with which flags: mostly what a connection would
// go on with, now and then anything.
func (c *conversation) nextSegment(r *rand.Rand) (side int, flags string) {
	h := &c.tcp
	if r.IntN(10) < 3 {
		return r.IntN(2), oddFlags(r)
	}
	o := h.opener
	switch {
	case !h.live:
		return pick(r, 0, 0, 0, 1), pick(r, "S", "S", "S", "S", "A", "PA")
	case h.closing() && (h.finished || h.aborted):
		return r.IntN(2), pick(r, "A", "FA", "FA", "S", "R", "RA")
	case h.syn[o] && !h.synack[1-o]:
		return 1 - o, pick(r, "SA", "SA", "SA", "RA")
	case h.syn[o] && !h.heard[o]:
		return o, "A"
	}
	return r.IntN(2), pick(r, "A", "A", "PA", "PA", "FA", "FA", "RA", "R")
}

// oddFlags are any of the 64 sets, among them null, Xmas and SYN with FIN.
func oddFlags(r *rand.Rand) string {
	letters := ""
	for _, l := range "FSRPAU" {
		if r.IntN(2) == 0 {
			letters += string(l)
		}
	}
	return pick(r, letters, letters, "", "FPU", "SF", "S", "A", "R", "FA", "SA")
}
