package suggest

import (
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/ruleset"
)

// Result is what is suggested, and what it means.
type Result struct {
	Seen   Seen          `json:"seen"`
	Groups []GroupResult `json:"groups"`
	Proof  *Proof        `json:"proof"`
	// Diff is what the rules change of the policy before.
	Diff *ask.DiffResult `json:"diff"`
	// Notes say what was not seen, or was understood in one of several ways.
	Notes []string `json:"notes"`
}

// GroupResult are the rules of a network security group.
type GroupResult struct {
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	ID                   string `json:"id"`
	// RulesBefore and RulesAfter count the rules besides Azure's default ones.
	RulesBefore int          `json:"rulesBefore"`
	RulesAfter  int          `json:"rulesAfter"`
	Rules       []RuleResult `json:"rules"`
}

// RuleResult is a rule.
type RuleResult struct {
	Name             string   `json:"name"`
	Direction        string   `json:"direction"`
	Priority         int      `json:"priority"`
	Access           string   `json:"access"`
	Protocol         string   `json:"protocol"`
	Sources          []string `json:"sources"`
	Destinations     []string `json:"destinations"`
	DestinationPorts []string `json:"destinationPorts"`
	// Seen, Widened and Kept are those of Rule.
	Seen    int  `json:"seen"`
	Widened bool `json:"widened,omitempty"`
	Kept    bool `json:"kept,omitempty"`
}

// Describe tells groups.
func Describe(groups []Group) []GroupResult {
	list := []GroupResult{}
	for i := range groups {
		g := &groups[i]
		of := GroupResult{NetworkSecurityGroup: g.NSG.Name, ID: g.NSG.ID, RulesBefore: g.Before[0] + g.Before[1], RulesAfter: len(g.NSG.Rules), Rules: []RuleResult{}}
		for k := range g.NSG.Rules {
			r := &g.NSG.Rules[k]
			of.Rules = append(of.Rules, RuleResult{Name: r.Name, Direction: r.Direction.String(), Priority: r.Priority, Access: r.Access.String(), Protocol: r.Protocol.String(),
				Sources: r.Source.Texts(), Destinations: r.Destination.Texts(), DestinationPorts: portTexts(r.DestinationPorts), Seen: g.Rules[k].Seen, Widened: g.Rules[k].Widened, Kept: g.Rules[k].Kept})
		}
		list = append(list, of)
	}
	return list
}

func portTexts(ports []ruleset.PortRange) (texts []string) {
	for _, p := range ports {
		texts = append(texts, p.String())
	}
	return texts
}
