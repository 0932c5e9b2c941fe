package probe

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// backend is one probe that is sent again and again.
type backend struct {
	prober  *Prober
	stop    context.CancelFunc // nil until it is started; guarded by the prober's mu
	changed chan struct{}      // the probe has changed: ask now

	mu     sync.Mutex
	probe  *topology.Probe // the last snapshot's; guarded by mu, as all below
	state  state
	since  time.Time
	reason error
	due    bool // it is to be asked as it is now, and not at the next interval
}

// resume goes on where an earlier process has ended, or another host; nil: none has. A backend that nobody has asked is
// down.
func (b *backend) resume(at *other) {
	up, since, known := b.prober.options.Memory.Find(b.probe.Identity())
	if at != nil {
		since = at.since
		up, known = at.answered()
	}
	if known {
		b.state, b.since = state{asked: true, up: up}, since
	}
	b.probe.Set(b.state.up)
}

// remember keeps what is known for another process. mu is held.
func (b *backend) remember() {
	if b.state.asked {
		b.prober.options.Memory.Set(b.probe.Identity(), b.state.up, b.since)
	}
}

// follow takes over a later snapshot's probe.
func (b *backend) follow(t *topology.Probe) {
	b.mu.Lock()
	b.due = b.due || t.Path != b.probe.Path || t.Interval != b.probe.Interval
	b.probe = t
	t.Set(b.state.up)
	b.remember()
	b.mu.Unlock()
}

// again has it asked now if that is due.
func (b *backend) again() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.due {
		return
	}
	b.due = false
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// end stops asking. Later answers are ignored. The prober's mu is held.
func (b *backend) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stop != nil {
		b.stop()
	}
}

func (b *backend) health() Health {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := Health{Probe: b.probe, Asked: b.state.asked, Up: b.state.up, Since: b.since}
	if b.reason != nil {
		h.Reason = b.reason.Error()
	}
	return h
}

// run asks at every interval until ctx ends.
func (b *backend) run(ctx context.Context) {
	for {
		b.mu.Lock()
		t := b.probe
		b.mu.Unlock()
		next := time.NewTimer(t.Interval)
		if !b.once(ctx, t) {
			next.Stop()
			return
		}
		select {
		case <-ctx.Done():
			next.Stop()
			return
		case <-next.C:
		case <-b.changed:
			next.Stop()
		}
	}
}

// errFault is the outcome of a probe that panicked: nothing shows that the backend is up.
var errFault = errors.New("nsgd failed at the probe, by a fault of its own that the log describes")

// once sends one probe and books its outcome. It reports false when ctx has ended.
func (b *backend) once(ctx context.Context, t *topology.Probe) bool {
	select {
	case <-ctx.Done():
		return false
	case b.prober.inFlight <- struct{}{}:
	}
	err := errFault
	b.prober.options.Faults.Try(fault.Probe, func() { err = b.prober.ask(ctx, t) })
	<-b.prober.inFlight
	b.mu.Lock()
	defer b.mu.Unlock()
	if ctx.Err() != nil { // the failure says nothing about the backend
		return false
	}
	b.reason = err
	if !b.state.book(err, t.Threshold) {
		return true
	}
	b.since = time.Now()
	b.probe.Set(b.state.up)
	b.remember()
	b.prober.options.Changed()
	log := b.prober.options.Log.With("probe", t.Name, "backend", netip.AddrPortFrom(t.Address, t.Port), "protocol", t.Protocol)
	if b.state.up {
		log.Info("backend up")
	} else {
		log.Warn("backend down", "reason", err)
	}
	return true
}

// state is what is known of one backend. The zero value has not been asked; like Azure it counts
// as down.
type state struct {
	asked bool
	up    bool
	row   int // outcomes in a row that contradict up
}

// refusal is a failure that needs no threshold: another status than 200, a refused connection or
// a reset.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// book takes the outcome of one probe, nil for an answer. It reports whether the state has changed
// or is known for the first time. The first outcome and a refusal decide at once; others need
// threshold in a row.
func (s *state) book(err error, threshold int) (changed bool) {
	answered := err == nil
	if s.asked && answered == s.up {
		s.row = 0
		return false
	}
	s.row++
	var refused refusal
	if s.asked && s.row < threshold && !errors.As(err, &refused) {
		return false
	}
	s.asked, s.up, s.row = true, answered, 0
	return true
}
