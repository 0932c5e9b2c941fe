package console

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/watch"
)

const (
	// maxTaps bounds the different kinds of packets that are watched at a time: each takes one of watch.MaxWatchers.
	maxTaps = 3
	// tapPerSecond bounds the packets of a second.
	tapPerSecond = 1000
	// tapKeep is how many of the last packets wait for clients. Who reads too late is told how many it has missed.
	tapKeep = 2048
	// tapEvery is how often a client gets packets, and tapIdle how often it gets nothing, which shows whether it is there.
	tapEvery = 100 * time.Millisecond
	tapIdle  = 15 * time.Second
)

// tapKey says which packets are watched.
type tapKey struct {
	filter string
	kind   string // decided (begins a flow, or is dropped), denied or all
}

// request is what the engine is asked for.
func (k tapKey) request() (inspect.WatchRequest, error) {
	q := inspect.WatchRequest{Filter: k.filter, PerSecond: tapPerSecond, Poll: tapEvery / 2}
	switch k.kind {
	case "", "decided":
		q.Decided = true
	case "denied":
		q.Denied = true
	case "all":
	default:
		return q, fmt.Errorf("kind: %q: allowed are decided, denied and all", k.kind)
	}
	return q, nil
}

// taps are the packets that clients look at. All who look at the same have one subscription.
type taps struct {
	service *inspect.Service

	mu  sync.Mutex
	all map[tapKey]*tap // guarded by mu
}

// tap is one subscription. It ends with its last client.
type tap struct {
	users int                // guarded by the mu of taps
	stop  context.CancelFunc // ends the subscription

	mu      sync.Mutex
	lines   [tapKeep][]byte // guarded by mu, as all that follows
	next    uint64          // counts the lines so far
	changed chan struct{}   // closed and replaced with new lines
	err     error           // why there will be no more
}

// follow sends packets to a client until ctx ends.
func (t *taps) follow(ctx context.Context, k tapKey, f *feed) error {
	one, err := t.enter(k)
	if err != nil {
		return refusal{err}
	}
	defer t.leave(k, one)
	at := one.position()
	if err := f.send("packets", []byte(`{"missed":0,"packets":[]}`)); err != nil { // packets are watched from now on
		return err
	}
	for {
		lines, missed, changed, err := one.since(&at)
		switch {
		case err != nil:
			return refusal{err}
		case len(lines) > 0 || missed > 0:
			if err := f.send("packets", fmt.Appendf(nil, `{"missed":%d,"packets":[%s]}`, missed, bytes.Join(lines, []byte(",")))); err != nil {
				return err
			}
			changed = nil // more may wait already
		}
		if err := pause(ctx, f, changed); err != nil {
			return err
		}
	}
}

// pause waits at least tapEvery, and then for changed, unless that is nil.
func pause(ctx context.Context, f *feed, changed <-chan struct{}) error {
	timer := time.NewTimer(tapEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if changed == nil {
		return nil
	}
	timer.Reset(tapIdle)
	select {
	case <-changed:
		return nil
	case <-timer.C:
		return f.send("idle", []byte("0"))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enter is the tap of a key, begun for its first client.
func (t *taps) enter(k tapKey) (*tap, error) {
	q, err := k.request()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if one := t.all[k]; one != nil {
		one.users++
		return one, nil
	}
	if len(t.all) >= maxTaps {
		return nil, fmt.Errorf("%w: consoles look at %d kinds of packets: use one of their filters", watch.ErrWatchers, maxTaps)
	}
	stream, err := t.service.Watch(q, false)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	one := &tap{users: 1, stop: stop, changed: make(chan struct{})}
	if t.all == nil {
		t.all = map[tapKey]*tap{}
	}
	t.all[k] = one
	go one.run(ctx, stream)
	return one, nil
}

// leave ends a tap with its last client.
func (t *taps) leave(k tapKey, one *tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.users--; one.users == 0 {
		one.stop()
		delete(t.all, k)
	}
}

// run takes packets until ctx ends.
func (t *tap) run(ctx context.Context, stream *inspect.Stream) {
	defer stream.Close()
	var lines [][]byte
	err := stream.Trace(ctx, func(line *inspect.Trace) error {
		lines = append(lines, mustMarshal(line))
		return nil
	}, func() error {
		t.add(lines)
		lines = lines[:0]
		return nil
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err = err; err == nil {
		t.err = context.Canceled
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *tap) add(lines [][]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, line := range lines {
		t.lines[t.next%tapKeep] = line
		t.next++
	}
	if len(lines) > 0 {
		close(t.changed)
		t.changed = make(chan struct{})
	}
}

func (t *tap) position() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next
}

// since are the lines from a position on, and how many were missed; changed closes when there are more.
func (t *tap) since(at *uint64) (lines [][]byte, missed uint64, changed <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if oldest := t.next - min(t.next, tapKeep); *at < oldest {
		missed = oldest - *at
		*at = oldest
	}
	for ; *at < t.next; *at++ {
		lines = append(lines, t.lines[*at%tapKeep])
	}
	if len(lines) == 0 {
		err = t.err
	}
	return lines, missed, t.changed, err
}
