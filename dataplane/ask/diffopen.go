package ask

import (
	"cmp"

	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
)

// DiffOptions configure Diff. The zero value works.
type DiffOptions struct {
	// MaxStates bounds the work for each endpoint and direction; see analysis.Options.
	MaxStates int
	// OpenRules are rules that a group of either policy has and that are not known. What the group judges is
	// not compared: it would seem to change, or not to, for what is missing.
	OpenRules []DiffOpenRule
	// EndToEnd asks about whole paths too, see DiffChange.EndToEnd.
	EndToEnd bool
}

// DiffOpenRule is a rule that is left out of a group.
type DiffOpenRule struct {
	Group     *ruleset.NSG
	Name      string
	Direction ruleset.Direction
}

// DiffOpen is a value of a document that is not known. What depends on it was left out of its policy.
type DiffOpen struct {
	// Policy is old or new.
	Policy   string `json:"policy"`
	File     string `json:"file,omitempty"`
	Resource string `json:"resource,omitempty"`
	Rule     string `json:"rule,omitempty"`
	Field    string `json:"field,omitempty"`
	Message  string `json:"message"`
}

// openRule finds the first open rule of a chain's groups.
func (d *differ) openRule(c *verdict.Chain, direction ruleset.Direction) *DiffOpenRule {
	for i := range d.options.OpenRules {
		if r := &d.options.OpenRules[i]; r.Direction == direction && c.Asks(r.Group) {
			return r
		}
	}
	return nil
}

// open lists a target whose chains have an open rule as not decided.
func (d *differ) open(t *diffTarget, direction ruleset.Direction, chains [2]*verdict.Chain) bool {
	r := cmp.Or(d.openRule(chains[1], direction), d.openRule(chains[0], direction))
	if r == nil {
		return false
	}
	u := DiffUndecided{Direction: direction.String(), DiffFor: t.names(), NetworkSecurityGroup: r.Group.Name,
		RuleName: (&ruleset.Rule{Name: r.Name, Admin: r.Group.Admin}).QualifiedName(), Open: true}
	for i := range d.result.Undecided {
		if o := &d.result.Undecided[i]; o.Open && o.Direction == u.Direction && o.NetworkSecurityGroup == u.NetworkSecurityGroup && o.RuleName == u.RuleName {
			o.join(&u.DiffFor)
			return true
		}
	}
	d.result.Undecided = append(d.result.Undecided, u)
	return true
}

// join adds others to those that change alike.
func (f *DiffFor) join(o *DiffFor) {
	f.NetworkInterfaces = addNew(f.NetworkInterfaces, o.NetworkInterfaces)
	f.Subnets = addNew(f.Subnets, o.Subnets)
	f.NetworkSecurityGroups = addNew(f.NetworkSecurityGroups, o.NetworkSecurityGroups)
}
