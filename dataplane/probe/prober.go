// Package probe asks the backends of load balancers whether they live, as Azure's health
// probes do: with real connections from 168.63.129.16, which go through the engine and its
// network security groups like any other packet. A rule that blocks the tag AzureLoadBalancer
// takes a backend out of rotation.
package probe

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane/topology"
)

// maxInFlight bounds the probes that wait for an answer at a time, and so the sockets. More
// backends than that are still asked, one after the other.
const maxInFlight = 512

// Options configure a Prober.
type Options struct {
	// Namespace is the network namespace behind the platform's attachment; empty: the
	// process's own.
	Namespace string
	// Source is the address that probes come from, which the namespace must have; zero:
	// 168.63.129.16.
	Source netip.Addr
	// Log receives each change of a backend's state, one line each; nil discards it.
	Log *slog.Logger
}

// Prober asks backends and tells the topology which of them are up. Safe for concurrent use.
type Prober struct {
	options  Options
	inFlight chan struct{}

	mu       sync.Mutex
	backends map[key]*backend // guarded by mu
	ctx      context.Context  // guarded by mu; nil until Run, and after it
	wait     sync.WaitGroup   // of the backends' goroutines; added to under mu
}

// key is what makes a probe of a later snapshot the same: what else it has may change.
type key struct {
	name     string
	address  netip.Addr
	port     uint16
	protocol topology.ProbeProtocol
	nth      int // among equal ones: load balancers of two resource groups may share a name
}

func keyOf(p *topology.Probe) key { return key{p.Name, p.Address, p.Port, p.Protocol, 0} }

// New makes a prober that asks nobody yet.
func New(o Options) *Prober {
	if !o.Source.IsValid() {
		o.Source = topology.PlatformAddresses[0]
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Prober{options: o, inFlight: make(chan struct{}, maxInFlight), backends: map[key]*backend{}}
}

// Run asks the backends that Follow names until ctx ends, and returns when the last question has
// ended. Call it once.
func (p *Prober) Run(ctx context.Context) {
	p.mu.Lock()
	p.ctx = ctx
	for _, b := range p.backends {
		p.start(b)
	}
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	p.ctx = nil // a later Follow must start nothing
	p.mu.Unlock()
	p.wait.Wait()
}

// Follow makes these the probes that are sent. Those that stay keep what is known of them; a new
// backend is down until it has answered, as in Azure. Where Azure would use IPv6, which the lab's
// platform has not got, the backend stays up.
func (p *Prober) Follow(probes []*topology.Probe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gone := p.backends
	p.backends = make(map[key]*backend, len(probes))
	for _, t := range probes {
		if !t.Address.Is4() {
			continue
		}
		k := keyOf(t)
		for p.backends[k] != nil {
			k.nth++
		}
		b := gone[k]
		if b == nil {
			b = &backend{prober: p, probe: t, since: time.Now(), changed: make(chan struct{}, 1)}
			t.Set(false)
			p.backends[k] = b
			if p.ctx != nil {
				p.start(b)
			}
			continue
		}
		delete(gone, k)
		p.backends[k] = b
		b.follow(t)
	}
	for _, b := range gone {
		b.end()
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
	// Asked says that the first probe has ended; until then the backend is down.
	Asked bool
	Up    bool
	// Since is when Up became what it is.
	Since time.Time
	// Reason is why the last probe failed; empty when it was answered.
	Reason string
}

// Health tells of every backend, in the order of names and addresses.
func (p *Prober) Health() []Health {
	p.mu.Lock()
	list := make([]Health, 0, len(p.backends))
	for _, b := range p.backends {
		list = append(list, b.health())
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
