// Package denylog logs the packets that rules deny, as many a second as somebody reads.
package denylog

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
)

const (
	// MaxPerSecond is the most that Run shows.
	MaxPerSecond = 1000
	// quietAfter is how long nothing is denied before the log says what it has not shown.
	quietAfter = time.Second
	// deniedEvents is how many denied packets wait for the log, of each worker.
	deniedEvents = 256
)

// Engine carries the packets. Its methods are safe for concurrent use.
type Engine interface {
	Watch(watch.Options) (*watch.Subscription, error)
	Registry() *topology.Registry
	Snapshot() *topology.Snapshot
	Faults() *fault.Log
}

// Run logs packets that rules deny, perSecond at most, until ctx ends. It loses none
// from the count: each line, or one of its own once nothing more comes, says how many there were
// beside those shown. A panic costs one line.
func Run(ctx context.Context, engine Engine, log *slog.Logger, perSecond int) error {
	filter, err := watch.Parse("reason " + packet.DropRule.String())
	if err != nil {
		return err
	}
	s, err := engine.Watch(watch.Options{Filter: filter, DroppedOnly: true, PerSecond: perSecond, Events: deniedEvents})
	if err != nil {
		return err
	}
	defer s.Close()
	d := denied{engine: engine, log: log, subscription: s}
	events := make([]watch.Event, deniedEvents)
	for {
		quiet, cancel := context.WithTimeout(ctx, quietAfter)
		n, err := s.Read(quiet, events)
		cancel()
		for i := range events[:n] {
			if !engine.Faults().Try(fault.DenyLog, func() { d.show(&events[i]) }) {
				d.failed++
			}
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			d.sum()
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			d.sum()
		default:
			return err
		}
	}
}

// denied is the log of denied packets.
type denied struct {
	engine       Engine
	log          *slog.Logger
	subscription *watch.Subscription
	failed       uint64 // at which show has panicked
	told         uint64 // of those that were not shown
}

func (d *denied) show(e *watch.Event) {
	p := &e.Packet
	attributes := []any{
		"from", d.attachment(e.From, e), "to", d.attachment(e.To, e), "protocol", packet.ProtocolName(p.Proto),
		"source", hostPort(p, p.Src, p.SrcPort), "destination", hostPort(p, p.Dst, p.DstPort),
	}
	for _, slot := range e.Rules[:e.N] {
		// A denial ends the evaluation, so that there is one.
		if k, ok := d.engine.Registry().At(slot, e.Generation); ok && k.Access == ruleset.Deny {
			attributes = append(attributes, "networkSecurityGroup", k.NetworkSecurityGroup, "direction", k.Direction.String(), "rule", k.Rule)
		}
	}
	if n := d.notShown(); n > 0 {
		attributes = append(attributes, "notShown", n)
	}
	d.log.Info("denied", attributes...)
}

// sum says how many were not shown since the last line.
func (d *denied) sum() {
	if n := d.notShown(); n > 0 {
		d.log.Info("denied packets not shown", "notShown", n)
	}
}

func (d *denied) notShown() uint64 {
	all := d.subscription.Skipped() + d.subscription.Lost() + d.failed
	n := all - d.told
	d.told = all
	return n
}

func (d *denied) attachment(i int32, e *watch.Event) string {
	return d.engine.Snapshot().NameSince(int(i), e.Generation)
}

// hostPort is an address, with a port where the protocol has some and the packet shows it.
func hostPort(p *packet.Packet, a packet.Addr, port uint16) string {
	if p.Proto != packet.ProtoTCP && p.Proto != packet.ProtoUDP || p.Fragment.IsLater() {
		return a.Netip().String()
	}
	return netip.AddrPortFrom(a.Netip(), port).String()
}
