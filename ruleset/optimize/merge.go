package optimize

import (
	"slices"

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
		one := w.joined(joined, m.Field)
		for _, v := range w.views {
			v[joined[0]] = resolved(&one, v[joined[0]])
		}
		w.rules[joined[0]] = one
	}
	for i := len(gone) - 1; i >= 0; i-- {
		if gone[i] {
			w.drop(i)
		}
	}
}

// mergeable reports that making one of rules changes nothing.
func (w *work) mergeable(some []int, f analysis.Field) bool {
	one := w.joined(some, f)
	return w.proven(some, func(rules []ruleset.Rule, v View) ([]ruleset.Rule, View) {
		v[some[0]] = resolved(&one, v[some[0]])
		for _, i := range slices.Backward(some[1:]) {
			rules, v = slices.Delete(rules, i, i+1), slices.Delete(v, i, i+1)
		}
		return rules, v
	})
}

// may says how rules can be written: lists hold ports, or prefixes of one family, and no tag and no *.
func (w *work) may(a, b int, f analysis.Field) bool {
	if w.fixed(a) || w.fixed(b) {
		return false
	}
	for of, side := range map[analysis.Field]func(*ruleset.Rule) *ruleset.Peer{
		analysis.Sources:      func(r *ruleset.Rule) *ruleset.Peer { return &r.Source },
		analysis.Destinations: func(r *ruleset.Rule) *ruleset.Peer { return &r.Destination },
	} {
		x, y := side(&w.rules[a]), side(&w.rules[b])
		switch both := len(x.Prefixes) > 0 && len(y.Prefixes) > 0; {
		case both && x.Prefixes[0].Addr().Is4() != y.Prefixes[0].Addr().Is4(), of == f && !both:
			return false
		case !both && text(x) != text(y): // what they stand for now is the same by chance
			return false
		}
	}
	return true
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
		one.Source = peers(rules, func(r *ruleset.Rule) *ruleset.Peer { return &r.Source })
	case analysis.Destinations:
		one.Destination = peers(rules, func(r *ruleset.Rule) *ruleset.Peer { return &r.Destination })
	case analysis.SourcePorts:
		one.SourcePorts = ports(rules, func(r *ruleset.Rule) []ruleset.PortRange { return r.SourcePorts })
	case analysis.DestinationPorts:
		one.DestinationPorts = ports(rules, func(r *ruleset.Rule) []ruleset.PortRange { return r.DestinationPorts })
	}
	return one
}

// peers have the prefixes of all, and no two that overlap: Azure refuses those.
func peers(rules []*ruleset.Rule, side func(*ruleset.Rule) *ruleset.Peer) ruleset.Peer {
	var b netipx.IPSetBuilder
	for _, r := range rules {
		for _, p := range side(r).Prefixes {
			b.AddPrefix(p)
		}
	}
	set, _ := b.IPSet() // only an invalid prefix is an error
	return ruleset.Peer{Prefixes: set.Prefixes()}
}

// ports are those of all, in ascending ranges.
func ports(rules []*ruleset.Rule, of func(*ruleset.Rule) []ruleset.PortRange) (list []ruleset.PortRange) {
	var all []ruleset.PortRange
	for _, r := range rules {
		all = append(all, of(r)...)
	}
	return ruleset.JoinPorts(all)
}

// resolved is what a rule matches where its peers' prefixes or its ports alone have changed.
func resolved(r *ruleset.Rule, was classifier.Rule) classifier.Rule {
	if len(r.Source.Prefixes) > 0 {
		was.Sources = r.Source.Prefixes
	}
	if len(r.Destination.Prefixes) > 0 {
		was.Destinations = r.Destination.Prefixes
	}
	was.SourcePorts, was.DestinationPorts = r.SourcePorts, r.DestinationPorts
	return was
}
