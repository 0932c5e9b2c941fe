package analysis

import (
	"cmp"
	"math/bits"
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
	for i := range roles {
		roles[i] = q.role(l, &l.rules[i])
	}
	return roles
}

func (q *query) role(l *List, owner *rule) Role {
	role := Role{Empty: true}
	instead := map[int]bool{}
	var regions []*region
	q.regions(owner, func(r *region) {
		role.Empty = false
		regions = append(regions, r)
		if !role.Needed && !role.Undecided {
			q.roleIn(l, owner, r, &role, instead)
		}
	})
	switch {
	case role.Undecided:
		return Role{Undecided: true}
	case role.Needed:
	case role.Decides:
		for i := range instead {
			role.Instead = append(role.Instead, i)
		}
		slices.Sort(role.Instead)
	default:
		role.Blockers = q.blockers(l, owner, regions)
	}
	return role
}

// roleIn adds to a role what the rule does in a region.
func (q *query) roleIn(l *List, owner *rule, r *region, role *Role, instead map[int]bool) {
	without := r.collect(l, owner)
	earlier := slices.IndexFunc(without, func(c *candidate) bool { return c.index == NoRule || c.index > owner.index })
	if earlier < 0 {
		return // a rule before it matches all of the region
	}
	self := &candidate{rule: owner, changed: true, sets: r.box}
	with := append(slices.Clone(without[:earlier]), self)
	lists := []stageList{{side: oldSide, candidates: with}, {side: newSide, candidates: without}}
	d := newDiagram(&r.box, lists, q.allowance())
	bit := slices.Index(d.candidates, self)
	d.first = true
	d.wanted = func(level int, s state) bool {
		return s.alive(bit) && d.unlike(s) && (level == fields || !d.alike(level, s))
	}
	root := q.walk(d)
	if root != nil {
		role.Decides, role.Needed, role.Witness = true, true, d.witness(root, r)
		return
	}
	if d.exhausted() {
		role.Undecided = true
		return
	}
	d = newDiagram(&r.box, lists, q.allowance())
	d.wanted = func(level int, s state) bool {
		return s.alive(bit) && (level < fields || d.decide(s)[oldSide][0] == bit)
	}
	root = q.walk(d)
	role.Undecided = d.exhausted()
	if root == nil {
		return
	}
	if !role.Decides {
		role.Decides, role.Witness = true, d.witness(root, r)
	}
	d.leaves(root, map[*node]bool{}, func(of *decision) { instead[d.candidates[of[newSide][0]].index] = true })
}

// unlike reports whether two lists may do different things. To the lists behind them AlwaysAllow is not
// Allow.
func (d *diagram) unlike(s state) bool {
	var can [sides]uint8 // a bit for each access
	for _, stage := range d.stages {
		for ; len(s) > 0 && int(s[0]) < stage.end; s = s[2:] {
			for access := range d.access {
				if s[1]&d.access[access][s[0]] != 0 {
					can[stage.side] |= 1 << access
				}
			}
		}
	}
	return can[oldSide] != can[newSide] || bits.OnesCount8(can[oldSide]) > 1
}

// witness is a packet of the first leaf.
func (d *diagram) witness(root *node, r *region) (k packet.Tuple) {
	b := box{}
	for n := root; n.decision == nil; n = n.edges[0].to {
		b[d.order[n.level]] = d.valuesOf(n.level, n.edges[0].classes)
	}
	return r.slice.witness(&b)
}

// mostBlockers is how many blockers are looked for in one region. The first ones tell the story.
const mostBlockers = 20

// blockers covers a rule by earlier ones: each covers a packet that those before it leave, and of the
// rules that match it, it has the largest overlap.
func (q *query) blockers(l *List, owner *rule, regions []*region) []int {
	var chosen []int
	var other *candidate // with the other access, the largest overlap
	otherSize := 0.0
	for _, r := range regions {
		var earlier []*candidate
		for i := range l.rules[:owner.index] {
			if c := r.candidate(&l.rules[i]); c != nil {
				earlier = append(earlier, c)
			}
		}
		slices.SortStableFunc(earlier, func(a, b *candidate) int { return cmp.Compare(b.sets.size(), a.sets.size()) })
		for _, c := range earlier {
			if c.access != owner.access && c.sets.size() > otherSize {
				other, otherSize = c, c.sets.size()
			}
		}
		for _, c := range q.cover(r, owner, earlier) {
			if !slices.Contains(chosen, c.index) {
				chosen = append(chosen, c.index)
			}
		}
	}
	if other != nil && !slices.ContainsFunc(chosen, func(i int) bool { return l.rules[i].access != owner.access }) {
		chosen = append(chosen, other.index)
	}
	return chosen
}

func (q *query) cover(r *region, owner *rule, earlier []*candidate) (chosen []*candidate) {
	for len(chosen) < mostBlockers {
		list := append(slices.Clone(chosen), &candidate{rule: owner, sets: r.box})
		d := newDiagram(&r.box, []stageList{{side: oldSide, candidates: list}}, q.allowance())
		bit := len(chosen)
		d.first = true
		d.wanted = func(level int, s state) bool { return s.alive(bit) }
		root := q.walk(d)
		if root == nil {
			break // covered, or the bound on states is reached
		}
		left := d.leftover(root)
		i := slices.IndexFunc(earlier, func(c *candidate) bool { return c.sets.has(&left) })
		if i < 0 {
			break
		}
		chosen = append(chosen, earlier[i])
	}
	return chosen
}

// leftover is a point that leads to the first leaf.
func (d *diagram) leftover(root *node) (point [fields]value) {
	for n := root; n.decision == nil; n = n.edges[0].to {
		point[d.order[n.level]] = d.classes[n.level][n.edges[0].classes[0]].values[0].first
	}
	return point
}
