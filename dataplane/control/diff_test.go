package control_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

// The question is about files that are changed and not reloaded; the reload then does what was said.
func TestDiffOfTheRunningPolicySaysWhatAReloadWouldEnd(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	r.send(internet, syn("203.0.113.10", "10.0.1.4", 80))
	r.send(0, udp("10.0.1.4", "203.0.113.10", 53))
	ask1 := func(q inspect.RunningQuestion) *inspect.RunningDiff {
		t.Helper()
		diff, err := r.client.Diff(ctx, &q)
		if err != nil {
			t.Fatal(err)
		}
		return diff
	}
	if diff := ask1(inspect.RunningQuestion{}); len(diff.Changes) > 0 || diff.LiveFlows.Cut > 0 || diff.LiveFlows.Live != 2 {
		t.Errorf("nothing changed: %+v, %+v", diff.DiffResult, diff.LiveFlows)
	}
	running := r.policy
	elsewhere := filepath.Join(t.TempDir(), "policy")
	if err := os.CopyFS(elsewhere, os.DirFS(running)); err != nil {
		t.Fatal(err)
	}
	r.policy = elsewhere
	r.replaceIn("nsg1.json", `"destinationPortRange": "80"`, `"destinationPortRange": "81"`)
	for _, of := range []struct {
		name  string
		paths []string
		edit  func()
	}{
		{"files elsewhere", []string{elsewhere}, func() {}},
		{"its own files", nil, func() {
			r.policy = running
			r.replaceIn("nsg1.json", `"destinationPortRange": "80"`, `"destinationPortRange": "81"`)
		}},
	} {
		t.Run(of.name, func(t *testing.T) {
			of.edit()
			diff := ask1(inspect.RunningQuestion{Policy: of.paths})
			if len(diff.Changes) != 3 || diff.LiveFlows.Cut != 1 || diff.LiveFlows.Live != 2 || len(diff.LiveFlows.List) != 1 {
				t.Fatalf("%+v, %+v", diff.Changes, diff.LiveFlows)
			}
			if f := diff.LiveFlows.List[0]; f.DestinationPort != 80 || f.Reason != ask.ReasonRule || f.RuleName != "defaultSecurityRules/DenyAllInBound" || f.NetworkSecurityGroup != "NSG1" {
				t.Errorf("%+v", f)
			}
		})
	}
	holdReload(t, r)
}

// holdReload reloads what the question was about, and asks the flows again.
func holdReload(t *testing.T, r *rig) {
	t.Helper()
	ctx := context.Background()
	if status, err := r.client.Status(ctx); err != nil || status.Generation != 1 || status.Reloads.Succeeded != 0 {
		t.Errorf("the question has changed something: %+v, %v", status, err)
	}
	if _, err := r.client.Reload(ctx, 0); err != nil {
		t.Fatal(err)
	}
	r.send(internet, syn("203.0.113.10", "10.0.1.4", 80))
	r.send(0, udp("10.0.1.4", "203.0.113.10", 53))
	flows, err := r.client.Flows(ctx, inspect.FlowFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range flows.Flows {
		if f.Protocol == "TCP" && f.State != "cut" {
			t.Errorf("the flow that was said to end lives: %+v", f)
		}
	}
}

func TestDiffOfTheRunningPolicyRefuses(t *testing.T) {
	r := newRig(t)
	tests := []struct {
		name   string
		q      inspect.RunningQuestion
		status int
	}{
		{"a path that is relative", inspect.RunningQuestion{Policy: []string{"policy"}}, 400},
		{"more flows than an answer holds", inspect.RunningQuestion{Limit: inspect.MaxFlowLimit + 1}, 400},
		{"a bound below nothing", inspect.RunningQuestion{MaxStates: -1}, 400},
		{"files that are not there", inspect.RunningQuestion{Policy: []string{"/nowhere"}}, 422},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := r.client.Diff(context.Background(), &tt.q)
			if e := (*control.Error)(nil); !errors.As(err, &e) || e.Status != tt.status {
				t.Errorf("%v, want status %d", err, tt.status)
			}
		})
	}
}
