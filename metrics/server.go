// Package metrics shows a running engine to Prometheus. The engine counts for itself, worker by
// worker; a scrape adds up the counts, so that the packet path knows nothing of Prometheus.
//
// What has few series goes through a registry (collector.go). Rules may be a million, see maxAllRules, and attachments
// 5,000: their series are made and sorted once (series.go), and a scrape only sets their values.
// Names and labels are a contract. Label sets are bounded by the configuration and the policy,
// never by traffic.
package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/serve"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// maxScrapes bounds the scrapes that are rendered at a time. More wait in their order, as the connections do
	// that a client may have, and get 503 behind serve.Timeout.
	maxScrapes = 4
	// maxAnswers bounds the scrapes that wait for their readers. One more ends the oldest.
	maxAnswers = 8
	// maxAnswerLen bounds a scrape's answer, in bytes. 100,000 rules have some 60 MB.
	maxAnswerLen = 256 << 20
	// maxConnections bounds the connections. One more ends the oldest.
	maxConnections = 64
)

// Options are what NewGatherer shows.
type Options struct {
	Engine *dataplane.Engine
	// Version of the program.
	Version string
	// Reloads tells how reloads of the policy went.
	Reloads func() Reloads
	// Also are collectors of what is beside the engine.
	Also []prometheus.Collector
	// Carrier keeps what has been shown; nil: counters begin with the process.
	Carrier Carrier
}

// Reloads counts reloads of the policy and tells of the last one.
type Reloads struct {
	Succeeded, Failed uint64
	LastRefused       bool
	LastSuccess       time.Time     // when the policy in force was loaded
	LastDuration      time.Duration // of the last reload, refused or not; 0: there was none
	// ServiceTagsWritten is when the service tag file in force was last written; zero: there is none.
	ServiceTagsWritten time.Time
}

// NewGatherer gathers all that there is to show: the engine, the Go runtime and the process.
// Safe for concurrent use. What Gather returns is valid until its done is called.
func NewGatherer(o Options) prometheus.TransactionalGatherer {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return prometheus.NewMultiTRegistry(newEngineGatherer(o), prometheus.ToTransactionalGatherer(r))
}

// newEngineGatherer gathers what the engine counts, in the order of the families' names. Rules
// and attachments may be so many that a registry's sorting and checks, done afresh by each
// scrape, would be most of its cost; they come sorted.
func newEngineGatherer(o Options) prometheus.TransactionalGatherer {
	r := prometheus.NewRegistry()
	r.MustRegister(&collector{o})
	r.MustRegister(o.Also...)
	var also prometheus.Gatherer = r
	if o.Carrier != nil {
		also = carry(r, o.Carrier)
	}
	return prometheus.NewMultiTRegistry(
		prometheus.ToTransactionalGatherer(also), &rules{engine: o.Engine, all: maxAllRules}, &attachments{engine: o.Engine})
}

// ServerOptions are what a Server serves.
type ServerOptions struct {
	Gatherer prometheus.TransactionalGatherer
	// Unready says why the daemon is not ready, before ctx ends or soon after; empty: it is ready.
	Unready func(ctx context.Context) []string
	// Version of the program.
	Version string
	// Console answers below /console/, see ConsolePath; nil: nothing does.
	Console Console
	// Profiles serves Go's profiles under /debug/pprof.
	Profiles bool
	// WebConfig is a web configuration file of Prometheus: TLS, client certificates and users. Empty: anybody may ask.
	WebConfig string
	Log       *slog.Logger
}

// Console is the console of package console.
type Console interface {
	http.Handler
	// End ends its answers that have no end.
	End()
}

const (
	// ConsolePath is where the console is.
	ConsolePath = "/console/"
	// maxStreams bounds the answers of the console that have no end. A browser's page has one while it is seen.
	maxStreams = 32
)

// Server serves /metrics, what tells whether the daemon is well, and the console.
type Server struct {
	*serve.Server
	handler   http.Handler
	webConfig string
	log       *slog.Logger
}

// NewServer returns a server that is not serving yet.
func NewServer(o ServerOptions) *Server {
	log := slog.New(&sparse{Handler: o.Log.Handler(), last: &lastLine{}})
	errorLog := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	render := promhttp.HandlerForTransactional(o.Gatherer, promhttp.HandlerOpts{ErrorLog: errorLog})
	places := make(chan struct{}, maxScrapes)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		wait, cancel := context.WithTimeout(r.Context(), serve.Timeout)
		defer cancel()
		select {
		case places <- struct{}{}:
			answer(w, r, render, func() { <-places })
		case <-wait.Done():
			http.Error(w, "too many scrapes at a time", http.StatusServiceUnavailable)
		}
	})
	addHealth(mux, &o)
	if o.Profiles {
		addProfiles(mux)
	}
	bounds := serve.Options{
		Timeout: serve.Timeout, IdleTimeout: serve.IdleTimeout, Connections: maxConnections, Answers: maxAnswers, ErrorLog: errorLog,
	}
	if o.Console != nil {
		mux.Handle(ConsolePath, o.Console)
		bounds.Streams, bounds.Ending = maxStreams, o.Console.End
	}
	return &Server{serve.New(mux, bounds), mux, o.WebConfig, log}
}

// Serve answers until Shutdown.
func (s *Server) Serve(l net.Listener) error {
	if s.webConfig == "" {
		return s.Server.Serve(l)
	}
	return s.ServeWeb(l, s.webConfig, s.log)
}

// pages are what scrapes were rendered into, to be used again.
var pages = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// answer renders a scrape whole before it writes the first byte. What rendering takes, such as its
// place among maxScrapes, does not wait for the peer: done gives that back.
func answer(w http.ResponseWriter, r *http.Request, render http.Handler, done func()) {
	p := rendered{Buffer: pages.Get().(*bytes.Buffer), header: w.Header(), status: http.StatusOK}
	defer pages.Put(p.Buffer)
	p.Reset()
	func() {
		defer done()
		render.ServeHTTP(&p, r)
	}()
	if p.tooLong {
		p.Reset()
		clear(p.header)
		http.Error(w, fmt.Sprintf("the metrics have more than %d bytes", maxAnswerLen), http.StatusInternalServerError)
		return
	}
	serve.Hold(w)
	p.header.Set("Content-Length", strconv.Itoa(p.Len()))
	w.WriteHeader(p.status)
	w.Write(p.Bytes()) // fails only when the peer went away, or is too slow
}

// rendered is an answer in memory.
type rendered struct {
	*bytes.Buffer
	header  http.Header
	status  int
	tooLong bool
}

// Header implements http.ResponseWriter.
func (p *rendered) Header() http.Header { return p.header }

// WriteHeader implements http.ResponseWriter.
func (p *rendered) WriteHeader(status int) { p.status = status }

// Write implements http.ResponseWriter.
func (p *rendered) Write(b []byte) (int, error) {
	if p.tooLong = p.tooLong || p.Len()+len(b) > maxAnswerLen; p.tooLong {
		return 0, errors.New("metrics: the answer is too long")
	}
	return p.Buffer.Write(b)
}
