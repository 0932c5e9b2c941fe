package control

import (
	"context"
	"io"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// Answerer answers questions that need only a policy. Client asks a running daemon,
// Offline asks policy files.
type Answerer interface {
	// Verify reads requests, one JSON object a line, and writes one Verification a
	// line in the same order; see VerifyStream.
	Verify(ctx context.Context, path bool, requests io.Reader, results io.Writer) error
	// Effective lists the rules that hold for a NIC, by name or id.
	Effective(ctx context.Context, networkInterface string) (*azure.EffectiveNetworkSecurityGroupListResult, error)
	// Rules lists rules.
	Rules(ctx context.Context, filter RuleFilter) (*RuleList, error)
	// Diagnose answers NSG diagnostics.
	Diagnose(ctx context.Context, q *azure.NetworkConfigurationDiagnosticParameters) (*azure.NetworkConfigurationDiagnosticResponse, error)
	// SecurityGroupView shows the rules of a NIC or virtual machine, by name or id.
	SecurityGroupView(ctx context.Context, target string) (*azure.SecurityGroupViewResult, error)
	// Tags lists the tags that rules can name.
	Tags(ctx context.Context) (*TagList, error)
	// Tag says what a tag stands for.
	Tag(ctx context.Context, q TagQuestion) (*TagDetails, error)
	// NextHop says where a NIC's packets to an address go.
	NextHop(ctx context.Context, q NextHopQuestion) (*azure.NextHopResult, error)
}

// Offline answers from policy files, by the engine's own snapshot and verdicts.
type Offline struct {
	snapshot *topology.Snapshot
	tags     *arm.ServiceTags // nil without a service tag file
}

var _ Answerer = (*Offline)(nil)

// OpenPolicy loads policy files, without a service tag file, to ask them.
func OpenPolicy(paths ...string) (*Offline, error) { return NewPolicyFiles("", paths...).Open() }

// Open loads the files to ask them.
func (f *PolicyFiles) Open() (*Offline, error) { return f.OpenWith(topology.Options{}) }

// OpenWith is Open for a policy that is understood in another than the ordinary way.
func (f *PolicyFiles) OpenWith(o topology.Options) (*Offline, error) {
	set, err := f.Load()
	if err != nil {
		return nil, err
	}
	snapshot, err := o.Build(set, nil, topology.NewRegistry())
	if err != nil {
		return nil, err
	}
	return &Offline{snapshot, f.reader.ServiceTags()}, nil
}

// Subscribe has it answer for a subscription, which is a valid one. Call it before any question.
func (o *Offline) Subscribe(s topology.Subscription) { o.snapshot.BlockSMTP = s.BlocksSMTP() }

// Verify answers requests by the policy.
func (o *Offline) Verify(_ context.Context, path bool, requests io.Reader, results io.Writer) error {
	return VerifyStream(o.snapshot, path, requests, results)
}

// Effective lists the rules that hold for a NIC.
func (o *Offline) Effective(_ context.Context, networkInterface string) (*azure.EffectiveNetworkSecurityGroupListResult, error) {
	return Effective(o.snapshot, networkInterface)
}

// Rules lists the policy's rules, without counters.
func (o *Offline) Rules(_ context.Context, filter RuleFilter) (*RuleList, error) {
	return Rules(o.snapshot, nil, filter)
}

// Diagnose answers NSG diagnostics by the policy.
func (o *Offline) Diagnose(_ context.Context, q *azure.NetworkConfigurationDiagnosticParameters) (*azure.NetworkConfigurationDiagnosticResponse, error) {
	return Diagnose(o.snapshot, q)
}

// SecurityGroupView shows the rules of a NIC or virtual machine.
func (o *Offline) SecurityGroupView(_ context.Context, target string) (*azure.SecurityGroupViewResult, error) {
	return SecurityGroupView(o.snapshot, target)
}

// Tags lists the built-in tags and those of the service tag file.
func (o *Offline) Tags(context.Context) (*TagList, error) {
	return (&tagBook{o.snapshot, o.tags}).list(), nil
}

// Tag says what a tag stands for. Not safe for concurrent use.
func (o *Offline) Tag(_ context.Context, q TagQuestion) (*TagDetails, error) {
	return (&tagBook{o.snapshot, o.tags}).details(q)
}

// NextHop says where a NIC's packets to an address go.
func (o *Offline) NextHop(_ context.Context, q NextHopQuestion) (*azure.NextHopResult, error) {
	return NextHop(o.snapshot, q)
}
