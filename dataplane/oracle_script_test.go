package dataplane

import (
	"net/netip"
	"slices"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// message is a packet that a script sent, as far as an answer to it needs.
type message struct {
	spec  packettest.Spec
	build func(packettest.Spec) []byte
	bytes []byte
	from  int
	back  int // attachment of whom it was sent to
}

// script turns bytes into what happens to an oracleRig: packets that hosts of its
// world could send, answers, errors about them, arbitrary frames, time, other policies.
type script struct {
	packettest.Choices
	sent [8]message // the latest, a ring
	n    int
}

func (s *script) run(r *oracleRig) {
	for len(s.Choices) > 0 {
		switch op := s.Next(32); {
		case op < 10:
			s.remember(r, s.fresh())
		case op < 17:
			s.remember(r, s.answer())
		case op < 19:
			m := s.recent()
			for range packettest.Pick(&s.Choices, 1, 1, 1, 18) {
				r.carry(m.from, frameOf(tun.Header{}, m.bytes))
			}
		case op < 22:
			s.converse(r)
		case op < 23:
			m := s.complaint()
			r.carry(m.from, frameOf(tun.Header{}, m.bytes))
		case op < 24:
			s.fragments(r)
		case op == opArbitrary:
			s.arbitrary(r)
		case op < 28:
			r.wait(packettest.Pick(&s.Choices, 10*time.Millisecond, time.Second, 1990*time.Millisecond, 5*time.Second, 10*time.Second, 29990*time.Millisecond, 30*time.Second, time.Minute, 4*time.Minute, 10*time.Minute))
		case op == 28:
			r.flush()
			r.engine.Flows().Expire(r.engine.Now(), s.Next(64))
			r.engine.Fragments().Expire(r.clock, time.Hour)
			r.oracle.forgetDatagrams()
		case op < 31:
			r.reload(s.Next(len(r.policies)))
		default:
			s.end(r)
		}
	}
}

func (s *script) remember(r *oracleRig, m message) {
	h := s.vary(&m)
	s.sent[s.n%len(s.sent)] = m
	s.n++
	r.carry(m.from, frameOf(h, m.bytes))
}

// recent is one of the latest packets; before there is one, a SYN.
func (s *script) recent() message {
	if s.n == 0 {
		spec := packettest.Spec{Src: enginetest.Hosts[0].V4, Dst: enginetest.Hosts[3].V4, SrcPort: 40000, DstPort: 80, Flags: "S"}
		return message{spec, packettest.TCP, packettest.TCP(spec), enginetest.AtVM1, enginetest.AtSubnet3}
	}
	return s.sent[(s.n-1-s.Next(min(s.n, len(s.sent))))%len(s.sent)]
}

// someone is a host, mostly one that can exist.
func (s *script) someone() int {
	i := s.Next(128)
	if i >= len(enginetest.Hosts) {
		i %= 7
	}
	return i
}

// fresh is the first packet of something.
func (s *script) fresh() message {
	c := &s.Choices
	i, j, family := s.someone(), s.someone(), s.Next(2)
	if i == j {
		i = (i + s.Next(2)) % 7 // who sends to himself is found out soon
	}
	src, dst := enginetest.Hosts[i], enginetest.Hosts[j]
	m := message{from: src.At, back: dst.At, build: packettest.Pick(c, packettest.TCP, packettest.TCP, packettest.UDP, packettest.UDP, packettest.ICMP, raw(packet.ProtoESP), raw(packet.ProtoAH), raw(packet.ProtoGRE))}
	m.spec = packettest.Spec{Src: src.Address(family), Dst: dst.Address(family), SrcPort: packettest.Pick[uint16](c, 40000, 40001, 80), DstPort: packettest.Pick[uint16](c, 80, 81, 79, 8),
		Flags: packettest.Pick(c, "S", "S", "S", "A", "PA", "SA", "FA", "R", "RA", "SF", "", "FPU"), ICMPID: uint16(s.Next(3)), Payload: s.Next(32)}
	m.spec.ICMPType = [...][8]uint8{{8, 8, 8, 13, 0, 14, 3, 5}, {128, 128, 128, 129, 129, 1, 2, 135}}[family][s.Next(8)]
	if s.Next(8) == 7 {
		s.toService(&m)
	}
	m.bytes = m.build(m.spec)
	return m
}

// toService has a packet go to the platform, or to a mail server.
func (s *script) toService(m *message) {
	service := oracleServices[s.Next(len(oracleServices))]
	i := s.Next(5)
	m.from, m.spec.Src = enginetest.Hosts[i].At, enginetest.Hosts[i].V4
	m.back, m.spec.Dst, m.spec.DstPort = enginetest.AtPlatform, service.address, service.port
	if service.name == "lkm" {
		m.back = enginetest.AtInternet
	}
	m.build = packettest.TCP
	if service.protocols[s.Next(len(service.protocols))] == packet.ProtoUDP {
		m.build = packettest.UDP
	}
	switch s.Next(8) {
	case 5, 6:
		m.build, m.back, m.spec.Dst, m.spec.DstPort = packettest.TCP, enginetest.AtInternet, enginetest.Hosts[5].V4, 25
	case 7:
		m.spec.DstPort++ // nobody's
	}
}

func raw(protocol uint8) func(packettest.Spec) []byte {
	return func(s packettest.Spec) []byte { return packettest.Raw(s, protocol) }
}

// answer goes back where a recent packet came from, or on in its direction.
func (s *script) answer() message {
	m := s.recent()
	if s.Next(4) > 0 {
		m = m.reversed()
		if reply, ok := map[uint8]uint8{8: 0, 0: 8, 13: 14, 14: 13, 128: 129, 129: 128}[m.spec.ICMPType]; ok && s.Next(8) > 0 {
			m.spec.ICMPType = reply
		}
	}
	m.spec.Flags = packettest.Pick(&s.Choices, "A", "SA", "PA", "S", "FA", "RA", "R", "A", "SA", "FA")
	m.bytes = m.build(m.spec)
	return m
}

func (m message) reversed() message {
	m.from, m.back = m.back, m.from
	m.spec.Src, m.spec.Dst, m.spec.SrcPort, m.spec.DstPort = m.spec.Dst, m.spec.Src, m.spec.DstPort, m.spec.SrcPort
	return m
}

// vary makes one packet in a few unusual: of another attachment, a superpacket, with
// options or extension headers, a fragment, damaged.
func (s *script) vary(m *message) (h tun.Header) {
	v4 := m.bytes[0]>>4 == 4
	c := &s.Choices
	switch s.Next(32) {
	case 0, 1:
		m.from = s.Next(enginetest.NumPlaces)
		if s.Next(4) == 3 && !v4 {
			m.bytes = packettest.Extend(m.bytes, slices.Repeat([]packettest.Extension{packettest.Options(60, 1)}, 9)...)
		}
	case 2, 3:
		h.GSOType = packettest.Pick[uint8](c, tun.GSOTCPv4, tun.GSOTCPv6, tun.GSOUDPL4, tun.GSOTCPv4|tun.GSOECN, 99)
		h.GSOSize = uint16(s.Next(16))
	case 4:
		if v4 {
			m.spec.IPOptions = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
			m.bytes = m.build(m.spec)
		} else {
			m.bytes = packettest.Extend(m.bytes, packettest.Options(packettest.Pick[uint8](c, 0, 43, 60), 1+s.Next(2)), packettest.Options(packettest.Pick[uint8](c, 60, 0), 1))
			m.bytes[42] = packettest.Pick[uint8](c, 4, 4, 0) // the routing header's type
		}
	case 5, 6:
		offset, more := packettest.Pick[uint16](c, 0, 1, 2, 185, 8191), s.Next(2) == 1
		if v4 {
			m.spec.FragmentOffset, m.spec.MoreFragments = offset, more
			m.bytes = m.build(m.spec)
			m.spec.FragmentOffset, m.spec.MoreFragments = 0, false
		} else {
			m.bytes = packettest.Extend(m.bytes, packettest.FragmentHeader(offset, more, uint32(s.Next(2))))
		}
	case 7, 8:
		at := s.Next(256)
		m.bytes = append([]byte(nil), m.bytes...)
		m.bytes[at%min(len(m.bytes), 64)] ^= 1 << s.Next(8)
	case 9:
		m.bytes = m.bytes[:1+s.Next(256)%len(m.bytes)]
	}
	return h
}

// converse goes through a handshake, or a question and its answer.
func (s *script) converse(r *oracleRig) {
	m := s.fresh()
	for i, flags := range []string{"S", "SA", "A"}[:2+s.Next(2)] {
		if i > 0 {
			m = m.reversed()
		}
		m.spec.Flags = flags
		if m.spec.ICMPType = []uint8{8, 0}[i%2]; m.bytes[0]>>4 == 6 {
			m.spec.ICMPType = 128 + uint8(i%2)
		}
		m.bytes = m.build(m.spec)
		s.remember(r, m)
	}
}

// fragments sends a datagram in pieces, mostly in order; some are missing, come twice, or
// belong to another datagram.
func (s *script) fragments(r *oracleRig) {
	var m message
	switch s.Next(4) {
	case 0, 1:
		m = s.fresh()
	case 2:
		m = s.answer()
	case 3:
		m = s.complaint()
	}
	m.spec.Payload = 40 + s.Next(64)
	sizes := []int{24, 16, 16, 8, 8}[s.Next(2) : 2+s.Next(4)]
	gaps := s.Next(16) == 15
	if gaps {
		m.spec.Payload, sizes = 200, append([]int{24}, slices.Repeat([]int{8}, 18)...)
	}
	pieces := packettest.Fragments(m.build(m.spec), uint32(s.Next(3)), sizes...)
	if gaps {
		for i := range 9 { // every second one after the first
			pieces[i+1] = pieces[2*i+2]
		}
		pieces = pieces[:10]
	}
	if s.Next(4) == 3 {
		i, j := s.Next(len(pieces)), s.Next(len(pieces))
		pieces[i], pieces[j] = pieces[j], pieces[i]
	}
	if s.Next(8) == 7 {
		pieces = slices.Insert(pieces, s.Next(len(pieces)+1), pieces[s.Next(len(pieces))])
	}
	if s.Next(8) == 7 {
		i := s.Next(len(pieces))
		pieces = slices.Delete(pieces, i, i+1)
	}
	for _, m.bytes = range pieces {
		from := m.from
		switch s.Next(32) {
		case 31:
			r.wait(time.Second)
		case 30:
			r.reload(s.Next(len(r.policies)))
		case 29:
			s.end(r)
		case 28:
			from = enginetest.AtVM3 // which may forward for others
		}
		r.carry(from, frameOf(tun.Header{}, m.bytes))
		s.sent[s.n%len(s.sent)] = m
		s.n++
	}
}

// complaint is an ICMP error about a recent packet, mostly to whoever sent that.
func (s *script) complaint() message {
	about, router := s.recent(), enginetest.Hosts[s.someone()]
	m := message{from: router.At, back: about.from, spec: packettest.Spec{Src: router.V4, Dst: about.spec.Src, ICMPType: packettest.Pick[uint8](&s.Choices, 3, 3, 11, 12)}}
	if !netip.MustParseAddr(about.spec.Src).Is4() {
		m.spec.Src, m.spec.ICMPType = router.V6, uint8(1+s.Next(4))
	}
	if s.Next(4) == 3 { // the one who was asked
		m.from, m.spec.Src = about.back, about.spec.Dst
	}
	quote := about.bytes
	if n := s.Next(64); n < len(quote) && n > 24 {
		quote = quote[:n]
	}
	m.build = func(spec packettest.Spec) []byte { return packettest.ICMPError(spec, quote) }
	m.bytes = m.build(m.spec)
	return m
}

// arbitrary sends the script's own bytes: attachment, length, frame.
func (s *script) arbitrary(r *oracleRig) {
	from := s.Next(enginetest.NumPlaces)
	n := min(s.Next(256), len(s.Choices))
	r.carry(from, s.Choices[:n:n])
	s.Choices = s.Choices[n:]
}

// end ends all flows, or one that a recent packet may belong to.
func (s *script) end(r *oracleRig) {
	r.flush()
	if s.Next(4) == 0 {
		r.engine.Flows().Flush()
		clear(r.oracle.flows)
		return
	}
	m := s.recent()
	var d packet.Decoder
	var p packet.Packet
	d.Decode(m.bytes, 0, &p)
	k := conntrack.Key{Tuple: p.Tuple, Zone: uint16(m.from)}
	r.engine.Flows().End(&k)
	if f := r.oracle.flows[k]; f != nil {
		r.oracle.remove(f)
	}
}

// frameOf puts a virtio-net header before a packet.
func frameOf(h tun.Header, p []byte) []byte {
	b := make([]byte, tun.HeaderLen, tun.HeaderLen+len(p))
	h.Encode((*[tun.HeaderLen]byte)(b))
	return append(b, p...)
}

// opArbitrary is the step that arbitrary takes.
const opArbitrary = 24

// arbitraryFrame is the piece of a script that arbitrary reads.
func arbitraryFrame(from int, frame []byte) []byte {
	if len(frame) > 255 {
		frame = frame[:255]
	}
	return append([]byte{opArbitrary, byte(from), byte(len(frame))}, frame...)
}
