package analysis

import (
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// Passage is what a list does with the packets that a rule of the list before it allows.
type Passage struct {
	// Decides means that the rule is the first of its list to match some packet that the question is about.
	Decides bool
	// Passes means that the next list allows some packet that the rule decides.
	Passes bool
	// Blockers are the rules of the next list that deny all that the rule decides; Witness is one such packet.
	// Both are valid when the rule decides and nothing passes.
	Blockers []int
	Witness  packet.Tuple
	// Undecided means that the bound on states was reached: nothing else is known.
	Undecided bool
}

// Behind says for each rule of a list that allows what the next list does with its packets. For
// a rule that denies, or allows always, it is the zero value.
func Behind(first, next *List, o Options) []Passage {
	q := newQuery(o)
	passages := make([]Passage, first.Len())
	for i := range passages {
		if first.rules[i].access == ruleset.Allow {
			passages[i] = q.behind(first, next, &first.rules[i])
		}
	}
	return passages
}

func (q *query) behind(first, next *List, owner *rule) (p Passage) {
	blockers := map[int]bool{}
	q.regions(owner, func(r *region) {
		if !p.Passes && !p.Undecided {
			q.behindIn(first, next, owner, r, &p, blockers)
		}
	})
	switch {
	case p.Undecided:
		return Passage{Undecided: true}
	case p.Passes:
		return Passage{Decides: true, Passes: true}
	}
	for i := range blockers {
		p.Blockers = append(p.Blockers, i)
	}
	slices.Sort(p.Blockers)
	return p
}

// behindIn adds what becomes of the rule's packets in a region.
func (q *query) behindIn(first, next *List, owner *rule, r *region, p *Passage, blockers map[int]bool) {
	diagramOf := func() (*diagram, int) {
		d := newDiagram(&r.box, []stageList{{oldSide, 0, r.collect(first)}, {oldSide, 1, r.collect(next)}}, q.allowance())
		return d, d.bitOf(place{oldSide, 0, owner.index})
	}
	d, bit := diagramOf()
	if bit < 0 {
		return // a rule before it matches all of the region
	}
	byOwner := func(of *decision) bool { return of[oldSide][0] == bit }
	d.first = true
	d.wanted = func(_ int, s state) bool {
		allow, _ := d.outcomes(s)
		return s.alive(bit) && allow[oldSide]
	}
	d.leaf = byOwner
	root := q.walk(d)
	if p.Passes, p.Undecided = root != nil, d.exhausted(); p.Passes || p.Undecided {
		return
	}
	d, _ = diagramOf()
	d.wanted, d.leaf = func(_ int, s state) bool { return s.alive(bit) }, byOwner
	root = q.walk(d)
	if p.Undecided = d.exhausted(); root == nil {
		return
	}
	d.paths(root, q.MaxBoxes, func(leaf *node, c *cell, _ bool) {
		if !p.Decides {
			b := d.box(c)
			p.Decides, p.Witness = true, r.slice.witness(&b)
		}
		blockers[d.candidates[leaf.decision[oldSide][1]].index] = true
	})
}
