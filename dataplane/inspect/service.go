// Package inspect tells what a running engine does: rules, flows, what leads, tags, drops,
// backends, status, and live packets. It also reloads the engine's policy.
//
// Service belongs to a running engine, Loaded to a policy without one. Nothing here makes
// the packet path wait: answers read a snapshot, atomic counters and the flow table's
// lock-free walk. The types of answers are the JSON of the control socket and of nsgctl;
// package control carries them over HTTP.
package inspect

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/probe"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Place says where an attachment's device is and what the configuration says about it.
type Place struct {
	// Number is the attachment's in the configuration; Status lists them by it.
	Number    int
	Device    string
	Namespace string // empty: the daemon's own
	MTU       int    // 0: the default
	// Addresses are the configured ones, beside those that the policy gives.
	Addresses []netip.Prefix
	// Prefixes are the networks behind the attachment, where the configuration lists them.
	Prefixes []netip.Prefix
	// DHCP says how the guest behind the interface is answered, in words.
	DHCP string
}

// Options are what a Service works with.
type Options struct {
	Engine *dataplane.Engine
	// Policy is what a reload reads, and what the engine's policy was loaded from; nil:
	// a reload has nothing to read.
	Policy *PolicyFiles
	// Places by attachment, at the start.
	Places []Place
	// Configuration is what a reload reads, with the policy and the attachments; nil: it reads the policy alone.
	Configuration Configuration
	// Version, Offload, Control, ControlListen and Metrics are shown by Status.
	Version, Offload, Control, ControlListen, Metrics string
	// Probes are the health probes that are sent. Nil: no attachment is the platform's, no
	// probe is sent, and backends count as up.
	Probes *probe.Prober
	// Reloading is called when a reload begins, and its result when the reload has ended.
	// Nil is allowed.
	Reloading func() (done func(error))
	// FlowLogs gives Status the state of flow logs. Nil, as function or result: there are none.
	FlowLogs func() *FlowLogUse
	// Interfaces are those before which the daemon stands. Nil: it stands before none.
	Interfaces func() []InterfaceStatus
	// Cluster is how the host does in its cluster. Nil, as function or result: there is none.
	Cluster func() *ClusterStatus
	// Beyond are attachments of other hosts to which no packet of this one may go, for questions; nil: there are none.
	Beyond func(*policy.Set) []topology.Spec
	// Hosts are those of the cluster; nil: there is none.
	Hosts func() (*ClusterHosts, error)
	// Confirm keeps a run that has to be confirmed; waited tells that it had to be. Nil: none has.
	Confirm func() (waited bool, err error)
	// Unkept is Status.Unkept.
	Unkept string
	// Standby is Status.Standby, as it is now. Nil, as function or result: none is asked for.
	Standby func() string
	// Upgrade has another process go on, before ctx ends. Nil: none can.
	Upgrade func(ctx context.Context) (*Upgraded, error)
	// History is what the engine has dropped and ended of late. Nil: nothing is remembered.
	History *history.History
	// Now is the wall clock; nil: time.Now.
	Now func() time.Time
	// AfterFunc calls a function later, unless stop comes first; nil: time.AfterFunc.
	AfterFunc func(time.Duration, func()) (stop func() bool)
	// Earlier is how many earlier policies are kept to be compared, see Compare; 0: none.
	Earlier int
	// Log receives how reloads went; nil discards it.
	Log *slog.Logger
}

// Service is a running engine with its policy files and the record of its reloads. Safe
// for concurrent use.
type Service struct {
	options Options
	started time.Time

	loading sync.Mutex       // one reload at a time: held from reading the files to the swap
	tagFile *arm.ServiceTags // of the running policy, nil without one; guarded by loading
	waiting *unconfirmed     // nil: no reload waits for its confirmation; guarded by loading
	log     *slog.Logger     // of the reload under way; guarded by loading
	// handover is that of the reload under way; nil: none. Guarded by loading.
	handover *Handover
	maxCut   *int   // of the reload under way: see ReloadRequest.MaxCut; guarded by loading
	trial    *trial // nil: no candidate is judged; guarded by loading
	// upgrading says that another process is about to go on; guarded by loading
	upgrading bool

	comparing   sync.Mutex // one comparison of policies at a time
	remembering sync.Mutex // one walk over what is remembered at a time

	mu      sync.Mutex
	reloads Reloads       // guarded by mu
	journal []ReloadEntry // the last reloads, the oldest first; guarded by mu
	edition *ServiceTags  // of the running policy; guarded by mu
	written time.Time     // its file; zero: there is none; guarded by mu
	files   *PolicyFiles  // of the running policy; guarded by mu, and what it remembers by loading
	places  []Place       // by slot; replaced, never changed; guarded by mu
	earlier earlier       // policies from before; guarded by mu

	top topMemory

	asked   asked
	linting sync.Mutex
	linted  *Linted // of the last policy that was asked about; guarded by linting
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
	if o.AfterFunc == nil {
		o.AfterFunc = func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }
	}
	s := &Service{options: o, log: o.Log, started: o.Now(), edition: o.Policy.edition(), tagFile: o.Policy.reader.ServiceTags(), files: o.Policy, places: o.Places}
	s.reloads.Loaded = s.started
	if o.Engine != nil {
		s.earlier.last = s.Snapshot()
	}
	s.written = o.Policy.tagsWritten()
	s.warnLeftOut(o.Log)
	return s
}

// Snapshot is the running policy.
func (s *Service) Snapshot() *topology.Snapshot { return s.options.Engine.Snapshot() }

// Log receives what the service and its server have to say.
func (s *Service) Log() *slog.Logger { return s.options.Log }

// policyFiles are those of the running policy.
func (s *Service) policyFiles() *PolicyFiles {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files
}

// ServiceTagsWritten is when the service tag file of the running policy was last written; zero: there is none.
func (s *Service) ServiceTagsWritten() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

func (s *Service) serviceTags() *ServiceTags {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.edition
}
