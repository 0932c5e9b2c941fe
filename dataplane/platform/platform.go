// Package platform answers what every machine in Azure may ask its host: DNS at 168.63.129.16 and the instance metadata
// service (IMDS) at 169.254.169.254. It knows who asks by the address, which the engine has checked, and answers from
// the policy in force.
//
// Questions are hostile: messages, connections, and what is forwarded at a time are bounded, in all and for each asker.
package platform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/serve"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// The addresses of the services.
var (
	DNSAddress  = topology.PlatformAddresses[0]
	IMDSAddress = topology.PlatformAddresses[1]
)

const (
	// idle is how long a client of DNS over TCP may be silent, and how long one request of HTTP may take.
	idle = 10 * time.Second
	// connections bound those of each service, and the questions that are forwarded at a time; perAsker those of one
	// address.
	connections, perAsker = 256, 16
	// MaxForwarders bounds Options.Forwarders.
	MaxForwarders = 3
)

// Options say where the services are and what they know.
type Options struct {
	// Sockets are those of the services. Serve closes them, also on an error.
	Sockets Sockets
	// Policy is the one in force. It is called for each question, concurrently.
	Policy func() *policy.Set
	// MAC is what a NIC's machine was seen with, for NICs without one in the policy; nil: not known. It is called as
	// Policy is. Nil: none is known.
	MAC func(*policy.NetworkInterface) net.HardwareAddr
	// Forwarders are asked for names that aren't Azure's internal ones, one after the other, from the process's own
	// namespace. None: such names are unknown. At most MaxForwarders.
	Forwarders []netip.AddrPort
	// Faults hears of panics at a question, which gets no answer; nil: nobody does.
	Faults *fault.Log
	// Log gets what goes wrong at a connection; nil: no log.
	Log *slog.Logger
}

// Sockets are where the services listen.
type Sockets struct {
	Streams   net.Listener // DNS over TCP
	Datagrams net.PacketConn
	Web       net.Listener // IMDS
}

// Listen opens the sockets in a namespace that has the platform's device with its addresses. The ports need
// CAP_NET_BIND_SERVICE there.
func Listen(ctx context.Context, namespace string) (s Sockets, err error) {
	err = tun.Do(namespace, func() (err error) {
		var config net.ListenConfig
		dns := netip.AddrPortFrom(DNSAddress, 53)
		if s.Streams, err = config.Listen(ctx, "tcp", dns.String()); err != nil {
			return err
		}
		if s.Datagrams, err = config.ListenPacket(ctx, "udp", dns.String()); err != nil {
			return err
		}
		s.Web, err = config.Listen(ctx, "tcp", netip.AddrPortFrom(IMDSAddress, 80).String())
		return err
	})
	if err != nil {
		return Sockets{}, errors.Join(fmt.Errorf("platform services: %w", err), s.Close())
	}
	return s, nil
}

// Close closes those that are open.
func (s Sockets) Close() error {
	var errs []error
	if s.Streams != nil {
		errs = append(errs, s.Streams.Close())
	}
	if s.Datagrams != nil {
		errs = append(errs, s.Datagrams.Close())
	}
	if s.Web != nil {
		errs = append(errs, s.Web.Close())
	}
	return errors.Join(errs...)
}

// Serve answers until ctx ends or stop is called. stop waits until the services have ended.
func Serve(ctx context.Context, o Options) (stop func(), err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := newServices(o)
	streams, web := o.Sockets.Streams, o.Sockets.Web
	datagrams, ok := o.Sockets.Datagrams.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("platform services: datagrams: a %T is no UDP socket", o.Sockets.Datagrams), o.Sockets.Close())
	}
	server := serve.New(http.HandlerFunc(s.metadata), serve.Options{Timeout: idle, IdleTimeout: idle, Connections: connections, Answers: connections,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug)})
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() { s.datagrams(ctx, datagrams) })
	wait.Go(func() { s.streams(ctx, streams) })
	wait.Go(func() { server.Serve(web) })
	wait.Go(func() {
		<-ctx.Done()
		datagrams.Close()
		streams.Close()
		late, end := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer end()
		server.Shutdown(late)
	})
	return func() { cancel(); wait.Wait() }, nil
}

// services answer from a policy.
type services struct {
	options Options
	busy    gate
	query   func(ctx context.Context, network string, to netip.AddrPort, query []byte) ([]byte, error)

	mu    sync.Mutex
	set   *policy.Set // of known
	known *directory
}

func newServices(o Options) *services { return &services{options: o, query: exchange} }

// directory is that of the policy in force.
func (s *services) directory() *directory {
	set := s.options.Policy()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set != set {
		s.set, s.known = set, newDirectory(set)
	}
	return s.known
}

// gate bounds what goes on at a time, in all and for each asker.
type gate struct {
	mu  sync.Mutex
	all int
	of  map[netip.Addr]int
}

// enter reports that there is room; leave gives it back.
func (g *gate) enter(from netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all >= connections || g.of[from] >= perAsker {
		return false
	}
	if g.of == nil {
		g.of = map[netip.Addr]int{}
	}
	g.all++
	g.of[from]++
	return true
}

func (g *gate) leave(from netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if g.of[from]--; g.of[from] == 0 {
		delete(g.of, from)
	}
}
