package classifier

import (
	"math/bits"
	"net/netip"
	"unsafe"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// flatRules is the most rules of a table with plain words as bitmaps. Up to it, the AND of
// all words is faster than a search for words that are not zero.
const flatRules = 256

// Table is a compiled list of rules. It is immutable, safe for concurrent use, and refers
// to no memory of the rules.
type Table struct {
	length                uint32 // of a bitmap, in parts, or in words if parts is nil
	sources, destinations addresses
	sourcePorts           ports
	anySourcePort         bool // every rule matches every source port
	destinationPorts      ports
	// protocols are the classes of protocols; AnyProtocol's is for all protocols that rules
	// cannot name. If parts is not nil, the number is added to the destination port's class,
	// because the two fields have one bitmap; see services.
	protocols [ruleset.AH + 1]uint32
	// A class is the position of its bitmap in parts, or in words if parts is nil.
	parts []part
	words []uint64
}

// addresses finds an address's class.
type addresses struct {
	ipv4 intervals
	ipv6 wideIntervals
}

func (a *addresses) class(addr packet.Addr) uint32 {
	if addr.Is4() {
		return a.ipv4.class(addr.V4())
	}
	return a.ipv6.class(addr)
}

// ports finds a port's class. absent is the class of packets without a port.
type ports struct {
	intervals
	absent uint32
	always bool // every rule matches every port, and packets without one
}

// Compile makes the table of rules in priority order. It is safe for concurrent use, even
// with rules that share lists.
func Compile(rules []Rule) *Table {
	p := newPool(len(rules))
	t := &Table{
		length:       uint32(p.length),
		sources:      p.addresses(rules, func(r *Rule) []netip.Prefix { return r.Sources }),
		destinations: p.addresses(rules, func(r *Rule) []netip.Prefix { return r.Destinations }),
		sourcePorts:  p.ports(rules, func(r *Rule) []ruleset.PortRange { return r.SourcePorts }, p.intern),
	}
	t.anySourcePort = t.sourcePorts.always
	if p.flat {
		t.destinationPorts = p.ports(rules, func(r *Rule) []ruleset.PortRange { return r.DestinationPorts }, p.intern)
		for protocol := range t.protocols {
			t.protocols[protocol] = p.intern(p.protocol(rules, ruleset.Protocol(protocol)))
		}
		t.words = append([]uint64(nil), p.words...)
		return t
	}
	t.destinationPorts, t.protocols = p.serviceClasses(rules)
	t.length = uint32(wordsFor(p.length))
	t.words, t.parts = append([]uint64(nil), p.words...), append([]part(nil), p.parts...)
	return t
}

func (p *pool) addresses(rules []Rule, field func(*Rule) []netip.Prefix) addresses {
	all := lists(rules, field)
	ipv4, ipv6 := prefixEvents(all)
	four, six := newSweeper(p, all), newSweeper(p, all)
	a := addresses{ipv4: newIntervals(four.sweep(ipv4)), ipv6: newWideIntervals(six.sweepWide(ipv6))}
	p.keep(four.always)
	p.keep(six.always)
	return a
}

// ports makes the ports of a field. class gives the class of a bitmap.
func (p *pool) ports(rules []Rule, field func(*Rule) []ruleset.PortRange, class func(*bitmap) uint32) ports {
	all := lists(rules, field)
	s := newSweeper(p, all)
	s.class = class
	borders := s.sweep(portEvents(all))
	absent := p.empty()
	for word, mask := range s.always {
		absent.flip(members{{word, mask}})
	}
	p.keep(s.always)
	matching := 0
	for i := range rules {
		matching += int(s.always[i/64] >> (i % 64) & 1)
	}
	return ports{intervals: newIntervals(borders), absent: class(absent), always: matching == len(rules)}
}

// keep removes from p.anything the rules that do not match every value of a field.
func (p *pool) keep(always []uint64) {
	for i, w := range always {
		p.anything[i] &= w
	}
}

// protocol is the bitmap of the rules that match a protocol.
func (p *pool) protocol(rules []Rule, protocol ruleset.Protocol) *bitmap {
	var m members
	for i := range rules {
		switch of := rules[i].Protocol; {
		case of == ruleset.AnyProtocol, of == protocol, of == ruleset.ICMP && protocol == ruleset.ICMPv6:
			m.add(i)
		}
	}
	b := p.empty()
	b.flip(m)
	return b
}

// protocolOf is the protocol by which rules name a packet; AnyProtocol if only "*" matches.
func protocolOf(k *packet.Tuple) ruleset.Protocol {
	switch k.Proto {
	case packet.ProtoTCP:
		return ruleset.TCP
	case packet.ProtoUDP:
		return ruleset.UDP
	case packet.ProtoICMP:
		if k.Src.Is4() {
			return ruleset.ICMP
		}
	case packet.ProtoICMPv6:
		if !k.Src.Is4() {
			return ruleset.ICMPv6
		}
	case packet.ProtoESP:
		return ruleset.ESP
	case packet.ProtoAH:
		return ruleset.AH
	}
	return ruleset.AnyProtocol
}

// FirstMatch returns the index of the first rule that matches k, or -1. k must come from
// packet.Packet.Classification. FirstMatch does not allocate.
func (t *Table) FirstMatch(k *packet.Tuple) int {
	// Separate variables stay in registers; a struct of five fields would not.
	source, destination := t.sources.class(k.Src), t.destinations.class(k.Dst)
	sourcePort, destinationPort := t.sourcePorts.absent, t.destinationPorts.absent
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		if !t.anySourcePort {
			sourcePort = t.sourcePorts.class(uint32(k.SrcPort))
		}
		destinationPort = t.destinationPorts.class(uint32(k.DstPort))
	case packet.ProtoICMP, packet.ProtoICMPv6:
		destinationPort = t.destinationPorts.class(uint32(k.DstPort))
	}
	protocol := t.protocols[protocolOf(k)]
	if t.parts != nil {
		return t.firstCommon(source, destination, destinationPort+protocol, sourcePort)
	}
	b := t.words
	for i := range t.length {
		w := b[source+i] & b[destination+i] & b[destinationPort+i] & b[sourcePort+i] & b[protocol+i]
		if w != 0 {
			return int(i)*64 + bits.TrailingZeros64(w)
		}
	}
	return -1
}

// firstCommon is the lowest bit that is set in all four bitmaps, or -1.
func (t *Table) firstCommon(source, destination, service, sourcePort uint32) int {
	b := t.words
	for j := range t.length {
		s, d, p := &t.parts[source+j], &t.parts[destination+j], &t.parts[service+j]
		for common := s.summary & d.summary & p.summary; common != 0; common &= common - 1 {
			word := bits.TrailingZeros64(common)
			i, at := word/blockWords%blocks, uint32(word%blockWords)
			w := b[s.blocks[i]+at] & b[d.blocks[i]+at] & b[p.blocks[i]+at]
			if w == 0 {
				continue
			}
			if !t.anySourcePort {
				w &= t.word(sourcePort+j, word)
				if w == 0 {
					continue
				}
			}
			return (int(j)*64+word)*64 + bits.TrailingZeros64(w)
		}
	}
	return -1
}

// word is a word of a part; zero if the word is not stored.
func (t *Table) word(at uint32, word int) uint64 {
	p := &t.parts[at]
	if p.summary>>(word%64)&1 == 0 {
		return 0
	}
	return t.words[p.blocks[word/blockWords%blocks]+uint32(word%blockWords)]
}

// Bytes is the size of the table's memory, including the Table itself.
func (t *Table) Bytes() int {
	size := int(unsafe.Sizeof(*t)) + 8*cap(t.words) + cap(t.parts)*int(unsafe.Sizeof(part{}))
	for _, a := range []*addresses{&t.sources, &t.destinations} {
		size += a.ipv4.bytes() + a.ipv6.bytes()
	}
	return size + t.sourcePorts.bytes() + t.destinationPorts.bytes()
}
