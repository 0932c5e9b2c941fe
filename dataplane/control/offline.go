package control

import (
	"context"
	"io"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
)

// Answerer answers questions that need only a policy. Client asks a running daemon,
// Offline asks policy files.
type Answerer interface {
	// Verify reads requests, one JSON object a line, and writes one Verification a
	// line in the same order; see VerifyStream.
	Verify(ctx context.Context, path bool, requests io.Reader, results io.Writer) error
	// Effective lists the rules that hold for a NIC, by name or id.
	Effective(ctx context.Context, networkInterface string) (*arm.EffectiveNetworkSecurityGroupListResult, error)
	// Rules lists rules.
	Rules(ctx context.Context, filter RuleFilter) (*RuleList, error)
}

// Offline answers from policy files, by the engine's own snapshot and verdicts.
type Offline struct{ snapshot *topology.Snapshot }

var _ Answerer = (*Offline)(nil)

// OpenPolicy loads policy files, without a service tag file, to ask them.
func OpenPolicy(paths ...string) (*Offline, error) { return NewPolicyFiles("", paths...).Open() }

// Open loads the files to ask them.
func (f *PolicyFiles) Open() (*Offline, error) {
	set, err := f.Load()
	if err != nil {
		return nil, err
	}
	snapshot, err := topology.Build(set, nil, topology.NewRegistry())
	if err != nil {
		return nil, err
	}
	return &Offline{snapshot}, nil
}

// Subscribe has it answer for a subscription, which is a valid one. Call it before any question.
func (o *Offline) Subscribe(s topology.Subscription) { o.snapshot.BlockSMTP = s.BlocksSMTP() }

// Verify answers requests by the policy.
func (o *Offline) Verify(_ context.Context, path bool, requests io.Reader, results io.Writer) error {
	return VerifyStream(o.snapshot, path, requests, results)
}

// Effective lists the rules that hold for a NIC.
func (o *Offline) Effective(_ context.Context, networkInterface string) (*arm.EffectiveNetworkSecurityGroupListResult, error) {
	return Effective(o.snapshot, networkInterface)
}

// Rules lists the policy's rules, without counters.
func (o *Offline) Rules(_ context.Context, filter RuleFilter) (*RuleList, error) {
	return Rules(o.snapshot, nil, filter)
}
