package ask

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"go4.org/netipx"
)

// reachRow is packets that pass, while they are put together for people.
type reachRow struct {
	Reached
	from, to []held
	ports    []ruleset.PortRange
}

// held is what a row has of a place.
type held struct {
	place  int
	ranges []netipx.IPRange
}

// allowed are the packets that pass. They are divided until each row is for senders and receivers of one
// kind, and then joined as far as they differ in one thing only.
func (q *betweenQuery) allowed(sets *PathSets, from, to *End) []Reached {
	var families [2][]Reached
	var rows [2][]reachRow
	for i := range sets.Sets {
		set := &sets.Sets[i]
		if set.Access != ruleset.Allow.String() {
			continue
		}
		for j := range set.Boxes {
			family := flag(!set.Witnesses[j].Src.Is4())
			rows[family] = append(rows[family], rowOf(set, j))
		}
	}
	for family, list := range rows {
		list = divided(list, func(r *reachRow) *[]held { return &r.from })
		list = divided(list, func(r *reachRow) *[]held { return &r.to })
		list = together(list, onePlace)
		list = everyProtocolOf(list, family == 1)
		list = together(list, anyPlaces)
		names := [2]*placeNames{q.names(from, q.sources, family == 1), q.names(to, q.destinations, family == 1)}
		for i := range list {
			families[family] = append(families[family], list[i].shown(names))
		}
	}
	return bothVersions(families)
}

// rowOf is a box of a set.
func rowOf(set *PathSet, box int) reachRow {
	of := &set.Boxes[box]
	r := reachRow{Reached: Reached{Protocol: of.Protocol, Chosen: set.Chosen, Reason: set.Reason, Rules: []ReachRule{}, Witness: witnessOf(&set.Witnesses[box])},
		from: heldOf(set.from, of.Sources), to: heldOf(set.to, of.Destinations), ports: of.DestinationPorts}
	if set.course.redirects() {
		r.To, r.At = set.To, texts(of.Destinations, analysis.AddressRange)
	}
	if of.ICMPTypes != nil {
		r.ports = of.ICMPTypes
	}
	if len(of.SourcePorts) > 0 && of.SourcePorts[0] != ruleset.AllPorts {
		r.SourcePorts = texts(of.SourcePorts, analysis.PortRange)
	}
	for i := range set.Legs {
		if via := set.Legs[i].Via; via != "" {
			r.Via = append(r.Via, via)
		}
	}
	for i := range set.Deciders {
		if d := &set.Deciders[i]; d.RuleName != "" {
			r.Rules = append(r.Rules, ReachRule{d.Direction, d.NetworkSecurityGroup, d.RuleName})
		}
	}
	return r
}

func heldOf(places []place, ranges []netipx.IPRange) (list []held) {
	var b netipx.IPSetBuilder
	addRanges(&b, ranges)
	set := setOf(&b)
	for i := range places {
		if some := within(places[i].ranges, set); len(some) > 0 {
			list = append(list, held{places[i].index, some})
		}
	}
	return list
}

// divided divides rows so that two places are in one row only if they are in all rows together.
func divided(rows []reachRow, side func(*reachRow) *[]held) (out []reachRow) {
	in := map[int]string{} // by place: the rows that have it
	for i := range rows {
		for _, h := range *side(&rows[i]) {
			in[h.place] += fmt.Sprint(i, " ")
		}
	}
	for i := range rows {
		parts := map[string]int{}
		for _, h := range *side(&rows[i]) {
			at, known := parts[in[h.place]]
			if !known {
				at = len(out)
				parts[in[h.place]] = at
				part := rows[i]
				*side(&part) = nil
				part.Rules = slices.Clone(part.Rules)
				out = append(out, part)
			}
			*side(&out[at]) = append(*side(&out[at]), h)
		}
	}
	return out
}

// places says which places may be joined.
type places uint8

const (
	onePlace  places = iota // parts of the same ones
	anyPlaces               // and others
)

// together joins what differs in one thing only: the ports, the receivers, or the senders.
func together(list []reachRow, which places) []reachRow {
	for before := len(list) + 1; len(list) < before; {
		before = len(list)
		list = joinedBy(list, func(r *reachRow) { r.ports = nil })
		list = joinedBy(list, func(r *reachRow) { r.to = which.without(r.to) })
		list = joinedBy(list, func(r *reachRow) { r.from = which.without(r.from) })
	}
	return list
}

// without is what must be equal of places that are joined.
func (w places) without(list []held) (out []held) {
	if w == anyPlaces {
		return nil
	}
	for _, h := range list {
		out = append(out, held{place: h.place})
	}
	return out
}

// key is equal for rows that differ in nothing but witness and rules.
func (r *reachRow) key() string {
	return fmt.Sprintf("%v %v %v %v %q %q", r.from, r.to, r.ports, r.SourcePorts, []string{r.Protocol, fmt.Sprint(r.Chosen)}, [][]string{r.To, r.At, r.Via})
}

// joinedBy joins what differs in one field only, which without takes away.
func joinedBy(list []reachRow, without func(*reachRow)) (out []reachRow) {
	byKey := map[string]int{}
	for _, r := range list {
		alike := r
		without(&alike)
		key := alike.key()
		at, known := byKey[key]
		if !known {
			byKey[key] = len(out)
			out = append(out, r)
			continue
		}
		out[at].join(&r)
	}
	return out
}

// join takes in a row that differs in one field.
func (r *reachRow) join(o *reachRow) {
	r.from, r.to, r.ports = joinedPlaces(r.from, o.from), joinedPlaces(r.to, o.to), mergedPorts(r.ports, o.ports)
	r.takeRules(&o.Reached)
}

func (r *Reached) takeRules(o *Reached) {
	for _, rule := range o.Rules {
		if !slices.Contains(r.Rules, rule) {
			r.Rules = append(r.Rules, rule)
		}
	}
}

// joinedPlaces are the places of both, in their order.
func joinedPlaces(a, b []held) []held {
	out := slices.Clone(a)
	for _, h := range b {
		at, known := slices.BinarySearchFunc(out, h.place, func(o held, place int) int { return cmp.Compare(o.place, place) })
		if !known {
			out = slices.Insert(out, at, h)
			continue
		}
		var both netipx.IPSetBuilder
		addRanges(&both, out[at].ranges)
		addRanges(&both, h.ranges)
		out[at].ranges = setOf(&both).Ranges()
	}
	return out
}

// mergedPorts are the ports of both, in order.
func mergedPorts(a, b []ruleset.PortRange) (out []ruleset.PortRange) {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y ruleset.PortRange) int { return cmp.Compare(x.First, y.First) })
	for _, r := range all {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// everyProtocolOf joins those of each protocol, where all that begins a flow is there.
func everyProtocolOf(list []reachRow, six bool) (out []reachRow) {
	all := []ruleset.PortRange{ruleset.AllPorts}
	icmp := reachRow{Reached: Reached{Protocol: "ICMP"}, ports: requestTypes(packet.ProtoICMP)}
	if six {
		icmp = reachRow{Reached: Reached{Protocol: "ICMPv6"}, ports: requestTypes(packet.ProtoICMPv6)}
	}
	of := func(name string, ports []ruleset.PortRange) reachRow {
		return reachRow{Reached: Reached{Protocol: name}, ports: ports}
	}
	every := []reachRow{of("TCP", all), of("UDP", all), icmp, of("ESP", nil), of("AH", nil), of("other", nil)}
	byKey := map[string]int{}
	for i := range list {
		byKey[list[i].key()] = i
	}
	gone := map[int]bool{}
	for i := range list {
		like := list[i]
		var found []int
		for _, e := range every {
			like.Protocol, like.ports = e.Protocol, e.ports
			if at, known := byKey[like.key()]; known {
				found = append(found, at)
			}
		}
		if len(found) < len(every) || i != found[0] {
			continue
		}
		for _, at := range found[1:] {
			list[i].takeRules(&list[at].Reached)
			gone[at] = true
		}
		list[i].Protocol, list[i].ports = "*", nil
	}
	for i := range list {
		if !gone[i] {
			out = append(out, list[i])
		}
	}
	return out
}

// requestTypes are the types of ICMP that begin a flow.
func requestTypes(protocol uint8) (types []ruleset.PortRange) {
	for n := range uint16(256) {
		if p := (packet.Packet{Tuple: packet.Tuple{Proto: protocol}, ICMPType: uint8(n)}); p.IsICMPRequest() {
			types = append(types, ruleset.PortRange{First: n, Last: n})
		}
	}
	return types
}

// shown is a row with its places by name.
func (r *reachRow) shown(names [2]*placeNames) Reached {
	out := r.Reached
	out.From = names[0].of(r.from)
	if out.At == nil {
		out.To = names[1].of(r.to)
	}
	out.Ports = append([]string{}, texts(r.ports, analysis.PortRange)...)
	return out
}

// bothVersions joins what holds for IPv4 and IPv6 alike. The rest says its version, if there are both.
func bothVersions(families [2][]Reached) []Reached {
	out := slices.Concat([]Reached{}, families[0])
	if len(families[0]) == 0 || len(families[1]) == 0 {
		return append(out, families[1]...)
	}
	key := func(r *Reached) string {
		return fmt.Sprintf("%q %q %v", [][]string{r.From, r.To, r.At, r.Ports, r.SourcePorts, r.Via}, r.Protocol, r.Chosen)
	}
	for i := range out {
		out[i].IPVersion = "IPv4"
	}
	for _, r := range families[1] {
		i := slices.IndexFunc(out, func(o Reached) bool { return o.IPVersion == "IPv4" && key(&o) == key(&r) })
		if i >= 0 {
			out[i].IPVersion = ""
			out[i].takeRules(&r)
			continue
		}
		r.IPVersion = "IPv6"
		out = append(out, r)
	}
	return out
}
