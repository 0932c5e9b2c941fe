package flowlog

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// block is one record on its way out.
type block struct {
	log    *flowLog
	path   string // of its file below the folder
	record []byte // without a line break
	denied int    // bytes of the record that are rows of denied packets
	rows   uint64

	wal  *wal // that has it, in that half; nil: none
	half uint32
	done []byte // in the log, by kind of sink
	// recovered says that an earlier process made the record, of length bytes. Its file may have it.
	recovered bool
	length    int
}

const (
	// queueBytes bounds the records that wait in a sink.
	queueBytes = 64 << 20
	// retryEvery is how long a sink waits after a failure before it tries again.
	retryEvery = time.Second
)

// sink writes records in a goroutine of its own. Records that it can't write yet wait. When too
// many wait, it drops the oldest and counts their rows.
type sink struct {
	kind    int // sinkFolder or sinkPrinter
	deliver func(*block) error
	failed  func(error) // told of each failure
	limit   int

	lost    atomic.Uint64 // rows
	failing atomic.Bool

	mu      sync.Mutex
	waiting []*block // oldest first; guarded by mu
	bytes   int      // of waiting blocks and the one that is being delivered; guarded by mu
	denied  int      // of these, bytes of rows of denied packets; guarded by mu

	// deniedRoom is how many bytes of rows of denied packets may still come in this interval,
	// deniedPerHour bounds those of an hour; 0: none but the queue's. Recorder.mu guards these.
	deniedRoom, deniedPerHour  int
	deniedGranted, deniedSpent int    // room at the beginning of the interval, bytes in the hour before that
	deniedHour                 string // of deniedSpent

	wake    chan struct{} // one pending token: something waits, or the end has come
	closing chan struct{}
	done    chan struct{}
}

func newSink(kind, limit int, deliver func(*block) error, failed func(error)) *sink {
	return &sink{kind: kind, deliver: deliver, failed: failed, limit: limit,
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{})}
}

// put queues a record. It never waits.
func (s *sink) put(b *block) {
	s.mu.Lock()
	s.waiting = append(s.waiting, b)
	s.bytes += len(b.record)
	s.denied += b.denied
	s.shed()
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// shed drops the oldest records until the others fit; mu is held.
func (s *sink) shed() {
	for s.bytes > s.limit && len(s.waiting) > 1 {
		s.release(s.waiting[0])
		s.lost.Add(s.waiting[0].rows)
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
	}
}

// release gives a record's room back. It won't come again. mu is held.
func (s *sink) release(b *block) {
	b.finished(s.kind)
	s.bytes -= len(b.record)
	s.denied -= b.denied
}

// renewDenied sets the room for rows of denied packets at the beginning of an interval. With
// those that still wait they never take up more than their part of the queue, and in an hour no more than their part
// of the folder.
func (s *sink) renewDenied(hour string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deniedSpent += s.deniedGranted - s.deniedRoom
	if s.deniedHour != hour {
		s.deniedHour, s.deniedSpent = hour, 0
	}
	s.deniedRoom = s.limit/deniedOfQueue - s.denied
	if s.deniedPerHour > 0 {
		s.deniedRoom = min(s.deniedRoom, s.deniedPerHour/deniedOfHour, s.deniedPerHour-s.deniedSpent)
	}
	s.deniedGranted = s.deniedRoom
}

// take removes and returns the oldest record; nil when there is none.
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

// finish ends what take began. A record that was not written waits again, as the oldest.
func (s *sink) finish(b *block, written bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if written {
		s.release(b)
		return
	}
	s.waiting = append([]*block{b}, s.waiting...)
	s.shed()
}

// crowded asks a maker of many records to wait a little. It does not ask when waiting would
// not help.
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
		if errors.Is(err, errLeftOut) {
			s.finish(b, true)
			continue
		}
		s.finish(b, err == nil)
		s.failing.Store(err != nil)
		if err == nil {
			b.log.written(b)
			continue
		}
		s.failed(err)
		select {
		case <-time.After(retryEvery):
		case <-s.closing: // one try is enough
			return
		}
	}
}

// close writes the waiting records until ctx ends or a record can't be written. The rest is
// lost and counted, except what the next process finds in the write-ahead log.
func (s *sink) close(ctx context.Context, next bool) {
	close(s.closing)
	select {
	case <-s.done:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.waiting {
		if !next || b.wal == nil {
			s.lost.Add(b.rows)
		}
	}
	s.waiting = nil
}
