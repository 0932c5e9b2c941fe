package analysis

import (
	"cmp"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// The fields of a packet in which rules differ, once family and protocol are chosen.
const (
	source = iota
	destination
	sourcePort
	port // of the destination; ICMP's type
	fields
)

// box is a set of packets: every combination of its fields' values.
type box [fields]*set

func (b *box) empty() bool {
	for _, s := range b {
		if s.empty() {
			return true
		}
	}
	return false
}

func (b *box) equal(o *box) bool {
	for f := range b {
		if !b[f].equal(o[f]) {
			return false
		}
	}
	return true
}

// slice is a family and a protocol: a part of all packets in which each field has one domain.
// Protocol gates ports: a field that the protocol lacks has the only value 0.
type slice struct {
	index    int // in slicesOfPackets
	family   int
	protocol uint8            // IANA's number; one for all protocols that only "*" matches
	named    ruleset.Protocol // by which rules name it; AnyProtocol: only "*" matches
	lacks    [fields]bool     // matched only by rules for all ports
	domain   box
}

// unnamedProtocol stands for the protocols that no rule can name. It is for experiments (RFC 3692).
const unnamedProtocol = 253

// slicesOfPackets are all slices, by family and then by protocol.
var slicesOfPackets = func() (all []slice) {
	for family := range families {
		icmp, foreign, named := uint8(packet.ProtoICMP), uint8(packet.ProtoICMPv6), ruleset.ICMP
		if family == ipv6 {
			icmp, foreign, named = foreign, icmp, ruleset.ICMPv6
		}
		add := func(protocol uint8, named ruleset.Protocol, sourcePorts, ports *set) {
			all = append(all, slice{len(all), family, protocol, named, [fields]bool{sourcePort: sourcePorts == nil, port: ports == nil},
				box{addresses[family], addresses[family], cmp.Or(sourcePorts, onlyZero), cmp.Or(ports, onlyZero)}})
		}
		add(packet.ProtoTCP, ruleset.TCP, everyPort, everyPort)
		add(packet.ProtoUDP, ruleset.UDP, everyPort, everyPort)
		add(icmp, named, nil, everyType)
		add(packet.ProtoESP, ruleset.ESP, nil, nil)
		add(packet.ProtoAH, ruleset.AH, nil, nil)
		// To the decoder ICMP of the other family has no types. Rules see type 0.
		add(foreign, ruleset.AnyProtocol, nil, onlyZero)
		add(unnamedProtocol, ruleset.AnyProtocol, nil, nil)
	}
	return all
}()

// sliceOf is the slice that a packet is in.
func sliceOf(family int, protocol uint8) *slice {
	of := slicesOfPackets[family*protocolsOfFamily:][:protocolsOfFamily]
	for i := range of {
		if of[i].protocol == protocol {
			return &of[i]
		}
	}
	return &of[protocolsOfFamily-1]
}

// protocolsOfFamily is how many slices a family has.
var protocolsOfFamily = len(slicesOfPackets) / families

// names reports whether a rule's protocol matches the slice.
func (s *slice) names(p ruleset.Protocol) bool {
	return p == ruleset.AnyProtocol || p == s.named || p == ruleset.ICMP && s.named == ruleset.ICMPv6
}

// box is what a rule that names the slice's protocol matches of it, not clipped to its domain.
func (s *slice) box(r *rule) box {
	return box{r.sources[s.family], r.destinations[s.family], s.gate(sourcePort, r.sourcePorts), s.gate(port, r.ports)}
}

// gate is a rule's ports where the protocol has the field. Where it has none, only a rule for all
// ports matches.
func (s *slice) gate(field int, ports *set) *set {
	switch {
	case !s.lacks[field]:
		return ports
	case ports.holds(everyPort):
		return onlyZero
	}
	return nothing
}

// Packets is a set of packets that a question is about.
type Packets struct {
	Sources, Destinations []netip.Prefix // nil is every address
	// Services are protocols with ports; nil is every packet between the addresses.
	Services []Service
}

// Service is packets of one protocol to some ports, from every port.
type Service struct {
	// Protocol is IANA's number. OtherProtocols stands for all that rules cannot name.
	Protocol uint8
	// Ports are destination ports of TCP and UDP and types of ICMP; nil is all. Other protocols have none.
	Ports []ruleset.PortRange
}

// OtherProtocols is the Service.Protocol of all protocols that rules cannot name.
const OtherProtocols = unnamedProtocol

// Protocols are the numbers that Service.Protocol tells apart in a family: those that rules can name, ICMP
// of the other family, and OtherProtocols.
func Protocols(six bool) (list []uint8) {
	for i := range slicesOfPackets {
		if s := &slicesOfPackets[i]; (s.family == ipv6) == six {
			list = append(list, s.protocol)
		}
	}
	return list
}

// clip is the part of each slice's domain that the packets have.
func (p *Packets) clip() []box {
	boxes := make([]box, len(slicesOfPackets))
	for i := range boxes {
		boxes[i] = slicesOfPackets[i].domain
		if p.Services != nil {
			boxes[i][port] = slicesOfPackets[i].portsOf(p.Services)
		}
	}
	for f, prefixes := range [...][]netip.Prefix{source: p.Sources, destination: p.Destinations} {
		if prefixes == nil {
			continue
		}
		sets := prefixSets(prefixes)
		for i := range boxes {
			boxes[i][f] = sets[slicesOfPackets[i].family]
		}
	}
	return boxes
}

// portsOf are the ports of the slice's protocol that services have.
func (s *slice) portsOf(services []Service) *set {
	var ports []ruleset.PortRange
	for i := range services {
		switch of := &services[i]; {
		case of.Protocol != s.protocol:
		case of.Ports == nil || s.lacks[port]:
			return s.domain[port]
		default:
			ports = append(ports, of.Ports...)
		}
	}
	return portSet(ports).intersect(s.domain[port])
}

// size is how many packets a box has, rounded.
func (b *box) size() float64 {
	n := 1.0
	for _, s := range b {
		n *= s.size()
	}
	return n
}

func (b *box) has(point *[fields]value) bool {
	for f, s := range b {
		if !s.contains(point[f]) {
			return false
		}
	}
	return true
}
