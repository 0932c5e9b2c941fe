// Package dhcp tells a machine behind an interface its addresses, as Azure's host does: DHCPv4 from 168.63.129.16,
// DHCPv6 and router advertisements from fe80::1234:5678:9abc. Where it stands for the gateway too, it answers ARP and
// neighbour solicitations for everything that the machine can't reach by itself.
//
// Everything that it says comes from the policy. It keeps no leases: a NIC has one machine and fixed addresses.
package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/ruleset/policy"
	"golang.org/x/time/rate"
)

const (
	// perSecond and burst bound the frames that one interface has read and answered. Further ones are dropped unread.
	perSecond, burst = 200, 400
	// maxFrame is more than any question has, in bytes. A longer frame is cut, and so not understood.
	maxFrame = 2048
	// reopenAfter is how long an interface that is away or down is left alone before it is tried again.
	reopenAfter = time.Second
	// patience is how long a frame may wait for room in the interface's queue.
	patience = time.Second
)

// Options configure a Responder.
type Options struct {
	// Open opens the interface's packet socket, as the function Open does.
	Open func() (fd, mtu int, err error)
	// Interface is the name of the host's side: a VM's tap, a container's veth. It may come and go.
	Interface string
	// NetworkInterface is the NIC of the present policy; nil while the policy doesn't have it, and nothing is
	// answered then. It is called for each frame, from the goroutine of Run.
	NetworkInterface func() *policy.NetworkInterface
	// Client is the only hardware address that is answered; nil: any.
	Client net.HardwareAddr
	// Gateway has it stand for the default gateway and for every other address of the virtual network. Leave it
	// unset where a router or the other machines answer for themselves.
	Gateway bool
	// Wait says that the interface may come later: a missing one is no warning.
	Wait bool
	// Log gets a line when the interface can't be read, and when it can again; nil: no log.
	Log *slog.Logger
}

// Responder answers on one interface. Its Stats may be read concurrently.
type Responder struct {
	options Options
	limit   *rate.Limiter
	open    func(Options) (c conn, mtu int, err error)
	reopen  time.Duration
	now     func() time.Time
	stats   counters
}

type counters struct{ answered, ignored, limited atomic.Uint64 }

// Stats count frames since the start. Frames that are no questions aren't counted.
type Stats struct {
	Answered uint64
	Ignored  uint64 // malformed, from somebody else, or not to be answered
	Limited  uint64 // dropped unread: more than the interface's share
}

// New makes a responder. It answers nothing before Run.
func New(o Options) *Responder {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("interface", o.Interface)
	return &Responder{options: o, limit: rate.NewLimiter(perSecond, burst), open: openInterface, reopen: reopenAfter, now: time.Now}
}

// Stats returns what was counted so far.
func (r *Responder) Stats() Stats {
	return Stats{r.stats.answered.Load(), r.stats.ignored.Load(), r.stats.limited.Load()}
}

// Run answers until ctx ends. An interface that is away or down is looked for again, under its name. Call it once.
func (r *Responder) Run(ctx context.Context) {
	said := ""
	for {
		err := r.serve(ctx, func() {
			if said != "" {
				r.options.Log.Info("DHCP answers again")
			}
			said = ""
		})
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != said {
			level := slog.LevelWarn
			if r.options.Wait && errors.Is(err, ErrMissing) {
				level = slog.LevelInfo
			}
			r.options.Log.Log(ctx, level, "DHCP can't answer: the interface is tried again", "every", r.reopen, "reason", text)
			said = text
		}
		again := time.NewTimer(r.reopen)
		select {
		case <-ctx.Done():
			again.Stop()
			return
		case <-again.C:
		}
	}
}

// serve opens the interface and answers until it fails or ctx ends. It calls up once it can read.
func (r *Responder) serve(ctx context.Context, up func()) error {
	conn, mtu, err := r.open(r.options)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	next := r.now() // of the advertisement that nobody asked for
	buffer := make([]byte, maxFrame)
	for first := true; ; {
		if err := conn.SetReadDeadline(next); err != nil {
			return err
		}
		n, err := conn.Read(buffer)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("read: %w", err)
		}
		if first {
			first = false
			up()
		}
		var answer []byte
		if err != nil {
			next = next.Add(advertiseEvery)
			answer = r.advertise(mtu)
		} else {
			answer = r.reply(buffer[:n], mtu)
		}
		if answer != nil {
			send(conn, answer)
		}
	}
}

// send writes a frame. One that finds no room is lost; the machine asks again.
func send(conn conn, frame []byte) {
	conn.SetWriteDeadline(time.Now().Add(patience))
	conn.Write(frame)
}

// reply is answer within the interface's share, with its outcome counted. A panic of a decoder costs the frame: what
// a machine sends must not end the daemon.
func (r *Responder) reply(frame []byte, mtu int) (out []byte) {
	if !r.limit.Allow() {
		r.stats.limited.Add(1)
		return nil
	}
	defer func() {
		if fault := recover(); fault != nil {
			r.options.Log.Error("DHCP: a frame was not understood", "panic", fault)
			out = nil
		}
		if out == nil {
			r.stats.ignored.Add(1)
		} else {
			r.stats.answered.Add(1)
		}
	}()
	return r.answer(frame, mtu)
}
