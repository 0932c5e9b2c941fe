package analysis

import (
	"cmp"
	"maps"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Role is what a rule does in its list.
type Role struct {
	// Empty means that the rule matches no packet wherever it stands.
	Empty bool
	// Decides means that the rule is the first to match some packet, such as Witness.
	Decides bool
	// Needed means that the list would do something else with some packet without the rule.
	Needed  bool
	Witness packet.Tuple // valid when Decides
	// Blockers are the earlier rules that leave nothing to one that matches and never decides: large
	// overlaps first. If any earlier rule with the other access overlaps it, one is among them.
	Blockers []int
	// Instead are the rules that would decide the packets of one that decides and is not needed, with
	// the same access. NoRule is among them when no rule would match.
	Instead []int
	// Undecided means that the bound on states was reached: nothing else is known.
	Undecided bool
}

// Roles says for each rule of a list what it does there.
func Roles(l *List, o Options) []Role {
	q := newQuery(o)
	roles := make([]Role, l.Len())
	t := &trial{query: q, grid: newGrid(l, q.within)}
	for i := range roles {
		t.begin(i)
		roles[i] = t.run()
	}
	return roles
}

// trial finds out what one rule after the other does.
type trial struct {
	*query
	*grid
	search
	owner   int
	role    Role
	instead map[int]bool // later rules that would decide packets, with the same access
	places  []trialPlace
	// Memory for all places.
	neighbours []int
	covers     []*cell
}

// trialPlace is what the rule matches of a slice, and the other rules there.
type trialPlace struct {
	slice      *slice
	cell       cell
	neighbours []int // indexes in grid.rules
	covers     []*cell
	earlier    int // how many of them come before the rule
}

func (t *trial) begin(owner int) {
	t.owner, t.role, t.instead = owner, Role{Empty: true}, map[int]bool{}
	t.places, t.neighbours, t.covers, t.words = t.places[:0], t.neighbours[:0], t.covers[:0], t.largest[:0]
}

func (t *trial) run() Role {
	for i := range slicesOfPackets {
		s := &slicesOfPackets[i]
		if !s.names(t.rules[t.owner].protocol) {
			continue
		}
		p := t.place(s)
		if p.cell.empty() {
			continue
		}
		t.role.Empty = false
		if !t.role.Needed && !t.role.Undecided {
			t.ask(p)
		}
	}
	switch {
	case t.role.Undecided:
		return Role{Undecided: true}
	case t.role.Needed:
	case t.role.Decides:
		t.role.Instead = slices.Sorted(maps.Keys(t.instead))
	default:
		t.role.Blockers = t.blockers()
	}
	return t.role
}

// place is what the owner matches of a slice.
func (t *trial) place(s *slice) *trialPlace {
	p := &trialPlace{slice: s, cell: t.cells[s.family][t.owner]}
	for f, a := range t.axes[s.family] {
		if s.lacks[f] && t.every[f][t.owner/64]>>(t.owner%64)&1 == 0 {
			p.cell[f] = bitmap{} // see gate
		}
		p.cell[f] = t.and(t.and(p.cell[f], a.bitmap(s.domain[f])), a.bitmap(t.within[s.index][f]))
	}
	return p
}

// meet finds the other rules of a place.
func (t *trial) meet(p *trialPlace) {
	before := len(t.neighbours)
	t.neighbours = t.grid.neighbours(t.neighbours, p.slice, t.owner, &p.cell)
	p.neighbours = t.neighbours[before:]
	before = len(t.covers)
	for _, i := range p.neighbours {
		t.covers = append(t.covers, &t.cells[p.slice.family][i])
	}
	p.covers = t.covers[before:]
	p.earlier, _ = slices.BinarySearch(p.neighbours, t.owner)
}

// leftTo finds what is left to a neighbour of what it has in common with the owner, but for the owner.
func (t *trial) leftTo(p *trialPlace, neighbour int) (left cell, ok bool) {
	part := p.cell
	for f := range fields {
		part[f] = t.and(part[f], p.covers[neighbour][f])
	}
	return t.gap(part, p.covers[:neighbour])
}

// ask adds to the role what the rule does at a place. Slices of the same rules have the same answer.
func (t *trial) ask(p *trialPlace) {
	t.meet(p)
	if slices.ContainsFunc(t.places, p.like) {
		return
	}
	t.places = append(t.places, *p)
	given := t.allowance()
	t.steps = given
	t.decide(p)
	t.budget -= given - max(0, t.steps)
	t.role.Undecided = t.steps < 0
}

// like reports whether both places have the same packets, but for the protocol, and the same rules.
func (p *trialPlace) like(o trialPlace) bool {
	return p.slice.family == o.slice.family && p.cell.equal(&o.cell) && slices.Equal(p.neighbours, o.neighbours)
}

// decide asks first whether the rule decides a packet. A later rule would decide it instead. If that one
// does the same, each later rule is asked what would be left to it, those that do something else first.
func (t *trial) decide(p *trialPlace) {
	mark := t.words
	defer func() { t.words = mark }()
	left, ok := t.gap(p.cell, p.covers[:p.earlier])
	if !ok {
		return
	}
	access := t.rules[t.owner].access
	point := t.point(p.slice, &left)
	next := p.earlier + slices.IndexFunc(p.covers[p.earlier:], func(c *cell) bool { return c.contains(&point) })
	t.role.Needed = t.rules[p.neighbours[next]].access != access
	if !t.role.Decides || t.role.Needed {
		t.role.Decides, t.role.Witness = true, t.packet(p.slice, &point)
	}
	for _, same := range [...]bool{false, true} {
		for i := p.earlier; i < len(p.neighbours) && !t.role.Needed && t.steps >= 0; i++ {
			later := &t.rules[p.neighbours[i]]
			if (later.access == access) != same || t.instead[later.index] {
				continue
			}
			left, ok := t.leftTo(p, i)
			switch {
			case !ok:
			case same:
				t.instead[later.index] = true
			default:
				point := t.point(p.slice, &left)
				t.role.Needed, t.role.Witness = true, t.packet(p.slice, &point)
			}
		}
	}
}

// point is a class of each field: a packet, and all that the rules cannot tell from it.
type point [fields]int

func (c *cell) contains(p *point) bool {
	return c[source].contains(p[source]) && c[destination].contains(p[destination]) && c[sourcePort].contains(p[sourcePort]) && c[port].contains(p[port])
}

// point is a point of a cell, with packets that people know where the cell has some.
func (t *trial) point(s *slice, c *cell) (p point) {
	for f := range fields {
		p[f] = c[f].lowest()
		for _, known := range t.axes[s.family][f].known {
			if c[f].contains(known) {
				p[f] = known
				break
			}
		}
	}
	return p
}

// packet is a packet of a point.
func (t *trial) packet(s *slice, p *point) packet.Tuple {
	b := s.domain
	for f := range fields {
		if !s.lacks[f] {
			b[f] = (&set{spans: t.axes[s.family][f].values[p[f]]}).intersect(b[f])
		}
	}
	return s.witness(&b)
}

// mostBlockers is how many blockers are looked for in one region. The first ones tell the story.
const mostBlockers = 20

// blockers covers a rule by earlier ones: each covers a packet that those before it leave, and of the
// rules that match it, it has the largest overlap.
func (t *trial) blockers() []int {
	var chosen []int
	access := t.rules[t.owner].access
	other, otherSize := NoRule, 0.0 // with the other access, the largest overlap
	for i := range t.places {
		p := &t.places[i]
		size := map[*cell]float64{}
		earlier := make([]int, p.earlier) // in p.covers
		for j := range earlier {
			c, rule := p.covers[j], p.neighbours[j]
			earlier[j], size[c] = j, t.overlap(p, c)
			if t.rules[rule].access != access && size[c] > otherSize {
				other, otherSize = rule, size[c]
			}
		}
		slices.SortStableFunc(earlier, func(a, b int) int { return cmp.Compare(size[p.covers[b]], size[p.covers[a]]) })
		for _, j := range t.cover(p, earlier) {
			if !slices.Contains(chosen, p.neighbours[j]) {
				chosen = append(chosen, p.neighbours[j])
			}
		}
	}
	if other != NoRule && !slices.ContainsFunc(chosen, func(i int) bool { return t.rules[i].access != access }) {
		chosen = append(chosen, other)
	}
	return chosen
}

// overlap is how many packets a place has in common with a cell, rounded.
func (t *trial) overlap(p *trialPlace, c *cell) float64 {
	size := 1.0
	for f, a := range t.axes[p.slice.family] {
		sum := 0.0
		t.and(p.cell[f], c[f]).each(func(class int) { sum += a.sizes[class] })
		size *= sum
	}
	return size
}

// cover chooses of earlier rules, as indexes in p.covers, until no packet of a place is left.
func (t *trial) cover(p *trialPlace, earlier []int) (chosen []int) {
	var covers []*cell
	for t.steps = t.allowance(); len(chosen) < mostBlockers; {
		left, ok := t.gap(p.cell, covers)
		if !ok {
			break // covered, or no steps are left
		}
		point := t.point(p.slice, &left)
		i := slices.IndexFunc(earlier, func(j int) bool { return p.covers[j].contains(&point) })
		if i < 0 {
			break
		}
		chosen, covers = append(chosen, earlier[i]), append(covers, p.covers[earlier[i]])
	}
	return chosen
}
