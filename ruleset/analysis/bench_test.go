package analysis_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"github.com/nsgd/nsgd/ruleset/classifier/classifiertest"
)

// classBench is a ClassBench set as a list that ends with a denial of everything. Three rules in ten deny.
func classBench(tb testing.TB, name string) []analysis.Rule {
	r := rand.New(rand.NewPCG(1, 2))
	var rules []analysis.Rule
	for _, rule := range classifiertest.ReadClassBench(tb, name) {
		access := ruleset.Allow
		if r.IntN(10) < 3 {
			access = ruleset.Deny
		}
		rules = append(rules, analysis.Rule{Rule: rule, Access: access})
	}
	return append(rules, denyAll)
}

var denyAll = analysis.Rule{Rule: classifier.Rule{Sources: ruleset.Everywhere(), Destinations: ruleset.Everywhere(),
	SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}}, Access: ruleset.Deny}

// threeEdits are what a change to a rule list usually is: one rule does the opposite, one is gone, two
// neighbours change places.
func threeEdits(r *rand.Rand, rules []analysis.Rule) []analysis.Rule {
	out := slices.Clone(rules)
	at := func() int { return r.IntN(len(out) - 2) }
	i := at()
	out[i].Access = 1 - out[i].Access
	i = at()
	out = slices.Delete(out, i, i+1)
	i = at()
	out[i], out[i+1] = out[i+1], out[i]
	return out
}

func BenchmarkAnalysisCompareThreeEdits(b *testing.B) {
	for _, set := range classifiertest.ClassBenchSets {
		b.Run(set.Name, func(b *testing.B) {
			old := classBench(b, set.Name)
			for seed := uint64(0); b.Loop(); seed++ {
				new := threeEdits(rand.New(rand.NewPCG(seed, 7)), old)
				d := analysis.Compare(analysis.Chain{analysis.NewList(old)}, analysis.Chain{analysis.NewList(new)}, analysis.Options{})
				if len(d.Undecided) > 0 {
					b.Fatalf("seed %d: not decided: %d", seed, len(d.Undecided))
				}
			}
		})
	}
}

// BenchmarkAnalysisCompareATenth compares lists in which every tenth rule does the opposite.
func BenchmarkAnalysisCompareATenth(b *testing.B) {
	for _, set := range classifiertest.ClassBenchSets {
		b.Run(set.Name, func(b *testing.B) {
			old := classBench(b, set.Name)
			for seed := uint64(0); b.Loop(); seed++ {
				r := rand.New(rand.NewPCG(seed, 7))
				new := slices.Clone(old)
				for i := range new[:len(new)-1] {
					if r.IntN(10) == 0 {
						new[i].Access = 1 - new[i].Access
					}
				}
				d := analysis.Compare(analysis.Chain{analysis.NewList(old)}, analysis.Chain{analysis.NewList(new)}, analysis.Options{})
				b.ReportMetric(float64(len(d.Changes)), "changes")
				b.ReportMetric(float64(len(d.Undecided)), "undecided")
			}
		})
	}
}

func BenchmarkAnalysisRoles(b *testing.B) {
	for _, set := range classifiertest.ClassBenchSets {
		b.Run(set.Name, func(b *testing.B) {
			rules := classBench(b, set.Name)
			for b.Loop() {
				dead, redundant, undecided := 0, 0, 0
				for _, role := range analysis.Roles(analysis.NewList(rules), analysis.Options{}) {
					switch {
					case role.Undecided:
						undecided++
					case !role.Decides:
						dead++
					case !role.Needed:
						redundant++
					}
				}
				b.ReportMetric(float64(dead), "dead")
				b.ReportMetric(float64(redundant), "redundant")
				b.ReportMetric(float64(undecided), "undecided")
			}
		})
	}
}

func BenchmarkAnalysisMergeable(b *testing.B) {
	for _, set := range classifiertest.ClassBenchSets {
		b.Run(set.Name, func(b *testing.B) {
			rules := classBench(b, set.Name)
			for b.Loop() {
				b.ReportMetric(float64(len(analysis.Mergeable(analysis.NewList(rules), nil, analysis.Options{}))), "merges")
			}
		})
	}
}

func BenchmarkAnalysisReach(b *testing.B) {
	for _, set := range classifiertest.ClassBenchSets {
		b.Run(set.Name, func(b *testing.B) {
			rules := classBench(b, set.Name)
			for b.Loop() {
				r := analysis.Reach(analysis.Chain{analysis.NewList(rules)}, analysis.Options{})
				b.ReportMetric(float64(len(r.Allowed)), "allowed")
				b.ReportMetric(float64(len(r.Undecided)), "undecided")
			}
		})
	}
}
