package analysis

import (
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// Decision is what becomes of packets and which rule of a chain decides it: the one that denies, or
// the last one that allows.
type Decision struct {
	Access ruleset.Access // Allow or Deny
	Stage  int            // index in the chain; -1 when no list has a rule for the packets
	Rule   int            // index in the list, or NoRule
}

// Change is packets that one chain allows and another denies, by one rule of each.
type Change struct {
	Old, New Decision
	// Boxes are the packets, each in one box only.
	Boxes []Box
	// More means that there are more boxes than Options.MaxBoxes.
	More bool
	// Witness is one of the packets, as classifier.Linear takes it.
	Witness packet.Tuple
}

// Difference is the answer of Compare.
type Difference struct {
	Changes []Change
	// Rules are those that were added, removed, changed or moved.
	Rules []ChangedRule
	// Undecided are places where the bound on states was reached. Every change elsewhere is
	// in Changes.
	Undecided []Undecided
}

// ChangedRule is a rule that one chain has and the other has not, or has at another place.
type ChangedRule struct {
	New   bool // of the new chain
	Stage int
	Rule  int
	// Effective means that it decides packets whose access is not the same in both chains.
	Effective bool
}

// Undecided is packets about which nothing is known, because the bound on states was reached: those
// that a rule matches.
type Undecided struct {
	New   bool // the rule is of the new chain
	Stage int
	Rule  int
	Box   Box
}

// comparison is a query about two chains.
type comparison struct {
	*query
	chains  [sides]Chain
	changed map[place]int // index in out.Rules
	found   findings
	first   bool // ends at the first change
	out     *Difference
}

// Compare finds all packets that one of two chains allows and the other denies. Stages with the same
// index are compared; a chain that is shorter has empty lists at its end. Rules are the same when they
// match and do the same, whatever their names.
func Compare(old, new Chain, o Options) *Difference {
	c := compared(old, new, o, false)
	c.out.Changes = c.found.changes()
	return c.out
}

func compared(old, new Chain, o Options, first bool) *comparison {
	c := &comparison{query: newQuery(o), chains: [sides]Chain{old, new}, changed: map[place]int{}, first: first, out: &Difference{}}
	stages := max(len(old), len(new))
	for side := range c.chains {
		c.chains[side] = padded(c.chains[side], stages)
	}
	for stage := range stages {
		oldRules, newRules := changedRules(c.chains[oldSide][stage], c.chains[newSide][stage])
		c.note(oldSide, stage, oldRules)
		c.note(newSide, stage, newRules)
	}
	for i := range c.out.Rules {
		if c.region(&c.out.Rules[i]); first && len(c.found.list) > 0 {
			break
		}
	}
	return c
}

var emptyList = NewList(nil)

func padded(c Chain, stages int) Chain {
	c = slices.Clone(c)
	for len(c) < stages {
		c = append(c, emptyList)
	}
	return c
}

func (c *comparison) note(side, stage int, rules []int) {
	for _, i := range rules {
		c.changed[place{side, stage, i}] = len(c.out.Rules)
		c.out.Rules = append(c.out.Rules, ChangedRule{New: side == newSide, Stage: stage, Rule: i})
	}
}

// region finds the changes that a changed rule owns: of the rules that decide a packet, stage by stage
// and the old one first, it is the first that is changed. So each packet is found once.
func (c *comparison) region(of *ChangedRule) {
	side := oldSide
	if of.New {
		side = newSide
	}
	lists := func(r *region) (lists []stageList) {
		for stage := range c.chains[oldSide] {
			for side := range sides {
				lists = append(lists, c.list(r, place{side: side, stage: stage}))
			}
		}
		return lists
	}
	undecided := func(r *region) {
		c.out.Undecided = append(c.out.Undecided, Undecided{New: of.New, Stage: of.Stage, Rule: of.Rule, Box: r.slice.shown(&r.box)})
	}
	c.solve(&c.chains[side][of.Stage].rules[of.Rule], lists, func(s *solution) { c.walkFor(place{side, of.Stage, of.Rule}, s) }, &c.found, undecided)
}

// list is the candidates of a stage of a side, and which of them are changed.
func (c *comparison) list(r *region, at place) stageList {
	l := stageList{side: at.side, stage: at.stage, candidates: r.collect(c.chains[at.side][at.stage])}
	for _, k := range l.candidates {
		_, k.changed = c.changed[place{at.side, at.stage, k.index}]
	}
	return l
}

// walkFor finds the changes of a region that its owner owns.
func (c *comparison) walkFor(owner place, s *solution) {
	d := newDiagram(&s.region.box, s.lists, c.allowance())
	bit := d.bitOf(owner)
	if bit < 0 {
		return // a rule before it matches all of the region
	}
	d.wanted = func(level int, s state) bool { return d.differs(bit, level, s) }
	d.leaf = func(of *decision) bool { return d.firstChanged(of) == bit }
	d.first = c.first
	root := c.walk(d)
	if s.undecided = d.exhausted(); root == nil {
		return
	}
	s.parts = d.parts(root, c.MaxBoxes, func(leaf *decision) findingKey {
		c.noteEffective(d, leaf)
		return findingKey{d.answer(leaf[oldSide]), d.answer(leaf[newSide])}
	})
}

// differs says whether a node can lead to a leaf at which the sides differ in access and the owner decides.
func (d *diagram) differs(owner, level int, s state) bool {
	if !s.alive(owner) {
		return false
	}
	allow, deny := d.outcomes(s)
	if !(allow[oldSide] && deny[newSide]) && !(deny[oldSide] && allow[newSide]) {
		return false
	}
	return level == fields || !d.alike(level, s)
}

// firstChanged is the first candidate of a decision that is changed.
func (d *diagram) firstChanged(of *decision) int {
	for stage := range of[oldSide] {
		for side := range sides {
			if bit := of[side][stage]; bit >= 0 && d.candidates[bit].changed {
				return bit
			}
		}
	}
	return -1
}

// noteEffective notes the changed rules of a leaf.
func (c *comparison) noteEffective(d *diagram, leaf *decision) {
	for _, stages := range leaf {
		for _, bit := range stages {
			if bit < 0 {
				continue
			}
			k := d.candidates[bit]
			if i, changed := c.changed[place{k.side, k.stage, k.index}]; changed {
				c.out.Rules[i].Effective = true
			}
		}
	}
}

// answer is a side's outcome for callers.
func (d *diagram) answer(stages []int) Decision {
	access, stage, bit := d.outcome(stages)
	if rule := d.candidates[bit].index; rule != NoRule {
		return Decision{access, stage, rule}
	}
	return Decision{access, -1, NoRule}
}

// changedRules are the indexes of the rules that are not in a longest common sequence of both lists.
// A packet that the lists decide by unlike rules is decided by one of them: two rules of a common
// sequence cannot both come first.
func changedRules(old, new *List) (oldRules, newRules []int) {
	byHash := map[uint64][]int{} // rules of old, in order
	for i := range old.Len() {
		h := old.rules[i].contentHash()
		byHash[h] = append(byHash[h], i)
	}
	partner := make([]int, new.Len()) // in old, or -1
	for i := range partner {
		partner[i] = -1
		r := &new.rules[i]
		h := r.contentHash()
		if same := byHash[h]; len(same) > 0 && old.rules[same[0]].sameContent(r) {
			partner[i], byHash[h] = same[0], same[1:]
		}
	}
	kept := ascending(partner)
	inBoth := make([]bool, old.Len())
	for i := range partner {
		if kept[i] {
			inBoth[partner[i]] = true
		} else {
			newRules = append(newRules, i)
		}
	}
	for i, both := range inBoth {
		if !both {
			oldRules = append(oldRules, i)
		}
	}
	return oldRules, newRules
}

// ascending marks a longest ascending subsequence of numbers, without those below 0.
func ascending(numbers []int) []bool {
	var ends []int // of the best sequence of each length: the index of its last number
	before := make([]int, len(numbers))
	for i, n := range numbers {
		if n < 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(ends, n, func(end, n int) int { return numbers[end] - n })
		before[i] = -1
		if at > 0 {
			before[i] = ends[at-1]
		}
		if at == len(ends) {
			ends = append(ends, i)
		}
		ends[at] = i
	}
	marked := make([]bool, len(numbers))
	if len(ends) > 0 {
		for i := ends[len(ends)-1]; i >= 0; i = before[i] {
			marked[i] = true
		}
	}
	return marked
}
