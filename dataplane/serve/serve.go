// Package serve is the HTTP server under metrics and control. It bounds what a peer can take: the time of each part of
// a request and an answer, the connections, and the answers that wait for their readers. Whoever is slow loses its own
// connection, and nobody waits for it.
package serve

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxHeaderLen bounds a request's head, in bytes.
	maxHeaderLen = 64 << 10
	// maxBodyLen bounds a request's body, except that of a stream, in bytes.
	maxBodyLen = 1 << 20
)

// The usual bounds of Options.
const (
	Timeout     = 10 * time.Second
	IdleTimeout = 30 * time.Second
)

// Options are the bounds of a Server.
type Options struct {
	// Timeout bounds the reading of a head, of a body, and each write except a stream's.
	Timeout time.Duration
	// IdleTimeout bounds the time between two requests of a connection.
	IdleTimeout time.Duration
	// Connections is how many there are at a time. One more ends the oldest of the peer that has the most of them.
	// Those without a request end first.
	Connections int
	// Answers is how many connections may hold an answer in memory; see Hold.
	Answers int
	// Streams is how many connections may be streams, Reserve how many of them only a peer with precedence; see Stream.
	Streams, Reserve int
	// Ending is called when Shutdown begins; nil: nothing is.
	Ending func()
	// ErrorLog receives what goes wrong at a connection.
	ErrorLog *log.Logger
}

// Server answers HTTP within bounds. Safe for concurrent use.
type Server struct {
	options Options
	http    http.Server
	ending  atomic.Bool

	mu          sync.Mutex
	connections map[net.Conn]*connection // guarded by mu
	turn        uint64                   // of the last change of a connection; guarded by mu
	streams     int                      // guarded by mu
	ordinary    int                      // streams without precedence; guarded by mu
}

// connection is one of a Server. Its server's mu guards it, except conn and from.
type connection struct {
	conn net.Conn
	from string // the peer; see peerOf

	turn            uint64 // when it last began to wait, or to be served
	serving, holds  bool
	stream, evicted bool
	precedence      bool // of a stream
}

type connectionKey struct{}

// New returns a server that is not serving yet.
func New(handler http.Handler, o Options) *Server {
	s := &Server{options: o, connections: map[net.Conn]*connection{}}
	s.http = http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.answer(handler, w, r) }),
		ReadHeaderTimeout: o.Timeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout, IdleTimeout: o.IdleTimeout,
		MaxHeaderBytes: maxHeaderLen, ErrorLog: o.ErrorLog, Protocols: onlyHTTP1(),
		ConnState: s.changed,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			s.mu.Lock()
			defer s.mu.Unlock()
			return context.WithValue(ctx, connectionKey{}, s.known(c))
		},
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

// Shutdown closes the listener and lets running answers end. When ctx ends first, they are cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.ending.Store(true)
	s.hurryStreams()
	if s.options.Ending != nil {
		s.options.Ending()
	}
	if s.http.Shutdown(ctx) != nil {
		return s.Close()
	}
	return nil
}

// hurryStreams gives the writes that wait for a stream's reader their last time.
func (s *Server) hurryStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.connections {
		if k.stream {
			k.conn.SetWriteDeadline(time.Now().Add(min(lastGrace, s.options.Timeout)))
		}
	}
}

// Close cuts all answers off.
func (s *Server) Close() error { return s.http.Close() }

// known is the record of a connection, made when it is new. mu is held.
func (s *Server) known(c net.Conn) *connection {
	k := s.connections[c]
	if k == nil {
		s.turn++
		k = &connection{conn: c, from: peerOf(c), turn: s.turn}
		s.connections[c] = k
	}
	return k
}

// changed follows the connections: net/http calls it with each change.
func (s *Server) changed(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.known(c)
		if len(s.connections) > s.options.Connections {
			s.evict(func(k *connection) bool { return !k.stream })
		}
	case http.StateClosed, http.StateHijacked:
		delete(s.connections, c)
	}
}

// evict ends a connection among some: of the peer that has the most of them the oldest, those without a request
// first. mu is held.
func (s *Server) evict(among func(*connection) bool) {
	have := map[string]int{}
	for _, k := range s.connections {
		if among(k) {
			have[k.from]++
		}
	}
	var victim *connection
	for _, k := range s.connections {
		if among(k) && (victim == nil || k.before(victim, have)) {
			victim = k
		}
	}
	if victim == nil {
		return
	}
	victim.evicted = true
	delete(s.connections, victim.conn)
	socket := socketOf(victim.conn)
	if tcp, ok := socket.(*net.TCPConn); ok {
		tcp.SetLinger(0) // the kernel must not keep what the peer does not read
	}
	socket.Close()
}

// before reports that a connection ends before another. have counts the connections of each peer.
func (k *connection) before(other *connection, have map[string]int) bool {
	if n, m := have[k.from], have[other.from]; n != m {
		return n > m
	}
	if k.serving != other.serving {
		return !k.serving
	}
	return k.turn < other.turn
}

// answer serves one request.
func (s *Server) answer(handler http.Handler, w http.ResponseWriter, r *http.Request) {
	k := r.Context().Value(connectionKey{}).(*connection)
	a := &writer{ResponseWriter: w, server: s, connection: k, control: http.NewResponseController(w)}
	s.serving(k, true)
	defer func() {
		s.serving(k, false)
		a.hurry() // for what net/http has buffered
	}()
	r.Body = &body{ReadCloser: r.Body, writer: a}
	handler.ServeHTTP(a, r)
}

// serving notes that a connection has a request, or that its answer has ended.
func (s *Server) serving(k *connection, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn++
	k.turn, k.serving, k.holds = s.turn, is, false
	if k.stream && !is {
		k.stream = false
		s.count(k, -1)
	}
}

// Hold notes that the answer to w is in memory until it is written. When more answers are than Options.Answers, the
// oldest one of the peer that has the most of them ends. Only w of a Server counts.
func Hold(w http.ResponseWriter) {
	a, ok := w.(*writer)
	if !ok {
		return
	}
	s := a.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.connection.evicted {
		return
	}
	held := 0
	a.connection.holds = true
	for _, k := range s.connections {
		if k.holds {
			held++
		}
	}
	if held > s.options.Answers {
		s.evict(func(k *connection) bool { return k.holds })
	}
}

// count adds a stream, or takes it away. mu is held.
func (s *Server) count(k *connection, n int) {
	s.streams += n
	if !k.precedence {
		s.ordinary += n
	}
}

// ErrStreams is the refusal of one stream more than Options.Streams.
var ErrStreams = errors.New("too many streams at a time: end one")

// Stream makes the answer to w a stream: its body and its answer have no end, a write waits for its reader until the
// server ends, and no other connection ends it. Nobody else may wait for such a write. A peer with precedence may take
// Options.Reserve too. It fails with ErrStreams.
func Stream(w http.ResponseWriter, precedence bool) error {
	a, ok := w.(*writer)
	if !ok {
		return nil
	}
	s := a.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams >= s.options.Streams || !precedence && s.ordinary >= s.options.Streams-s.options.Reserve {
		return ErrStreams
	}
	a.connection.stream, a.connection.precedence = true, precedence
	s.count(a.connection, 1)
	a.stream = true
	return a.control.SetReadDeadline(time.Time{})
}

// Feed makes the answer to w a stream whose reader must keep up: each write has Options.Timeout. No peer has more than half of
// Options.Streams. It fails with ErrStreams.
func Feed(w http.ResponseWriter) error {
	a, ok := w.(*writer)
	if !ok {
		return nil
	}
	a.server.mu.Lock()
	have := 0
	for _, k := range a.server.connections {
		if k.stream && k.from == a.connection.from {
			have++
		}
	}
	a.server.mu.Unlock()
	if have >= (a.server.options.Streams+1)/2 {
		return ErrStreams
	}
	a.prompt = true
	return Stream(w, false)
}

// writer is an answer. Each write has Options.Timeout, and the whole has as much for each pacedBytes, except a stream.
type writer struct {
	http.ResponseWriter
	server     *Server
	connection *connection
	control    *http.ResponseController
	stream     bool
	prompt     bool      // a stream, see Feed
	begun      time.Time // of the first write
	sent       int
}

// Unwrap is for http.ResponseController.
func (a *writer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// writeAtOnce is how many bytes have Options.Timeout: a long answer ends for who does not read, and not for being long.
const writeAtOnce = 256 << 10

// pacedBytes has who reads, but slowly, hold what an answer is made of for a bounded time: 500 MB for 20 minutes.
const pacedBytes = 4 << 20

// Write implements http.ResponseWriter.
func (a *writer) Write(b []byte) (written int, err error) {
	for {
		part := b[written:min(written+writeAtOnce, len(b))]
		a.hurry()
		n, err := a.ResponseWriter.Write(part)
		a.sent += n
		if written += n; err != nil || written == len(b) {
			return written, err
		}
	}
}

// FlushError is for http.ResponseController.
func (a *writer) FlushError() error {
	a.hurry()
	return a.control.Flush()
}

// Flush implements http.Flusher.
func (a *writer) Flush() { a.FlushError() }

// lastGrace is how long a write may take once the server ends.
const lastGrace = time.Second

// hurry gives the next write its time.
func (a *writer) hurry() {
	if !a.server.ending.Load() {
		var end time.Time // none
		if !a.stream || a.prompt {
			end = time.Now().Add(a.server.options.Timeout)
		}
		if !a.stream {
			end = a.paced(end)
		}
		a.control.SetWriteDeadline(end)
	}
	if a.server.ending.Load() { // also when it began meanwhile
		a.control.SetWriteDeadline(time.Now().Add(min(lastGrace, a.server.options.Timeout)))
	}
}

// paced is the end of the next write, which what is written already may make an earlier one.
func (a *writer) paced(end time.Time) time.Time {
	if a.begun.IsZero() {
		a.begun = time.Now()
	}
	timeout := a.server.options.Timeout
	if last := a.begun.Add(timeout + time.Duration(float64(timeout)*float64(a.sent)/pacedBytes)); last.Before(end) {
		return last
	}
	return end
}

// body is a request's, of maxBodyLen at most unless the answer is a stream.
type body struct {
	io.ReadCloser
	writer *writer
	read   int64
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (n int, err error) {
	if b.writer.stream {
		return b.ReadCloser.Read(p)
	}
	if b.read > maxBodyLen {
		return 0, &http.MaxBytesError{Limit: maxBodyLen}
	}
	n, err = b.ReadCloser.Read(p)
	if b.read += int64(n); b.read > maxBodyLen {
		return 0, &http.MaxBytesError{Limit: maxBodyLen}
	}
	return n, err
}
