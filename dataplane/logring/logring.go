// Package logring keeps whoever logs from waiting for whoever reads the log. A Handler takes records into a bounded
// ring. A goroutine of its own hands them on, for as long as there are some. What does not fit is counted.
package logring

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// size is how many records wait at most.
	size = 1024
	// sizeOfInfo is how many wait when records below slog.LevelWarn are left out: a flood of them leaves room for others.
	sizeOfInfo = size * 3 / 4
)

// Handler is a slog.Handler that never waits. Safe for concurrent use.
type Handler struct {
	to   slog.Handler
	ring *ring
}

// ring is shared by a Handler and those derived from it.
type ring struct {
	root     slog.Handler // receives what is told of left-out records
	waiting  chan waiting
	draining atomic.Bool
	lost     atomic.Uint64
	told     uint64        // of lost; the drain's
	idle     chan struct{} // a token while nothing drains
}

// waiting is a record with the handler that it goes to.
type waiting struct {
	to     slog.Handler
	record slog.Record
}

var _ slog.Handler = (*Handler)(nil)

// New returns a Handler that hands records on to another one. A Handler is returned as it is.
func New(to slog.Handler) *Handler {
	if h, is := to.(*Handler); is {
		return h
	}
	r := &ring{root: to, waiting: make(chan waiting, size), idle: make(chan struct{}, 1)}
	r.idle <- struct{}{}
	return &Handler{to, r}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, l slog.Level) bool { return h.to.Enabled(ctx, l) }

// Handle implements slog.Handler. It never fails: a record without room is counted.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	h.ring.put(waiting{h.to, r.Clone()})
	return nil
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attributes []slog.Attr) slog.Handler {
	return &Handler{h.to.WithAttrs(attributes), h.ring}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler { return &Handler{h.to.WithGroup(name), h.ring} }

// Lost counts the records that found no room.
func (h *Handler) Lost() uint64 { return h.ring.lost.Load() }

// Flush waits until all records are handed on, or until ctx ends, and reports whether they are.
func (h *Handler) Flush(ctx context.Context) bool {
	for {
		select {
		case <-h.ring.idle:
			h.ring.idle <- struct{}{}
			if len(h.ring.waiting) == 0 && !h.ring.draining.Load() {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// put queues a record, and starts the drain if there is none.
func (r *ring) put(w waiting) {
	if w.record.Level < slog.LevelWarn && len(r.waiting) >= sizeOfInfo {
		r.lost.Add(1)
		return
	}
	select {
	case r.waiting <- w:
	default:
		r.lost.Add(1)
		return
	}
	if r.draining.CompareAndSwap(false, true) {
		go r.drain()
	}
}

// drain hands records on until none waits.
func (r *ring) drain() {
	<-r.idle
	for {
		select {
		case w := <-r.waiting:
			w.to.Handle(context.Background(), w.record) // there is nowhere to tell a failure
			continue
		default:
		}
		if lost := r.lost.Load(); lost > r.told {
			record := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines left out, because the log was not read fast enough", 0)
			record.AddAttrs(slog.Uint64("notShown", lost-r.told))
			r.told = lost
			r.root.Handle(context.Background(), record)
			continue
		}
		r.draining.Store(false)
		// What came before draining was false has no drain of its own.
		if len(r.waiting) == 0 || !r.draining.CompareAndSwap(false, true) {
			r.idle <- struct{}{}
			return
		}
	}
}
