package analysis

import (
	"slices"

	"github.com/nsgd/nsgd/ruleset"
)

// Field is a field of a rule that has a list of values.
type Field int

// The fields of a rule that have lists of values.
const (
	Sources Field = iota
	Destinations
	SourcePorts
	DestinationPorts
)

// Merge is rules that could be one.
type Merge struct {
	// Rules are two or more, in ascending order. The one rule stands where the first stands.
	Rules []int
	// Field is the only field in which they are not the same. The one rule has the values of all.
	Field Field
}

// Mergeable finds rules that could be one, written as a rule can be: protocol, access and all fields but one are the
// same, and the one rule has the values of all in that field. Every packet is treated as before, also when
// all merges are made at once. A rule is in one merge at most, the largest that was found. Protocols are not merged,
// since a rule has one or all.
//
// may says whether two rules that are the same in the other fields can be written as one in a field. It is symmetric
// and transitive: prefixes go with prefixes, but a tag with nothing. nil: they always can.
//
// A rule that has all values of another one is not merged with it: Roles says that one of them is not needed.
// Nothing is said about rules for which Options.MaxStates does not suffice.
func Mergeable(l *List, may func(a, b int, f Field) bool, o Options) []Merge {
	q := newQuery(o)
	t := &trial{query: q, grid: newGrid(l, q.within)}
	var found []Merge
	for _, group := range similar(t.rules[:l.Len()]) {
		found = append(found, t.merges(group, may)...)
	}
	slices.SortStableFunc(found, func(a, b Merge) int { return len(b.Rules) - len(a.Rules) })
	merged := make([]bool, l.Len())
	for i := range found {
		found[i].Rules = slices.DeleteFunc(found[i].Rules, func(rule int) bool { return merged[rule] })
		if len(found[i].Rules) > 1 {
			for _, rule := range found[i].Rules {
				merged[rule] = true
			}
		}
	}
	found = slices.DeleteFunc(found, func(m Merge) bool { return len(m.Rules) < 2 })
	slices.SortFunc(found, func(a, b Merge) int { return a.Rules[0] - b.Rules[0] })
	return found
}

// similar lists groups of rules that are the same in all but one field.
func similar(rules []rule) []Merge {
	type key struct {
		protocol ruleset.Protocol
		access   ruleset.Access
		field    Field
		sets     [families][fields]*set // equal sets are one
	}
	index := map[key]int{}
	var groups []Merge
	for field := Sources; field <= DestinationPorts; field++ {
		for i := range rules {
			r := &rules[i]
			k := key{protocol: r.protocol, access: r.access, field: field}
			for family := range families {
				for f := range fields {
					if f != int(field) {
						k.sets[family][f] = r.field(f, family)
					}
				}
			}
			at, known := index[k]
			if !known {
				at = len(groups)
				index[k] = at
				groups = append(groups, Merge{Field: field})
			}
			groups[at].Rules = append(groups[at].Rules, i)
		}
	}
	return slices.DeleteFunc(groups, func(m Merge) bool { return len(m.Rules) < 2 })
}

// merges divides a group into merges. A rule that cannot join the one before it begins another.
func (t *trial) merges(group Merge, may func(a, b int, f Field) bool) (out []Merge) {
	m := Merge{Field: group.Field}
	var has values
	end := func() {
		if len(m.Rules) > 1 {
			out = append(out, m)
		}
	}
	for _, i := range group.Rules {
		r := &t.rules[i]
		one := values{r.field(int(m.Field), ipv4), r.field(int(m.Field), ipv6)}
		if len(m.Rules) > 0 {
			if has.holds(&one) {
				continue
			}
			both := has.union(&one)
			if !one.holds(&has) && !both.opensPortless(r, m.Field) && (may == nil || may(m.Rules[0], i, m.Field)) && t.movesUp(i, m.Rules[0]) {
				m.Rules, has = append(m.Rules, i), both
				continue
			}
		}
		end()
		m.Rules, has = []int{i}, one
	}
	end()
	return out
}

// values are those of a field, by family. Those of ports are twice the same.
type values [families]*set

func (v *values) holds(o *values) bool { return v[ipv4].holds(o[ipv4]) && v[ipv6].holds(o[ipv6]) }

func (v *values) union(o *values) (u values) {
	for family := range v {
		u[family] = newSet(slices.Concat(v[family].spans, o[family].spans))
	}
	return u
}

// opensPortless reports that ports have become all ports. To protocols without ports that makes a difference.
func (v *values) opensPortless(r *rule, f Field) bool {
	return f >= SourcePorts && r.protocol != ruleset.TCP && r.protocol != ruleset.UDP && v[0].holds(everyPort)
}

// movesUp reports whether a rule changes nothing when it moves up to a place: whether rules of the other
// access between them decide none of its packets.
func (t *trial) movesUp(owner, to int) bool {
	t.begin(owner)
	given := t.allowance()
	t.steps = given
	defer func() { t.budget -= given - max(0, t.steps) }()
	for i := range slicesOfPackets {
		s := &slicesOfPackets[i]
		if !s.names(t.rules[owner].protocol) {
			continue
		}
		p := t.place(s)
		if p.cell.empty() {
			continue
		}
		t.meet(p)
		for n := range p.earlier {
			if k := p.neighbours[n]; k <= to || t.rules[k].access == t.rules[owner].access {
				continue
			}
			if _, decides := t.leftTo(p, n); decides || t.steps < 0 {
				return false
			}
		}
	}
	return true
}

var fieldNames = [...]string{Sources: "sources", Destinations: "destinations", SourcePorts: "source ports", DestinationPorts: "destination ports"}

// String is the field as people write it.
func (f Field) String() string { return fieldNames[f] }
