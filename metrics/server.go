package metrics

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	readHeaderTimeout = 10 * time.Second
	// maxScrapes bounds what scrapers can cost at a time; more get 503.
	maxScrapes = 4
)

// Options are what NewGatherer shows.
type Options struct {
	Engine *dataplane.Engine
	// Version of the program.
	Version string
	// Reloads tells how often the policy was reloaded and how often refused.
	Reloads func() (succeeded, failed uint64)
	// Also are collectors of what is beside the engine.
	Also []prometheus.Collector
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

// NewServer returns an HTTP server that serves g under /metrics and is not serving yet.
func NewServer(g prometheus.TransactionalGatherer, log *slog.Logger) *http.Server {
	errorLog := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerForTransactional(g, promhttp.HandlerOpts{ErrorLog: errorLog, MaxRequestsInFlight: maxScrapes}))
	return &http.Server{Handler: mux, ReadHeaderTimeout: readHeaderTimeout, ErrorLog: errorLog}
}
