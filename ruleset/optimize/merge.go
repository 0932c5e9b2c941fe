package optimize

import (
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"go4.org/netipx"
)

// merge makes one rule of rules that differ in one field. A rule that went into one changes nothing where it stood, until it
// is dropped at the end. What Mergeable says of one view's known rules is proof enough.
func (w *work) merge() {
	sure := w.known() && len(w.views) == 1
	gone := make([]bool, len(w.rules))
	for _, m := range analysis.Mergeable(w.symbolic()[0], w.may, analysis.Options{MaxStates: w.MaxStates}) {
		joined := m.Rules
		if !sure && !w.mergeable(joined, m.Field) {
			joined = m.Rules[:1]
			for _, next := range m.Rules[1:] {
				if try := append(slices.Clone(joined), next); w.mergeable(try, m.Field) {
					joined = try
				}
			}
		}
		if len(joined) < 2 {
			continue
		}
		step := Step{Kind: Merged, Into: w.rules[joined[0]].Name, Field: m.Field.String()}
		for _, i := range joined {
			step.Rules = append(step.Rules, w.rules[i].Name)
			gone[i] = true
		}
		w.steps = append(w.steps, step)
		gone[joined[0]] = false
		for _, v := range w.views {
			v[joined[0]] = matched(v, joined, m.Field)
		}
		w.rules[joined[0]] = w.joined(joined, m.Field)
	}
	for i := len(gone) - 1; i >= 0; i-- {
		if gone[i] {
			w.drop(i)
		}
	}
}

// mergeable reports that one rule has room for the values of rules, and that it changes nothing.
func (w *work) mergeable(some []int, f analysis.Field) bool {
	if one := w.joined(some, f); !fits(&one) {
		return false
	}
	return w.proven(some, func(rules []ruleset.Rule, v View) ([]ruleset.Rule, View) {
		v[some[0]] = matched(v, some, f)
		for _, i := range slices.Backward(some[1:]) {
			rules, v = slices.Delete(rules, i, i+1), slices.Delete(v, i, i+1)
		}
		return rules, v
	})
}

// may says whether two rules can be one with the values of both in a field.
func (w *work) may(a, b int, f analysis.Field) bool {
	x, y := &w.rules[a], &w.rules[b]
	return Joinable(x, y, f) || w.groups(x, y, f)
}

// Joinable says whether Azure can write two rules as one that has the values of both in a field: a list has ports, or prefixes of
// one family, and no tag and no *. A rule has addresses of one family. Rules for services of the platform, and Azure's default
// rules, stay as they are.
func Joinable(a, b *ruleset.Rule, f analysis.Field) bool {
	if stays(a) || stays(b) {
		return false
	}
	for of, side := range sides {
		x, y := side(a), side(b)
		switch both := len(x.Prefixes) > 0 && len(y.Prefixes) > 0; {
		case both && x.Prefixes[0].Addr().Is4() != y.Prefixes[0].Addr().Is4(), of == f && !both:
			return false
		case !both && text(x) != text(y): // what they stand for now is the same by chance
			return false
		}
	}
	return true
}

// sides are the fields that have peers.
var sides = map[analysis.Field]func(*ruleset.Rule) *ruleset.Peer{
	analysis.Sources:      func(r *ruleset.Rule) *ruleset.Peer { return &r.Source },
	analysis.Destinations: func(r *ruleset.Rule) *ruleset.Peer { return &r.Destination },
}

// groups reports two rules that differ in application security groups alone, and that one rule may name together.
func (w *work) groups(a, b *ruleset.Rule, f analysis.Field) bool {
	side := sides[f]
	if side == nil || w.Together == nil || stays(a) || stays(b) {
		return false
	}
	other := sides[analysis.Sources+analysis.Destinations-f]
	x, y := side(a).ApplicationSecurityGroups, side(b).ApplicationSecurityGroups
	return len(x) > 0 && len(y) > 0 && text(other(a)) == text(other(b)) && w.Together(slices.Concat(x, y, other(a).ApplicationSecurityGroups))
}

// joined is the one rule of several, as the first is in all but a field.
func (w *work) joined(some []int, f analysis.Field) ruleset.Rule {
	one := w.rules[some[0]]
	var rules []*ruleset.Rule
	for _, i := range some {
		rules = append(rules, &w.rules[i])
	}
	switch f {
	case analysis.Sources:
		one.Source = peers(rules, sides[f])
	case analysis.Destinations:
		one.Destination = peers(rules, sides[f])
	case analysis.SourcePorts:
		one.SourcePorts = ports(rules, func(r *ruleset.Rule) []ruleset.PortRange { return r.SourcePorts })
	case analysis.DestinationPorts:
		one.DestinationPorts = ports(rules, func(r *ruleset.Rule) []ruleset.PortRange { return r.DestinationPorts })
	}
	return one
}

// fits reports a rule that names no more application security groups than Azure takes.
func fits(r *ruleset.Rule) bool {
	return max(len(r.Source.ApplicationSecurityGroups), len(r.Destination.ApplicationSecurityGroups)) <= ruleset.MaxASGsPerSide
}

// peers have the groups of all, or the prefixes of all and no two that overlap: Azure refuses those.
func peers(rules []*ruleset.Rule, side func(*ruleset.Rule) *ruleset.Peer) ruleset.Peer {
	var b netipx.IPSetBuilder
	var groups []string
	for _, r := range rules {
		for _, p := range side(r).Prefixes {
			b.AddPrefix(p)
		}
		for _, id := range side(r).ApplicationSecurityGroups {
			if !hasFold(groups, id) {
				groups = append(groups, id)
			}
		}
	}
	set, _ := b.IPSet() // only an invalid prefix is an error
	return ruleset.Peer{Prefixes: set.Prefixes(), ApplicationSecurityGroups: groups}
}

func hasFold(list []string, id string) bool {
	return slices.ContainsFunc(list, func(o string) bool { return strings.EqualFold(o, id) })
}

// ports are those of all, in ascending ranges.
func ports(rules []*ruleset.Rule, of func(*ruleset.Rule) []ruleset.PortRange) (list []ruleset.PortRange) {
	var all []ruleset.PortRange
	for _, r := range rules {
		all = append(all, of(r)...)
	}
	return ruleset.JoinPorts(all)
}

// matched is what the one rule of several matches in a view.
func matched(v View, some []int, f analysis.Field) classifier.Rule {
	one := v[some[0]]
	for _, i := range some[1:] {
		switch f {
		case analysis.Sources:
			one.Sources = slices.Concat(one.Sources, v[i].Sources)
		case analysis.Destinations:
			one.Destinations = slices.Concat(one.Destinations, v[i].Destinations)
		case analysis.SourcePorts:
			one.SourcePorts = slices.Concat(one.SourcePorts, v[i].SourcePorts)
		case analysis.DestinationPorts:
			one.DestinationPorts = slices.Concat(one.DestinationPorts, v[i].DestinationPorts)
		}
	}
	return one
}
