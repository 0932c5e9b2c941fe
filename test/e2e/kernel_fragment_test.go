package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// fragmented sends a packet of a conversation in pieces. In order and complete it is an
// ordinary packet, which both lanes carry as a whole or not at all.
func (t *traffic) fragmented(c *conversation) *probe {
	r := t.random
	p := &probe{talk: c, side: r.IntN(2)}
	disturbed := r.IntN(2) == 0
	var flags string
	switch {
	case c.protocol != packet.ProtoTCP:
	case disturbed && !c.tcp.live:
		flags = "S" // about which both lanes agree: one difference at a time
	default:
		disturbed = false
		p.side, flags = c.nextSegment(r)
	}
	s := c.spec(p.side)
	s.ID, s.Payload = t.tag, 64+r.IntN(1200)
	header := 8
	p.what = packet.ProtocolName(c.protocol)
	switch c.protocol {
	case packet.ProtoTCP:
		c.sequence(&s, p.side, flags)
		p.flags, header = flagBits(flags), 24 // the first multiple of eight that has all of it
		p.what = fmt.Sprintf("TCP [%s]", flags)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		s.ICMPType, s.ICMPID = pick(r, c.query, c.queryReply()), c.port[0]
		p.icmpType, p.type6 = s.ICMPType, c.family == 1
		p.what = fmt.Sprintf("%s type %d", p.what, s.ICMPType)
	}
	p.from, p.to = c.host[p.side], c.host[1-p.side]
	p.whole = c.build(s)
	p.frames = packettest.Fragments(p.whole, uint32(t.tag), pieces(r, header, len(transportOf(p.whole)))...)
	if disturbed {
		t.disturb(p, c, header)
	}
	p.what += fmt.Sprintf(", %d fragments", len(p.frames))
	return p
}

// pieces are the lengths of all fragments but the last, multiples of eight, the first of
// at least header bytes.
func pieces(r *rand.Rand, header, length int) []int {
	var sizes []int
	for n := 1 + r.IntN(4); n > 0; n-- {
		least := 8
		if len(sizes) == 0 {
			least = header
		}
		most := length - 8*n - least
		if most <= 0 {
			break
		}
		size := least + r.IntN(1+most/n/8)*8
		sizes = append(sizes, size)
		length -= size
	}
	if len(sizes) == 0 {
		return []int{header}
	}
	return sizes
}

// disturb makes of a fragmented packet what no honest sender sends, or not in that order.
func (t *traffic) disturb(p *probe, c *conversation, header int) {
	r := t.random
	transport := transportOf(p.whole)
	headerLen := len(p.whole) - len(transport)
	at := func(start, end int, more bool) []byte {
		return packettest.FragmentAt(p.whole[:headerLen], transport[start:end], uint32(t.tag), start, more)
	}
	choice := r.IntN(5)
	if !c.renewable() {
		choice = 0 // which begins a flow in both lanes, or in none
	}
	switch choice {
	case 0:
		p.kind = outOfOrder
		p.what += ", out of order"
		p.frames[0], p.frames[1] = p.frames[1], p.frames[0]
	case 1:
		p.kind = incomplete
		p.what += ", one missing"
		i := r.IntN(len(p.frames))
		p.frames = slices.Delete(p.frames, i, i+1)
	case 2:
		p.kind = overlapping
		p.what += ", overlapping"
		p.frames = [][]byte{at(0, header+16, true), at(header+8, len(transport), false)}
	case 3:
		p.kind = repeated
		p.what += ", header sent again"
		p.frames = [][]byte{at(0, header+16, true), at(0, header, true), at(header+16, len(transport), false)}
	case 4:
		if c.protocol == packet.ProtoTCP {
			p.kind = tinyFirst
			p.what += ", tiny first fragment"
			p.frames = [][]byte{at(0, 8, true), at(8, len(transport), false)}
		}
	}
}

// transportOf is what is behind the IP header of a packet without extension headers.
func transportOf(b []byte) []byte {
	if b[0]>>4 == 4 {
		return b[int(b[0]&15)*4:]
	}
	return b[40:]
}

// reassemble puts together what came out of a router, which may cut other pieces than
// those that it got, and reports whether it is the whole of what was sent.
func reassemble(whole []byte, frames [][]byte) bool {
	want := transportOf(whole)
	got, covered := make([]byte, len(want)), 0
	for _, b := range frames {
		offset, part := placeOf(b)
		if offset+len(part) > len(got) {
			return false
		}
		covered += copy(got[offset:], part)
	}
	return covered == len(want) && bytes.Equal(got, want)
}

// placeOf is where a frame's bytes belong in its datagram.
func placeOf(b []byte) (offset int, part []byte) {
	part = transportOf(b)
	if b[0]>>4 == 4 {
		return int(binary.BigEndian.Uint16(b[6:])&0x1fff) * 8, part
	}
	if b[6] == unix.IPPROTO_FRAGMENT && len(part) >= 8 {
		return int(binary.BigEndian.Uint16(part[2:]) &^ 7), part[8:]
	}
	return 0, part
}
