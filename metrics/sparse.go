package metrics

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// sparseEvery is how often a line may be logged that a client can cause.
const sparseEvery = time.Minute

// sparse passes on one record a minute, with the number of records that it left out before. A
// scraper that hangs up again and again must not fill the log.
type sparse struct {
	slog.Handler
	last *lastLine
}

// lastLine is shared by a handler and the handlers derived from it.
type lastLine struct {
	mu       sync.Mutex
	at       time.Time // zero: there was none; guarded by mu
	notShown uint64    // since; guarded by mu
}

// Handle implements slog.Handler.
func (s *sparse) Handle(ctx context.Context, r slog.Record) error {
	s.last.mu.Lock()
	if !s.last.at.IsZero() && r.Time.Sub(s.last.at) < sparseEvery {
		s.last.notShown++
		s.last.mu.Unlock()
		return nil
	}
	left := s.last.notShown
	s.last.at, s.last.notShown = r.Time, 0
	s.last.mu.Unlock()
	if left > 0 {
		r.AddAttrs(slog.Uint64("notShown", left))
	}
	return s.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (s *sparse) WithAttrs(attributes []slog.Attr) slog.Handler {
	return &sparse{s.Handler.WithAttrs(attributes), s.last}
}

// WithGroup implements slog.Handler.
func (s *sparse) WithGroup(name string) slog.Handler {
	return &sparse{s.Handler.WithGroup(name), s.last}
}
