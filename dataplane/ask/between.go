package ask

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"go4.org/netipx"
)

// Between answers what passes between two ends, for all packets that begin a flow: routes, translation, the
// rules of both ends and of appliances between them. It divides addresses into classes that take one way, asks
// package verdict about a packet of each, and package analysis about the rules for all of them.
//
// Three kinds of packets are left out: those to the sender's own address, those from IPv6 addresses that
// embed an IPv4 address which no host on the internet has, and those that a network interface forwards for
// others, see Forwarders. Not safe for concurrent use.
type Between struct {
	snapshot   *topology.Snapshot
	maxStates  int
	maxPairs   int             // see DefaultMaxPairs
	context    context.Context // ends questions; nil: nothing does
	classes    []senderClass
	chains     *verdict.Chains
	byEndpoint map[chainFor]*verdict.Chain
	numbers    map[any]uint64
}

// senderClass is a class of addresses, and who sends from them.
type senderClass struct {
	topology.AddressClass
	senders []*topology.Endpoint
}

// NewBetween prepares questions about a snapshot. maxStates bounds the work of each; see analysis.Options.
func NewBetween(s *topology.Snapshot, maxStates int) *Between {
	b := &Between{snapshot: s, maxStates: maxStates, maxPairs: DefaultMaxPairs, chains: verdict.NewChains(s), byEndpoint: map[chainFor]*verdict.Chain{}, numbers: map[any]uint64{}}
	for _, c := range s.AddressClasses() {
		b.classes = append(b.classes, senderClass{c, s.SendersFrom(c.Address())})
	}
	return b
}

// place is the addresses of an end that take one way, and who has them; nil: nobody.
type place struct {
	index    int // in its list
	endpoint *topology.Endpoint
	ranges   []netipx.IPRange
	name     string
	standing bool
	alike    int // see topology.AddressClass
	// beside are all who have the addresses, where these are several, as in networks with the same address space. Each has a
	// place of its own, one behind the other, and all of them are asked about as one.
	beside []*topology.Endpoint
}

func (p *place) address() netip.Addr { return topology.ExampleOf(p.ranges) }

// Ask finds all that one end may send to another: services are the protocols and ports in question, nil for
// all. The error says that an end has no sender.
func (b *Between) Ask(from, to *End, services []analysis.Service) (*PathSets, error) {
	q, err := b.query(from, to)
	if err != nil {
		return nil, err
	}
	return q.ask(services), nil
}

func (b *Between) query(from, to *End) (*betweenQuery, error) {
	q := &betweenQuery{Between: b, from: from, to: to, groups: map[string]*pathGroup{}, known: map[pairKind][]pairWay{},
		states: statesOfQuestion * cmp.Or(b.maxStates, analysis.DefaultMaxStates), sources: b.sources(from), destinations: b.destinations(to)}
	if len(q.sources) == 0 {
		if forwarders := Forwarders(b.snapshot); len(forwarders) > 0 {
			return nil, fmt.Errorf("end %q: nobody has such an address; what %s may forward from there is a question for diagnose", from.Text, strings.Join(forwarders, ", "))
		}
		return nil, fmt.Errorf("end %q: nobody can send from there", from.Text)
	}
	return q, nil
}

// Forwarders names the network interfaces with enableIPForwarding. They may send from addresses of others.
func Forwarders(s *topology.Snapshot) (names []string) {
	for _, nic := range s.Policy.NetworkInterfaces {
		if nic.EnableIPForwarding {
			names = append(names, nic.Name)
		}
	}
	return names
}

func (q *betweenQuery) ask(services []analysis.Service) *PathSets {
	rest := &PathSets{}
	for i := range q.sources {
		for j := 0; j < len(q.destinations); j += max(1, len(q.destinations[j].beside)) {
			if q.pairs++; q.pairsAsked >= q.maxPairs || q.pairs > pairsOfAKind*q.maxPairs || q.ended() {
				q.leave(rest, i, j, services)
				out := q.answer()
				out.Undecided = append(out.Undecided, rest.Undecided...)
				return out
			}
			q.pair(i, j, services)
		}
	}
	return q.answer()
}

// sources are the senders of an end.
func (b *Between) sources(end *End) (list []place) {
	if end.sends != nil {
		end = end.sends
	}
	for i := range b.classes {
		ranges := within(b.classes[i].Ranges, end.addresses)
		if len(ranges) == 0 {
			continue
		}
		for _, e := range b.classes[i].senders {
			if end.means == nil || end.means(e) {
				list = append(list, place{index: len(list), endpoint: e, ranges: ranges, name: b.name(e), alike: b.classes[i].Alike})
			}
		}
	}
	return list
}

// destinations are the addresses by which an end is reached. What nobody has is left out, unless it was
// written.
func (b *Between) destinations(end *End) (list []place) {
	add := func(set *netipx.IPSet, standing bool) {
		for i := range b.classes {
			ranges := within(b.classes[i].Ranges, set)
			if len(ranges) == 0 || !end.given && !standing && len(b.classes[i].senders) == 0 && !b.snapshot.StandsFor(ranges[0].From()) {
				continue
			}
			p := place{index: len(list), ranges: ranges, standing: standing, alike: b.classes[i].Alike}
			var have []*topology.Endpoint
			for _, e := range b.classes[i].senders {
				if end.means == nil || end.means(e) {
					have = append(have, e)
				}
			}
			if len(have) > 1 {
				p.beside = have
			}
			for _, e := range have {
				p.index, p.endpoint, p.name = len(list), e, b.name(e)
				list = append(list, p)
			}
			if len(have) == 0 {
				list = append(list, p)
			}
		}
	}
	add(end.addresses, false)
	if end.standing != nil {
		add(end.standing, true)
	}
	return list
}

// within are the ranges of a class that are in a set.
func within(ranges []netipx.IPRange, set *netipx.IPSet) []netipx.IPRange {
	return overlap(ranges, set.Ranges())
}

// name is an endpoint for people: a network interface by name, a subnet's other addresses as vnet/subnet, a
// gateway as vnet/GatewaySubnet, internet, or platform.
func (b *Between) name(e *topology.Endpoint) string {
	switch b.snapshot.KindOf(e) {
	case topology.NetworkInterface:
		return e.NetworkInterface.Name
	case topology.Subnet:
		return e.VirtualNetwork().Name + "/" + e.Subnet.Name
	case topology.Gateway:
		return e.VirtualNetwork().Name + "/GatewaySubnet"
	}
	return b.snapshot.KindOf(e).String()
}

// probe is a packet that stands for all of a service between two places, as far as their way goes.
type probe struct {
	packet.Packet
	service analysis.Service
}

// probes divide services by what the way may depend on: the protocol, the ports of frontends, port 25, and
// which types of ICMP begin a flow.
func (b *Between) probes(src, dst netip.Addr, services []analysis.Service) (list []probe) {
	for _, protocol := range analysis.Protocols(!dst.Is4()) {
		p := packet.Packet{Tuple: packet.Tuple{Src: packet.AddrFrom(src), Dst: packet.AddrFrom(dst), Proto: protocol}, Segments: 1}
		for _, of := range services {
			if of.Protocol != protocol {
				continue
			}
			ports := of.Ports
			switch {
			case protocol == packet.ProtoTCP || protocol == packet.ProtoUDP:
				p.SrcPort, p.TCPFlags = 49152, packet.SYN
				if protocol == packet.ProtoUDP {
					p.TCPFlags = 0
				}
				borders := b.snapshot.FrontendPorts(dst)
				if b.snapshot.BlockSMTP {
					borders = append(borders, 25, 26)
				}
				for _, part := range partsOf(ports, borders) {
					p.DstPort = part.First
					list = append(list, probe{p, analysis.Service{Protocol: protocol, Ports: []ruleset.PortRange{part}}})
				}
			case protocol == packet.ProtoICMP && dst.Is4() || protocol == packet.ProtoICMPv6 && !dst.Is4():
				list = append(list, typeProbes(p, ports)...)
			default:
				list = append(list, probe{p, analysis.Service{Protocol: protocol}})
			}
		}
	}
	return list
}

// typeProbes tells the types that begin a flow from the others.
func typeProbes(p packet.Packet, types []ruleset.PortRange) (list []probe) {
	var parts [2]probe
	for n := range uint16(256) {
		if types != nil && !inPorts(types, n) {
			continue
		}
		p.ICMPType = uint8(n)
		part := &parts[bit(p.IsICMPRequest())]
		if part.service.Ports == nil {
			part.Packet, part.service.Protocol = p, p.Proto
		}
		part.service.Ports = append(part.service.Ports, ruleset.PortRange{First: n, Last: n})
	}
	for i := range parts {
		if parts[i].service.Ports != nil {
			list = append(list, parts[i])
		}
	}
	return list
}

// partsOf cuts ports, nil for all, at borders: the first ports of parts.
func partsOf(ports []ruleset.PortRange, borders []uint16) (parts []ruleset.PortRange) {
	if ports == nil {
		ports = []ruleset.PortRange{ruleset.AllPorts}
	}
	slices.Sort(borders)
	for _, r := range ports {
		for _, border := range borders {
			if r.First < border && border <= r.Last {
				parts = append(parts, ruleset.PortRange{First: r.First, Last: border - 1})
				r.First = border
			}
		}
		parts = append(parts, r)
	}
	return parts
}

// EveryService is all protocols and ports.
func EveryService() (all []analysis.Service) {
	for _, six := range []bool{false, true} {
		for _, protocol := range analysis.Protocols(six) {
			if !slices.ContainsFunc(all, func(s analysis.Service) bool { return s.Protocol == protocol }) {
				all = append(all, analysis.Service{Protocol: protocol})
			}
		}
	}
	return all
}
