// Package control carries the answers of package inspect and of package ask over a unix
// socket, as HTTP and JSON. Server answers, Client asks.
//
// Each verb has a file with its route, or shares one with a close relative. All paths are below
// /v1/; the comment at a route says what the question looks like. A refusal is an Error with a
// status other than 200.
package control

import (
	"context"
	"log/slog"
	"net"
	"net/http"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/serve"
)

const (
	// maxConnections bounds the connections. One more ends the oldest.
	maxConnections = 128
	// maxAnswers bounds the answers that wait for their readers. One more ends the oldest.
	maxAnswers = 16
	// maxStreams bounds the answers without an end: trace, capture and verify.
	maxStreams = 64
)

// Server serves a service on a listener.
type Server struct {
	service *inspect.Service
	http    *serve.Server
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
			mux.HandleFunc(method+" /v1/"+r.path, func(w http.ResponseWriter, q *http.Request) {
				if r.role == change {
					if err := mayChange(q); err != nil {
						w.Header().Set("Connection", "close") // or the answer waits for the end of a body, and a stream's has none
						refuse(w, err)
						return
					}
				}
				r.answer(s, w, q)
			})
		}
	}
	s.http = serve.New(mux, serve.Options{
		Timeout: serve.Timeout, IdleTimeout: serve.IdleTimeout,
		Connections: maxConnections, Answers: maxAnswers, Streams: maxStreams, Ending: s.endStreams,
		ErrorLog: slog.NewLogLogger(service.Log().Handler(), slog.LevelWarn),
	})
	return s
}

// Serve answers until Shutdown.
func (s *Server) Serve(l net.Listener) error { return s.http.Serve(l) }

// Shutdown closes the listener, which removes the socket, and lets running answers end.
// When ctx ends first, they are cut off. Streams end at once, with their summary.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }
