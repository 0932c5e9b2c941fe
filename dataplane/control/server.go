// Package control carries the answers of package inspect and of package ask over a unix
// socket, as HTTP and JSON. Server answers, Client asks.
//
// Each verb has a file with its route, or shares one with a close relative. All paths are below
// /v1/; the comment at a route says what the question looks like. A refusal is an Error with a
// status other than 200.
package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// readHeaderTimeout ends connections that ask nothing.
const readHeaderTimeout = 10 * time.Second

// Server serves a service on a listener.
type Server struct {
	service *inspect.Service
	http    http.Server
	// streams is over when answers that have no end must end.
	streams    context.Context
	endStreams context.CancelFunc
}

// NewServer returns a server that is not serving yet.
func NewServer(service *inspect.Service) *Server {
	s := &Server{service: service}
	s.streams, s.endStreams = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	for _, r := range routes {
		for _, method := range r.methods {
			mux.HandleFunc(method+" /v1/"+r.path, func(w http.ResponseWriter, q *http.Request) { r.answer(s, w, q) })
		}
	}
	s.http = http.Server{
		Handler: mux, ReadHeaderTimeout: readHeaderTimeout,
		ErrorLog: slog.NewLogLogger(service.Log().Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers until Shutdown.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown closes the listener, which removes the socket, and lets running answers end.
// When ctx ends first, they are cut off. Streams end at once, with their summary.
func (s *Server) Shutdown(ctx context.Context) error {
	s.endStreams()
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}
