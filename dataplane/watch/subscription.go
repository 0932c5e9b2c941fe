// Package watch lets a reader look at packets while they pass: trace, capture, samples in the log
// and flow logs are made of it.
//
// A Subscription has a ring for each worker. The worker puts an Event into it for each packet that
// the subscription's Filter takes; one reader takes the events out. Nothing waits: a full ring
// loses the event, and counts it. Events hold no pointers and name rules and attachments by
// number; package inspect knows the names.
package watch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// MaxSnap is the most bytes of a packet that can be kept: all of it.
const MaxSnap = 65_535

const (
	// DefaultEvents has room for what a worker carries between two reads.
	DefaultEvents = 4096
	// DefaultBytes has room for that many small packets, or for sixteen superpackets.
	DefaultBytes = 1 << 20

	maxEvents = 1 << 20
	maxBytes  = 1 << 30
	// minBytes has room for a packet while the reader holds another, wherever that one ends.
	minBytes = 4 * (MaxSnap + 1)

	// readEvery is how often a reader looks. Workers never have to wake it.
	readEvery = 2 * time.Millisecond
	maxPoll   = time.Second
)

// ErrClosed is returned by Read after Close.
var ErrClosed = errors.New("watch: the subscription is closed")

// Options choose what a subscription gets. The zero value is every packet, without its bytes.
type Options struct {
	// Filter takes packets; nil: all.
	Filter *Filter
	// DroppedOnly leaves out what was carried, whatever the filter says. A carried packet then
	// costs next to nothing.
	DroppedOnly bool
	// DecidedOnly leaves out what was carried as part of a live flow: what remains began a flow or was dropped. A carried
	// packet of a live flow then costs next to nothing too.
	DecidedOnly bool
	// Snap is how many bytes of each packet are kept, up to MaxSnap.
	Snap int
	// PerSecond bounds the events of all workers together; 0: no bound. The others are
	// counted as skipped.
	PerSecond int
	// Every takes one of so many events of a worker, and counts the others as skipped; 0 and 1: all.
	Every int
	// Events is how many events wait for the reader at most, for each worker, rounded up to a
	// power of two; 0: DefaultEvents.
	Events int
	// Bytes is how many bytes of packets wait at most, for each worker; 0: DefaultBytes. Without
	// Snap there are none.
	Bytes int
	// Poll is how often a waiting reader looks, up to a second; 0: every two milliseconds. A reader that nobody waits for
	// costs less with a longer one.
	Poll time.Duration
}

func (o *Options) check() error {
	switch {
	case o.Snap < 0 || o.Snap > MaxSnap:
		return fmt.Errorf("watch: snap %d: allowed are 0 to %d", o.Snap, MaxSnap)
	case o.PerSecond < 0:
		return fmt.Errorf("watch: per second %d: allowed are 0, no bound, and more", o.PerSecond)
	case o.Every < 0:
		return fmt.Errorf("watch: every %d: allowed are 0, all, and more", o.Every)
	case o.Events < 0 || o.Events > maxEvents:
		return fmt.Errorf("watch: events %d: allowed are 0 to %d", o.Events, maxEvents)
	case o.Poll < 0 || o.Poll > maxPoll:
		return fmt.Errorf("watch: poll %v: allowed are 0s to %v", o.Poll, maxPoll)
	case o.Bytes != 0 && (o.Bytes < minBytes || o.Bytes > maxBytes):
		return fmt.Errorf("watch: bytes %d: allowed are 0 and %d to %d", o.Bytes, minBytes, maxBytes)
	}
	if o.Events == 0 {
		o.Events = DefaultEvents
	}
	if o.Bytes == 0 {
		o.Bytes = DefaultBytes
	}
	if o.Poll == 0 {
		o.Poll = readEvery
	}
	if o.Snap == 0 {
		o.Bytes = 0
	}
	return nil
}

// Subscription is one watcher's view. Put is for the workers, each with its own number; Read
// and Bytes are for one reader at a time; the rest is safe for concurrent use.
type Subscription struct {
	options Options
	program atomic.Pointer[Program]
	rings   []*ring
	due     atomic.Int64 // when the next event is due by PerSecond, in nanoseconds
	skipped atomic.Uint64
	closed  chan struct{}
	once    sync.Once
	onClose func()
}

// New makes a subscription for so many workers. The filter's names are looked up in names; an
// unknown one is an *Error. onClose is called once, by Close.
func New(workers int, o Options, names *Names, onClose func()) (*Subscription, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	p, err := o.Filter.bind(names, true)
	if err != nil {
		return nil, err
	}
	s := &Subscription{options: o, closed: make(chan struct{}), onClose: onClose}
	s.program.Store(p)
	for range workers {
		s.rings = append(s.rings, newRing(o.Events, o.Bytes))
	}
	return s, nil
}

// Rebind looks the filter's names up again, because a policy may have added rules. A name that is
// gone matches nothing from then on.
func (s *Subscription) Rebind(names *Names) {
	p, _ := s.options.Filter.bind(names, false)
	s.program.Store(p)
}

// Snap is that of the options.
func (s *Subscription) Snap() int { return s.options.Snap }

// Wants reports whether DroppedOnly and DecidedOnly leave an event in.
func (s *Subscription) Wants(e *Event) bool {
	return e.Drop != packet.NotDropped || !s.options.DroppedOnly && (!s.options.DecidedOnly || e.Standing == Begins)
}

// Begin announces events of a worker, and End says that they are over. Later events of other
// workers wait for them, so that an answer never comes before its question. Take the events' time
// after Begin. Only that worker may call Begin, Since and End; without them events come out of
// order.
func (s *Subscription) Begin(worker int) { s.rings[worker].since.Store(beginning) }

// Since says when the events announced by Begin happened, in the form of Event.Time.
func (s *Subscription) Since(worker int, time int64) { s.rings[worker].since.Store(time) }

// End says that the announced events are over.
func (s *Subscription) End(worker int) { s.rings[worker].since.Store(idle) }

// Values of a ring's since that are no time: the worker is idle, or its time is not known yet.
const (
	idle      = 0
	beginning = 1
)

// Put gives the subscription an event of a worker, if the filter takes it; the packet's bytes
// come in two parts. It is for that worker only, allocates nothing and never waits.
func (s *Subscription) Put(worker int, e *Event, head, rest []byte) {
	if !s.program.Load().Match(e) {
		return
	}
	r := s.rings[worker]
	if r.met++; s.options.Every > 1 && (r.met-1)%uint64(s.options.Every) != 0 || s.options.PerSecond > 0 && !s.allow(e.Time) {
		s.skipped.Add(1)
		return
	}
	snap := s.options.Snap
	head = head[:min(len(head), snap)]
	rest = rest[:min(len(rest), snap-len(head))]
	e.ring = uint32(worker)
	r.put(e, head, rest)
}

// allow spreads PerSecond events over each second. Events that were due in the last tenth of a
// second and did not come may come at once.
func (s *Subscription) allow(now int64) bool {
	step := s.step()
	for {
		due := s.due.Load()
		from := max(due, now-int64(time.Second)/10)
		if due > now {
			if due-now <= step {
				return false
			}
			from = now // the clock was set back
		}
		if s.due.CompareAndSwap(due, from+step) {
			return true
		}
	}
}

func (s *Subscription) step() int64 { return max(int64(time.Second)/int64(s.options.PerSecond), 1) }

// spent reports that no event of a time would be put, whatever it is. With a filter, or with Every, that depends on the event.
func (s *Subscription) spent(now int64) bool {
	if s.options.PerSecond == 0 || s.options.Every > 1 || !s.options.Filter.takesAll() {
		return false
	}
	ahead := s.due.Load() - now
	return ahead > 0 && ahead <= s.step()
}

// Read waits for events and returns how many it put into the slice, the earliest first. It makes
// invalid what Bytes returned before. The error is ctx's, or ErrClosed; it comes after the last
// event.
func (s *Subscription) Read(ctx context.Context, into []Event) (int, error) {
	for _, r := range s.rings {
		r.release()
	}
	now, settled := s.settled()
	if n := s.collect(into, now, settled); n > 0 {
		return n, nil
	}
	tick := time.NewTicker(s.options.Poll)
	defer tick.Stop()
	for {
		var end error
		select {
		case <-ctx.Done():
			end = ctx.Err()
		case <-s.closed:
			end = ErrClosed
		case <-tick.C:
		}
		now, settled = s.settled()
		if end != nil {
			settled = math.MaxInt64
		}
		if n := s.collect(into, now, settled); n > 0 { // also after the end, for events from before it
			return n, nil
		}
		if end != nil {
			return 0, end
		}
	}
}

// patience is how long an event waits for earlier ones at most. The clock may have been set back.
const patience = int64(time.Second)

// settled returns the time of now, and the time that all later events come after.
func (s *Subscription) settled() (now, settled int64) {
	now = time.Now().UnixNano()
	settled = now
	for _, r := range s.rings {
		if since := r.since.Load(); since != idle {
			settled = min(settled, since)
		}
	}
	return now, settled
}

// collect merges the events of all rings that are not later than settled.
func (s *Subscription) collect(into []Event, now, settled int64) (n int) {
	for ; n < len(into); n++ {
		var from *ring
		var first *Event
		for _, r := range s.rings {
			if e := r.peek(); e != nil && (first == nil || e.Time < first.Time) {
				from, first = r, e
			}
		}
		if first == nil || first.Time > settled && first.Time-now < patience {
			break
		}
		into[n] = *first
		from.take(first)
	}
	return n
}

// Bytes are the first Snapped bytes of an event's packet, valid until the next Read.
func (s *Subscription) Bytes(e *Event) []byte {
	if e.Snapped == 0 {
		return nil
	}
	return s.rings[e.ring].data[e.at : e.at+e.Snapped]
}

// Lost counts the events that found no room.
func (s *Subscription) Lost() (n uint64) {
	for _, r := range s.rings {
		n += r.lost.Load()
	}
	return n
}

// Skipped counts the events that PerSecond and Every left out.
func (s *Subscription) Skipped() uint64 { return s.skipped.Load() }

// Close ends the subscription. A waiting Read returns ErrClosed, and workers give it no more events
// after their burst.
func (s *Subscription) Close() {
	s.once.Do(func() {
		close(s.closed)
		if s.onClose != nil {
			s.onClose()
		}
	})
}
