package metrics

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
)

const (
	// readyEvery is how long an answer to whether the daemon is ready serves whoever asks next: asking is cheap for
	// a client, and wakes every worker.
	readyEvery = time.Second
	// readyPatience bounds the wait for the workers.
	readyPatience = 2 * time.Second
	// maxProfile bounds the time of a profile, in seconds.
	maxProfile = 60
)

// readiness remembers whether the daemon is ready.
type readiness struct {
	unready func(context.Context) []string
	now     func() time.Time

	mu      sync.Mutex
	at      time.Time // zero: nobody has asked; guarded by mu
	reasons []string  // guarded by mu
}

// ask says why the daemon is not ready; empty: it is.
func (r *readiness) ask(ctx context.Context) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); r.at.IsZero() || now.Sub(r.at) >= readyEvery {
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyPatience) // others wait for the same answer
		defer cancel()
		r.reasons, r.at = r.unready(wait), r.now()
	}
	return r.reasons
}

// answer serves /readyz.
func (r *readiness) answer(w http.ResponseWriter, q *http.Request) {
	if reasons := r.ask(q.Context()); len(reasons) > 0 {
		http.Error(w, strings.Join(reasons, "\n"), http.StatusServiceUnavailable)
		return
	}
	writeOK(w, q)
}

func writeOK(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, "ok\n")
}

// addHealth adds /healthz, /readyz, and a page that links to all that there is.
func addHealth(mux *http.ServeMux, o *ServerOptions) {
	mux.HandleFunc("GET /healthz", writeOK)
	ready := &readiness{unready: o.Unready, now: time.Now}
	mux.HandleFunc("GET /readyz", ready.answer)
	links := []web.LandingLinks{
		{Address: "/metrics", Text: "Metrics"}, {Address: "/healthz", Text: "Health"}, {Address: "/readyz", Text: "Readiness"},
	}
	if o.Console != nil {
		links = append(links, web.LandingLinks{Address: ConsolePath, Text: "Console"})
	}
	page, err := web.NewLandingPage(web.LandingConfig{
		Name: "nsgd", Description: "Azure network security groups as a packet filter", Version: o.Version, HeaderColor: "#0063b1",
		Links:     links,
		Profiling: strconv.FormatBool(o.Profiles),
	})
	if err != nil {
		panic(fmt.Sprintf("metrics: the landing page: %v", err)) // its text is fixed
	}
	mux.Handle("GET /{$}", page)
}

// addProfiles adds Go's profiles.
func addProfiles(mux *http.ServeMux) {
	for path, profile := range map[string]http.HandlerFunc{
		"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace,
	} {
		mux.HandleFunc("/debug/pprof/"+path, func(w http.ResponseWriter, r *http.Request) {
			seconds := r.FormValue("seconds")
			if n, err := strconv.ParseFloat(seconds, 64); seconds != "" && (err != nil || !(n >= 0 && n <= maxProfile)) {
				http.Error(w, fmt.Sprintf("seconds: %q: allowed are 0 to %d", seconds, maxProfile), http.StatusBadRequest)
				return
			}
			profile(w, r)
		})
	}
}
