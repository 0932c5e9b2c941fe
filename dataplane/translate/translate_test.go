package translate_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/translate"
	"github.com/nsgd/nsgd/tun"
)

// choices decide what a packet is like.
type choices struct{ packettest.Choices }

// word draws all of 16 bits, those that carries go through among them.
func (c *choices) word() uint16 {
	return []uint16{0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff, 0xff00, uint16(c.Next(256))<<8 | uint16(c.Next(256))}[c.Next(8)]
}

func (c *choices) address(six bool) string {
	words := [8]uint16{0x2001}
	if !six {
		a, b := c.word(), c.word()
		return netip.AddrFrom4([4]byte{byte(a >> 8), byte(a), byte(b >> 8), byte(b)}).String()
	}
	var b [16]byte
	for i := range words {
		if i > 0 {
			words[i] = c.word()
		}
		binary.BigEndian.PutUint16(b[2*i:], words[i])
	}
	return netip.AddrFrom16(b).String()
}

// drawn is a packet and the tuple that it is to get.
type drawn struct {
	frame         []byte
	p             packet.Packet
	to            packet.Tuple
	partial, none bool // of its checksum: left to do, and UDP without one
}

// draw makes a whole packet with right checksums.
func draw(t testing.TB, c *choices) *drawn {
	d := &drawn{}
	six := c.Next(2) == 1
	s := packettest.Spec{Src: c.address(six), Dst: c.address(six), SrcPort: c.word(), DstPort: c.word(), ICMPID: c.word(),
		Flags: []string{"S", "A", "FA"}[c.Next(3)], Seq: uint32(c.word()), Payload: 8 * c.Next(12), ID: c.word()}
	s.Payload += c.Next(8)
	if c.Next(4) == 3 {
		s.TCPOptions = []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop}}
		s.IPOptions = []layers.IPv4Option{{OptionType: 1}}
	}
	var b []byte
	kind := c.Next(4)
	switch kind {
	case 0:
		b = packettest.TCP(s)
	case 1:
		b = packettest.UDP(s)
		d.none = c.Next(4) == 3
	default:
		if s.ICMPType = []uint8{8, 0, 13, 14}[c.Next(4)]; six {
			s.ICMPType = []uint8{128, 129}[c.Next(2)]
		}
		b = packettest.ICMP(s)
	}
	if six && c.Next(4) == 3 {
		b = packettest.Extend(b, packettest.Options(0, 1), packettest.Options(60, 2))
	}
	for i := range s.Payload {
		b[len(b)-1-i] = byte(c.Next(256))
	}
	d.frame = append(make([]byte, tun.HeaderLen), b...)
	d.decode(t)
	if d.partial = c.Next(3) == 2 && !d.none; d.partial {
		at, _ := sumAt(&d.p)
		h := tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: d.p.HeaderLen, CsumOffset: uint16(at)}
		h.Encode((*[tun.HeaderLen]byte)(d.frame))
	}
	slowChecksums(d.frame[tun.HeaderLen:], &d.p, d.partial, d.none)
	d.to = packet.Tuple{Src: packet.AddrFrom(netip.MustParseAddr(c.address(six))), Dst: packet.AddrFrom(netip.MustParseAddr(c.address(six))), Proto: d.p.Proto}
	switch {
	case kind < 2:
		d.to.SrcPort, d.to.DstPort = c.word(), c.word()
	case d.p.IsICMPRequest():
		d.to.SrcPort = c.word()
	default:
		d.to.DstPort = c.word()
	}
	return d
}

func (d *drawn) decode(t testing.TB) {
	t.Helper()
	var decoder packet.Decoder
	if drop := decoder.Decode(d.frame[tun.HeaderLen:], 0, &d.p); drop != packet.NotDropped {
		t.Fatalf("%x: %s", d.frame, drop)
	}
}

// check translates the packet, its fragments, and an ICMP error about it, holds each against one
// made from scratch, and translates it back.
func check(t *testing.T, data []byte) {
	c := choices{data}
	d := draw(t, &c)
	want := slowly(d.frame, &d.p, &d.to, d.partial, d.none)
	if onlyZeros(d.frame, &d.p) || onlyZeros(want, &d.p) {
		return // see the package's comment
	}
	there(t, "packet", d.frame, &d.p, &d.to, want)
	if !d.partial && d.p.Len-uint32(d.p.HeaderLen) > 24 && d.p.HeaderLen <= 40 {
		d.fragments(t, &c, want)
	}
	d.complain(t, &c, want)
}

// onlyZeros reports an ICMP message of zeros, apart from its checksum.
func onlyZeros(frame []byte, p *packet.Packet) bool {
	m := frame[tun.HeaderLen+int(p.HeaderLen):]
	return p.Proto == packet.ProtoICMP && m[2]&m[3] == 0xff
}

// there translates a packet there and back.
func there(t *testing.T, what string, frame []byte, p *packet.Packet, to *packet.Tuple, want []byte) {
	t.Helper()
	got, q := append([]byte(nil), frame...), *p
	translate.Packet(got, &q, to)
	if !bytes.Equal(got, want) {
		t.Fatalf("%s of %v becomes %v as\n%x, want\n%x, from\n%x", what, p.Tuple, to, got, want, frame)
	}
	var decoder packet.Decoder
	var decoded packet.Packet
	if drop := decoder.Decode(got[tun.HeaderLen:], 0, &decoded); drop != packet.NotDropped || decoded != q {
		t.Fatalf("%s decodes to %s %+v, want %+v", what, drop, decoded, q)
	}
	translate.Packet(got, &q, &p.Tuple)
	if !bytes.Equal(got, frame) || q != *p {
		t.Fatalf("%s of %v comes back from %v as\n%x, want\n%x", what, p.Tuple, to, got, frame)
	}
}

func (d *drawn) fragments(t *testing.T, c *choices, want []byte) {
	sizes := []int{24, 8 * c.Next(3)}
	if sizes[1] == 0 || int(d.p.Len)-int(d.p.HeaderLen) <= 24+sizes[1] {
		sizes = sizes[:1]
	}
	before, after := packettest.Fragments(d.frame[tun.HeaderLen:], 77, sizes...), packettest.Fragments(want[tun.HeaderLen:], 77, sizes...)
	for i := range before {
		f := &drawn{frame: append(make([]byte, tun.HeaderLen), before[i]...), to: d.to}
		var decoder packet.Decoder
		if drop := decoder.Decode(before[i], 0, &f.p); drop != packet.NotDropped {
			return // too small a first one, say
		}
		there(t, fmt.Sprintf("fragment %d", i), f.frame, &f.p, &f.to, append(make([]byte, tun.HeaderLen), after[i]...))
	}
}

// complain translates an error about the packet as it is now, which goes to its sender: there the
// packet is what want says.
func (d *drawn) complain(t *testing.T, c *choices, want []byte) {
	six := !d.p.Src.Is4()
	reporter, seen := c.address(six), c.address(six)
	n := min(int(d.p.HeaderLen)+8+c.Next(40), len(want)-tun.HeaderLen)
	if n == int(d.p.HeaderLen)+17 {
		n-- // half a checksum of TCP can't be brought up to date
	}
	kind := uint8(3)
	if six {
		kind = 1
	}
	// A quoted checksum that is left to do means nothing, and is updated like any other.
	quote, original := d.frame[tun.HeaderLen:], want[tun.HeaderLen:]
	if d.partial {
		return
	}
	report := func(from string, to packet.Addr, quote []byte) []byte {
		return packettest.ICMPError(packettest.Spec{Src: from, Dst: to.String(), ICMPType: kind}, quote[:n])
	}
	e := &drawn{frame: append(make([]byte, tun.HeaderLen), report(reporter, d.p.Src, quote)...)}
	expected := append(make([]byte, tun.HeaderLen), report(seen, d.to.Src, original)...)
	e.decode(t)
	quoted, ok := packet.DecodeQuote(e.frame[tun.HeaderLen:], &e.p)
	if !ok {
		return
	}
	got, q := append([]byte(nil), e.frame...), e.p
	translate.Error(got, &q, &quoted, &d.to, packet.AddrFrom(netip.MustParseAddr(seen)))
	if !bytes.Equal(got, expected) {
		t.Fatalf("error about %v becomes one about %v as\n%x, want\n%x, from\n%x", d.p.Tuple, d.to, got, expected, e.frame)
	}
	back, ok := packet.DecodeQuote(got[tun.HeaderLen:], &q)
	if !ok || back.Tuple != d.to {
		t.Fatalf("quotes %v, %t", back.Tuple, ok)
	}
	translate.Error(got, &q, &back, &d.p.Tuple, e.p.Src)
	if !bytes.Equal(got, e.frame) || q != e.p {
		t.Fatalf("error about %v comes back as\n%x, want\n%x", d.p.Tuple, got, e.frame)
	}
}

func TestPacketsComeOutAsMadeFromScratchAndComeBackAsTheyWere(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 7))
	data := make([]byte, 400)
	for range 50_000 {
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		check(t, data)
	}
}

func FuzzTranslate(f *testing.F) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 16 {
		data := make([]byte, 400)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(check)
}

// A checksum that is wrong stays wrong by as much: a translation is no place to make it right.
func TestAWrongChecksumStaysWrong(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	data := make([]byte, 200)
	for range 2000 {
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		c := choices{data}
		d := draw(t, &c)
		at, _ := sumAt(&d.p)
		field := d.frame[tun.HeaderLen+int(d.p.HeaderLen)+at:]
		wrong := binary.BigEndian.Uint16(field) + 1 + uint16(random.Uint32N(0xfff0))
		if binary.BigEndian.PutUint16(field, wrong); wrong == 0xffff || wrong == 0 || d.none || d.partial {
			continue
		}
		right := slowly(d.frame, &d.p, &d.to, false, false)
		got, q := append([]byte(nil), d.frame...), d.p
		translate.Packet(got, &q, &d.to)
		if bytes.Equal(got, right) {
			t.Fatalf("%x was made right as\n%x", d.frame, got)
		}
		translate.Packet(got, &q, &d.p.Tuple)
		if !bytes.Equal(got, d.frame) {
			t.Fatalf("came back as\n%x, want\n%x", got, d.frame)
		}
	}
}

func TestALaterFragmentQuotedInAnErrorGetsItsAddresses(t *testing.T) {
	for _, world := range [][4]string{
		{"10.0.0.4", "198.51.100.1", "203.0.113.10", "203.0.113.1"},
		{"fd00::4", "2001:db8::1", "2001:db8::10", "2001:db8::ff"},
	} {
		private, public, far, router := world[0], world[1], world[2], world[3]
		part := func(src string) []byte {
			b := packettest.Fragments(packettest.UDP(packettest.Spec{Src: src, Dst: far, Payload: 40}), 9, 16)[1]
			for i := range b[len(b)-32:] { // what could pass for ports
				b[len(b)-32+i] = 0xaa
			}
			return b
		}
		kind := uint8(11)
		if !netip.MustParseAddr(far).Is4() {
			kind = 3
		}
		report := func(to string, quote []byte) []byte {
			return append(make([]byte, tun.HeaderLen), packettest.ICMPError(packettest.Spec{Src: router, Dst: to, ICMPType: kind}, quote)...)
		}
		e := &drawn{frame: report(public, part(public))}
		e.decode(t)
		quoted, ok := packet.DecodeQuote(e.frame[tun.HeaderLen:], &e.p)
		if !ok {
			t.Fatal("quotes nothing")
		}
		inner := quoted.Tuple
		inner.Src = packet.AddrFrom(netip.MustParseAddr(private))
		translate.Error(e.frame, &e.p, &quoted, &inner, e.p.Src)
		if want := report(private, part(private)); !bytes.Equal(e.frame, want) {
			t.Errorf("became\n%x, want\n%x", e.frame, want)
		}
	}
}

// A tunnel's packet: the checksum that is left to do is the inner one's.
func TestAChecksumThatIsLeftToDoInThePayloadIsNotThePacketsOwn(t *testing.T) {
	plain := &drawn{frame: append(make([]byte, tun.HeaderLen), packettest.UDP(packettest.Spec{
		Src: "10.0.0.4", Dst: "10.0.0.5", SrcPort: 5000, DstPort: 4789, Payload: 100})...)}
	plain.decode(t)
	tunnel := append([]byte(nil), plain.frame...)
	(&tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: plain.p.HeaderLen + 36, CsumOffset: 16}).Encode((*[tun.HeaderLen]byte)(tunnel))
	to := plain.p.Tuple
	to.Src, to.SrcPort = packet.AddrFrom4([4]byte{198, 51, 100, 1}), 1024
	p, q := plain.p, plain.p
	translate.Packet(plain.frame, &p, &to)
	translate.Packet(tunnel, &q, &to)
	if !bytes.Equal(tunnel[tun.HeaderLen:], plain.frame[tun.HeaderLen:]) {
		t.Errorf("became\n%x, want\n%x", tunnel[tun.HeaderLen:], plain.frame[tun.HeaderLen:])
	}
}

func TestAResetIsASegmentThatItsReceiverExpects(t *testing.T) {
	for _, s := range []packettest.Spec{
		{Src: "198.51.100.1", Dst: "203.0.113.10"}, {Src: "2001:db8::1", Dst: "2001:db8::10"},
	} {
		s.SrcPort, s.DstPort, s.Flags, s.Seq, s.Ack = 80, 40000, "RA", 0xfffffff0, 7
		tuple := packet.Tuple{Src: packet.AddrFrom(netip.MustParseAddr(s.Src)), Dst: packet.AddrFrom(netip.MustParseAddr(s.Dst)),
			SrcPort: 80, DstPort: 40000, Proto: packet.ProtoTCP}
		var b [tun.HeaderLen + 60]byte
		d := &drawn{}
		var p packet.Packet
		d.frame = translate.Reset(b[:], &tuple, s.Seq, s.Ack, &p)
		d.decode(t)
		if d.p != p {
			t.Errorf("decodes to %+v, want %+v", d.p, p)
		}
		right := append([]byte(nil), d.frame...)
		slowChecksums(right[tun.HeaderLen:], &p, false, false)
		at := tun.HeaderLen + int(p.HeaderLen)
		want := packettest.TCP(s)[p.HeaderLen:]
		want[14], want[15], want[16], want[17] = 0, 0, d.frame[at+16], d.frame[at+17] // a window means nothing in it
		if !bytes.Equal(d.frame, right) || !bytes.Equal(d.frame[at:], want) {
			t.Errorf("%x, want\n%x", d.frame, want)
		}
	}
}

func BenchmarkPacket(b *testing.B) {
	for _, family := range []struct{ name, src, dst, to string }{
		{"IPv4", "10.0.0.4", "203.0.113.10", "198.51.100.1"}, {"IPv6", "fd00::4", "2001:db8::10", "2001:db8::1"},
	} {
		for _, kind := range []struct {
			name string
			make func(packettest.Spec) []byte
		}{{"TCP", packettest.TCP}, {"UDP", packettest.UDP}} {
			b.Run(kind.name+"-"+family.name, func(b *testing.B) {
				d := &drawn{frame: append(make([]byte, tun.HeaderLen), kind.make(packettest.Spec{Src: family.src, Dst: family.dst, Flags: "A", Payload: 1400})...)}
				d.decode(b)
				to := d.p.Tuple
				to.Src, to.SrcPort = packet.AddrFrom(netip.MustParseAddr(family.to)), 1234
				back := d.p.Tuple
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if i%2 == 0 {
						translate.Packet(d.frame, &d.p, &to)
					} else {
						translate.Packet(d.frame, &d.p, &back)
					}
				}
			})
		}
	}
}

// Of all ports one gives a checksum of 0, which UDP must not have.
func TestEveryChecksumOfUDPAndTCPComesOutRight(t *testing.T) {
	for i, build := range []func(packettest.Spec) []byte{packettest.UDP, packettest.TCP} {
		d := &drawn{frame: append(make([]byte, tun.HeaderLen), build(packettest.Spec{Src: "10.0.0.4", Dst: "203.0.113.10", SrcPort: 7, DstPort: 53, Flags: "A", Payload: 9})...)}
		d.decode(t)
		slowChecksums(d.frame[tun.HeaderLen:], &d.p, false, false)
		at, _ := sumAt(&d.p)
		seen := map[uint16]bool{}
		for port := range 1 << 16 {
			d.to = d.p.Tuple
			d.to.Src, d.to.SrcPort = packet.AddrFrom(netip.MustParseAddr("198.51.100.1")), uint16(port)
			want := slowly(d.frame, &d.p, &d.to, false, false)
			there(t, "packet", d.frame, &d.p, &d.to, want)
			seen[binary.BigEndian.Uint16(want[tun.HeaderLen+20+at:])] = true
		}
		if len(seen) != 1<<16-1 || seen[0] != (i == 1) || seen[0xffff] != (i == 0) {
			t.Errorf("%d checksums, 0 %t, 0xffff %t", len(seen), seen[0], seen[0xffff])
		}
	}
}
