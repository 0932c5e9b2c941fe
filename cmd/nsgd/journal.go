package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
)

// forJournal is a writer's lines with their priority before them, where standard error is the journal's: see
// sd-daemon(3). Elsewhere it is the writer itself.
func forJournal(w io.Writer) io.Writer {
	if w != os.Stderr {
		return w
	}
	if is, err := journal.StderrIsJournalStream(); !is || err != nil {
		return w
	}
	return &journalLines{to: w, priority: journal.PriErr}
}

// journalLines writes each line with a priority. Errors that nsgd ends with come without one of their own.
type journalLines struct {
	to       io.Writer
	mu       sync.Mutex
	priority journal.Priority // guarded by mu
}

// Write implements io.Writer. Each write is a line.
func (l *journalLines) Write(line []byte) (int, error) {
	if _, err := l.to.Write(fmt.Appendf(nil, "<%d>%s", l.priority, line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// journalHandler writes records to journalLines by the handler that it holds.
type journalHandler struct {
	slog.Handler
	lines *journalLines
}

// Handle implements slog.Handler.
func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.lines.mu.Lock()
	defer h.lines.mu.Unlock()
	h.lines.priority = priorityOf(r.Level)
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h journalHandler) WithAttrs(list []slog.Attr) slog.Handler {
	return journalHandler{h.Handler.WithAttrs(list), h.lines}
}

// WithGroup implements slog.Handler.
func (h journalHandler) WithGroup(name string) slog.Handler {
	return journalHandler{h.Handler.WithGroup(name), h.lines}
}

// priorityOf is the priority of a level.
func priorityOf(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
