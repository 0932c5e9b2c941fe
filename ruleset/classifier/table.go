package classifier

import (
	"math/bits"
	"net/netip"
	"unsafe"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// flatRules is the most rules of a table whose bitmaps are plain words: below it
// the AND of all words is faster than finding those that count.
const flatRules = 256

// Table is a compiled list of rules. It is immutable and safe for concurrent
// use; it keeps nothing of the rules that it was compiled from.
type Table struct {
	length                uint32 // of a bitmap: in parts, or in words when parts is nil
	sources, destinations addresses
	sourcePorts           ports
	destinationPorts      ports
	// protocols holds the class of packets of a protocol; under AnyProtocol that
	// of packets of a protocol that no rule can name.
	protocols [ruleset.AH + 1]uint32
	// A class is where its bitmap begins: in parts, or in words when parts is nil.
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

// ports finds a port's class; absent is the class of packets without a port.
type ports struct {
	intervals
	absent uint32
}

// Compile makes the table of rules that stand in priority order. It is safe for
// concurrent use, also with rules that share lists.
func Compile(rules []Rule) *Table {
	p := newPool(len(rules))
	t := &Table{
		length:           uint32(p.length),
		sources:          p.addresses(rules, func(r *Rule) []netip.Prefix { return r.Sources }),
		destinations:     p.addresses(rules, func(r *Rule) []netip.Prefix { return r.Destinations }),
		sourcePorts:      p.ports(rules, func(r *Rule) []ruleset.PortRange { return r.SourcePorts }),
		destinationPorts: p.ports(rules, func(r *Rule) []ruleset.PortRange { return r.DestinationPorts }),
	}
	for protocol := range t.protocols {
		t.protocols[protocol] = p.matching(rules, func(r *Rule) bool {
			return r.Protocol == ruleset.AnyProtocol || r.Protocol == ruleset.Protocol(protocol)
		})
	}
	t.words = append([]uint64(nil), p.words...)
	if !p.flat {
		t.length = uint32(wordsFor(p.length))
		t.parts = append([]part(nil), p.parts...)
	}
	return t
}

func (p *pool) addresses(rules []Rule, field func(*Rule) []netip.Prefix) addresses {
	all := lists(rules, field)
	ipv4, ipv6 := prefixEvents(all)
	return addresses{
		ipv4: narrow(newSweeper(p, all).narrow(ipv4)),
		ipv6: wide(newSweeper(p, all).wide(ipv6)),
	}
}

func (p *pool) ports(rules []Rule, field func(*Rule) []ruleset.PortRange) ports {
	all := lists(rules, field)
	s := newSweeper(p, all)
	borders := s.narrow(portEvents(all))
	absent := p.empty()
	for word, mask := range s.always {
		absent.flip(members{{word, mask}})
	}
	return ports{intervals: narrow(borders), absent: p.intern(absent)}
}

// matching is the class of the rules that match reports.
func (p *pool) matching(rules []Rule, match func(*Rule) bool) uint32 {
	var m members
	for i := range rules {
		if match(&rules[i]) {
			m.add(i)
		}
	}
	b := p.empty()
	b.flip(m)
	return p.intern(b)
}

// classes are the offsets of the five bitmaps of a packet.
type classes struct{ source, destination, sourcePort, destinationPort, protocol uint32 }

func (t *Table) classes(k *packet.Tuple) classes {
	c := classes{
		source:          t.sources.class(k.Src),
		destination:     t.destinations.class(k.Dst),
		sourcePort:      t.sourcePorts.absent,
		destinationPort: t.destinationPorts.absent,
		protocol:        t.protocols[protocolOf(k)],
	}
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		c.sourcePort = t.sourcePorts.class(uint32(k.SrcPort))
		c.destinationPort = t.destinationPorts.class(uint32(k.DstPort))
	case packet.ProtoICMP, packet.ProtoICMPv6:
		c.destinationPort = t.destinationPorts.class(uint32(k.DstPort))
	}
	return c
}

// protocolOf is the protocol by which rules call a packet, AnyProtocol when
// only "*" matches it.
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
			return ruleset.ICMP
		}
	case packet.ProtoESP:
		return ruleset.ESP
	case packet.ProtoAH:
		return ruleset.AH
	}
	return ruleset.AnyProtocol
}

// FirstMatch returns the index of the first rule that matches k, or -1. k is
// what packet.Packet.Classification returns. It doesn't allocate.
func (t *Table) FirstMatch(k *packet.Tuple) int {
	c := t.classes(k)
	if t.parts != nil {
		return t.firstCommon(c)
	}
	b := t.words
	for i := range t.length {
		w := b[c.source+i] & b[c.destination+i] & b[c.destinationPort+i] & b[c.sourcePort+i] & b[c.protocol+i]
		if w != 0 {
			return int(i)*64 + bits.TrailingZeros64(w)
		}
	}
	return -1
}

// firstCommon is the lowest bit that is set in all five bitmaps, or -1.
func (t *Table) firstCommon(c classes) int {
	b := t.words
	for j := range t.length {
		s, d, p := &t.parts[c.source+j], &t.parts[c.destination+j], &t.parts[c.destinationPort+j]
		q, r := &t.parts[c.sourcePort+j], &t.parts[c.protocol+j]
		for common := s.summary & d.summary & p.summary & q.summary & r.summary; common != 0; common &= common - 1 {
			word := bits.TrailingZeros64(common)
			i, at := word/blockWords%blocks, uint32(word%blockWords)
			w := b[s.blocks[i]+at] & b[d.blocks[i]+at] & b[p.blocks[i]+at]
			if w == 0 {
				continue
			}
			w &= b[q.blocks[i]+at] & b[r.blocks[i]+at]
			if w != 0 {
				return (int(j)*64+word)*64 + bits.TrailingZeros64(w)
			}
		}
	}
	return -1
}

// Bytes is the memory that the table holds, itself included.
func (t *Table) Bytes() int {
	size := int(unsafe.Sizeof(*t)) + 8*cap(t.words) + cap(t.parts)*int(unsafe.Sizeof(part{}))
	for _, a := range []*addresses{&t.sources, &t.destinations} {
		size += a.ipv4.bytes() + a.ipv6.bytes()
	}
	return size + t.sourcePorts.bytes() + t.destinationPorts.bytes()
}
