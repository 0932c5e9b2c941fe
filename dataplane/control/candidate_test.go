package control_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

// wantStatus wants a refusal with a status and a text.
func wantStatus(t *testing.T, err error, status int, text string) {
	t.Helper()
	var refused *control.Error
	if !errors.As(err, &refused) || refused.Status != status || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %d %q", err, status, text)
	}
}

// denyHTTP makes the folder's policy deny what it allows from the internet, port 80, and allow port 22.
func (r *rig) denyHTTP() {
	r.replaceIn("nsg1.json", `"destinationPortRange": "80"`, `"destinationPortRange": "22"`)
	r.replaceIn("nsg2.json", `"destinationPortRange": "80"`, `"destinationPortRange": "22"`)
}

// judged waits until the candidate has judged so many packets.
func (r *rig) judged(n uint64) (c *inspect.Candidate) {
	r.t.Helper()
	r.eventually("the candidate has judged", func() bool {
		var err error
		if c, err = r.client.Candidate(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		return c.Judged == n
	})
	return c
}

func TestACandidateTellsWhatItWouldDoAndDoesNothing(t *testing.T) {
	r := newRig(t)
	r.send(internet, syn(world, "10.0.1.4", 80)) // a live flow
	r.denyHTTP()
	begun, err := r.client.StartCandidate(t.Context(), &inspect.CandidateQuestion{})
	if err != nil {
		t.Fatal(err)
	}
	if l := begun.LiveFlows; l.Live != 1 || begun.Generation != 1 || !strings.HasPrefix(begun.Cause, "user ") || begun.Outdated {
		t.Errorf("%+v", begun)
	}
	r.send(internet, syn("203.0.113.11", "10.0.1.4", 80))
	r.send(internet, syn("203.0.113.12", "10.0.1.4", 80))
	r.send(internet, syn("203.0.113.12", "10.0.1.4", 80)) // of a flow that is live by now
	r.send(internet, syn("203.0.113.13", "10.0.1.4", 22))
	r.send(internet, syn("203.0.113.13", "10.0.1.4", 22)) // denied again, and the same example
	r.send(internet, syn("203.0.113.13", "10.0.1.4", 23)) // denied by both
	r.send(0, udp("10.0.1.4", "10.0.3.4", 53))            // allowed by both
	c := r.judged(6)
	if c.WouldDeny.Packets != 2 || len(c.WouldDeny.Rules) != 1 || c.WouldAllow.Packets != 2 || len(c.WouldAllow.Rules) != 1 || c.NotSeen != 0 {
		t.Fatalf("%+v", c)
	}
	if d := c.WouldDeny.Rules[0]; d.Reason != "rule" || d.NetworkSecurityGroup != "NSG1" || d.RuleName != "defaultSecurityRules/DenyAllInBound" || len(d.Examples) != 2 ||
		d.Examples[0].Source != "203.0.113.11" || d.Examples[0].Access != "Allow" || len(d.Examples[0].Stages) != 2 {
		t.Errorf("%+v", d)
	}
	if a := c.WouldAllow.Rules[0]; a.Reason != "allow" || a.NetworkSecurityGroup != "NSG2" || !strings.HasPrefix(a.RuleName, "securityRules/") || a.Packets != 2 || len(a.Examples) != 1 ||
		a.Examples[0].Access != "Deny" || a.Examples[0].Stages[0].RuleName != "defaultSecurityRules/DenyAllInBound" {
		t.Errorf("%+v", a)
	}
	if flows := r.engine.Flows().Stats().Flows; flows != 4 || r.service.Snapshot().Generation != 1 {
		t.Errorf("%d flows live in generation %d: the candidate is enforced", flows, r.service.Snapshot().Generation)
	}
	if _, err := r.client.StartCandidate(t.Context(), &inspect.CandidateQuestion{}); err == nil {
		t.Error("two candidates are judged")
	} else {
		wantStatus(t, err, http.StatusConflict, "a candidate is judged already")
	}
	last, err := r.client.AbortCandidate(t.Context())
	if err != nil || last.WouldDeny.Packets != 2 {
		t.Errorf("%+v, %v", last, err)
	}
	_, err = r.client.Candidate(t.Context())
	wantStatus(t, err, http.StatusNotFound, "no candidate is judged")
	r.nobodyWatches()
}

func TestPromotionTakesThePolicyThatWasJudged(t *testing.T) {
	r := newRig(t)
	r.denyHTTP()
	if _, err := r.client.StartCandidate(t.Context(), &inspect.CandidateQuestion{Policy: []string{r.policy}}); err != nil {
		t.Fatal(err)
	}
	r.replaceIn("nsg1.json", `"destinationPortRange": "22"`, `"destinationPortRange": "443"`) // too late
	promoted, err := r.client.PromoteCandidate(t.Context(), inspect.ReloadRequest{ConfirmWithin: time.Minute})
	if err != nil || promoted.Generation != 2 || promoted.ConfirmBy == nil || promoted.ID == "" {
		t.Fatalf("%+v, %v", promoted, err)
	}
	r.send(internet, syn(world, "10.0.1.4", 22))
	if n := r.engine.Flows().Stats().Flows; n != 1 {
		t.Errorf("port 22 has %d flows", n)
	}
	_, err = r.client.Candidate(t.Context())
	wantStatus(t, err, http.StatusNotFound, "no candidate is judged")
	if list, err := r.client.Reloads(t.Context()); err != nil || len(list.Reloads) != 1 || list.Reloads[0].ID != promoted.ID {
		t.Errorf("%+v, %v", list, err)
	}
	r.nobodyWatches()
}

func TestAReloadOutdatesACandidate(t *testing.T) {
	r := newRig(t)
	if _, err := r.client.StartCandidate(t.Context(), &inspect.CandidateQuestion{}); err != nil {
		t.Fatal(err)
	}
	r.denyHTTP()
	if _, err := r.client.Reload(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if c, err := r.client.Candidate(t.Context()); err != nil || !c.Outdated {
		t.Errorf("%+v, %v", c, err)
	}
	_, err := r.client.PromoteCandidate(t.Context(), inspect.ReloadRequest{})
	wantStatus(t, err, http.StatusConflict, "another policy has come into force since")
	_, err = r.client.CandidateFlows(t.Context(), 10)
	wantStatus(t, err, http.StatusNotFound, "another policy has come into force since")
	r.nobodyWatches() // of itself
	if _, err := r.client.AbortCandidate(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAPolicyThatCutsTooManyFlowsIsRefused(t *testing.T) {
	r := newRig(t)
	for _, source := range []string{"203.0.113.11", "203.0.113.12"} {
		r.send(internet, syn(source, "10.0.1.4", 80))
	}
	r.denyHTTP()
	r.replaceIn("nsg1.json", `"properties": {`, `"properties": {"flushConnection": true,`)
	cut := func(n int) *int { return &n }
	before := r.service.Snapshot()
	_, err := r.client.ReloadAs(t.Context(), inspect.ReloadRequest{MaxCut: cut(1)})
	wantStatus(t, err, http.StatusUnprocessableEntity, "the policy would cut live flows: 2 of 2, allowed are 1: TCP 203.0.113.1")
	if r.service.Snapshot() != before {
		t.Error("it is in force")
	}
	if _, err := r.client.StartCandidate(t.Context(), &inspect.CandidateQuestion{}); err != nil {
		t.Fatal(err)
	}
	_, err = r.client.PromoteCandidate(t.Context(), inspect.ReloadRequest{MaxCut: cut(1)})
	wantStatus(t, err, http.StatusUnprocessableEntity, "2 of 2, allowed are 1")
	if flows, err := r.client.CandidateFlows(t.Context(), 1); err != nil || flows.Cut != 2 || len(flows.List) != 1 || !flows.Truncated {
		t.Errorf("%+v, %v", flows, err)
	}
	if _, err := r.client.PromoteCandidate(t.Context(), inspect.ReloadRequest{MaxCut: cut(2)}); err != nil {
		t.Error(err)
	}
	if r.service.Snapshot() == before {
		t.Error("it is not in force")
	}
}

func TestFilesThatAreNoPolicyAreNoCandidate(t *testing.T) {
	r := newRig(t)
	_, err := r.client.StartCandidate(t.Context(), &inspect.CandidateQuestion{Policy: []string{"policy"}})
	wantStatus(t, err, http.StatusBadRequest, `policy: "policy": allowed are absolute paths`)
	_, err = r.client.StartCandidate(t.Context(), &inspect.CandidateQuestion{Policy: []string{"/nosuch"}})
	wantStatus(t, err, http.StatusUnprocessableEntity, "nosuch")
	r.nobodyWatches()
}
