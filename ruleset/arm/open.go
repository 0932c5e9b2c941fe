package arm

import (
	"cmp"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// OpenRule is a rule that was left out of a group because the documents do not give a value of it.
type OpenRule struct {
	Group *ruleset.NSG
	// Name is the rule's, or the expression in its place.
	Name string
	// Inbound and Outbound say which packets it may be about: both where its direction is open too.
	Inbound, Outbound bool
}

// OpenRules are the rules that a policy's groups lack because they are in Unresolved. They tell which groups
// decide otherwise than the documents mean.
func (d *Documents) OpenRules() (list []OpenRule) {
	for _, g := range d.Set.Groups() {
		read := map[string]bool{}
		for i := range g.Rules {
			read[strings.ToLower(g.Rules[i].Name)] = true
		}
		for name, rule := range d.bodies[g] {
			if read[name] {
				continue
			}
			properties, _ := lookup(rule.body, "properties").(map[string]any)
			if properties == nil {
				properties = rule.body
			}
			direction, _ := lookup(properties, "direction").(string)
			open := OpenRule{Group: g, Name: cmp.Or(lastSegment(known(rule.body, "name")), name)}
			open.Inbound = !strings.EqualFold(direction, ruleset.Outbound.String())
			open.Outbound = !strings.EqualFold(direction, ruleset.Inbound.String())
			list = append(list, open)
		}
	}
	slices.SortFunc(list, func(a, b OpenRule) int {
		return cmp.Or(cmp.Compare(a.Group.ID, b.Group.ID), cmp.Compare(a.Name, b.Name))
	})
	return list
}
