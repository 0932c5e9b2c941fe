package lab

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nsgd/nsgd/tun"
)

// Protocol is what a probe sends.
type Protocol string

// The protocols of probes.
const (
	TCP  Protocol = "TCP"
	UDP  Protocol = "UDP"
	ICMP Protocol = "ICMP" // ICMPv6 between IPv6 addresses
)

// Options say what Serve opens and Run sends, and how long Run waits. The zero value
// is the lab's.
type Options struct {
	// NamedPort is the TCP port that the lab's rules name; 0 is 80.
	NamedPort uint16
	// OtherPort is a TCP port that no rule names; 0 is 8080.
	OtherPort uint16
	// UDPPort is the port of the datagrams; 0 is 9000.
	UDPPort uint16
	// Timeout is how long an answer may take before the packet counts as
	// dropped, since a filter that denies sends nothing back; 0 is one second.
	Timeout time.Duration
	// Platform adds probes of the platform's services, which platform.Serve answers.
	Platform bool
	// Explain names the verdict for a result; its Source, Destination, Protocol
	// and Port are set. Several goroutines call it. Nil: results have no explanation.
	Explain func(Result) (networkSecurityGroup, rule string, allowed bool)

	// within replaces tun.Do in tests.
	within func(namespace string, f func() error) error
}

// patience multiplies Timeout when the verdict allows the probe, so that a busy
// machine is not taken for a filter.
const patience = 5

func (o Options) withDefaults() Options {
	if o.NamedPort == 0 {
		o.NamedPort = 80
	}
	if o.OtherPort == 0 {
		o.OtherPort = 8080
	}
	if o.UDPPort == 0 {
		o.UDPPort = 9000
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	if o.within == nil {
		o.within = tun.Do
	}
	return o
}

// Result is one probe and what became of it.
type Result struct {
	Source, Destination Host
	Protocol            Protocol
	Port                uint16 // 0 for ICMP

	// Passed is whether the answer came back over the wire; Err is why not.
	Passed bool
	Err    error

	// Explained says that Options.Explain was asked; its answer is in the fields
	// after it.
	Explained            bool
	NetworkSecurityGroup string
	Rule                 string
	Allowed              bool
}

// Mismatch reports whether the wire contradicts the verdict.
func (r *Result) Mismatch() bool { return r.Explained && r.Allowed != r.Passed }

// ErrMismatch is what Run wraps when the wire and the verdicts disagree.
var ErrMismatch = errors.New("wire and verdict disagree")

// Run sends one TCP connection to each of the two ports, one UDP datagram and one
// ICMP echo from every host to every other of its family, all at the same time. The
// servers of Serve have to be up. Results are in the order of hosts: by source, then
// destination, then protocol and port.
//
// The results are complete even when the error wraps ErrMismatch; any other
// error means that the probes were interrupted.
func Run(ctx context.Context, hosts []Host, options Options) ([]Result, error) {
	o := options.withDefaults()
	results := plan(hosts, o)
	if o.Platform {
		results = append(results, planPlatform(hosts)...)
	}
	var wait sync.WaitGroup
	for i := range results {
		wait.Go(func() { probe(ctx, &results[i], uint16(i), o) })
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("lab: probes interrupted: %w", err)
	}

	mismatches := 0
	for i := range results {
		if results[i].Mismatch() {
			mismatches++
		}
	}
	if mismatches > 0 {
		return results, fmt.Errorf("lab: %d of %d probes: %w", mismatches, len(results), ErrMismatch)
	}
	return results, nil
}

func plan(hosts []Host, o Options) []Result {
	var results []Result
	for _, source := range hosts {
		for _, destination := range hosts {
			if source == destination || source.Family() != destination.Family() {
				continue
			}
			results = append(results,
				Result{Source: source, Destination: destination, Protocol: TCP, Port: o.NamedPort},
				Result{Source: source, Destination: destination, Protocol: TCP, Port: o.OtherPort},
				Result{Source: source, Destination: destination, Protocol: UDP, Port: o.UDPPort},
				Result{Source: source, Destination: destination, Protocol: ICMP},
			)
		}
	}
	return results
}

// probe fills in r. The number tells this probe's echo requests from others'.
func probe(ctx context.Context, r *Result, number uint16, o Options) {
	timeout := o.Timeout
	if o.Explain != nil {
		r.NetworkSecurityGroup, r.Rule, r.Allowed = o.Explain(*r)
		r.Explained = true
		if r.Allowed {
			timeout *= patience
		}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	within := func(f func() error) error { return o.within(r.Source.Namespace, f) }
	switch {
	case r.Destination.Namespace == PlatformNamespace:
		r.Err = askPlatform(ctx, within, r)
	case r.Protocol == TCP:
		r.Err = echoTCP(ctx, within, r)
	case r.Protocol == UDP:
		r.Err = echoUDP(ctx, within, r)
	case r.Protocol == ICMP:
		r.Err = echoICMP(ctx, within, r, number)
	default:
		r.Err = fmt.Errorf("lab: unknown protocol %q", r.Protocol)
	}
	r.Passed = r.Err == nil
}
