package candidate

import (
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/dataplane/watch"
)

const (
	// MaxRules is how many of the candidate's rules and reasons are told apart.
	MaxRules = 256
	// MaxExamples is how many different packets are shown of each.
	MaxExamples = 5
)

// Rule is what decides in the candidate. The zero value is no rule.
type Rule struct {
	// Drop is why the candidate drops the packet; packet.NotDropped: it does not.
	Drop packet.Drop
	// Group is the NSG's label and Name the rule's, as messages have it. Both are empty where no rule decides.
	Group, Name string
}

// Sum are the packets about which one rule of the candidate decides otherwise than the policy in force.
type Sum struct {
	Rule
	Count    uint64
	Examples []watch.Event // of different ends, the first that came
}

// Sums are those of one kind of difference.
type Sums struct {
	Count  uint64
	Rules  []Sum
	Others uint64 // of rules beyond MaxRules
}

func ruleOf(drop packet.Drop, d *verdict.Decision) Rule {
	r := Rule{Drop: drop}
	if v := &d.Verdict; v.N > 0 && (drop == packet.DropRule || drop == packet.NotDropped) {
		last := &v.Stages[v.N-1]
		r.Group, r.Name = last.Stage.Group.Label, last.SecurityRule().QualifiedName()
	}
	return r
}

// add counts a packet about which the candidate decides otherwise. example shows it.
func (s *Sums) add(e *watch.Decided, drop packet.Drop, d *verdict.Decision, example func(*watch.Decided) watch.Event) {
	s.Count++
	rule := ruleOf(drop, d)
	i := slices.IndexFunc(s.Rules, func(o Sum) bool { return o.Rule == rule })
	if i < 0 {
		if len(s.Rules) == MaxRules {
			s.Others++
			return
		}
		i = len(s.Rules)
		s.Rules = append(s.Rules, Sum{Rule: rule})
	}
	sum := &s.Rules[i]
	sum.Count++
	if len(sum.Examples) < MaxExamples && !slices.ContainsFunc(sum.Examples, func(o watch.Event) bool { return alike(&o, e) }) {
		sum.Examples = append(sum.Examples, example(e))
	}
}

// alike reports two packets that differ in nothing but the source's port.
func alike(a *watch.Event, b *watch.Decided) bool {
	x, y := a.Packet.Tuple, b.Packet.Tuple
	x.SrcPort, y.SrcPort = 0, 0
	return a.From == b.From && x == y
}

func (s Sums) clone() Sums {
	s.Rules = slices.Clone(s.Rules)
	for i := range s.Rules {
		s.Rules[i].Examples = slices.Clone(s.Rules[i].Examples)
	}
	return s
}
