package control

import (
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/probe"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// Place says where an attachment's device is and what the configuration adds to it.
type Place struct {
	Device    string
	Namespace string // empty: the daemon's own
	// Addresses are the configured ones, beside those that the policy gives.
	Addresses []netip.Prefix
}

// Options are what a Service works with.
type Options struct {
	Engine *dataplane.Engine
	// Policy is what a reload reads, and what the engine's policy was loaded from; nil:
	// a reload has nothing to read.
	Policy *PolicyFiles
	// Places by attachment.
	Places []Place
	// Version, Offload, Control and Metrics are shown by Status.
	Version, Offload, Control, Metrics string
	// Probes are the health probes that are sent; nil: none are, since no attachment is the
	// platform's, and backends count as up.
	Probes *probe.Prober
	// Reloading is told that a reload begins; what it returns is told how it ended.
	// Nil is told nothing.
	Reloading func() (done func(error))
	// FlowLogs tells Status of flow logs, nil where there are none; nil: there are none.
	FlowLogs func() *FlowLogUse
	// Now is the wall clock; nil: time.Now.
	Now func() time.Time
	// Log receives how reloads went; nil discards it.
	Log *slog.Logger
}

// Service is a running engine with its policy files and the book of its reloads. Safe
// for concurrent use.
type Service struct {
	options Options
	started time.Time

	loading sync.Mutex       // held from reading the files to the swap: one reload at a time
	tagFile *arm.ServiceTags // of the running policy, nil without one; guarded by loading

	mu      sync.Mutex
	reloads Reloads      // guarded by mu
	tags    *ServiceTags // of the running policy; guarded by mu

	top topBook
}

// NewService returns a service for an engine whose policy is loaded.
func NewService(o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Policy == nil {
		o.Policy = NewPolicyFiles("")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{options: o, started: o.Now(), tags: o.Policy.edition(), tagFile: o.Policy.reader.ServiceTags()}
	s.reloads.Loaded = s.started
	s.warnLeft()
	return s
}

// warnLeft logs what a partial policy leaves out.
func (s *Service) warnLeft() {
	for _, left := range s.options.Policy.LeftOut() {
		s.options.Log.Warn("left out of the policy", "reason", left.Error())
	}
}

// Reloads tells how reloads went so far.
func (s *Service) Reloads() Reloads {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reloads
}

func (s *Service) serviceTags() *ServiceTags {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tags
}

// Reload reads the policy files and swaps the policy whole, keeping flows and counters.
// On any error the running policy stays as it is.
func (s *Service) Reload() (*Reloaded, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	done := func(error) {}
	if s.options.Reloading != nil {
		done = s.options.Reloading()
	}
	begun := s.options.Now()
	reloaded, err := s.reload()
	s.book(begun, err)
	done(err)
	if err != nil {
		s.options.Log.Error("reload refused, the running policy stays", "error", err)
		return nil, err
	}
	s.warnLeft()
	s.options.Log.Info("reloaded", "generation", reloaded.Generation,
		"networkSecurityGroups", reloaded.NetworkSecurityGroups, "securityRules", reloaded.SecurityRules)
	if c := reloaded.ServiceTagChanges; c != nil {
		s.options.Log.Info("service tags changed for rules", "from", c.Old.ChangeNumber, "to", c.New.ChangeNumber,
			"tags", len(c.Changed), "rules", len(c.Rules), "changes", c.summary())
	}
	return reloaded, nil
}

func (s *Service) reload() (*Reloaded, error) {
	set, err := s.options.Policy.Load()
	if err != nil {
		return nil, err
	}
	engine := s.options.Engine
	before, oldTags := engine.Snapshot().Policy, s.serviceTags()
	next, err := engine.Prepare(set)
	if err != nil {
		return nil, err
	}
	if err := engine.Swap(next, s.readdress); err != nil {
		return nil, err
	}
	for _, warning := range s.options.Policy.Warnings() {
		s.options.Log.Warn("policy", "warning", warning)
	}
	newTags := s.options.Policy.edition()
	s.tagFile = s.options.Policy.reader.ServiceTags()
	s.mu.Lock()
	s.tags = newTags
	s.mu.Unlock()
	if s.options.Probes != nil {
		s.options.Probes.Follow(next.Probes())
	}
	return &Reloaded{Generation: next.Generation, PolicyCounts: CountPolicy(set),
		ServiceTagChanges: reloadChanges(before, set, oldTags, newTags)}, nil
}

// readdress brings the devices' addresses into line with the next snapshot.
func (s *Service) readdress(next *topology.Snapshot) error {
	var moves []readdressing
	now := s.options.Engine.Snapshot()
	for i, d := range s.options.Engine.Devices() {
		moves = append(moves, readdressing{
			device: d,
			from:   s.options.Places[i].addresses(now.Attachments[i]),
			to:     s.options.Places[i].addresses(next.Attachments[i]),
		})
	}
	return readdress(moves)
}

func (s *Service) book(begun time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.options.Now()
	s.reloads.Last, s.reloads.LastError = &now, ""
	s.reloads.LastMilliseconds = float64(now.Sub(begun)) / float64(time.Millisecond)
	if err != nil {
		s.reloads.Failed++
		s.reloads.LastError = err.Error()
		return
	}
	s.reloads.Succeeded++
	s.reloads.Loaded = now
}

// Status describes the daemon.
func (s *Service) Status() *Status {
	o, e := &s.options, s.options.Engine
	snapshot := e.Snapshot()
	status := &Status{
		Version: o.Version, PID: os.Getpid(), Started: s.started, Workers: e.Workers(), Offload: o.Offload,
		Control: o.Control, Metrics: o.Metrics, Policy: o.Policy.paths, ServiceTags: s.serviceTags(), Generation: snapshot.Generation,
		Reloads: s.Reloads(), Flows: flowUse(e.Flows()), Fragments: fragmentUse(e.Fragments()), Dropped: dropped(e), Attachments: []AttachmentStatus{},
	}
	if o.FlowLogs != nil {
		status.FlowLogs = o.FlowLogs()
	}
	status.Backends, status.Unprobed = s.backends(snapshot)
	counts := e.AttachmentCounts()
	for i, d := range e.Devices() {
		a, place := snapshot.Attachments[i], o.Places[i]
		shown := AttachmentStatus{
			Name: a.Name, Kind: a.Kind.String(), Device: place.Device, Namespace: place.Namespace, MTU: d.MTU(),
			Addresses:      []string{},
			ReceivePackets: counts[i].ReceivePackets, ReceiveBytes: counts[i].ReceiveBytes,
			TransmitPackets: counts[i].TransmitPackets, TransmitBytes: counts[i].TransmitBytes,
		}
		for _, p := range place.addresses(a) {
			shown.Addresses = append(shown.Addresses, p.String())
		}
		status.Attachments = append(status.Attachments, shown)
	}
	return status
}

func fragmentUse(t *fragment.Table) FragmentUse {
	return FragmentUse{Datagrams: t.Datagrams(), Limit: t.Limit(), Held: t.Held()}
}

func dropped(e *dataplane.Engine) map[string]uint64 {
	m := map[string]uint64{}
	for reason, n := range e.Drops() {
		if n > 0 {
			m[dropReason(reason)] = n
		}
	}
	return m
}

// Rules lists the rules of the running policy with their counters.
func (s *Service) Rules(filter RuleFilter) (*RuleList, error) {
	e := s.options.Engine
	snapshot := e.Snapshot()
	return Rules(snapshot, e.RuleCounts(len(e.Registry().Keys())), filter)
}

// Effective lists the rules that hold for a NIC.
func (s *Service) Effective(networkInterface string) (*azure.EffectiveNetworkSecurityGroupListResult, error) {
	return Effective(s.options.Engine.Snapshot(), networkInterface)
}

// Tags lists the tags of the running policy. It waits for a reload to end.
func (s *Service) Tags() *TagList {
	s.loading.Lock()
	defer s.loading.Unlock()
	return (&tagBook{s.Snapshot(), s.tagFile}).list()
}

// Tag says what a tag stands for in the running policy. It waits for a reload to end.
func (s *Service) Tag(q TagQuestion) (*TagDetails, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	return (&tagBook{s.Snapshot(), s.tagFile}).details(q)
}

// NextHop says where a NIC's packets to an address go.
func (s *Service) NextHop(q NextHopQuestion) (*azure.NextHopResult, error) {
	return NextHop(s.options.Engine.Snapshot(), q)
}

// Snapshot is the running policy.
func (s *Service) Snapshot() *topology.Snapshot { return s.options.Engine.Snapshot() }
