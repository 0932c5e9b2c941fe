package analysis

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"go4.org/netipx"
)

// Box is a set of packets as people write it: every source with every destination, protocol and port.
type Box struct {
	// Protocol is *, TCP, UDP, ICMP, ICMPv6, ESP, AH, or "other" for all that rules cannot name.
	// ICMP of the other family is a number: 58 over IPv4 and 1 over IPv6.
	Protocol string
	// Sources and Destinations are ranges in ascending order, of one family. They are read only: boxes of one
	// answer share them.
	Sources, Destinations []netipx.IPRange
	// SourcePorts and DestinationPorts are those of TCP and UDP, and of a box of all protocols.
	SourcePorts, DestinationPorts []ruleset.PortRange
	// ICMPTypes are those of ICMP and ICMPv6.
	ICMPTypes []ruleset.PortRange
}

// Has reports whether a packet is in the box. Of ICMP, DstPort is the type, as package classifier takes it.
func (b *Box) Has(k *packet.Tuple) bool {
	family := ipv6
	if k.Src.Is4() {
		family = ipv4
	}
	s := sliceOf(family, k.Proto)
	inRanges := func(ranges []netipx.IPRange, a netip.Addr) bool {
		return slices.ContainsFunc(ranges, func(r netipx.IPRange) bool { return r.Contains(a) })
	}
	inPorts := func(ranges []ruleset.PortRange, n uint16) bool {
		return ranges == nil || slices.ContainsFunc(ranges, func(r ruleset.PortRange) bool { return r.First <= n && n <= r.Last })
	}
	switch {
	case b.Protocol != "*" && b.Protocol != s.name(), !inRanges(b.Sources, k.Src.Netip()), !inRanges(b.Destinations, k.Dst.Netip()):
		return false
	case !s.lacks[sourcePort]:
		return inPorts(b.SourcePorts, k.SrcPort) && inPorts(b.DestinationPorts, k.DstPort)
	}
	return inPorts(b.ICMPTypes, k.DstPort)
}

// AddressRange is a range as people write it: an address, a prefix, or first and last.
func AddressRange(r netipx.IPRange) string {
	if p, ok := r.Prefix(); ok {
		if p.IsSingleIP() {
			return p.Addr().String()
		}
		return p.String()
	}
	return r.String()
}

// String is the box in a line: "TCP 10.0.0.0/24 -> 10.0.1.4 port 80,443".
func (b Box) String() string {
	text := fmt.Sprintf("%s %s -> %s", b.Protocol, new(Names).Text(b.Sources), new(Names).Text(b.Destinations))
	if len(b.SourcePorts) > 0 && !slices.Equal(b.SourcePorts, everyRange) {
		text += " from port " + portsText(b.SourcePorts, everyPort)
	}
	if len(b.DestinationPorts) > 0 && !slices.Equal(b.DestinationPorts, everyRange) {
		text += " port " + portsText(b.DestinationPorts, everyPort)
	}
	if len(b.ICMPTypes) > 0 && b.ICMPTypes[0] != (ruleset.PortRange{First: 0, Last: 255}) {
		text += " type " + portsText(b.ICMPTypes, everyType)
	}
	return text
}

var everyRange = []ruleset.PortRange{ruleset.AllPorts}

// PortRange is a range of ports or types: "80" or "80-90".
func PortRange(r ruleset.PortRange) string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// portsText is ports or types as people write them: ranges, or all but some where that is shorter. A long
// list is cut, and says so.
func portsText(ranges []ruleset.PortRange, all *set) string {
	but := portRanges(portSet(ranges).outOf(all))
	prefix, most := "", mostParts
	if len(but) < len(ranges) && len(but) > 0 {
		prefix, ranges, most = "all except ", but, mostExceptions
	}
	parts := make([]string, len(ranges))
	for i, r := range ranges {
		parts[i] = PortRange(r)
	}
	return prefix + cutList(parts, ",", most)
}

// shown is a box of the slice for people.
func (s *slice) shown(b *box) Box { return rangesOf{}.shown(s, b) }

func (r rangesOf) shown(s *slice, b *box) Box {
	out := Box{Protocol: s.name(), Sources: r.of(b[source], s.family), Destinations: r.of(b[destination], s.family)}
	switch {
	case !s.lacks[sourcePort]:
		out.SourcePorts, out.DestinationPorts = portRanges(b[sourcePort]), portRanges(b[port])
	case s.named == ruleset.ICMP || s.named == ruleset.ICMPv6:
		out.ICMPTypes = portRanges(b[port])
	}
	return out
}

func (s *slice) name() string {
	if s.protocol == unnamedProtocol {
		return "other"
	}
	if s.named == ruleset.AnyProtocol {
		return fmt.Sprint(s.protocol)
	}
	return packet.ProtocolName(s.protocol)
}

func addressRanges(s *set, family int) []netipx.IPRange {
	if s.equal(addresses[family]) { // ::/0 without the IPv4-mapped addresses, which no packet has
		return []netipx.IPRange{netipx.RangeOfPrefix(everywhere[family])}
	}
	out := make([]netipx.IPRange, 0, len(s.spans))
	for _, p := range s.spans {
		out = append(out, netipx.IPRangeFrom(netipOf(p.first, family), netipOf(p.last, family)))
	}
	return out
}

var everywhere = [families]netip.Prefix{ipv4: netip.MustParsePrefix("0.0.0.0/0"), ipv6: netip.MustParsePrefix("::/0")}

func portRanges(s *set) []ruleset.PortRange {
	var out []ruleset.PortRange
	for _, p := range s.spans {
		out = append(out, ruleset.PortRange{First: uint16(p.first.Lo), Last: uint16(p.last.Lo)})
	}
	return out
}

// rangesOf are sets of addresses as ranges. Boxes with the same set share them.
type rangesOf map[*set][]netipx.IPRange

func (r rangesOf) of(s *set, family int) []netipx.IPRange {
	list, known := r[s]
	if !known {
		list = addressRanges(s, family)
		r[s] = list
	}
	return list
}

// shownBoxes are boxes for people, ordered by slice. Boxes with the same addresses that have all of every
// protocol become one. Each has a witness.
func (r rangesOf) shownBoxes(boxes []sliceBox) (out []Box, witnesses []packet.Tuple) {
	slices.SortStableFunc(boxes, func(a, b sliceBox) int { return a.slice.index - b.slice.index })
	for len(boxes) > 0 {
		b := boxes[0]
		shown := r.shown(b.slice, &b.box)
		others := everyProtocol(boxes)
		if others != nil {
			shown.Protocol = "*"
		}
		out, witnesses = append(out, shown), append(witnesses, b.slice.witness(&b.box))
		for i := len(others) - 1; i > 0; i-- {
			boxes = slices.Delete(boxes, others[i], others[i]+1)
		}
		boxes = boxes[1:]
	}
	return out, witnesses
}

// everyProtocol finds the boxes that have, with the addresses of the first one, all of every protocol of
// its family. It is nil when one is missing.
func everyProtocol(boxes []sliceBox) []int {
	first := &boxes[0]
	if first.slice.index%protocolsOfFamily != 0 {
		return nil
	}
	found := make([]int, 0, protocolsOfFamily)
	for i := range boxes {
		b := &boxes[i]
		if b.slice.index != first.slice.index+len(found) {
			continue
		}
		want := b.slice.domain
		want[source], want[destination] = first.box[source], first.box[destination]
		if b.box.equal(&want) {
			found = append(found, i)
		}
		if len(found) == protocolsOfFamily {
			return found
		}
	}
	return nil
}

// witness is a packet of a box: one that people know, where the box has it.
func (s *slice) witness(b *box) packet.Tuple {
	k := packet.Tuple{Src: someAddress(b[source]), Dst: someAddress(b[destination]), Proto: s.protocol}
	k.DstPort = uint16(b[port].spans[0].first.Lo)
	switch {
	case !s.lacks[sourcePort]:
		k.SrcPort = prefer(b[sourcePort], 49152, 1024)
		if k.DstPort == 0 {
			k.DstPort = prefer(b[port], 443, 1)
		}
	case s.named == ruleset.ICMP:
		k.DstPort = prefer(b[port], packet.ICMPv4EchoRequest)
	case s.named == ruleset.ICMPv6:
		k.DstPort = prefer(b[port], packet.ICMPv6EchoRequest)
	}
	return k
}

// prefer is the first of some numbers that a set has, or else its lowest.
func prefer(s *set, numbers ...uint16) uint16 {
	for _, n := range numbers {
		if s.contains(number(n)) {
			return n
		}
	}
	return uint16(s.spans[0].first.Lo)
}

// exampleAddresses are for documents (RFC 5737, RFC 3849).
var exampleAddresses = []value{packet.AddrFrom(netip.MustParseAddr("203.0.113.10")), packet.AddrFrom(netip.MustParseAddr("2001:db8::10"))}

// someAddress is an address that a host can have, where the set has one. The first address of a
// network is not taken if there are others.
func someAddress(s *set) value {
	for _, a := range exampleAddresses {
		if s.contains(a) {
			return a
		}
	}
	for _, p := range s.spans {
		if next, ok := p.first.Next(); ok && next.Less(p.last) && !next.IsReserved() {
			return next
		}
		if !p.first.IsReserved() {
			return p.first
		}
	}
	return s.spans[0].first
}
