package analysis_test

import (
	"math/rand/v2"
	"testing"

	"github.com/nsgd/nsgd/ruleset/analysis"
)

// FuzzCompare holds Compare to enumeration on small worlds that the bytes choose.
func FuzzCompare(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(seed, seed*7, seed%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed, edit uint64, unrelated bool) {
		old := smallChain(rand.New(rand.NewPCG(seed, 4)))
		r := rand.New(rand.NewPCG(edit, 5))
		new := edited(r, old)
		if unrelated {
			new = smallChain(r)
		}
		d := analysis.Compare(old.prepared(), new.prepared(), analysis.Options{})
		checkDifference(t, old, new, d, world(old, new))
	})
}
