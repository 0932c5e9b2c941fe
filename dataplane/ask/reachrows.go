package ask

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
)

// reachRow is packets that pass, while they are put together for people.
type reachRow struct {
	Reached
	from, to *side
	ports    []ruleset.PortRange
	kind     string // equal for rows that differ in nothing else but protocol, witness and rules
}

// allowed are the packets that pass. They are divided until each row is for senders and receivers of one
// kind, and then joined as far as they differ in one thing only.
func (q *betweenQuery) allowed(sets *PathSets) []Reached {
	sides := newSides()
	var families [2][]Reached
	var rows [2][]reachRow
	for i := range sets.Sets {
		set := &sets.Sets[i]
		if set.Access != ruleset.Allow.String() {
			continue
		}
		for j := range set.Boxes {
			family := bit(!set.Witnesses[j].Src.Is4())
			rows[family] = append(rows[family], rowOf(sides, set, j))
		}
	}
	for family, list := range rows {
		list = sides.apart(list, func(r *reachRow) **side { return &r.from })
		list = sides.apart(list, func(r *reachRow) **side { return &r.to })
		list = sides.together(list, onePlace)
		list = everyProtocolOf(list, family == 1)
		list = sides.together(list, anyPlaces)
		names := [2]*placeNames{q.names(q.from, q.sources, family == 1), q.names(q.to, q.destinations, family == 1)}
		for i := range list {
			families[family] = append(families[family], list[i].shown(names))
		}
	}
	return bothVersions(families)
}

// rowOf is a box of a set.
func rowOf(sides *sides, set *PathSet, box int) reachRow {
	of := &set.Boxes[box]
	r := reachRow{Reached: Reached{Protocol: of.Protocol, Chosen: set.Chosen, Reason: set.Reason, Rules: []ReachRule{}, Witness: witnessOf(&set.Witnesses[box])},
		from: sides.of(heldOf(set.from, of.Sources)), to: sides.of(heldOf(set.to, of.Destinations)), ports: of.DestinationPorts}
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
	r.kind = fmt.Sprintf("%q %v", [][]string{r.SourcePorts, r.To, r.At, r.Via}, r.Chosen)
	return r
}

// places says which places may be joined.
type places uint8

const (
	onePlace  places = iota // parts of the same ones
	anyPlaces               // and others
)

// together joins what differs in one thing only: the ports, the receivers, or the senders.
func (s *sides) together(list []reachRow, which places) []reachRow {
	for before := len(list) + 1; len(list) < before; {
		before = len(list)
		list = s.joinedBy(list, func(k *rowKey) { k.ports = "" })
		list = s.joinedBy(list, func(k *rowKey) { k.to = k.to.without(which) })
		list = s.joinedBy(list, func(k *rowKey) { k.from = k.from.without(which) })
	}
	return list
}

// rowKey is equal for rows that differ in nothing but witness and rules.
type rowKey struct {
	from, to              *side
	ports, protocol, kind string
}

func (r *reachRow) key() rowKey {
	var ports []byte
	for _, p := range r.ports {
		ports = binary.BigEndian.AppendUint32(ports, uint32(p.First)<<16|uint32(p.Last))
	}
	return rowKey{r.from, r.to, string(ports), r.Protocol, r.kind}
}

// joinedBy joins what differs in one field only, which without takes away.
func (s *sides) joinedBy(list []reachRow, without func(*rowKey)) (out []reachRow) {
	byKey := map[rowKey]int{}
	var alike [][]int // by index in out: the rows
	for i := range list {
		key := list[i].key()
		without(&key)
		at, known := byKey[key]
		if !known {
			at = len(alike)
			byKey[key] = at
			alike = append(alike, nil)
		}
		alike[at] = append(alike[at], i)
	}
	for _, rows := range alike {
		out = append(out, s.joined(list, rows))
	}
	return out
}

// joined are rows that differ in one field as one row.
func (s *sides) joined(list []reachRow, rows []int) reachRow {
	r := list[rows[0]]
	if len(rows) == 1 {
		return r
	}
	var from, to []*side
	var ports []ruleset.PortRange
	for _, i := range rows {
		from, to, ports = append(from, list[i].from), append(to, list[i].to), append(ports, list[i].ports...)
		r.takeRules(&list[i].Reached)
	}
	r.from, r.to, r.ports = s.union(from), s.union(to), mergedPorts(ports)
	return r
}

func (r *Reached) takeRules(o *Reached) {
	for _, rule := range o.Rules {
		if !slices.Contains(r.Rules, rule) {
			r.Rules = append(r.Rules, rule)
		}
	}
}

// mergedPorts are ports in order, each in one range only.
func mergedPorts(all []ruleset.PortRange) (out []ruleset.PortRange) {
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
	byKey := map[rowKey]int{}
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
	out.From = names[0].of(r.from.held)
	if out.At == nil {
		out.To = names[1].of(r.to.held)
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
