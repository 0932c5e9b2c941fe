package ask

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

// NamedTest is a test with a sentence for its name.
type NamedTest struct {
	Name string
	PolicyTest
}

// maxTestsOf bounds the pairs of ends that TestsOf asks about.
const maxTestsOf = 2500

// TestsOf are tests that hold what a policy does now: from the internet to each subnet and application security
// group with network interfaces, and between such subnets. Ends that are alike share a test, and all tests
// pass. leftOut names the pairs for which there is none, and why. It fails when there are too many pairs.
func (b *Between) TestsOf() (tests []NamedTest, leftOut []string, err error) {
	subnets, groups := b.inhabited()
	if pairs := (len(subnets) + 1) * (len(subnets) + len(groups)); pairs > maxTestsOf {
		return nil, nil, fmt.Errorf("%d pairs of subnets and groups: allowed are %d; name fewer files", pairs, maxTestsOf)
	}
	var rows []testRow
	for _, from := range append([]string{internetEnd}, subnets...) {
		targets := subnets
		if from == internetEnd {
			targets = slices.Concat(subnets, groups)
		}
		row := testRow{from: []string{from}}
		for _, to := range targets {
			if from == to {
				continue
			}
			passes, err := b.granted(from, to)
			if err != nil {
				leftOut = append(leftOut, fmt.Sprintf("%s to %s: %v", from, to, err))
				continue
			}
			row.add(to, passes)
		}
		rows = joinRow(rows, row)
	}
	names := map[string]int{}
	for i := range rows {
		for j := range rows[i].cells {
			for _, t := range rows[i].tests(&rows[i].cells[j]) {
				if b.Test(&t.PolicyTest).Result != TestPass {
					leftOut = append(leftOut, t.Name+": it holds for some of these ends only")
					continue
				}
				if names[t.Name]++; names[t.Name] > 1 {
					t.Name = fmt.Sprintf("%s (%d)", t.Name, names[t.Name])
				}
				tests = append(tests, t)
			}
		}
	}
	return tests, leftOut, nil
}

// inhabited are the subnets and groups with network interfaces, as ends.
func (b *Between) inhabited() (subnets, groups []string) {
	in := map[*policy.Subnet]bool{}
	for _, e := range b.snapshot.Endpoints() {
		in[e.Subnet] = in[e.Subnet] || e.NetworkInterface != nil
	}
	for _, v := range b.snapshot.Policy.VirtualNetworks {
		for _, sub := range v.Subnets {
			if end := "subnet:" + v.Name + "/" + sub.Name; in[sub] && b.finds(end) {
				subnets = append(subnets, end)
			}
		}
	}
	for _, g := range b.snapshot.Policy.ApplicationSecurityGroups {
		if end := "asg:" + g.Name; b.finds(end) {
			groups = append(groups, end)
		}
	}
	return subnets, groups
}

func (b *Between) finds(end string) bool {
	_, err := b.End(end)
	return err == nil
}

// testRow is what some senders may do. The targets of a cell are treated alike.
type testRow struct {
	from  []string
	cells []testCell
}

type testCell struct {
	to []string
	granted
}

// granted is what passes between two ends. aside are addresses that stand for the receiver, and at which
// something else passes: among networks, tests leave them out.
type granted struct {
	grants []grant
	aside  []string
}

// grant is packets that pass.
type grant struct {
	from, to part
	services []analysis.Service // with equal ports; nil: every packet
	but      []analysis.Service // ports that do not pass, where services is nil
}

// part is which addresses of an end a grant is for: all when texts is nil, else these, or all but these.
type part struct {
	texts []string
	not   bool
}

func (r *testRow) add(to string, g granted) {
	for i := range r.cells {
		if fmt.Sprint(r.cells[i].granted) == fmt.Sprint(g) {
			r.cells[i].to = append(r.cells[i].to, to)
			return
		}
	}
	r.cells = append(r.cells, testCell{[]string{to}, g})
}

// joinRow adds a row to those with the same cells.
func joinRow(rows []testRow, row testRow) []testRow {
	for i := range rows {
		if fmt.Sprint(rows[i].cells) == fmt.Sprint(row.cells) {
			rows[i].from = append(rows[i].from, row.from...)
			return rows
		}
	}
	return append(rows, row)
}

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
	var allowed []analysis.Box
	denied, apart := false, false
	for i := range sets.Sets {
		set := &sets.Sets[i]
		if set.Reason == noFlow {
			continue
		}
		if set.More {
			return g, errors.New("there are too many sets of packets")
		}
		passes := set.Access == ruleset.Allow.String()
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
		g.grants, err = grantsOf(allowed, setOf(&all[0]), setOf(&all[1]))
	}
	return g, err
}

// mostPrefixes is how many addresses and prefixes a test may list.
const mostPrefixes = 12

// partOf says which of all addresses the ranges are, in the shorter way.
func partOf(ranges []netipx.IPRange, all *netipx.IPSet) (part, error) {
	var own, rest netipx.IPSetBuilder
	addRanges(&own, ranges)
	set := setOf(&own)
	rest.AddSet(all)
	rest.RemoveSet(set)
	p, others := part{texts: prefixTexts(set)}, prefixTexts(setOf(&rest))
	switch {
	case len(others) == 0:
		return part{}, nil
	case len(others) < len(p.texts):
		p = part{others, true}
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

// grantsOf joins boxes of the same addresses: first by protocol, then the protocols of the same ports.
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
			if g.services[0].Protocol == analysis.OtherProtocols {
				return nil, errors.New("protocols pass that a test cannot name")
			}
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

// servicesOf are the services of ports by protocol; nil: every packet, but for some ports.
func servicesOf(ports map[uint8]map[ruleset.PortRange]bool) (services, but []analysis.Service) {
	for _, protocol := range []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoESP, packet.ProtoAH, analysis.OtherProtocols} {
		of, named := ports[protocol]
		if !named {
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
	if len(services) == 6 { // ICMPv6 counts as ICMP
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

// tests are those of a cell: each grant is allowed, and nothing else is.
func (r *testRow) tests(c *testCell) (tests []NamedTest) {
	var outside []NamedTest // what a grant leaves out
	var of []int            // its grant
	var passes []TestPackets
	for i := range c.grants {
		t, left := r.allowed(c, &c.grants[i])
		tests = append(tests, t)
		for range left {
			of = append(of, i)
		}
		outside = append(outside, left...)
		p := TestPackets{Services: t.Services}
		if g := &c.grants[i]; !g.from.not {
			p.From = g.from.texts
		}
		if g := &c.grants[i]; !g.to.not {
			p.To = g.to.texts
		}
		passes = append(passes, p)
	}
	for i := range outside {
		t := &outside[i]
		for j := range passes {
			if j != of[i] && !c.grants[j].from.not && !c.grants[j].to.not {
				t.Except = append(t.Except, passes[j])
			}
		}
	}
	tests = append(tests, outside...)
	rest := NamedTest{fmt.Sprintf("%s reaches nothing else of %s", endNames(r.from), endNames(c.to)),
		PolicyTest{TestPackets: TestPackets{From: r.from, To: c.to}, Expect: ruleset.Deny, Except: append(c.apart(), passes...)}}
	switch {
	case len(c.grants) == 0:
		rest.Name = fmt.Sprintf("%s does not reach %s", endNames(r.from), endNames(c.to))
	case slices.ContainsFunc(passes, func(p TestPackets) bool { return p.From == nil && p.To == nil && p.Services == nil }):
		return tests // there is nothing else
	}
	return append(tests, rest)
}

// apart are the addresses that a cell's tests leave out.
func (c *testCell) apart() []TestPackets {
	if c.aside == nil {
		return nil
	}
	return []TestPackets{{To: c.aside}}
}

// allowed is the test of a grant. left are tests that the addresses which it leaves out are denied.
func (r *testRow) allowed(c *testCell, g *grant) (t NamedTest, left []NamedTest) {
	packets := TestPackets{From: r.from, To: c.to, Services: icmpOfBoth(g.services)}
	on := ""
	if g.services != nil {
		on = " on " + serviceText(g.services)
	}
	names := [2]string{endNames(r.from), endNames(c.to)}
	except := c.apart()
	for side, p := range []part{g.from, g.to} {
		out := TestPackets{Services: packets.Services}
		ends := []*[]string{&packets.From, &packets.To}[side]
		switch {
		case p.not:
			denied, others := packets, names
			*[]*[]string{&denied.From, &denied.To}[side], *[]*[]string{&out.From, &out.To}[side] = p.texts, p.texts
			others[side] = ruleset.Listed(p.texts)
			left = append(left, NamedTest{fmt.Sprintf("%s reaches nothing else of %s%s", others[0], others[1], on), PolicyTest{TestPackets: denied, Expect: ruleset.Deny, Except: c.apart()}})
			except = append(except, out)
			names[side] += " but " + ruleset.Listed(p.texts)
		case p.texts != nil:
			*ends, names[side] = p.texts, ruleset.Listed(p.texts)
		}
	}
	for _, s := range g.but {
		one := []analysis.Service{s}
		except = append(except, TestPackets{Services: one})
		on += " but on " + serviceText(one)
		left = append(left, NamedTest{fmt.Sprintf("%s does not reach %s on %s", names[0], names[1], serviceText(one)),
			PolicyTest{TestPackets: TestPackets{From: packets.From, To: packets.To, Services: one}, Expect: ruleset.Deny, Except: c.apart()}})
	}
	return NamedTest{fmt.Sprintf("%s reaches %s%s", names[0], names[1], on), PolicyTest{TestPackets: packets, Expect: ruleset.Allow, Except: except}}, left
}

// icmpOfBoth adds ICMPv6 to ICMP.
func icmpOfBoth(services []analysis.Service) (list []analysis.Service) {
	for _, s := range services {
		list = append(list, s)
		if s.Protocol == packet.ProtoICMP {
			list = append(list, analysis.Service{Protocol: packet.ProtoICMPv6})
		}
	}
	return list
}

// endNames are ends in a sentence.
func endNames(ends []string) string {
	names := make([]string, len(ends))
	for i, end := range ends {
		kind, name, _ := strings.Cut(end, ":")
		switch kind {
		case internetEnd:
			names[i] = "the internet"
		case "asg":
			names[i] = "group " + name
		default:
			names[i] = name
		}
	}
	return ruleset.Listed(names)
}

// serviceText is such as "TCP, UDP 53".
func serviceText(services []analysis.Service) string {
	names := make([]string, len(services))
	for i, s := range services {
		names[i] = packet.ProtocolName(s.Protocol)
	}
	return strings.TrimSpace(strings.Join(names, ", ") + " " + strings.Join(texts(services[0].Ports, analysis.PortRange), ", "))
}
