package inspect

import (
	"context"
	"errors"
	"time"

	"github.com/nsgd/nsgd/dataplane/watch"
)

// What the fields of a WatchRequest may be at most.
const (
	MaxCount     = 1<<31 - 1
	MaxPerSecond = 1_000_000
	MaxSample    = 1_000_000
	MaxSnapLen   = 262_144 // what Wireshark takes; no packet is as long
)

// WatchRequest chooses packets to trace or capture. The zero value takes every packet, and
// has no end.
type WatchRequest struct {
	// Filter is an expression, see watch.Filter.
	Filter string
	// Denied leaves out what was carried.
	Denied bool
	// Decided leaves out what was carried as part of a live flow: what remains began a flow or was dropped.
	Decided bool
	// Poll is how often a waiting reader looks; 0: at once, nearly. See watch.Options.
	Poll time.Duration
	// Headers has a capture keep the headers of packets alone, up to SnapLen.
	Headers bool
	// Count ends the stream after so many packets; 0: it has no end.
	Count int
	// PerSecond bounds the packets of a second; 0: no bound.
	PerSecond int
	// Sample takes one packet of so many; 0: all.
	Sample int
	// SnapLen is how many bytes of each packet a capture keeps; 0: all of them.
	SnapLen int
}

// WatchSummary says how complete a stream is.
type WatchSummary struct {
	// Packets counts those that the stream has had so far.
	Packets uint64 `json:"packets"`
	// Lost counts those that found no room, because the client read too late.
	Lost uint64 `json:"lost"`
	// Skipped counts those that PerSecond or Sample left out.
	Skipped uint64 `json:"skipped"`
}

const (
	// streamEvents is how many packets a stream takes at a time.
	streamEvents = 256
	// captureBytes has room for a burst of superpackets, for each worker.
	captureBytes = 8 << 20
	// summaryEvery is how often a summary may come between packets.
	summaryEvery = time.Second
)

// Stream gives live packets to one watcher. It belongs to one goroutine, and Close ends it.
type Stream struct {
	service      *Service
	subscription *watch.Subscription
	request      WatchRequest
	namer        *namer
	packets      uint64
	told         WatchSummary // in the last summary
	toldAt       time.Time

	match  flowMatch // of Follow, as all that follows
	cursor uint64    // of the next flow that ends
	missed uint64    // flows that ended and were gone before they were read
}

// Watch begins a stream, which is to be traced or, with keepBytes, captured. The error is
// watch.ErrWatchers when there are too many watchers, or about the request.
func (s *Service) Watch(q WatchRequest, keepBytes bool) (*Stream, error) {
	filter, err := watch.Parse(q.Filter)
	if err != nil {
		return nil, err
	}
	o := watch.Options{Filter: filter, DroppedOnly: q.Denied, DecidedOnly: q.Decided, PerSecond: q.PerSecond, Every: q.Sample, Poll: q.Poll}
	if keepBytes {
		o.Bytes, o.Snap = captureBytes, watch.MaxSnap
		if q.SnapLen > 0 {
			o.Snap = min(q.SnapLen, watch.MaxSnap)
		}
	}
	subscription, err := s.options.Engine.Watch(o)
	if err != nil {
		return nil, err
	}
	return &Stream{service: s, subscription: subscription, request: q, namer: &namer{engine: s.options.Engine}}, nil
}

// Close ends the stream and lets another watcher have its place.
func (s *Stream) Close() { s.subscription.Close() }

// Summary says how complete the stream is so far.
func (s *Stream) Summary() WatchSummary {
	return WatchSummary{Packets: s.packets, Lost: s.subscription.Lost(), Skipped: s.subscription.Skipped()}
}

// sink takes what a stream has. A summary may come at any time between packets.
type sink struct {
	packet  func(*watch.Event, []byte) error
	summary func(WatchSummary) error
	flush   func() error
}

// run gives packets to the sink until there are enough. When ctx ends, it still gives those
// that wait. The first summary says that packets are watched.
func (s *Stream) run(ctx context.Context, to sink) error {
	if err := errors.Join(to.summary(s.told), to.flush()); err != nil {
		return err
	}
	events := make([]watch.Event, streamEvents)
	for s.left() > 0 {
		n, err := s.subscription.Read(ctx, events[:min(s.left(), streamEvents)])
		if ctx.Err() != nil {
			s.subscription.Close()
		}
		if n == 0 && err != nil {
			break
		}
		if err := s.give(events[:n], to); err != nil {
			return err
		}
	}
	return errors.Join(to.summary(s.Summary()), to.flush())
}

func (s *Stream) give(events []watch.Event, to sink) error {
	for i := range events {
		s.packets++
		if err := to.packet(&events[i], s.subscription.Bytes(&events[i])); err != nil {
			return err
		}
	}
	now := s.Summary()
	if (now.Lost != s.told.Lost || now.Skipped != s.told.Skipped) && time.Since(s.toldAt) >= summaryEvery {
		s.told, s.toldAt = now, time.Now()
		if err := to.summary(now); err != nil {
			return err
		}
	}
	return to.flush()
}

// left is how many packets the stream may still have.
func (s *Stream) left() int {
	if s.request.Count == 0 {
		return streamEvents
	}
	return s.request.Count - int(s.packets)
}
