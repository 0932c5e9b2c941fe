package e2e

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/google/gopacket/layers"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// probe is one packet, or the fragments of one, that both lanes are to decide about.
type probe struct {
	what   string
	from   int // host
	to     int // host; nowhere when no lane may deliver it
	tag    uint16
	frames [][]byte
	whole  []byte // of which frames are fragments; nil when there are none
	// peer is where the marker goes: to, or any other host.
	peer int

	// What the list of differences asks about.
	kind      probeKind
	talk      *conversation // nil for packets of none
	side      int           // of talk, that sends
	flags     uint8         // of TCP
	type6     bool          // ICMPv6 in place of ICMP
	icmpType  uint8
	quotedTo  int  // host that the packet in an ICMP error went to
	rewritten bool // the kernel takes a header away
	byNsgd    carriage
}

const nowhere = -1

// probeKind is what is odd about a packet; each kind is odd in one way only.
type probeKind int

const (
	ordinary      probeKind = iota
	icmpError               // quotes a packet of a conversation
	icmpReplyCode           // an echo reply whose code is not the request's
	icmpOther               // any other ICMP message
	spoofed                 // a source that the host does not have
	land                    // source and destination are the same
	wrongChecksum           // of TCP, UDP or ICMP
	lastHop                 // time to live or hop limit 1
	routingType0            // IPv6 routing header of type 0
	behindAH                // IPv6 with an authentication header before the upper protocol's
	bogon                   // from the internet, a source that nobody has
	mapped                  // from the internet, IPv6 with an IPv4-mapped source
	unroutable              // to where nobody is
	malformed               // lengths that contradict each other
	outOfOrder              // fragments, the second one first
	incomplete              // fragments, one of them missing
	overlapping             // fragments that have bytes in common
	repeated                // fragments, one of them inside of another
	tinyFirst               // fragments, the first without the whole TCP header
)

// traffic makes packets for one scenario after the other.
type traffic struct {
	random   *rand.Rand
	scenario *scenario
	talks    []*conversation
	serial   uint16 // of the last conversation
	tag      uint16 // of the last packet
}

// talkProtocols are the conversations that go on at the same time. AH over IPv6 is an
// extension header, see extend.
var talkProtocols = []uint8{
	packet.ProtoTCP, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoTCP,
	packet.ProtoUDP, packet.ProtoUDP, packet.ProtoUDP, packet.ProtoUDP,
	packet.ProtoICMP, packet.ProtoICMP, packet.ProtoICMP,
	packet.ProtoGRE, packet.ProtoESP, packet.ProtoAH, 89,
}

// begin starts over with the addresses of a scenario.
func (t *traffic) begin(s *scenario) {
	t.scenario, t.serial = s, 0
	t.talks = make([]*conversation, len(talkProtocols))
	for i := range t.talks {
		t.renew(i)
	}
}

func (t *traffic) renew(i int) {
	t.serial++
	t.talks[i] = newConversation(t.random, t.scenario, talkProtocols[i], t.serial)
	if c := t.talks[i]; c.protocol == packet.ProtoAH && c.family == 1 {
		c.protocol = packet.ProtoESP
	}
}

// retire ends a conversation that the two lanes remember differently from now on.
func (t *traffic) retire(c *conversation) {
	for i := range t.talks {
		if t.talks[i] == c {
			t.renew(i)
		}
	}
}

// next is the next packet.
func (t *traffic) next() *probe {
	t.tag++
	r := t.random
	c := t.talks[r.IntN(len(t.talks))]
	var p *probe
	switch r.IntN(20) {
	case 0, 1:
		p = t.icmpError(c)
	case 2:
		p = t.stray(c)
	case 3, 4:
		p = t.fragmented(c)
	default:
		p = t.speak(c)
	}
	p.tag = t.tag
	if p.peer = p.to; p.to == nowhere || p.to == p.from {
		p.peer = (p.from + 1 + r.IntN(figureHosts-1)) % figureHosts
	}
	return p
}

// speak is a packet of a conversation.
func (t *traffic) speak(c *conversation) *probe {
	r := t.random
	p := &probe{talk: c, side: r.IntN(2)}
	var flags string
	if c.protocol == packet.ProtoTCP {
		p.side, flags = c.nextSegment(r)
	}
	s := c.spec(p.side)
	s.ID = t.tag
	switch c.protocol {
	case packet.ProtoTCP:
		c.sequence(&s, p.side, flags)
		p.flags = flagBits(flags)
		p.what = fmt.Sprintf("TCP [%s]", flags)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		s.ICMPType, s.ICMPID = c.query, c.port[0]
		if r.IntN(2) == 0 {
			s.ICMPType = c.queryReply()
			switch r.IntN(10) {
			case 0:
				p.kind, s.ICMPCode = icmpReplyCode, 1
			case 1:
				s.ICMPType = c.otherReply()
			}
		}
		p.icmpType, p.type6 = s.ICMPType, c.family == 1
		p.what = fmt.Sprintf("%s type %d code %d", packet.ProtocolName(c.protocol), s.ICMPType, s.ICMPCode)
	default:
		s.Payload = 8 + r.IntN(100)
		p.what = packet.ProtocolName(c.protocol)
	}
	p.from, p.to = c.host[p.side], c.host[1-p.side]
	t.dress(p, c, s)
	return p
}

// dress builds the packet of a spec, in one case of eight with something about it.
func (t *traffic) dress(p *probe, c *conversation, s packettest.Spec) {
	r := t.random
	odd := p.kind == ordinary && r.IntN(8) == 0
	if odd && c.family == 0 && r.IntN(2) == 0 {
		p.what += ", IP options"
		s.IPOptions = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 1}}
		odd = false
	}
	hop := odd && c.renewable() && r.IntN(4) == 0
	if hop {
		p.kind, s.TTL = lastHop, 1
		p.what += ", last hop"
	}
	b := c.build(s)
	switch {
	case !odd || hop:
	case c.family == 1 && r.IntN(3) > 0:
		b = t.extend(p, c, b)
	case c.protocol == packet.ProtoTCP || c.protocol == packet.ProtoICMP || c.protocol == packet.ProtoICMPv6 || c.protocol == packet.ProtoUDP:
		p.kind = wrongChecksum
		p.what += ", wrong checksum"
		transport := len(b) - transportLength(c, s)
		b[transport+map[uint8]int{packet.ProtoTCP: 16, packet.ProtoUDP: 6, packet.ProtoICMP: 2, packet.ProtoICMPv6: 2}[c.protocol]] ^= 0x55
	}
	p.frames = [][]byte{b}
}

func transportLength(c *conversation, s packettest.Spec) int {
	header := 8
	if c.protocol == packet.ProtoTCP {
		header = 20
	}
	return header + s.Payload
}

// extend puts an IPv6 extension header in front.
func (t *traffic) extend(p *probe, c *conversation, b []byte) []byte {
	routing := packettest.Options(43, 1)
	switch t.random.IntN(6) {
	case 0:
		p.what += ", destination options"
		return packettest.Extend(b, packettest.Options(60, 1))
	case 1:
		p.what += ", hop-by-hop options"
		return packettest.Extend(b, packettest.Options(0, 1))
	case 2:
		opens := c.protocol != packet.ProtoTCP || !c.tcp.live && is(p, packet.SYN)
		if !c.renewable() || !opens { // one difference at a time
			return b
		}
		p.kind = behindAH
		p.what += ", AH in front"
		ah := packettest.Extension{Protocol: packet.ProtoAH, Bytes: make([]byte, 16)}
		ah.Bytes[1] = 2 // its length in words, less two
		return packettest.Extend(b, ah)
	case 3:
		p.what += ", routing header, destination options"
		return packettest.Extend(b, routing, packettest.Options(60, 1))
	case 4:
		p.what += ", atomic fragment"
		p.rewritten = true
		return packettest.Extend(b, packettest.FragmentHeader(0, false, uint32(t.tag)))
	}
	if !c.renewable() {
		return b
	}
	p.kind = routingType0
	p.what += ", routing header type 0"
	routing.Bytes[2] = 0
	return packettest.Extend(b, routing)
}

// icmpError is an error about a packet of a conversation, from the host that the packet
// went to, from another address there, or from somebody who never saw it.
func (t *traffic) icmpError(c *conversation) *probe {
	r := t.random
	quoted := r.IntN(2) // who sent the quoted packet and gets the error
	p := &probe{kind: icmpError, talk: c, side: 1 - quoted, quotedTo: c.host[1-quoted], type6: c.family == 1}
	from := c.host[1-quoted]
	source := c.address[1-quoted]
	switch {
	case r.IntN(8) == 0:
		from = (c.host[quoted] + 1 + r.IntN(figureHosts-1)) % figureHosts
		source = t.scenario.addressOf(r, from, c.family)
	case from == figureInternet:
		source = t.scenario.addressOf(r, from, c.family) // a router on the way
	}
	p.icmpType = pick[uint8](r, 3, 3, 3, 11, 12, 4, 5)
	if p.type6 {
		p.icmpType = pick[uint8](r, 1, 1, 2, 3, 4, 100)
	}
	quote := c.example(quoted)
	if r.IntN(2) == 0 {
		quote = quote[:len(quote)-max(0, len(quote)-[2]int{28, 48}[c.family])]
	}
	to, destination := c.host[quoted], c.address[quoted]
	if r.IntN(10) == 0 { // to somebody who has not sent what it quotes
		to = (from + 1 + r.IntN(figureHosts-1)) % figureHosts
		destination = t.scenario.addressOf(r, to, c.family)
	}
	s := packettest.Spec{Src: source.String(), Dst: destination.String(), ICMPType: p.icmpType, ICMPCode: uint8(r.IntN(2)), ID: t.tag}
	p.what = fmt.Sprintf("ICMP error type %d from %v (host %d) to %v about a packet to host %d", p.icmpType, source, from, destination, p.quotedTo)
	p.from, p.to = from, to
	p.frames = [][]byte{packettest.ICMPError(s, quote)}
	return p
}

// stray is a packet that no conversation would send, in the name of one.
func (t *traffic) stray(c *conversation) *probe {
	side := t.random.IntN(2)
	s := c.spec(side)
	s.ID, s.SrcPort, s.DstPort = t.tag, 30000+t.tag%1000, pick(t.random, servicePorts...)
	p := &probe{type6: c.family == 1, from: c.host[side], to: c.host[1-side]}
	switch t.random.IntN(6) {
	case 0:
		p.kind, p.to = spoofed, nowhere
		s.Src = t.foreign(p.from, c.family).String()
	case 1:
		p.kind, p.to = land, p.from
		s.Dst, s.DstPort = s.Src, s.SrcPort
	case 2:
		p.kind, p.to = unroutable, nowhere
		s.Dst = pick(t.random, nobody...)[c.family]
	case 3:
		p.kind, p.from, p.to = bogon, figureInternet, t.random.IntN(figureVMs)
		s.Src = pick(t.random, bogons...)[c.family]
		if netip.MustParseAddr(s.Src).Is4In6() {
			p.kind = mapped
		}
		s.Dst = t.scenario.address[p.to][c.family].String()
	case 4:
		return t.strayICMP(p, s)
	case 5:
		p.kind, p.to = malformed, nowhere
		p.frames = [][]byte{packettest.UDP(s)}
		p.what = t.spoil(p.frames[0])
		return p
	}
	p.what = fmt.Sprintf("UDP from %s to %s", s.Src, s.Dst)
	p.frames = [][]byte{packettest.UDP(s)}
	return p
}

// strayICMP is any message but echo and timestamp requests, which are for
// conversations, and errors.
func (t *traffic) strayICMP(p *probe, s packettest.Spec) *probe {
	p.kind = icmpOther
	p.icmpType = pick[uint8](t.random, 0, 1, 2, 9, 10, 14, 15, 16, 17, 18, 19, 30, 255)
	if p.type6 {
		p.icmpType = pick[uint8](t.random, 129, 130, 131, 133, 134, 135, 136, 137, 139, 140, 143, 200)
	}
	s.ICMPType, s.ICMPID = p.icmpType, 50_000+t.tag%1000
	p.what = fmt.Sprintf("ICMP type %d", s.ICMPType)
	p.frames = [][]byte{packettest.ICMP(s)}
	return p
}

// nobody are destinations that nothing is attached at or that no router forwards to, by family.
var nobody = [][2]string{
	{"10.0.200.1", "fd00:1:0:9::1"}, {"10.0.16.1", "fd00:1:0:1::ffff"}, {"20.7.200.1", "2a01:7:0:9::1"}, {"192.168.7.7", "fc00::7"},
	{"10.0.31.255", "ff05::7"}, {"255.255.255.255", "ff02::1"}, {"224.0.0.251", "ff0e::7"}, {"127.0.0.1", "::1"},
	{"169.254.169.254", "fe80::7"}, {"168.63.129.16", "fdff::1"},
}

// bogons are sources that come from outside only by mistake or malice, by family.
var bogons = [][2]string{
	{"0.0.0.0", "::"}, {"0.1.2.3", "::2"}, {"127.0.0.9", "::1"}, {"169.254.7.7", "fe80::9"}, {"192.168.7.7", "fdff::9"},
	{"224.0.0.9", "ff02::9"}, {"240.0.0.9", "ff0e::9"}, {"255.255.255.255", "::ffff:203.0.113.10"}, {"10.200.0.9", "64:ff9b::9"}, {"100.64.0.9", "::203.0.113.9"},
}

// foreign is a source address that the host may not use.
func (t *traffic) foreign(host, family int) netip.Addr {
	r := t.random
	if host == figureInternet {
		return t.scenario.address[r.IntN(figureVMs)][family]
	}
	if r.IntN(2) == 0 {
		return outside[family][0]
	}
	return t.scenario.address[(host+1+r.IntN(figureVMs-1))%figureVMs][family]
}

// spoil makes lengths of a UDP packet lie and says how.
func (t *traffic) spoil(b []byte) string {
	transport, length := 20, b[2:4]
	if b[0]>>4 == 6 {
		transport, length = 40, b[4:6]
	}
	switch t.random.IntN(3) {
	case 0:
		binary.BigEndian.PutUint16(length, binary.BigEndian.Uint16(length)+8)
		fixIPv4Checksum(b)
		return "IP length beyond the packet"
	case 1:
		binary.BigEndian.PutUint16(b[transport+4:], 7)
		return "UDP length 7"
	}
	binary.BigEndian.PutUint16(b[transport+4:], 9000)
	return "UDP length beyond the packet"
}

func fixIPv4Checksum(b []byte) {
	if b[0]>>4 != 4 {
		return
	}
	header := b[:int(b[0]&15)*4]
	clear(header[10:12])
	sum := uint32(0)
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum))
}
