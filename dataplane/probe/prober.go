// Package probe asks the backends of load balancers whether they live, as Azure's health probes
// do: with real connections from 168.63.129.16, and from fe80::1234:5678:9abc to IPv6 backends. These go
// through the engine and its network security groups like any other packet. So a rule that blocks the tag AzureLoadBalancer takes a
// backend out of rotation.
package probe

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// maxInFlight bounds the probes that wait for an answer at a time, and so the sockets. Further
// probes wait for their turn.
const maxInFlight = 512

// Options configure a Prober.
type Options struct {
	// Socket makes a socket that will be bound to a source, as the function Socket does. Nil: no probe is sent, and this
	// host's backends are up.
	Socket func(source netip.Addr) (fd, zone int, err error)
	// Source is the address that a backend is probed from; nil: topology.ProbeSource. The namespace must
	// have it.
	Source func(backend netip.Addr) netip.Addr
	// Memory keeps what is known of backends beyond the process; nil: it ends with it.
	Memory Memory
	// Faults hears of panics at a probe, which count as failures of the backend to answer; nil: nobody does.
	Faults *fault.Log
	// Shared: several hosts share the policy. Backends of others are as Hear says.
	Shared bool
	// Changed is called when a backend of this host goes up or down; nil: nobody is told. It must not wait.
	Changed func()
	// Log gets a line for each change of a backend's state; nil: no log.
	Log *slog.Logger
}

// Memory keeps what backends have answered, by topology.Probe.Identity. Safe for concurrent use.
type Memory interface {
	// Find tells whether a backend was up when it was asked last, and since when. known: somebody has asked it.
	Find(name string) (up bool, since time.Time, known bool)
	// Set keeps what a backend has answered.
	Set(name string, up bool, since time.Time)
	// Keep forgets the backends that are not among those.
	Keep(names []string)
}

// oblivion is the Memory that keeps nothing.
type oblivion struct{}

// Find implements Memory.
func (oblivion) Find(string) (bool, time.Time, bool) { return false, time.Time{}, false }

// Set implements Memory.
func (oblivion) Set(string, bool, time.Time) {}

// Keep implements Memory.
func (oblivion) Keep([]string) {}

// Prober asks backends and tells the topology which are up. Safe for concurrent use.
type Prober struct {
	options  Options
	inFlight chan struct{}

	mu       sync.Mutex
	backends map[key]*backend                   // guarded by mu
	others   map[string]*other                  // by identity; guarded by mu
	told     func(*topology.Probe) (Told, bool) // nil: nobody has told anything; guarded by mu
	ctx      context.Context                    // guarded by mu; nil until Run, and after it
	wait     sync.WaitGroup                     // for the backends' goroutines; added to under mu
}

// key identifies a probe in later snapshots. All else of it may change.
type key struct {
	name     string
	address  netip.Addr
	port     uint16
	protocol topology.ProbeProtocol
	nth      int // number among equal ones: two resource groups may use one name
}

func keyOf(p *topology.Probe) key { return key{p.Name, p.Address, p.Port, p.Protocol, 0} }

// New makes a prober. It asks nothing before Run.
func New(o Options) *Prober {
	if o.Source == nil {
		o.Source = topology.ProbeSource
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Memory == nil {
		o.Memory = oblivion{}
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return &Prober{options: o, inFlight: make(chan struct{}, maxInFlight), backends: map[key]*backend{}}
}

// Run asks the backends that Follow names until ctx ends, and those that come later from Begin on. It returns when the
// last probe has ended. Call it once.
func (p *Prober) Run(ctx context.Context) {
	p.mu.Lock()
	p.ctx = ctx
	p.mu.Unlock()
	p.Begin()
	<-ctx.Done()
	p.mu.Lock()
	p.ctx = nil // a later Begin starts nothing
	p.mu.Unlock()
	p.wait.Wait()
}

// Follow makes these the probes that are sent. Probes that stay keep their state, and those that an earlier process has
// sent go on with theirs. A new backend is down until it has answered, as in Azure. Begin asks it, and those whose path
// or interval is new: no probe may come before its snapshot decides.
func (p *Prober) Follow(probes []*topology.Probe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gone, known := p.backends, p.others
	names := make([]string, 0, len(probes))
	for _, t := range probes {
		names = append(names, t.Identity())
	}
	own := p.share(probes)
	p.backends = make(map[key]*backend, len(own))
	for _, t := range own {
		if !p.Sends() {
			t.Set(true)
			continue
		}
		k := keyOf(t)
		for p.backends[k] != nil {
			k.nth++
		}
		b := gone[k]
		if b == nil {
			b = &backend{prober: p, probe: t, since: time.Now(), changed: make(chan struct{}, 1)}
			b.resume(known[t.Identity()])
			p.backends[k] = b
			continue
		}
		delete(gone, k)
		p.backends[k] = b
		b.follow(t)
	}
	for _, b := range gone {
		b.end()
	}
	p.options.Memory.Keep(names)
	p.options.Changed()
}

// Begin asks the backends that Follow has changed since the last time, while Run runs.
func (p *Prober) Begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx == nil {
		return
	}
	for _, b := range p.backends {
		if b.stop == nil {
			p.start(b)
		}
		b.again()
	}
}

// start begins to ask a backend. p.mu is held.
func (p *Prober) start(b *backend) {
	var ctx context.Context
	ctx, b.stop = context.WithCancel(p.ctx)
	p.wait.Go(func() { b.run(ctx) })
}

// Health is what is known of one backend.
type Health struct {
	Probe *topology.Probe
	// Asked: the first probe has ended. Before, the backend is down.
	Asked bool
	Up    bool
	// Since is when Up changed last.
	Since time.Time
	// Reason is why the last probe failed; empty when it was answered.
	Reason string
	// Host is the other host that probes it; empty: this one does, or none.
	Host string
}

// Health describes every backend, in the order of names and addresses.
func (p *Prober) Health() []Health {
	p.mu.Lock()
	list := make([]Health, 0, len(p.backends))
	for _, b := range p.backends {
		list = append(list, b.health())
	}
	for _, o := range p.others {
		list = append(list, o.health())
	}
	p.mu.Unlock()
	slices.SortFunc(list, func(a, b Health) int {
		if c := strings.Compare(a.Probe.Name, b.Probe.Name); c != 0 {
			return c
		}
		x, y := netip.AddrPortFrom(a.Probe.Address, a.Probe.Port), netip.AddrPortFrom(b.Probe.Address, b.Probe.Port)
		return x.Compare(y)
	})
	return list
}
