package analysis

import (
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// Allowed is packets that a chain allows by one rule.
type Allowed struct {
	By      Decision
	Boxes   []Box        // each packet is in one box only
	More    bool         // there are more boxes than Options.MaxBoxes
	Witness packet.Tuple // one of the packets, as classifier.Linear takes it
}

// Reachable is the answer of Reach.
type Reachable struct {
	Allowed []Allowed
	// Undecided are places where the bound on states was reached. Nothing else is missing in Allowed.
	Undecided []Undecided
}

// Reach finds all packets that a chain allows. A chain without any allows nothing.
func Reach(c Chain, o Options) *Reachable {
	q := newQuery(o)
	c = padded(c, 1)
	out := &Reachable{}
	var found findings
	for stage, list := range c {
		for i := range list.rules {
			owner := &list.rules[i]
			// Packets that no list has a rule for count for the first list.
			if owner.access != ruleset.Deny && (owner.index != NoRule || stage == 0) {
				q.reachBy(c, place{newSide, stage, owner.index}, owner, &found, out)
			}
		}
	}
	for _, one := range found.changes() {
		out.Allowed = append(out.Allowed, Allowed{By: one.New, Boxes: one.Boxes, More: one.More, Witness: one.Witness})
	}
	return out
}

// reachBy finds the packets that a rule is the last to allow.
func (q *query) reachBy(c Chain, at place, owner *rule, found *findings, out *Reachable) {
	lists := func(r *region) (lists []stageList) {
		for stage, list := range c {
			lists = append(lists, stageList{newSide, stage, r.collect(list)})
		}
		return lists
	}
	undecided := func(r *region) {
		out.Undecided = append(out.Undecided, Undecided{New: true, Stage: at.stage, Rule: at.rule, Box: r.slice.shown(&r.box)})
	}
	q.solve(owner, lists, func(s *solution) {
		d := newDiagram(&s.region.box, s.lists, q.allowance())
		bit := d.bitOf(at)
		if bit < 0 {
			return
		}
		d.wanted = func(level int, s state) bool {
			allow, _ := d.outcomes(s)
			return s.alive(bit) && allow[newSide]
		}
		d.leaf = func(of *decision) bool {
			access, _, by := d.outcome(of[newSide])
			for i := range of[newSide] {
				if of[newSide][i] != bit {
					of[newSide][i] = -1 // who else allows makes no difference
				}
			}
			return access != ruleset.Deny && by == bit
		}
		root := q.walk(d)
		if s.undecided = d.exhausted(); root != nil {
			s.parts = d.parts(root, q.MaxBoxes, func(leaf *decision) findingKey { return findingKey{new: d.answer(leaf[newSide])} })
		}
	}, found, undecided)
}
