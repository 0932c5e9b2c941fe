package classifier_test

import (
	"math/rand/v2"
	"testing"

	"github.com/nsgd/nsgd/ruleset/classifier"
	"github.com/nsgd/nsgd/ruleset/classifier/classifiertest"
)

func TestTableAgreesWithLinearOnClassBenchRules(t *testing.T) {
	for _, set := range classifiertest.ClassBenchSets {
		t.Run(set.Name, func(t *testing.T) {
			rules := classifiertest.ReadClassBench(t, set.Name)
			if len(rules) != set.Rules {
				t.Fatalf("%d rules, want %d", len(rules), set.Rules)
			}
			table := classifier.Compile(rules)
			r := rand.New(rand.NewPCG(7, 7))
			for range 1000 {
				agree(t, rules, table, insideTuple(r, rules), edgeTuple(r, rules))
			}
			t.Logf("%d rules in %d bytes", len(rules), table.Bytes())
		})
	}
}
