package topology

import (
	"net/netip"
	"sync/atomic"
	"time"
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

// Probe is what a load balancer asks of one backend. A probe is up until Set says otherwise.
type Probe struct {
	// Name is LOAD BALANCER/PROBE.
	Name      string
	Target    *Endpoint
	Address   netip.Addr // of the backend
	Protocol  ProbeProtocol
	Port      uint16
	Path      string // of ProbeHTTP and ProbeHTTPS
	Interval  time.Duration
	Threshold int // answers, or failures, in a row that change the state

	health *health
}

// health is a probe's state, which snapshots share.
type health struct{ down atomic.Bool }

// Up reports that the backend takes new flows. Safe for concurrent use.
func (p *Probe) Up() bool { return !p.health.down.Load() }

// Set says whether the backend takes new flows, in all snapshots that have the probe. Safe for
// concurrent use.
func (p *Probe) Set(up bool) { p.health.down.Store(!up) }

// Probes are the health probes of the policy's load balancers, one for each backend and port;
// the slice is shared and must not be changed.
func (s *Snapshot) Probes() []*Probe { return nil }
