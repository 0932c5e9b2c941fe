package candidate

import (
	"fmt"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
)

// decided is a decision by a rule of a name.
func decided(name string) *verdict.Decision {
	d := &verdict.Decision{}
	group := &topology.Group{Label: "NSG1"}
	d.Verdict.Stages[0] = verdict.StageVerdict{Stage: &topology.Stage{Group: group, Table: &topology.Table{Rules: []ruleset.Rule{{Name: name}}}}}
	d.Verdict.N = 1
	return d
}

func from(port uint16) *watch.Decided {
	e := &watch.Decided{}
	e.Packet.Tuple = packet.Tuple{DstPort: port}
	return e
}

func shown(e *watch.Decided) watch.Event { return watch.Event{Packet: e.Packet} }

func TestRulesAndExamplesAreBounded(t *testing.T) {
	var s Sums
	for i := range MaxRules + 10 {
		s.add(from(80), packet.DropRule, decided(fmt.Sprintf("R%d", i)), shown)
	}
	if len(s.Rules) != MaxRules || s.Others != 10 || s.Count != MaxRules+10 {
		t.Errorf("%d rules, %d others, %d packets", len(s.Rules), s.Others, s.Count)
	}
	for i := range uint16(3 * MaxExamples) {
		s.add(from(i), packet.DropRule, decided("R0"), shown)
	}
	if first := s.Rules[0]; len(first.Examples) != MaxExamples || first.Count != 1+3*MaxExamples {
		t.Errorf("%d examples, %d packets", len(first.Examples), first.Count)
	}
	c := s.clone()
	c.Rules[0].Examples[0].Drop = packet.DropPanic
	if s.Rules[0].Examples[0].Drop == packet.DropPanic {
		t.Error("a clone shares its examples")
	}
}

func TestARuleIsNamedWhereOneDecides(t *testing.T) {
	for _, tt := range []struct {
		name string
		drop packet.Drop
		want string
	}{{"denied", packet.DropRule, "securityRules/R"}, {"allowed", packet.NotDropped, "securityRules/R"}, {"without a route", packet.DropNoRoute, ""}} {
		t.Run(tt.name, func(t *testing.T) {
			if r := ruleOf(tt.drop, decided("R")); r.Name != tt.want || r.Drop != tt.drop {
				t.Errorf("%+v", r)
			}
		})
	}
}
