// Package metrics shows a running engine to Prometheus. The engine counts for itself, worker by
// worker; a scrape adds up the counts, so that the packet path knows nothing of Prometheus.
//
// What has few series goes through a registry (collector.go). Rules may be 100,000 and attachments
// 5,000: their series are made and sorted once (series.go), and a scrape only sets their values.
// Names and labels are a contract. Label sets are bounded by the configuration and the policy,
// never by traffic.
package metrics

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	readHeaderTimeout = 10 * time.Second
	// maxScrapes bounds the scrapes at a time; more get 503.
	maxScrapes = 4
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
}

// Reloads counts reloads of the policy and tells of the last one.
type Reloads struct {
	Succeeded, Failed uint64
	LastRefused       bool
	LastSuccess       time.Time     // when the policy in force was loaded
	LastDuration      time.Duration // of the last reload, refused or not; 0: there was none
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
	return prometheus.NewMultiTRegistry(
		prometheus.ToTransactionalGatherer(r), &rules{engine: o.Engine}, &attachments{engine: o.Engine})
}

// Server serves metrics under /metrics.
type Server struct{ http http.Server }

// NewServer returns a server of g that is not serving yet.
func NewServer(g prometheus.TransactionalGatherer, log *slog.Logger) *Server {
	errorLog := slog.NewLogLogger(&sparse{Handler: log.Handler(), last: &lastLine{}}, slog.LevelWarn)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerForTransactional(g, promhttp.HandlerOpts{ErrorLog: errorLog, MaxRequestsInFlight: maxScrapes}))
	return &Server{http.Server{Handler: mux, ReadHeaderTimeout: readHeaderTimeout, ErrorLog: errorLog}}
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
	if s.http.Shutdown(ctx) != nil {
		return s.http.Close()
	}
	return nil
}
