package analysis

import (
	"github.com/nsgd/nsgd/ruleset"
)

// DefaultMaxStates bounds the memory of a question to some hundred megabytes, and its time to seconds.
const DefaultMaxStates = 500_000

// DefaultMaxBoxes is more boxes than a person reads.
const DefaultMaxBoxes = 10_000

// Options limit a question. The zero value asks about all packets with the default bounds.
type Options struct {
	// Within are the packets that the question is about.
	Within Packets
	// MaxStates is how many states the decision diagrams of a question may have together, besides
	// a hundred each; 0 is DefaultMaxStates. What is not decided then is listed as such.
	MaxStates int
	// MaxBoxes is how many boxes are collected for one rule, before they are merged; 0 is DefaultMaxBoxes.
	MaxBoxes int
}

// query is one question while it is answered.
type query struct {
	Options
	within []box // by slice
	budget int
}

func newQuery(o Options) *query {
	q := &query{Options: o}
	if q.MaxStates == 0 {
		q.MaxStates = DefaultMaxStates
	}
	if q.MaxBoxes == 0 {
		q.MaxBoxes = DefaultMaxBoxes
	}
	q.budget = q.MaxStates
	q.within = q.Within.clip()
	return q
}

// fewStates is what each diagram may have, whatever others have used up. Most need no more.
const fewStates = 100

// allowance is how many states a diagram may have: half of those that are left, so that one that is
// too large leaves something for the others.
func (q *query) allowance() int { return max(q.budget/2, fewStates) }

// walk makes a diagram that was given the allowance.
func (q *query) walk(d *diagram) *node {
	given := d.budget
	root := d.walk()
	q.budget -= given - max(0, d.budget)
	return root
}

// region is what one rule, its owner, matches of a slice. Answers about the owner lie there.
type region struct {
	slice *slice
	box   box
	large *[fields]map[*set]*set // clipped sets of many spans: rules share them
}

// regions calls f for each slice in which the owner matches something.
func (q *query) regions(owner *rule, f func(*region)) {
	var large *[fields]map[*set]*set
	for i := range slicesOfPackets {
		s := &slicesOfPackets[i]
		if i%protocolsOfFamily == 0 {
			large = &[fields]map[*set]*set{source: {}, destination: {}}
		}
		if !s.names(owner.protocol) {
			continue
		}
		b := s.box(owner)
		for field := range b {
			b[field] = b[field].intersect(q.within[i][field])
		}
		if !b.empty() {
			f(&region{s, b, large})
		}
	}
}

// fewSpans is how many spans a set has at most that is clipped again for each rule.
const fewSpans = 8

// clip is the part of a rule's set that is in the region. It is the region's own set when that is
// all of it.
func (r *region) clip(f int, s *set) *set {
	whole := r.box[f]
	if s == whole {
		return s
	}
	shared := len(s.spans) > fewSpans && r.large[f] != nil
	if shared {
		if c := r.large[f][s]; c != nil {
			return c
		}
	}
	c := s.intersect(whole)
	if c.equal(whole) {
		c = whole
	}
	if shared {
		r.large[f][s] = c
	}
	return c
}

// collect lists the rules of a list that match something of the region, up to the first that
// matches all of it. At least the rule that is not there does.
func (r *region) collect(l *List) []*candidate {
	var out []*candidate
	for i := range l.rules {
		if c := r.candidate(&l.rules[i]); c != nil {
			out = append(out, c)
			if c.sets == r.box {
				break
			}
		}
	}
	return out
}

func (r *region) candidate(of *rule) *candidate {
	if !r.slice.names(of.protocol) {
		return nil
	}
	b := r.slice.box(of)
	for f := range b {
		if b[f].apart(r.box[f]) {
			return nil
		}
	}
	for f := range b {
		if b[f] = r.clip(f, b[f]); b[f].empty() {
			return nil
		}
	}
	return &candidate{rule: of, sets: b}
}

// outcome is what becomes of packets, and the bit of the candidate that decides it. AlwaysAllow
// counts as Allow. Of stages that all allow, the last with a rule decides.
func (d *diagram) outcome(stages []int) (access ruleset.Access, stage, bit int) {
	stage, bit = -1, -1
	for i, decider := range stages {
		if decider < 0 {
			continue
		}
		c := d.candidates[decider]
		if c.index != NoRule || bit < 0 {
			stage, bit = i, decider
		}
		if c.access == ruleset.Deny {
			return ruleset.Deny, stage, bit
		}
	}
	return ruleset.Allow, stage, bit
}
