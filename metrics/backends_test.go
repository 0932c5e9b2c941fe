package metrics

import (
	"bytes"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestBackendsThatAreProbedHaveASeriesEach(t *testing.T) {
	documents := arm.Load("../deploy/lab/translation")
	if err := documents.Faults.Err(); err != nil {
		t.Fatal(err)
	}
	engine, err := dataplane.New(documents.Set, dataplane.Options{
		Attachments: []topology.Spec{{Kind: topology.Internet}}, Workers: 1, Flows: conntrack.Options{Max: 1024},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range engine.Snapshot().Probes() {
		p.Set(p.Address.String() == "10.1.1.4")
	}
	g := checked{newEngineGatherer(Options{Engine: engine, Reloads: func() Reloads { return Reloads{} }})}
	text := render(t, g.Gather)
	for _, want := range []string{
		"\nnsgd_backend_up{backend=\"10.1.1.4\",load_balancer=\"shop-lb\",port=\"8080\",probe=\"http\"} 1\n",
		"\nnsgd_backend_up{backend=\"10.1.1.5\",load_balancer=\"shop-lb\",port=\"8080\",probe=\"http\"} 0\n",
		"\nnsgd_translations 0\n",
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	problems, err := testutil.GatherAndLint(g)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
