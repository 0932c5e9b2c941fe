// Package control carries the answers of package inspect and of package ask over a unix
// socket, and over mutual TLS, as HTTP and JSON. Server answers, Client asks.
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
	// reserve is the part of the streams that only who may change may take: an eighth.
	reserve = 8
	// maxLookers bounds the traces of those who may only look: others need watchers too.
	maxLookers = 4
)

// Server serves a service on a listener.
type Server struct {
	service *inspect.Service
	http    *serve.Server
	remote  *serve.Server
	// mutual and mayChange are of ServeRemote; nil before.
	mutual    *serve.Mutual
	mayChange []string
	lookers   chan struct{} // a place each
	// streams is over when answers that have no end must end.
	streams    context.Context
	endStreams context.CancelFunc
}

// NewServer returns a server that is not serving yet.
func NewServer(service *inspect.Service) *Server {
	s := &Server{service: service, lookers: make(chan struct{}, maxLookers)}
	s.streams, s.endStreams = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	for _, r := range routes {
		for _, method := range r.methods {
			mux.HandleFunc(method+" /v1/"+r.path, func(w http.ResponseWriter, q *http.Request) {
				who, err := s.client(q)
				if err == nil && r.role == change {
					err = who.denied
				}
				if err != nil {
					w.Header().Set("Connection", "close") // or the answer waits for the end of a body, and a stream's has none
					refuse(w, err)
					return
				}
				r.answer(s, w, q.WithContext(context.WithValue(q.Context(), clientKey{}, who)))
			})
		}
	}
	o := serve.Options{
		Timeout: serve.Timeout, IdleTimeout: serve.IdleTimeout,
		Connections: maxConnections, Answers: maxAnswers, Streams: maxStreams, Reserve: reserve, Ending: s.endStreams,
		ErrorLog: slog.NewLogLogger(service.Log().Handler(), slog.LevelWarn),
	}
	s.http = serve.New(mux, o)
	o.Connections, o.Answers, o.Streams, o.Reserve = maxRemoteConnections, maxRemoteAnswers, maxRemoteStreams, maxRemoteStreams/8
	o.ErrorLog = slog.NewLogLogger(service.Log().Handler(), slog.LevelDebug) // anybody can cause a line
	s.remote = serve.New(mux, o)
	return s
}

// Serve answers until Shutdown.
func (s *Server) Serve(l net.Listener) error { return s.http.Serve(l) }

// Shutdown closes the listener, which removes the socket, and lets running answers end.
// When ctx ends first, they are cut off. Streams end at once, with their summary.
func (s *Server) Shutdown(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- s.remote.Shutdown(ctx) }() // both have the same time
	err := s.http.Shutdown(ctx)
	return errors.Join(err, <-ended)
}
