package analysis

import (
	"math"
	"math/bits"
	"slices"

	"github.com/nsgd/nsgd/ruleset"
)

// A question about two chains compares them, one about a single chain has only the old side.
const (
	oldSide = iota
	newSide
	sides
)

// accesses is how many values ruleset.Access has.
const accesses = int(ruleset.AlwaysAllow) + 1

// candidate is a rule that may decide packets of a region. sets are what it matches there.
type candidate struct {
	*rule
	side, stage int
	changed     bool // not a rule that both sides have in the same order
	sets        box
}

// place is where a rule is.
type place struct{ side, stage, rule int }

// decision is the candidate that decides each stage of each side, by bit. A stage that is not asked
// has -1.
type decision [sides][]int

// diagram is a decision diagram of a region: one slice of packets, clipped to a box. Fields are asked
// in an order with the fewest classes first. A node is reached by the candidates that are still
// alive, and nodes with the same ones are one node.
type diagram struct {
	candidates []*candidate // by bit; nil where no candidate has the bit
	stages     []stageWords // in the order of sides, then of stages
	order      [fields]int
	divisions  [fields]division     // by level
	full       [fields + 1][]uint64 // by level: candidates that match all of the fields from there on
	access     [accesses][]uint64   // candidates by what they do
	content    [fields][]uint32     // by level and bit: equal for candidates that are alike from there on

	// wanted reports whether a node can lead to a leaf that the question is about.
	wanted func(level int, s state) bool
	// leaf reports whether the question is about a leaf. It may take from the decision what makes no difference.
	leaf   func(of *decision) bool
	first  bool // ends the walk at the first leaf
	budget int  // states that are left; below 0 nothing is decided

	memo    [fields + 1]map[uint64]*visit
	unique  map[uint64]*node
	nodes   int
	scratch [fields]state // by level: what is left of the state that is walked there
}

// class is a set of values of a field that the same candidates match.
type class struct {
	alive []uint64
}

// stageWords says which words of a state belong to a stage. chain is the index of its chain where a side
// has several, one behind the other.
type stageWords struct{ side, stage, chain, first, end int }

// state is the candidates that are alive: pairs of a word's index and the word, none zero.
type state []uint64

// visit is a state that was walked; next has the same hash.
type visit struct {
	alive state
	node  *node
	next  *visit
}

// node is a place in the diagram. A leaf has a decision and no edges.
type node struct {
	id       int
	level    int
	edges    []edge
	decision *decision
	next     *node // has the same hash
	// from is the node that was last found to lead here, and at the index of its edge.
	from *node
	at   int
}

// edge leads the values of some classes to a node.
type edge struct {
	classes []int
	to      *node
}

// stageList is the candidates of one stage in priority order.
type stageList struct {
	side, stage int
	candidates  []*candidate
	chain       int
}

// newDiagram prepares the diagram of a region. Each stage ends with a candidate that matches all of it.
func newDiagram(region *box, lists []stageList, budget int) *diagram {
	d := &diagram{budget: budget, unique: map[uint64]*node{}}
	d.memo[fields] = map[uint64]*visit{}
	for _, l := range lists {
		for _, c := range l.candidates {
			c.side, c.stage = l.side, l.stage
		}
		words := stageWords{l.side, l.stage, l.chain, len(d.candidates) / 64, 0}
		d.candidates = append(d.candidates, l.candidates...)
		for len(d.candidates)%64 != 0 {
			d.candidates = append(d.candidates, nil)
		}
		words.end = len(d.candidates) / 64
		d.stages = append(d.stages, words)
	}
	d.divide(region)
	d.compareContent(region)
	return d
}

// bitOf finds the candidate of a rule, or -1.
func (d *diagram) bitOf(p place) int {
	return slices.IndexFunc(d.candidates, func(c *candidate) bool { return c != nil && place{c.side, c.stage, c.index} == p })
}

// exhausted reports that the walk ended at the bound on states.
func (d *diagram) exhausted() bool { return d.budget < 0 }

// walk makes the diagram. It returns nil when no leaf is wanted, or the budget is used up.
func (d *diagram) walk() *node {
	var all state
	for i, w := range d.full[fields] {
		if w != 0 {
			all = append(all, uint64(i), w)
		}
	}
	root := d.node(0, d.cut(0, all))
	if d.exhausted() {
		return nil
	}
	return root
}

func (d *diagram) node(level int, s state) *node {
	if d.budget < 0 || !d.wanted(level, s) {
		return nil
	}
	h := hashWords(s)
	for v := d.memo[level][h]; v != nil; v = v.next {
		if slices.Equal(v.alive, s) {
			return v.node
		}
	}
	n := &node{level: level}
	if level == fields {
		n.decision = d.decide(s)
		if d.leaf(n.decision) {
			n = d.share(n)
		} else {
			n = nil
		}
	} else {
		d.budget--
		d.lead(n, s)
		if len(n.edges) == 0 {
			n = nil
		} else {
			n = d.share(n)
		}
	}
	d.memo[level][h] = &visit{slices.Clone(s), n, d.memo[level][h]}
	return n
}

// lead finds the edges of a node that a state reaches.
func (d *diagram) lead(n *node, s state) {
	scratch := d.scratch[n.level]
	for i := range d.divisions[n.level].classes {
		scratch = scratch[:0]
		alive := d.divisions[n.level].classes[i].alive
		for j := 0; j < len(s); j += 2 {
			if w := s[j+1] & alive[s[j]]; w != 0 {
				scratch = append(scratch, s[j], w)
			}
		}
		to := d.node(n.level+1, d.cut(n.level+1, scratch))
		if to == nil {
			continue
		}
		if to.from != n {
			to.from, to.at = n, len(n.edges)
			n.edges = append(n.edges, edge{to: to})
		}
		n.edges[to.at].classes = append(n.edges[to.at].classes, i)
		if d.first {
			break
		}
	}
	d.scratch[n.level] = scratch
}

// share returns the node that equals n, which is n if there is none yet.
func (d *diagram) share(n *node) *node {
	h := uint64(n.level)
	for _, e := range n.edges {
		h = mix(h, uint64(e.to.id))
		for _, c := range e.classes {
			h = mix(h, uint64(c))
		}
	}
	if n.decision != nil {
		for _, side := range n.decision {
			for _, bit := range side {
				h = mix(h, uint64(bit))
			}
		}
	}
	for o := d.unique[h]; o != nil; o = o.next {
		if o.equal(n) {
			return o
		}
	}
	d.nodes++
	n.id, n.next = d.nodes, d.unique[h]
	d.unique[h] = n
	return n
}

func (n *node) equal(o *node) bool {
	if n.level != o.level || len(n.edges) != len(o.edges) {
		return false
	}
	for i := range n.edges {
		if n.edges[i].to != o.edges[i].to || !slices.Equal(n.edges[i].classes, o.edges[i].classes) {
			return false
		}
	}
	if n.decision == nil {
		return true
	}
	return slices.Equal(n.decision[oldSide], o.decision[oldSide]) && slices.Equal(n.decision[newSide], o.decision[newSide])
}

// cut removes from a state what can decide nothing any more: candidates behind the first of their
// stage that matches all that is left, and stages behind one that ends the chain. Behind one that denies,
// no further chain is asked. It works in place.
func (d *diagram) cut(level int, s state) state {
	out := s[:0]
	full := d.full[level]
	at, ended := 0, [sides]int{} // how many chains of each side are asked no more
	for _, stage := range d.stages {
		begin, done := len(out), stage.chain < ended[stage.side]
		for ; at < len(s) && int(s[at]) < stage.end; at += 2 {
			if done {
				continue
			}
			i, w := s[at], s[at+1]
			if last := w & full[i]; last != 0 {
				w &= last ^ (last - 1) // up to the lowest bit of last
				done = true
			}
			out = append(out, i, w)
		}
		if len(out) == begin+2 && bits.OnesCount64(out[begin+1]) == 1 {
			c := d.candidates[out[begin]*64+uint64(bits.TrailingZeros64(out[begin+1]))]
			switch c.access {
			case ruleset.Deny:
				ended[stage.side] = math.MaxInt
			case ruleset.AlwaysAllow:
				ended[stage.side] = max(ended[stage.side], stage.chain+1)
			}
		}
	}
	return out
}

// decide reads the decision off a state in which each stage that is asked has one candidate.
func (d *diagram) decide(s state) *decision {
	var out decision
	for _, stage := range d.stages {
		decided := -1
		if len(s) > 0 && int(s[0]) < stage.end {
			decided = int(s[0])*64 + bits.TrailingZeros64(s[1])
			s = s[2:]
		}
		out[stage.side] = append(out[stage.side], decided)
	}
	return &out
}

// alive reports whether a candidate is in a state.
func (s state) alive(bit int) bool {
	for i := 0; i < len(s); i += 2 {
		if s[i] == uint64(bit/64) {
			return s[i+1]>>(bit%64)&1 != 0
		}
	}
	return false
}

// outcomes says whether each side may still allow and may still deny.
func (d *diagram) outcomes(s state) (allow, deny [sides]bool) {
	ended := [sides]bool{}
	for i := range d.stages {
		stage := &d.stages[i]
		var has [accesses]uint64
		for ; len(s) > 0 && int(s[0]) < stage.end; s = s[2:] {
			for access := range has {
				has[access] |= s[1] & d.access[access][s[0]]
			}
		}
		if ended[stage.side] {
			continue
		}
		deny[stage.side] = deny[stage.side] || has[ruleset.Deny] != 0
		allow[stage.side] = allow[stage.side] || has[ruleset.AlwaysAllow] != 0
		ended[stage.side] = has[ruleset.Allow] == 0
	}
	for side := range sides {
		allow[side] = allow[side] || !ended[side]
	}
	return allow, deny
}

// alike reports whether both sides have candidates that are alike, in the same order, in each stage.
func (d *diagram) alike(level int, s state) bool {
	var parts [sides][]state
	for i := range d.stages {
		n := 0
		for n < len(s) && int(s[n]) < d.stages[i].end {
			n += 2
		}
		parts[d.stages[i].side] = append(parts[d.stages[i].side], s[:n])
		s = s[n:]
	}
	for i, old := range parts[oldSide] {
		if !d.samePart(level, old, parts[newSide][i]) {
			return false
		}
	}
	return true
}

func (d *diagram) samePart(level int, a, b state) bool {
	x, y := bitsOf{s: a}, bitsOf{s: b}
	for {
		i, j := x.next(), y.next()
		switch {
		case i < 0 || j < 0:
			return i == j
		case d.content[level][i] != d.content[level][j]:
			return false
		}
	}
}

// bitsOf goes over the candidates of a part of a state.
type bitsOf struct {
	s state
	w uint64 // what is left of the word before s
	i int    // its index
}

// next returns the next candidate's bit, or -1.
func (b *bitsOf) next() int {
	if b.w == 0 {
		if len(b.s) == 0 {
			return -1
		}
		b.i, b.w, b.s = int(b.s[0]), b.s[1], b.s[2:]
	}
	bit := b.i*64 + bits.TrailingZeros64(b.w)
	b.w &= b.w - 1
	return bit
}
