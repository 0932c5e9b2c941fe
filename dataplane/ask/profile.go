package ask

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"go4.org/netipx"
)

// profile is the set of packets that a question is about: every source with every
// destination, port and protocol.
type profile struct {
	*azure.Traffic
	ipv6                bool
	source, destination *netipx.IPSet         // of one family
	protocol            uint8                 // of the witness, see witness
	services            []topology.ServiceEnd // of the platform that the profile may ask for
	sets                map[prefixList]*netipx.IPSet
}

// prefixList tells lists of prefixes apart by where they are: lists do not change.
type prefixList struct {
	first *netip.Prefix
	n     int
}

// coverage says how much of a set something holds.
type coverage uint8

const (
	nothing coverage = iota
	some
	everything
)

func newProfile(s *topology.Snapshot, end *topology.Endpoint, t *azure.Traffic) (*profile, error) {
	p := &profile{Traffic: t, sets: map[prefixList]*netipx.IPSet{}}
	p.ipv6 = end.Address().Is6()
	for _, side := range []*azure.TrafficEnd{&t.Source, &t.Destination} {
		if side.Prefix.IsValid() {
			p.ipv6 = side.Prefix.Addr().Is6()
		}
	}
	var err error
	if p.source, err = p.addresses(s, end, "source", &t.Source); err != nil {
		return nil, err
	}
	p.destination, err = p.addresses(s, end, "destination", &t.Destination)
	if t.Direction == ruleset.Outbound {
		p.services = end.Services()
	}
	return p, err
}

var everyAddress = ruleset.Everywhere()

func (p *profile) addresses(s *topology.Snapshot, end *topology.Endpoint, field string, side *azure.TrafficEnd) (*netipx.IPSet, error) {
	switch {
	case side.Any:
		return addressesOf(everyAddress, p.ipv6), nil
	case side.Prefix.IsValid():
		return addressesOf([]netip.Prefix{side.Prefix}, p.ipv6), nil
	}
	tag, builtIn := ruleset.CanonicalBuiltInTag(side.Tag)
	if !builtIn {
		tag = side.Tag
		for known := range s.Policy.ServiceTags {
			if strings.EqualFold(known, side.Tag) {
				tag = known
			}
		}
	}
	prefixes, ok := s.ExpandTag(end.Subnet, tag)
	if !ok {
		return nil, fmt.Errorf("%s %q: no rule names a tag of that name: allowed are %s and the service tags of rules",
			field, side.Tag, strings.Join(ruleset.BuiltInTagNames(), ", "))
	}
	set := addressesOf(prefixes, p.ipv6)
	if len(set.Ranges()) == 0 {
		return nil, fmt.Errorf("%s %q: the tag has no addresses of the other side's family", field, side.Tag)
	}
	return set, nil
}

// addressesOf are the addresses of one family in a list of valid prefixes.
func addressesOf(prefixes []netip.Prefix, ipv6 bool) *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, p := range prefixes {
		if p.Addr().Is6() == ipv6 {
			b.AddPrefix(p)
		}
	}
	return setOf(&b)
}

func setOf(b *netipx.IPSetBuilder) *netipx.IPSet {
	set, err := b.IPSet()
	if err != nil {
		panic(err) // only of prefixes that are not valid
	}
	return set
}

// cover says how much of a set another one holds. Of an empty set it holds nothing.
func cover(held, set *netipx.IPSet) coverage {
	ranges := set.Ranges()
	outside := func(r netipx.IPRange) bool { return !held.ContainsRange(r) }
	switch {
	case !held.Overlaps(set):
		return nothing
	case slices.ContainsFunc(ranges, outside):
		return some
	}
	return everything
}

// firstOutside is the lowest address of a set that another one does not hold.
func firstOutside(set, held *netipx.IPSet) (first netip.Addr, ok bool) {
	var b netipx.IPSetBuilder
	b.AddSet(set)
	b.RemoveSet(held)
	if left := setOf(&b).Ranges(); len(left) > 0 {
		return left[0].From(), true
	}
	return first, false
}

// ruleFields says how much of a profile each field of a rule holds.
type ruleFields struct{ protocol, source, sourcePort, destination, destinationPort coverage }

func (f *ruleFields) least() coverage {
	return min(f.protocol, f.source, f.sourcePort, f.destination, f.destinationPort)
}

// fields compares a rule with the profile. It shares nothing with the classifier.
func (p *profile) fields(r *classifier.Rule) ruleFields {
	return ruleFields{
		protocol:        p.protocolOf(r.Protocol),
		source:          cover(p.setOf(r.Sources), p.source),
		sourcePort:      p.sourcePort(r.SourcePorts),
		destination:     cover(p.setOf(r.Destinations), p.destination),
		destinationPort: p.destinationPort(r.DestinationPorts),
	}
}

// serviceFields compares a service of the platform with the profile.
func (p *profile) serviceFields(e *topology.ServiceEnd) ruleFields {
	return ruleFields{
		protocol: p.protocolOf(e.Protocol), source: everything, sourcePort: everything,
		destination:     cover(serviceAddress(e, p.ipv6), p.destination),
		destinationPort: p.destinationPort([]ruleset.PortRange{{First: e.Port, Last: e.Port}}),
	}
}

func serviceAddress(e *topology.ServiceEnd, ipv6 bool) *netipx.IPSet {
	return addressesOf([]netip.Prefix{netip.PrefixFrom(e.Address, e.Address.BitLen())}, ipv6)
}

// service is the service of the platform that the whole profile asks for; partly are the names of
// those that a part of it does.
func (p *profile) service() (whole topology.Service, partly []string) {
	for i := range p.services {
		e := &p.services[i]
		f := p.serviceFields(e)
		switch f.least() {
		case everything:
			return e.Service, nil
		case some:
			partly = append(partly, serviceName(e))
		}
	}
	return topology.NoService, partly
}

func serviceName(e *topology.ServiceEnd) string { return "the platform's " + e.Service.String() }

// setOf is addressesOf, once for a list: many rules share a tag's.
func (p *profile) setOf(prefixes []netip.Prefix) *netipx.IPSet {
	if len(prefixes) == 0 {
		return &netipx.IPSet{}
	}
	key := prefixList{&prefixes[0], len(prefixes)}
	set := p.sets[key]
	if set == nil {
		set = addressesOf(prefixes, p.ipv6)
		p.sets[key] = set
	}
	return set
}

func (p *profile) protocolOf(rule ruleset.Protocol) coverage {
	switch {
	case rule == ruleset.AnyProtocol:
		return everything
	case rule == ruleset.ICMPv6 && !p.ipv6:
		return nothing
	case p.AnyProtocol:
		return some
	case protocolNumber(rule, p.ipv6) == p.protocol:
		return everything
	}
	return nothing
}

// protocolNumber is IANA's of a protocol that a rule names.
func protocolNumber(rule ruleset.Protocol, ipv6 bool) uint8 {
	switch rule {
	case ruleset.TCP:
		return packet.ProtoTCP
	case ruleset.UDP:
		return packet.ProtoUDP
	case ruleset.ESP:
		return packet.ProtoESP
	case ruleset.AH:
		return packet.ProtoAH
	}
	if ipv6 {
		return packet.ProtoICMPv6
	}
	return packet.ProtoICMP
}

func (p *profile) hasPorts() bool {
	return p.protocol == packet.ProtoTCP || p.protocol == packet.ProtoUDP
}

// sourcePort compares ranges with port 0. Of a protocol without ports only a rule for all ports holds
// something.
func (p *profile) sourcePort(ranges []ruleset.PortRange) coverage {
	if p.hasPorts() {
		return coverPorts(ranges, ruleset.PortRange{})
	}
	return wholly(coverPorts(ranges, ruleset.AllPorts))
}

// destinationPort compares ranges with the profile's port. For ICMP that is the message's type: an
// echo request.
func (p *profile) destinationPort(ranges []ruleset.PortRange) coverage {
	switch {
	case p.hasPorts() && p.AnyPort:
		return coverPorts(ranges, ruleset.AllPorts)
	case p.hasPorts():
		return coverPorts(ranges, ruleset.PortRange{First: p.Port, Last: p.Port})
	case p.protocol == packet.ProtoICMP && !p.ipv6:
		return coverPorts(ranges, ruleset.PortRange{First: packet.ICMPv4EchoRequest, Last: packet.ICMPv4EchoRequest})
	case p.protocol == packet.ProtoICMPv6 && p.ipv6:
		return coverPorts(ranges, ruleset.PortRange{First: packet.ICMPv6EchoRequest, Last: packet.ICMPv6EchoRequest})
	}
	return wholly(coverPorts(ranges, ruleset.AllPorts))
}

func wholly(c coverage) coverage {
	if c == some {
		return nothing
	}
	return c
}

// coverPorts says how much of a set of ports the ranges hold.
func coverPorts(ranges []ruleset.PortRange, set ruleset.PortRange) coverage {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b ruleset.PortRange) int { return cmp.Compare(a.First, b.First) })
	next, any := int(set.First), false // the lowest port of set that is not known to be held
	for _, r := range sorted {
		if r.Last < set.First || set.Last < r.First {
			continue
		}
		any = true
		if int(r.First) <= next {
			next = max(next, int(r.Last)+1)
		}
	}
	switch {
	case next > int(set.Last):
		return everything
	case any:
		return some
	}
	return nothing
}

func inPorts(ranges []ruleset.PortRange, port uint16) bool {
	for _, r := range ranges {
		if r.First <= port && port <= r.Last {
			return true
		}
	}
	return false
}
