package metrics

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// ask returns an answer's status and text.
func ask(t *testing.T, handler http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	text, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(text)
}

func TestReadinessSaysWhyNot(t *testing.T) {
	var reasons []string
	s := newServer(traffic(t), ServerOptions{Unready: func(context.Context) []string { return reasons }})
	if code, text := ask(t, s.handler, "/readyz"); code != http.StatusOK || text != "ok\n" {
		t.Errorf("ready: %d %q", code, text)
	}
	reasons = []string{"a device is gone", "a worker is stuck"}
	if code, text := ask(t, newServer(traffic(t), ServerOptions{Unready: func(context.Context) []string { return reasons }}).handler, "/readyz"); code != http.StatusServiceUnavailable || text != "a device is gone\na worker is stuck\n" {
		t.Errorf("not ready: %d %q", code, text)
	}
	if code, _ := ask(t, s.handler, "/healthz"); code != http.StatusOK {
		t.Errorf("the process answers, with %d", code)
	}
}

func TestManyQuestionsForReadinessAskTheWorkersOnceASecond(t *testing.T) {
	now, asked := time.Unix(1_800_000_000, 0), 0
	r := readiness{now: func() time.Time { return now }, unready: func(ctx context.Context) []string {
		if asked++; ctx.Done() == nil {
			t.Error("the wait for the workers has no end")
		}
		return nil
	}}
	for range 100 {
		r.ask(t.Context())
	}
	if asked != 1 {
		t.Errorf("asked %d times within a moment", asked)
	}
	now = now.Add(readyEvery)
	if r.ask(t.Context()); asked != 2 {
		t.Errorf("asked %d times, a second later", asked)
	}
}

func TestProfilesAreServedWhereEnabledAndBounded(t *testing.T) {
	on := newServer(traffic(t), ServerOptions{Profiles: true}).handler
	for path, want := range map[string]int{
		"/debug/pprof/": 200, "/debug/pprof/goroutine": 200, "/debug/pprof/cmdline": 200,
		"/debug/pprof/trace?seconds=61": 400, "/debug/pprof/profile?seconds=1e9": 400, "/debug/pprof/heap?seconds=NaN": 400, "/debug/pprof/profile?seconds=-1": 400,
	} {
		if code, text := ask(t, on, path); code != want {
			t.Errorf("%s: %d %q", path, code, text)
		}
	}
	for _, tt := range []struct {
		handler http.Handler
		links   bool
	}{{on, true}, {newServer(traffic(t), ServerOptions{}).handler, false}} {
		_, text := ask(t, tt.handler, "/")
		if strings.Contains(text, "debug/pprof") != tt.links || !strings.Contains(text, `href="/metrics"`) {
			t.Errorf("the page of links: %s", text)
		}
	}
}

// ended is a console that notes its end.
type ended struct {
	http.Handler
	calls int
}

func (e *ended) End() { e.calls++ }

func TestTheConsoleIsServedWhereTheMetricsAre(t *testing.T) {
	console := &ended{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) })}
	with := newServer(traffic(t), ServerOptions{Console: console})
	if code, text := ask(t, with.handler, ConsolePath+"data/names"); code != http.StatusOK || text != ConsolePath+"data/names" {
		t.Errorf("%d %q", code, text)
	}
	for _, tt := range []struct {
		server *Server
		links  bool
	}{{with, true}, {newServer(traffic(t), ServerOptions{}), false}} {
		if _, text := ask(t, tt.server.handler, "/"); strings.Contains(text, `href="/console/"`) != tt.links {
			t.Errorf("the page of links: %s", text)
		}
		if code, _ := ask(t, tt.server.handler, ConsolePath); (code == http.StatusOK) != tt.links {
			t.Errorf("the console: %d", code)
		}
	}
	if err := with.Shutdown(t.Context()); err != nil || console.calls != 1 {
		t.Errorf("%v, ended %d times: a stream would hold up the daemon's end", err, console.calls)
	}
}
