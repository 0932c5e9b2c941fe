package flowlog

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// block is one record on its way out.
type block struct {
	log    *flowLog
	path   string // of its file below the folder
	record []byte // without a line break
	rows   uint64
}

const (
	// queueBytes bounds the records that wait in a sink.
	queueBytes = 64 << 20
	// retryEvery is how long a sink waits before it tries a record again that could not be written.
	retryEvery = time.Second
)

// sink writes records in a goroutine of its own. Those that it can't write yet wait; when too
// many do, the oldest are dropped and counted.
type sink struct {
	deliver func(*block) error
	failed  func(error) // told of each failure
	limit   int

	lost    atomic.Uint64 // rows
	failing atomic.Bool

	mu      sync.Mutex
	waiting []*block // oldest first; guarded by mu
	bytes   int      // of waiting and of what is being delivered; guarded by mu

	wake    chan struct{} // one pending token: something waits, or the end has come
	closing chan struct{}
	done    chan struct{}
}

func newSink(limit int, deliver func(*block) error, failed func(error)) *sink {
	return &sink{deliver: deliver, failed: failed, limit: limit,
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{})}
}

// put never waits.
func (s *sink) put(b *block) {
	s.mu.Lock()
	s.waiting = append(s.waiting, b)
	s.bytes += len(b.record)
	s.shed()
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// shed drops what is too much; mu is held.
func (s *sink) shed() {
	for s.bytes > s.limit && len(s.waiting) > 1 {
		s.bytes -= len(s.waiting[0].record)
		s.lost.Add(s.waiting[0].rows)
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
	}
}

// take is the oldest record, nil when there is none.
func (s *sink) take() *block {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return nil
	}
	b := s.waiting[0]
	s.waiting[0] = nil
	s.waiting = s.waiting[1:]
	return b
}

// finish ends what take began; a record that was not written waits again, as the oldest.
func (s *sink) finish(b *block, written bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if written {
		s.bytes -= len(b.record)
		return
	}
	s.waiting = append([]*block{b}, s.waiting...)
	s.shed()
}

// crowded asks who makes many records at once to wait a little. It asks nothing when waiting
// would not help.
func (s *sink) crowded() bool {
	if s.failing.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes > s.limit/2
}

// run writes until close.
func (s *sink) run() {
	defer close(s.done)
	for {
		b := s.take()
		if b == nil {
			select {
			case <-s.wake:
				continue
			case <-s.closing:
				if b = s.take(); b == nil {
					return
				}
			}
		}
		err := s.deliver(b)
		s.finish(b, err == nil)
		s.failing.Store(err != nil)
		if err == nil {
			b.log.written(b)
			continue
		}
		s.failed(err)
		select {
		case <-time.After(retryEvery):
		case <-s.closing: // no more than this one try
			return
		}
	}
}

// close writes what waits, until ctx ends or a record can't be written; the rest is lost.
func (s *sink) close(ctx context.Context) {
	close(s.closing)
	select {
	case <-s.done:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.waiting {
		s.lost.Add(b.rows)
	}
	s.waiting = nil
}
