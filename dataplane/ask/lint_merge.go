package ask

import (
	"fmt"
	"slices"

	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/optimize"
)

// merges finds rules that one rule could replace. It looks at lists of one NSG that have no tag without addresses. A group that
// stands in several lists, where tags mean different things, must allow the same merge in each.
func (m *ruleJudge) merges(l *linter) {
	found, lists, order := map[string]int{}, map[*ruleset.NSG]int{}, []*mergeFinding(nil)
	seen := map[*analysis.List]bool{}
	for i := range l.places {
		for _, d := range directions {
			c := l.places[i].chains[d]
			for _, stage := range [...]int{verdict.ChainFirst, verdict.ChainSecond} {
				list := c.Lists[stage]
				if seen[list] || list.Len() == 0 {
					continue
				}
				seen[list] = true
				at := lastRule(c, stage)
				if at.Group == nil {
					continue
				}
				if d == ruleset.Inbound {
					lists[at.Group.NSG]++
				}
				if m.open(c, stage) {
					continue
				}
				for _, merge := range analysis.Mergeable(list, mayMerge(c, stage), analysis.Options{MaxStates: l.MaxStates}) {
					f := newMergeFinding(c, stage, &merge)
					if f == nil {
						continue
					}
					key := fmt.Sprintf("%p %s %s", f.nsg, d, named(f.rules))
					if found[key]++; found[key] == 1 {
						f.key = key
						order = append(order, f)
					}
				}
			}
		}
	}
	for _, f := range order {
		if found[f.key] >= lists[f.nsg] {
			finding := l.findRule(LintMergeable, f.nsg, f.rules[0], "One rule with the "+f.field+" of all could do what these rules do: "+named(f.rules)+".")
			finding.relate(f.rules[1:])
		}
	}
}

type mergeFinding struct {
	key   string
	nsg   *ruleset.NSG
	rules []*ruleset.Rule
	field string
}

func newMergeFinding(c *verdict.Chain, stage int, merge *analysis.Merge) *mergeFinding {
	f := &mergeFinding{field: merge.Field.String()}
	for _, i := range merge.Rules {
		at := c.At(stage, i)
		if at.Group == nil || at.Rule.Default || slices.Contains(f.rules, at.Rule) {
			return nil
		}
		f.nsg, f.rules = at.Group.NSG, append(f.rules, at.Rule)
	}
	return f
}

// lastRule is a rule of a stage's NSG: its last default rule.
func lastRule(c *verdict.Chain, stage int) verdict.ChainRule {
	return c.At(stage, c.Lists[stage].Len()-1)
}

// mayMerge says whether two rules of a list can be written as one.
func mayMerge(c *verdict.Chain, stage int) func(a, b int, f analysis.Field) bool {
	return func(a, b int, f analysis.Field) bool {
		x, y := c.At(stage, a), c.At(stage, b)
		return x.Group != nil && y.Group != nil && optimize.Joinable(x.Rule, y.Rule, f)
	}
}
