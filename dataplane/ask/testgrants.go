package ask

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"go4.org/netipx"
)

// granted are all packets that pass between two ends. The error says why a test cannot say them.
func (b *Between) granted(from, to string) (g granted, err error) {
	ends, err := b.endsOf([]string{from, to})
	if err != nil {
		return g, err
	}
	sets, err := b.Ask(hostsOf(ends[0]), ends[1], nil)
	switch {
	case err != nil:
		return g, err
	case len(sets.Undecided) > 0:
		return g, fmt.Errorf("not decided: %s", sets.Undecided[0].Why)
	}
	var all [2]netipx.IPSetBuilder // the addresses of both sides
	var aside netipx.IPSetBuilder
	translated := false
	var allowed []analysis.Box
	denied, apart := false, false
	for i := range sets.Sets {
		set := &sets.Sets[i]
		if slices.Contains(inNoTest, set.Reason) {
			continue
		}
		if set.More {
			return g, errors.New("there are too many sets of packets")
		}
		passes := set.Access == ruleset.Allow.String()
		_, changes := set.course.arrivesAt()
		translated = translated || changes
		for _, box := range set.Boxes {
			if from != internetEnd && !ends[1].addresses.ContainsRange(box.Destinations[0]) {
				addRanges(&aside, box.Destinations)
				apart = apart || !passes
				continue
			}
			addRanges(&all[0], box.Sources)
			addRanges(&all[1], box.Destinations)
			if passes {
				allowed = append(allowed, box)
			}
			denied = denied || !passes
		}
	}
	if texts := prefixTexts(setOf(&aside)); len(texts) > 0 && (denied || apart) {
		g.aside = texts
	}
	switch {
	case len(allowed) == 0 && !denied:
		return g, errors.New("there are no packets")
	case !denied:
		g.grants = []grant{{}}
	default:
		at := setOf(&all[1])
		if translated {
			// A test of addresses has the ports that packets are sent to.
			at = nil
		}
		g.grants, err = grantsOf(allowed, setOf(&all[0]), at)
	}
	return g, err
}

// mostPrefixes is how many addresses and prefixes a test may list.
const mostPrefixes = 12

// partOf says which of all addresses the ranges are, in the shorter way. Where all is nil, it lists the ranges.
func partOf(ranges []netipx.IPRange, all *netipx.IPSet) (part, error) {
	var own, rest netipx.IPSetBuilder
	addRanges(&own, ranges)
	set := setOf(&own)
	p := part{texts: prefixTexts(set)}
	if all != nil {
		rest.AddSet(all)
		rest.RemoveSet(set)
		switch others := prefixTexts(setOf(&rest)); {
		case len(others) == 0:
			return part{}, nil
		case len(others) < len(p.texts):
			p = part{others, true}
		}
	}
	if len(p.texts) > mostPrefixes {
		return p, fmt.Errorf("what passes has %d prefixes on a side", len(p.texts))
	}
	return p, nil
}

func prefixTexts(set *netipx.IPSet) []string { return texts(set.Prefixes(), prefixText) }

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// boxProtocols are the numbers of the protocols that boxes name. Of others there is no ICMP: it is of the
// other family, and begins no flow.
var boxProtocols = map[string]uint8{"TCP": packet.ProtoTCP, "UDP": packet.ProtoUDP, "ICMP": packet.ProtoICMP, "ICMPv6": packet.ProtoICMP,
	"ESP": packet.ProtoESP, "AH": packet.ProtoAH, "other": analysis.OtherProtocols}

// grantsOf joins boxes of the same addresses: first by protocol, then the protocols of the same ports. destinations
// is nil where grants list theirs.
func grantsOf(boxes []analysis.Box, sources, destinations *netipx.IPSet) (grants []grant, err error) {
	type places struct {
		from, to part
		ports    map[uint8]map[ruleset.PortRange]bool
	}
	var list []*places
	byKey := map[string]*places{}
	boxes = joinedBoxes(boxes)
	for i := range boxes {
		box := &boxes[i]
		from, err := partOf(box.Sources, sources)
		if err != nil {
			return nil, err
		}
		to, err := partOf(box.Destinations, destinations)
		if err != nil {
			return nil, err
		}
		protocol, known := boxProtocols[box.Protocol]
		switch {
		case !known:
			return nil, fmt.Errorf("protocol %s passes", box.Protocol)
		case len(box.SourcePorts) > 0 && box.SourcePorts[0] != ruleset.AllPorts:
			return nil, errors.New("source ports matter")
		}
		key := fmt.Sprint(from, to)
		p := byKey[key]
		if p == nil {
			p = &places{from, to, map[uint8]map[ruleset.PortRange]bool{}}
			byKey[key] = p
			list = append(list, p)
		}
		if p.ports[protocol] == nil {
			p.ports[protocol] = map[ruleset.PortRange]bool{}
		}
		for _, r := range box.DestinationPorts {
			p.ports[protocol][r] = true
		}
	}
	for _, p := range list {
		services, but := servicesOf(p.ports)
		if services == nil {
			grants = append(grants, grant{from: p.from, to: p.to, but: but})
			continue
		}
		for len(services) > 0 {
			ports := services[0].Ports
			g := grant{from: p.from, to: p.to}
			services = slices.DeleteFunc(services, func(s analysis.Service) bool {
				same := slices.Equal(s.Ports, ports)
				if same {
					g.services = append(g.services, s)
				}
				return same
			})
			grants = append(grants, g)
		}
	}
	return grants, nil
}

// joinedBoxes joins boxes that differ in the sources only, then those that differ in the destinations only:
// rules that allow may have divided them.
func joinedBoxes(boxes []analysis.Box) []analysis.Box {
	for _, side := range []func(*analysis.Box) *[]netipx.IPRange{
		func(b *analysis.Box) *[]netipx.IPRange { return &b.Sources },
		func(b *analysis.Box) *[]netipx.IPRange { return &b.Destinations },
	} {
		var out []analysis.Box
		byRest := map[string]int{}
		for _, box := range boxes {
			rest := box
			*side(&rest) = nil
			key := fmt.Sprint(box.Sources[0].From().Is4(), rest.Protocol, rest.Sources, rest.Destinations, rest.SourcePorts, rest.DestinationPorts)
			at, known := byRest[key]
			if !known {
				byRest[key] = len(out)
				out = append(out, box)
				continue
			}
			var b netipx.IPSetBuilder
			addRanges(&b, *side(&out[at]))
			addRanges(&b, *side(&box))
			*side(&out[at]) = setOf(&b).Ranges()
		}
		boxes = out
	}
	return joinedFamilies(boxes)
}

// joinedFamilies joins a box of IPv4 and one of IPv6 where a protocol and its ports have one of each. No
// packet is of both.
func joinedFamilies(boxes []analysis.Box) (out []analysis.Box) {
	byService := map[string][]int{}
	key := func(box *analysis.Box) string {
		return fmt.Sprint(boxProtocols[box.Protocol], box.SourcePorts, box.DestinationPorts)
	}
	for i := range boxes {
		byService[key(&boxes[i])] = append(byService[key(&boxes[i])], i)
	}
	for i := range boxes {
		same := byService[key(&boxes[i])]
		if len(same) == 2 && boxes[same[0]].Sources[0].From().Is4() != boxes[same[1]].Sources[0].From().Is4() {
			if i == same[1] {
				continue // it is in the first one
			}
			boxes[i].Sources = slices.Concat(boxes[i].Sources, boxes[same[1]].Sources)
			boxes[i].Destinations = slices.Concat(boxes[i].Destinations, boxes[same[1]].Destinations)
		}
		out = append(out, boxes[i])
	}
	return out
}

// servicesOf are the services of ports by protocol. services is nil where protocols pass that a test cannot name: then
// but is what does not.
func servicesOf(ports map[uint8]map[ruleset.PortRange]bool) (services, but []analysis.Service) {
	for _, protocol := range []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoESP, packet.ProtoAH} {
		of, passes := ports[protocol]
		if protocol == packet.ProtoICMP && !passes {
			of, passes = ports[packet.ProtoICMPv6]
		}
		if !passes {
			but = append(but, analysis.Service{Protocol: protocol})
			continue
		}
		s := analysis.Service{Protocol: protocol}
		if !of[ruleset.AllPorts] {
			for r := range of {
				s.Ports = append(s.Ports, r)
			}
			slices.SortFunc(s.Ports, func(a, b ruleset.PortRange) int { return cmp.Compare(a.First, b.First) })
		}
		services = append(services, s)
		if s.Ports != nil {
			but = append(but, analysis.Service{Protocol: protocol, Ports: otherPorts(s.Ports)})
		}
	}
	if _, others := ports[analysis.OtherProtocols]; others {
		return nil, but
	}
	return services, nil
}

// otherPorts are the ports that sorted ranges leave out.
func otherPorts(ranges []ruleset.PortRange) (others []ruleset.PortRange) {
	next := 0
	for _, r := range ranges {
		if int(r.First) > next {
			others = append(others, ruleset.PortRange{First: uint16(next), Last: r.First - 1})
		}
		next = max(next, int(r.Last)+1)
	}
	if next <= 65535 {
		others = append(others, ruleset.PortRange{First: uint16(next), Last: 65535})
	}
	return others
}
