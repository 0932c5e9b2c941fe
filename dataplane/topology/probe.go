package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// ProbeProtocol is what a health probe speaks.
type ProbeProtocol uint8

// The protocols of probes.
const (
	ProbeTCP   ProbeProtocol = iota // a connection is answered
	ProbeHTTP                       // GET is answered with 200
	ProbeHTTPS                      // the same within TLS, whatever the certificate
)

// String is Azure's word.
func (p ProbeProtocol) String() string { return [...]string{"Tcp", "Http", "Https"}[p] }

// Probe is what a load balancer asks one backend. A probe is up until Set says otherwise.
type Probe struct {
	// Name is LOAD BALANCER/PROBE.
	Name      string
	Target    *Endpoint
	Address   netip.Addr // of the backend
	Protocol  ProbeProtocol
	Port      uint16
	Path      string // of ProbeHTTP and ProbeHTTPS
	Interval  time.Duration
	Threshold int // answers or failures in a row that change the state
	// Shares is how many backends of several virtual networks have the address. The remainder of a
	// probe's source port divided by it says which one is meant: Share. 0 and 1: only this one.
	Share, Shares int

	health   *health
	balancer string // id in lower case
}

// health is the state of a probe. Backends point to it; Follow lets it share the state of the
// same probe in the snapshot before.
type health struct{ down *atomic.Bool }

func newHealth() *health { return &health{down: &atomic.Bool{}} }

// NewProbe makes a probe without a load balancer, for a prober that is used alone. It is up.
func NewProbe(p Probe) *Probe {
	p.health = newHealth()
	return &p
}

// Up reports that the backend takes new flows. Safe for concurrent use.
func (p *Probe) Up() bool { return !p.health.down.Load() }

// Set says whether the backend takes new flows, in all snapshots with this probe. Safe for
// concurrent use.
func (p *Probe) Set(up bool) { p.health.down.Store(!up) }

// Here reports that the backend is attached to this host.
func (p *Probe) Here() bool {
	return p.Target == nil || p.Target.Attachment >= 0 && !p.Target.Elsewhere
}

// Probes are the health probes of the policy's load balancers, one for each probe and backend
// that a rule brings together. The slice is shared and must not be changed.
func (s *Snapshot) Probes() []*Probe { return s.probes }

// addProbeSource gives the platform's attachment the address that IPv6 backends are probed from, if there
// are any. Without it the attachment needs no IPv6.
func (s *attachedSet) addProbeSource(probes []*Probe) {
	if !slices.ContainsFunc(probes, func(p *Probe) bool { return p.Address.Is6() }) {
		return
	}
	for _, a := range s.attachments {
		if a.Kind == Platform {
			a.Addresses = append(a.Addresses, host(PlatformAddresses[2]))
		}
	}
}

// probedBackend is what a load balancer asks once for all its rules.
type probedBackend struct {
	probe   *policy.HealthProbe
	to      *Endpoint
	address packet.Addr
}

// addProbe makes the probe of a backend once.
func (t *translation) addProbe(lb *policy.LoadBalancer, p *policy.HealthProbe, of backend, known map[probedBackend]*health) *health {
	key := probedBackend{p, of.to, of.address}
	if h := known[key]; h != nil {
		return h
	}
	h := newHealth()
	known[key] = h
	probe := &Probe{Name: lb.Name + "/" + p.Name, Target: of.to, Address: of.address.Netip(), Port: p.Port, Path: p.Path,
		Interval: p.Interval, Threshold: p.Threshold, health: h, balancer: strings.ToLower(lb.ID)}
	switch p.Protocol {
	case "Http":
		probe.Protocol = ProbeHTTP
	case "Https":
		probe.Protocol = ProbeHTTPS
	}
	t.probes = append(t.probes, probe)
	return h
}

// shareAddresses tells backends of several virtual networks apart that have one address, which leads
// to none of them by itself.
func (t *translation) shareAddresses(byAddress *bart.Table[*Endpoint]) {
	for _, p := range t.probes {
		if e, _ := byAddress.Lookup(p.Address); e != nil {
			continue
		}
		a := packet.AddrFrom(p.Address)
		if !slices.Contains(t.shared[a], p.Target) {
			if t.shared == nil {
				t.shared = map[packet.Addr][]*Endpoint{}
			}
			t.shared[a] = append(t.shared[a], p.Target)
		}
	}
	for _, p := range t.probes {
		list := t.shared[packet.AddrFrom(p.Address)]
		p.Share, p.Shares = max(0, slices.Index(list, p.Target)), len(list)
	}
}

// probed is the endpoint that a packet of the platform is meant for, if several virtual networks
// have its address.
func (s *Snapshot) probed(t *packet.Tuple, c *choices) (*Endpoint, packet.Drop) {
	list := s.shared[t.Dst]
	if len(list) == 0 {
		return nil, packet.DropNoRoute
	}
	at := int(t.SrcPort) % len(list)
	if c != nil {
		at = c.of(len(list))
	}
	e := list[at]
	if e.Attachment < 0 {
		return e, packet.DropNoRoute
	}
	return e, packet.NotDropped
}

// ProbePort is the source port, from one on, by which a packet of the platform to an address reaches
// an endpoint. It is that port itself where the address is of one virtual network.
func (s *Snapshot) ProbePort(to *Endpoint, a netip.Addr, port uint16) uint16 {
	list := s.shared[packet.AddrFrom(a)]
	for range list {
		if list[int(port)%len(list)] == to {
			break
		}
		port++
	}
	return port
}

// Identity identifies a probe across snapshots and processes by all that its answer depends on.
func (p *Probe) Identity() string {
	target := ""
	if p.Target != nil {
		target = p.Target.identity()
	}
	return fmt.Sprint(p.balancer, " ", p.Name, " ", target, " ", p.Address, " ", p.Protocol, " ", p.Port, " ", p.Path)
}

// followProbes takes over the states of the probes that stay.
func (s *Snapshot) followProbes(before *Snapshot) {
	if len(s.probes) == 0 || len(before.probes) == 0 {
		return
	}
	old := make(map[string]*Probe, len(before.probes))
	for _, p := range before.probes {
		old[p.Identity()] = p
	}
	for _, p := range s.probes {
		if was := old[p.Identity()]; was != nil {
			p.health.down = was.health.down
		}
	}
}
