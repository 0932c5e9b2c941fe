package pcap

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"time"
)

// The numbers of pcapng (draft-ietf-opsawg-pcapng): block types first. A reader skips others.
const (
	interfaceDescription = 1
	obsoletePacket       = 2
	simplePacket         = 3
	enhancedPacket       = 6
	sectionHeader        = 0x0a0d0d0a

	byteOrderMagic = 0x1a2b3c4d
	blockAlign     = 4

	optionEnd               = 0
	optionComment           = 1
	sectionApplication      = 4
	interfaceName           = 2
	interfaceDescribed      = 3
	interfaceTimeResolution = 9
	interfaceTimeOffset     = 14
	packetFlags             = 2
	flagInbound             = 0b01 // the interface received the packet
)

// What descriptions can take in memory, and what a file can hold without a packet.
const (
	// maxInterfaces bounds the interfaces of a section, and the names of all sections.
	maxInterfaces = 1 << 16
	// maxName bounds a name, in bytes; a resource id in Azure has some hundred. maxNames bounds all of them together.
	maxName, maxNames = 1 << 10, 4 << 20
	// maxQuiet bounds what lies between two packets, in bytes. A small compressed file may hold any amount of it.
	maxQuiet = 256 << 20
)

// blocks reads a pcapng file. gopacket's reader loses comments and link types beyond 255, can't
// tell an end from a cut, and panics at some time resolutions.
type blocks struct {
	in     *bufio.Reader
	order  binary.ByteOrder // of the section; nil before the first one
	offset int64            // of the block in the file
	kind   uint32           // of the block
	length int              // of the block; 0: its head is yet to be read
	known  []described      // of the section
	names  []string         // of all sections, each once
	seen   map[string]string
	// named is the bytes of names, quiet those since the last packet.
	named, quiet int
}

// described is an interface of the section.
type described struct {
	link    LinkType
	snapLen uint32
	name    string
	unit    uint64 // parts of a second in timestamps
	offset  int64  // in seconds
}

// newBlocks reads up to the first packet, so that interfaces are known.
func newBlocks(in *bufio.Reader) (format, error) {
	b := &blocks{in: in, seen: map[string]string{}}
	for {
		err := b.head()
		if err == nil && b.isPacket() {
			return b, nil
		}
		if err == nil {
			err = b.take(nil)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return b, nil // next says so again
		case err != nil:
			return nil, err
		}
	}
}

func (b *blocks) interfaces() []string { return b.names }

func (b *blocks) next(p *Packet) error {
	for {
		if err := b.head(); err != nil {
			return err
		}
		packet := b.isPacket()
		if err := b.take(p); err != nil {
			return err
		}
		if packet {
			return nil
		}
	}
}

func (b *blocks) isPacket() bool {
	return b.kind == enhancedPacket || b.kind == simplePacket || b.kind == obsoletePacket
}

func (b *blocks) fault(format string, args ...any) error {
	return fmt.Errorf("pcapng block at offset %d: %w", b.offset, fmt.Errorf(format, args...))
}

// peek returns the next n bytes. io.EOF means that not one is left.
func (b *blocks) peek(n int) ([]byte, error) {
	bytes, err := b.in.Peek(n)
	if errors.Is(err, io.EOF) && len(bytes) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return bytes, err
}

// head reads the next block's type and length, once.
func (b *blocks) head() error {
	if b.length > 0 {
		return nil
	}
	h, err := b.peek(12)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint32(h) == sectionHeader { // the same in either byte order
		switch uint32(byteOrderMagic) {
		case binary.LittleEndian.Uint32(h[8:]):
			b.order = binary.LittleEndian
		case binary.BigEndian.Uint32(h[8:]):
			b.order = binary.BigEndian
		default:
			return b.fault("byte order %x: allowed is 1a2b3c4d in either order", h[8:12])
		}
	}
	b.kind = b.order.Uint32(h)
	length := b.order.Uint32(h[4:])
	if length < 12 || length%4 != 0 {
		return b.fault("length %d: allowed are multiples of 4 from 12 on", length)
	}
	b.length = int(length)
	return nil
}

// take consumes the block whose head was read, a packet into p. What p has is borrowed from the
// buffer until the next peek.
func (b *blocks) take(p *Packet) error {
	length := b.length
	b.length = 0
	if b.quiet += length; b.isPacket() {
		b.quiet = 0
	}
	if b.quiet > maxQuiet {
		return b.fault("%d bytes without a packet: allowed are %d", b.quiet, maxQuiet)
	}
	defer func() { b.offset += int64(length) }()
	switch b.kind {
	case sectionHeader, interfaceDescription, enhancedPacket, simplePacket, obsoletePacket:
	default:
		return b.skip(length)
	}
	if length > maxBlock {
		return b.fault("length %d: at most %d of a block of type %d", length, maxBlock, b.kind)
	}
	block, err := b.peek(length)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	if last := b.order.Uint32(block[length-4:]); last != uint32(length) {
		return b.fault("length %d at its end: its head says %d", last, length)
	}
	body := block[8 : length-4]
	switch b.kind {
	case sectionHeader:
		err = b.section(body)
	case interfaceDescription:
		err = b.describe(body)
	default:
		err = b.packet(body, p)
	}
	if err == nil {
		_, err = b.in.Discard(length)
	}
	return err
}

// skip consumes a block of another type, of any length.
func (b *blocks) skip(length int) error {
	n, err := b.in.Discard(length)
	if errors.Is(err, io.EOF) && n > 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (b *blocks) section(body []byte) error {
	if len(body) < 16 {
		return b.fault("a section header of %d bytes", len(body))
	}
	// Minor versions change nothing that is read here.
	if major := b.order.Uint16(body[4:]); major != 1 {
		return b.fault("version %d: allowed is 1", major)
	}
	b.known = b.known[:0]
	return nil
}

func (b *blocks) describe(body []byte) error {
	if len(body) < 8 {
		return b.fault("an interface description of %d bytes", len(body))
	}
	if len(b.known) == maxInterfaces {
		return b.fault("more than %d interfaces in a section", maxInterfaces)
	}
	d := described{link: LinkType(b.order.Uint16(body)), snapLen: b.order.Uint32(body[4:]), unit: 1_000_000}
	ok := true
	var name []byte
	b.options(body[8:], func(code uint16, value []byte) {
		switch {
		case code == interfaceName:
			name = value
		case code == interfaceTimeResolution && len(value) > 0:
			d.unit, ok = unitOf(value[0])
		case code == interfaceTimeOffset && len(value) >= 8:
			d.offset = int64(b.order.Uint64(value))
		}
	})
	var err error
	if d.name, err = b.name(name); err != nil {
		return err
	}
	if !ok {
		return b.fault("interface %q: a time resolution finer than 10^-19 or 2^-63 seconds", d.name)
	}
	b.known = append(b.known, d)
	return nil
}

// name keeps a name once, however many sections have it.
func (b *blocks) name(text []byte) (string, error) {
	if known, ok := b.seen[string(text)]; ok {
		return known, nil
	}
	if len(text) > maxName {
		return "", b.fault("the name of an interface has %d bytes: allowed are %d", len(text), maxName)
	}
	if len(b.names) == maxInterfaces {
		return "", b.fault("more than %d names of interfaces", maxInterfaces)
	}
	if b.named += len(text); b.named > maxNames {
		return "", b.fault("more than %d bytes of names of interfaces", maxNames)
	}
	name := string(text)
	b.seen[name], b.names = name, append(b.names, name)
	return name, nil
}

// unitOf is the parts of a second that if_tsresol means.
func unitOf(resolution byte) (uint64, bool) {
	exponent := resolution & 0x7f
	if resolution&0x80 != 0 {
		return 1 << exponent, exponent < 64
	}
	unit := uint64(1)
	for range min(exponent, 19) {
		unit *= 10
	}
	return unit, exponent <= 19
}

// options calls f with each option of a block, up to the first malformed one.
func (b *blocks) options(list []byte, f func(code uint16, value []byte)) {
	for len(list) >= 4 {
		code, length := b.order.Uint16(list), int(b.order.Uint16(list[2:]))
		if list = list[4:]; code == optionEnd || length > len(list) {
			return
		}
		f(code, list[:length])
		list = list[min(len(list), (length+3)&^3):]
	}
}

// packet reads a block of one of the three types that hold a packet.
func (b *blocks) packet(body []byte, p *Packet) error {
	var id, captured uint32
	var data []byte
	stamped := true
	switch {
	case b.kind == simplePacket && len(body) >= 4:
		p.Length, data, stamped = int(b.order.Uint32(body)), body[4:], false
		captured = min(uint32(p.Length), uint32(len(data)))
		if len(b.known) > 0 && b.known[0].snapLen > 0 {
			captured = min(captured, b.known[0].snapLen)
		}
	case b.kind != simplePacket && len(body) >= 20:
		id, data = b.order.Uint32(body), body[20:]
		if b.kind == obsoletePacket {
			id = uint32(b.order.Uint16(body)) // the other half counts drops
		}
		captured, p.Length = b.order.Uint32(body[12:]), int(b.order.Uint32(body[16:]))
	default:
		return b.fault("a packet's block of %d bytes", len(body)+12)
	}
	if uint64(id) >= uint64(len(b.known)) {
		return b.fault("interface %d: the section has described %d", id, len(b.known))
	}
	if uint64(captured) > uint64(len(data)) {
		return b.fault("%d bytes captured: the block has room for %d", captured, len(data))
	}
	d := &b.known[id]
	if stamped {
		p.Time = d.time(uint64(b.order.Uint32(body[4:]))<<32 | uint64(b.order.Uint32(body[8:])))
	}
	p.Link, p.Interface, p.Data = d.link, d.name, data[:captured]
	p.Length = max(p.Length, int(captured))
	if b.kind != simplePacket {
		b.options(data[min(len(data), int(captured+3)&^3):], func(code uint16, value []byte) {
			if code == optionComment && p.Comment == nil {
				p.Comment = value
			}
		})
	}
	return nil
}

// lastSecond is the last whose nanoseconds since 1970 fit in 64 bits, in the year 2262.
const lastSecond = math.MaxInt64/1_000_000_000 - 1

// time is a timestamp of the interface; zero when it is before 1970 or beyond lastSecond.
func (d *described) time(stamp uint64) time.Time {
	seconds := stamp / d.unit
	if seconds > lastSecond || d.offset > lastSecond-int64(seconds) || d.offset < -int64(seconds) {
		return time.Time{}
	}
	high, low := bits.Mul64(stamp%d.unit, 1_000_000_000)
	nanoseconds, _ := bits.Div64(high, low, d.unit)
	return time.Unix(int64(seconds)+d.offset, int64(nanoseconds)).UTC()
}
