package logring_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/nsgd/nsgd/dataplane/logring"
)

// gate lets lines through once it is open.
type gate struct {
	open chan struct{}
	text strings.Builder
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.open
	return g.text.Write(b)
}

func closed() (*gate, *logring.Handler) {
	g := &gate{open: make(chan struct{})}
	return g, logring.New(slog.NewTextHandler(g, nil))
}

func TestWhoLogsDoesNotWait(t *testing.T) {
	g, h := closed()
	log := slog.New(h)
	const each = 1000
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for n := range each {
				log.With("by", i).WithGroup("g").Warn("line", "n", n)
			}
		})
	}
	group.Wait()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if h.Flush(ended) {
		t.Error("all is flushed, though nothing was read")
	}
	lost := h.Lost()
	close(g.open)
	if !h.Flush(t.Context()) {
		t.Error("not flushed")
	}
	text := g.text.String()
	shown := strings.Count(text, "msg=line by=")
	if lost == 0 || uint64(shown)+lost != 8*each || strings.Count(text, " g.n=") != shown {
		t.Errorf("%d lines, %d lost, of %d", shown, lost, 8*each)
	}
	if want := fmt.Sprintf("notShown=%d\n", lost); strings.Count(text, want) != 1 {
		t.Errorf("no line says %q", want)
	}
	log.Warn("later")
	if h.Flush(t.Context()); !strings.HasSuffix(g.text.String(), "msg=later\n") || h.Lost() != lost {
		t.Error("the log does not go on")
	}
}

func TestAFloodOfPlainLinesLeavesRoomForWarnings(t *testing.T) {
	g, h := closed()
	log := slog.New(h)
	for h.Lost() == 0 {
		log.Info("denied")
	}
	log.Error("attachment lost")
	close(g.open)
	if h.Flush(t.Context()); !strings.Contains(g.text.String(), "attachment lost") || h.Lost() != 1 {
		t.Errorf("%d lost, the error among them", h.Lost())
	}
}

func TestARingIsNotPutIntoAnother(t *testing.T) {
	h := logring.New(slog.DiscardHandler)
	if logring.New(h) != h {
		t.Error("a ring in a ring")
	}
}

func TestNoLineIsLostBetweenTwoDrains(t *testing.T) {
	g, h := closed()
	close(g.open)
	log := slog.New(h)
	const lines = 3000
	for n := range lines {
		log.Warn("line", "n", n)
		if n%3 == 0 {
			h.Flush(t.Context())
		}
	}
	h.Flush(t.Context())
	if n := strings.Count(g.text.String(), "msg=line"); n != lines || h.Lost() != 0 {
		t.Errorf("%d of %d lines", n, lines)
	}
}
