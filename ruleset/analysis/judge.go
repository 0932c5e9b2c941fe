package analysis

import (
	"encoding/binary"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// Asked is one of several chains that packets meet on their way, and what it sees of them.
type Asked struct {
	Chain Chain
	Sees  Seen
}

// Seen are fields that a chain sees otherwise than they were sent, because they were translated before.
// A nil field is as it was sent. Several values of a field mean that one of them was chosen.
type Seen struct {
	Sources, Destinations         []netip.Prefix
	SourcePorts, DestinationPorts []ruleset.PortRange
}

// Judged is packets that the same rules decide.
type Judged struct {
	// By are the decisions of the chains that were asked, in their order. One that denies is the last.
	By []Decision
	// Boxes are the packets as they were sent, each in one box only. Witnesses are a packet of each box.
	Boxes     []Box
	Witnesses []packet.Tuple
	More      bool // there are more boxes than Options.MaxBoxes
}

// Access is what becomes of the packets.
func (j *Judged) Access() ruleset.Access {
	if n := len(j.By); n > 0 {
		return j.By[n-1].Access
	}
	return ruleset.Allow
}

// Judgement is the answer of Judge.
type Judgement struct {
	Judged []Judged
	// Undecided are packets about which nothing is known: the bound on states was reached, or a rule
	// matches some values of a field that are chosen between.
	Undecided []Box
	// States is how many states the answer took, see Options.MaxStates.
	States int
}

// Judge divides packets by the rules that decide them on their way: chains are asked one behind the
// other, and a denial ends the way.
func Judge(asked []Asked, o Options) *Judgement {
	j := &judge{query: newQuery(o), asked: asked, byRules: map[string]int{}}
	for i := range asked {
		j.sees = append(j.sees, asked[i].Sees.sets())
	}
	j.regions(&emptyList.rules[0], j.region)
	out := &Judgement{Undecided: j.undecided, States: j.MaxStates - j.budget}
	ranges := rangesOf{}
	for i := range j.found {
		f := &j.found[i]
		boxes, witnesses := ranges.shownBoxes(boxJoiner.joined(f.boxes))
		out.Judged = append(out.Judged, Judged{By: f.by, Boxes: boxes, Witnesses: witnesses, More: f.more})
	}
	return out
}

// judge is a question about several chains while it is answered.
type judge struct {
	*query
	asked     []Asked
	sees      [][families]box // by chain; a nil field is as it was sent
	byRules   map[string]int  // index in found
	found     []judged
	undecided []Box
}

type judged struct {
	by    []Decision
	boxes []sliceBox
	more  bool
}

func (s *Seen) sets() (sets [families]box) {
	for f, prefixes := range [...][]netip.Prefix{source: s.Sources, destination: s.Destinations} {
		if prefixes != nil {
			both := prefixSets(prefixes)
			for family := range sets {
				sets[family][f] = both[family]
			}
		}
	}
	for f, ports := range map[int][]ruleset.PortRange{sourcePort: s.SourcePorts, port: s.DestinationPorts} {
		if ports != nil {
			for family := range sets {
				sets[family][f] = portSet(ports)
			}
		}
	}
	return sets
}

// region divides one slice of the packets.
func (j *judge) region(r *region) {
	var lists []stageList
	var first []int // by chain: the index of its first stage
	for n := range j.asked {
		first = append(first, len(lists))
		for _, list := range j.asked[n].Chain {
			candidates, known := j.candidates(r, list, n)
			if !known {
				j.undecided = append(j.undecided, r.slice.shown(&r.box))
				return
			}
			lists = append(lists, stageList{side: newSide, stage: len(lists), candidates: candidates, chain: n})
		}
	}
	d := newDiagram(&r.box, lists, j.allowance())
	d.wanted, d.leaf = func(int, state) bool { return true }, func(*decision) bool { return true }
	root := j.walk(d)
	if root == nil {
		j.undecided = append(j.undecided, r.slice.shown(&r.box))
		return
	}
	first = append(first, len(lists))
	d.paths(root, j.MaxBoxes, func(leaf *node, c *cell, more bool) {
		j.add(d.decisions(leaf.decision[newSide], first), sliceBox{r.slice, d.box(c)}, more)
	})
}

// candidates are the rules of a list that match something of the region as chain n sees it. known is false
// when a rule matches some of several values.
func (j *judge) candidates(r *region, l *List, n int) (list []*candidate, known bool) {
	sees := &j.sees[n][r.slice.family]
	if *sees == (box{}) {
		return r.collect(l), true
	}
	for i := range l.rules {
		of := l.rules[i]
		if !r.slice.names(of.protocol) {
			continue
		}
		b, matches := r.slice.box(&of), true
		for f := range b {
			chosen := sees[f]
			if r.slice.lacks[f] {
				chosen = nil
			}
			switch {
			case chosen == nil:
				b[f] = r.clip(f, b[f])
			case b[f].holds(chosen):
				b[f] = r.box[f]
			case b[f].intersect(chosen).empty():
				b[f] = nothing
			default:
				return nil, false
			}
			matches = matches && !b[f].empty()
		}
		if matches {
			list = append(list, &candidate{rule: &l.rules[i], sets: b})
			if b == r.box {
				break
			}
		}
	}
	return list, true
}

// decisions are those of the chains that were asked. first are the indexes of their first stages, and
// behind these the number of stages.
func (d *diagram) decisions(stages []int, first []int) (by []Decision) {
	for n := range len(first) - 1 {
		one := Decision{ruleset.Allow, -1, NoRule}
		for stage := first[n]; stage < first[n+1]; stage++ {
			if bit := stages[stage]; bit >= 0 {
				if c := d.candidates[bit]; c.index != NoRule {
					one.Stage, one.Rule = stage-first[n], c.index
					if c.access == ruleset.Deny {
						one.Access = ruleset.Deny
						return append(by, one)
					}
				}
			}
		}
		by = append(by, one)
	}
	return by
}

func (j *judge) add(by []Decision, b sliceBox, more bool) {
	var key []byte
	for i := range by {
		key = binary.AppendVarint(binary.AppendVarint(append(key, byte(by[i].Access)), int64(by[i].Stage)), int64(by[i].Rule))
	}
	at, known := j.byRules[string(key)]
	if !known {
		at = len(j.found)
		j.byRules[string(key)] = at
		j.found = append(j.found, judged{by: by})
	}
	f := &j.found[at]
	f.boxes = append(f.boxes, b)
	f.more = f.more || more
}
