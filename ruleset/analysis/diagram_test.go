package analysis

import (
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// A walk stops at once when its states are used up, however many there would be.
func TestAWalkEndsAtItsBound(t *testing.T) {
	var rules []Rule
	for i := range uint16(50) {
		rules = append(rules, Rule{Access: ruleset.Access(i % 2), Rule: classifier.Rule{
			Protocol: ruleset.TCP, Sources: ruleset.Everywhere(), Destinations: ruleset.Everywhere(),
			SourcePorts:      []ruleset.PortRange{{First: 100 * i, Last: 100*i + 3000}},
			DestinationPorts: []ruleset.PortRange{{First: 170 * i, Last: 170*i + 3000}},
		}})
	}
	c := &comparison{query: newQuery(Options{}), chains: [sides]Chain{{NewList(rules)}, {NewList(nil)}}, changed: map[place]int{}, out: &Difference{}}
	all := rule{access: ruleset.Allow, sources: addresses, destinations: addresses, sourcePorts: everyPort, ports: everyPort}
	c.regions(&all, func(r *region) {
		if r.slice.named != ruleset.TCP {
			return
		}
		d := newDiagram(&r.box, []stageList{c.list(r, place{side: oldSide}), c.list(r, place{side: newSide})}, 10)
		d.wanted, d.leaf = func(int, state) bool { return true }, func(*decision) bool { return true }
		if d.walk() != nil || d.budget != -1 {
			t.Errorf("%d states beyond the bound", -1-d.budget)
		}
	})
}
