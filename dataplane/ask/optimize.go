package ask

import (
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/optimize"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// OptimizeResult is what can be fewer of a policy's rules.
type OptimizeResult struct {
	Groups []OptimizedGroup `json:"groups"`
	// Diff is what the new rules change for packets, which is nothing.
	Diff *DiffResult `json:"diff"`
	// NSGs are the groups with their new rules, those that changed alone.
	NSGs []*ruleset.NSG `json:"-"`
}

// OptimizedGroup is a network security group that needs fewer rules, or that could not be decided.
type OptimizedGroup struct {
	NetworkSecurityGroup string          `json:"networkSecurityGroup"`
	ID                   string          `json:"id"`
	RulesBefore          int             `json:"rulesBefore"` // besides Azure's default rules
	RulesAfter           int             `json:"rulesAfter"`
	Steps                []OptimizedStep `json:"steps"`
	// Undecided are directions that stay as they are: their rules cross each other too often, or not all are known.
	Undecided []string `json:"undecided"`
}

// OptimizedStep is a rule that goes, or rules that become one.
type OptimizedStep struct {
	Kind      string `json:"kind"` // removed or merged
	Direction string `json:"direction"`
	// Rules are the rule that goes, or those that become one.
	Rules []RulePlace `json:"rules"`
	// Into is the name of the one rule, and Field what it has of all, such as "sources". Both are empty for a rule that goes.
	Into  string `json:"into,omitempty"`
	Field string `json:"field,omitempty"`
	// Because are rules that decide in the place of one that goes. With Shadowed they come before it, and it never decided.
	Because  []string `json:"because,omitempty"`
	Shadowed bool     `json:"shadowed,omitempty"`
}

// RulePlace is a rule and where it is written; empty and 0 where that is not known.
type RulePlace struct {
	Name   string `json:"name"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

// OptimizeOptions choose what is optimized.
type OptimizeOptions struct {
	MaxStates int // see analysis.Options
	// Groups are the network security groups; nil: all.
	Groups []*ruleset.NSG
	// OpenRules are rules that are not known: their groups stay as they are.
	OpenRules []DiffOpenRule
	// RulePosition says where a rule is written; nil: it is not known.
	RulePosition func(g *ruleset.NSG, rule string) (file string, line, column int)
}

// Optimize finds fewer rules with the same meaning for the groups of a policy. Diff is left to the caller.
func Optimize(s *topology.Snapshot, o OptimizeOptions) *OptimizeResult {
	result := &OptimizeResult{Groups: []OptimizedGroup{}}
	unused := unusedGroups(s)
	together := func(ids []string) bool { return mayStandTogether(s.Policy, ids) }
	for _, nsg := range s.Policy.NetworkSecurityGroups {
		if o.Groups != nil && !slices.Contains(o.Groups, nsg) {
			continue
		}
		var tables [2][]*topology.Table
		nowhere := false
		for _, g := range s.Groups {
			if g.NSG == nsg {
				tables[ruleset.Inbound], tables[ruleset.Outbound] = append(tables[ruleset.Inbound], &g.Inbound), append(tables[ruleset.Outbound], &g.Outbound)
				for _, u := range unused {
					nowhere = nowhere || u == g
				}
			}
		}
		of := OptimizedGroup{NetworkSecurityGroup: nsg.Name, ID: nsg.ID, RulesBefore: len(nsg.Rules), Steps: []OptimizedStep{}, Undecided: []string{}}
		if slices.ContainsFunc(o.OpenRules, func(r DiffOpenRule) bool { return r.Group == nsg }) {
			of.Undecided = []string{ruleset.Inbound.String(), ruleset.Outbound.String()}
			of.RulesAfter = of.RulesBefore
			result.Groups = append(result.Groups, of)
			continue
		}
		fewer := *nsg
		fewer.Rules = nil
		for _, d := range directions {
			var views []optimize.View
			for _, t := range tables[d] {
				views = append(views, t.Resolved())
			}
			r := optimize.Rules(tables[d][0].Rules, views, optimize.Options{MaxStates: o.MaxStates, Nowhere: nowhere, Together: together})
			fewer.Rules = append(fewer.Rules, r.Rules...)
			if r.Undecided {
				of.Undecided = append(of.Undecided, d.String())
			}
			for i := range r.Steps {
				of.Steps = append(of.Steps, o.describe(nsg, d, &r.Steps[i]))
			}
		}
		if of.RulesAfter = len(fewer.Rules); of.RulesAfter < of.RulesBefore {
			result.NSGs = append(result.NSGs, &fewer)
		}
		if len(of.Steps)+len(of.Undecided) > 0 {
			result.Groups = append(result.Groups, of)
		}
	}
	return result
}

func (o *OptimizeOptions) describe(nsg *ruleset.NSG, d ruleset.Direction, s *optimize.Step) OptimizedStep {
	shown := OptimizedStep{Kind: s.Kind, Direction: d.String(), Into: s.Into, Field: s.Field, Because: s.Because, Shadowed: s.Shadowed}
	for _, name := range s.Rules {
		p := RulePlace{Name: name}
		if o.RulePosition != nil {
			p.File, p.Line, p.Column = o.RulePosition(nsg, name)
		}
		shown.Rules = append(shown.Rules, p)
	}
	return shown
}

// mayStandTogether reports application security groups that one rule may name: all have members, of one virtual network. Of a
// list with an empty group Azure ignores the rule (azure-docs issue 77328).
func mayStandTogether(set *policy.Set, ids []string) bool {
	var network *policy.VirtualNetwork
	members := map[string]bool{}
	for _, nic := range set.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			c := &nic.IPConfigurations[i]
			for _, id := range c.ApplicationSecurityGroups {
				if !slices.ContainsFunc(ids, func(o string) bool { return strings.EqualFold(o, id) }) {
					continue
				}
				if network == nil {
					network = c.Subnet.VirtualNetwork
				}
				if network != c.Subnet.VirtualNetwork {
					return false
				}
				members[strings.ToLower(id)] = true
			}
		}
	}
	return !slices.ContainsFunc(ids, func(id string) bool { return !members[strings.ToLower(id)] })
}
