package control_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/nsgd/nsgd/dataplane/ask"
)

func TestExplainTellsCountersAndLiveFlows(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	r.send(internet, syn("203.0.113.10", "10.0.1.4", 80))
	r.send(internet, syn("203.0.113.10", "10.0.1.4", 22))
	for _, tt := range []struct {
		name, to, rule string
		live, listed   int
	}{
		{"a flow that is alive", "10.0.1.4:80/tcp", "securityRules/AllowHttpInBound", 1, 1},
		{"a denied packet leaves no flow", "10.0.1.4:22/tcp", "defaultSecurityRules/DenyAllInBound", 0, 0},
	} {
		x, err := r.client.Explain(ctx, &ask.ExplainParameters{From: "203.0.113.10", To: tt.to})
		if err != nil || len(x.Paths) != 1 {
			t.Fatalf("%s: %v, %+v", tt.name, err, x)
		}
		p := &x.Paths[0]
		stage := p.Legs[0].Stages[0]
		if stage.RuleName != tt.rule || stage.Counters == nil || stage.Counters.Hits != 1 {
			t.Errorf("%s: %+v, want 1 hit of %s", tt.name, stage, tt.rule)
		}
		if p.Live == nil || *p.Live != tt.live || len(p.Flows) != tt.listed {
			t.Errorf("%s: %v live flows, listed %+v; want %d", tt.name, p.Live, p.Flows, tt.live)
		}
	}
	_, err := r.client.Explain(ctx, &ask.ExplainParameters{From: "203.0.113.10"})
	wantRefusal(t, err, http.StatusBadRequest)
}

func TestReachIsAskedOfTheDaemon(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	list, err := r.client.Reach(ctx, &ask.ReachParameters{From: "internet", To: "vm1-nic"})
	if err != nil || len(list.Allowed) != 1 || list.Allowed[0].Rules[0].RuleName != "securityRules/AllowHttpInBound" {
		t.Errorf("%v: %+v, want what AllowHttpInBound lets in", err, list)
	}
	for _, q := range []ask.ReachParameters{{From: "nosuch"}, {To: "vm1-nic:70000"}, {MaxStates: -1}} {
		_, err := r.client.Reach(ctx, &q)
		wantRefusal(t, err, http.StatusBadRequest)
	}
}
