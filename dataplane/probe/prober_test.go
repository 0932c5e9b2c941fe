package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/logring/logringtest"
	"github.com/nsgd/nsgd/dataplane/topology"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// loopbackOf is the loopback's address of a backend's family.
func loopbackOf(backend netip.Addr) netip.Addr {
	if backend.Is6() {
		return netip.IPv6Loopback()
	}
	return loopback
}

func loopbackSocket(source netip.Addr) (fd, zone int, err error) { return Socket("", "lo", source) }

const patience = 20 * time.Second

// rig is a running prober on the loopback.
type rig struct {
	*Prober
	log   *logringtest.Buffer
	close func()
}

func newRig(t *testing.T, probes ...*topology.Probe) *rig {
	t.Helper()
	return newRigWith(t, Options{}, probes...)
}

// newRigWith is newRig with options that say nothing of the loopback.
func newRigWith(t *testing.T, o Options, probes ...*topology.Probe) *rig {
	t.Helper()
	r := &rig{log: &logringtest.Buffer{}}
	o.Socket, o.Source, o.Log = loopbackSocket, loopbackOf, slog.New(slog.NewTextHandler(r.log, nil))
	r.Prober = New(o)
	r.Follow(probes)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	r.close = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Errorf("probing did not end within %v", patience)
		}
	}
	t.Cleanup(r.close)
	return r
}

// probeOf is a probe of a server on the loopback that is sent quickly.
func probeOf(t *testing.T, address string, protocol topology.ProbeProtocol) *topology.Probe {
	t.Helper()
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return topology.NewProbe(topology.Probe{Name: "lb/probe", Address: ap.Addr(), Port: ap.Port(), Protocol: protocol,
		Path: "/health?deep=1", Interval: 5 * time.Millisecond, Threshold: 2})
}

func hostOf(t *testing.T, server *httptest.Server) string {
	t.Helper()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !condition(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// reason of the only backend's failure.
func (r *rig) reason() string {
	list := r.Health()
	if len(list) != 1 {
		return ""
	}
	return list[0].Reason
}

func TestAStatusOf200AloneIsHealthy(t *testing.T) {
	for _, tt := range []struct {
		name     string
		protocol topology.ProbeProtocol
		server   func(http.Handler) *httptest.Server
	}{
		{"HTTP", topology.ProbeHTTP, httptest.NewServer},
		{"HTTPS with a certificate that nobody signed", topology.ProbeHTTPS, httptest.NewTLSServer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var status atomic.Int64
			var asked atomic.Pointer[http.Request]
			status.Store(http.StatusOK)
			server := tt.server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Store(r)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(int(status.Load()))
			}))
			defer server.Close()
			p := probeOf(t, hostOf(t, server), tt.protocol)
			p.Interval, p.Threshold = time.Hour, 1
			r := newRig(t, p)
			eventually(t, "up", p.Up)
			q := asked.Load()
			if q.Method != "GET" || q.URL.String() != "/health?deep=1" || q.Host != hostOf(t, server) || !strings.HasPrefix(q.RemoteAddr, "127.0.0.1:") {
				t.Errorf("the backend was asked %s %s of %s by %s", q.Method, q.URL, q.Host, q.RemoteAddr)
			}
			for i, code := range []int64{204, 200, 302, 200, 404, 200, 503} {
				status.Store(code)
				p = r.askAgain(p, i)
				eventually(t, "another state", func() bool { return p.Up() == (code == http.StatusOK) })
			}
			if want := "HTTP status 503"; r.reason() != want {
				t.Errorf("reason %q, want %q", r.reason(), want)
			}
			if q := asked.Load(); q.URL.Path != "/health" {
				t.Errorf("%s was asked for: a redirection was followed", q.URL)
			}
			if up, down := r.log.Count("backend up"), r.log.Count("backend down"); up != 4 || down != 4 {
				t.Errorf("%d lines of up and %d of down, want 4 each", up, down)
			}
		})
	}
}

// askAgain has the only backend asked now, not at the next interval: for another path.
func (r *rig) askAgain(p *topology.Probe, number int) *topology.Probe {
	next := topology.NewProbe(*p)
	next.Path = fmt.Sprintf("/health?deep=%d", number+2)
	next.Set(p.Up())
	r.Follow([]*topology.Probe{next})
	r.Begin()
	return next
}

func TestAConnectionIsEnoughForTCP(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) { askOverTCP(t, host) })
	}
}

func askOverTCP(t *testing.T, host string) {
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Skip("the machine has no IPv6")
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		ended <- err
	}()
	p := probeOf(t, listener.Addr().String(), topology.ProbeTCP)
	r := newRig(t, p)
	eventually(t, "up", p.Up)
	if err := <-ended; err != io.EOF {
		t.Errorf("the server reads %v, want an orderly end", err)
	}
	listener.Close()
	eventually(t, "down", func() bool { return !p.Up() })
	eventually(t, "the refusal", func() bool { return r.reason() == "connection refused" })
}

func TestSilenceIsAFailureAfterTheInterval(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // only the kernel answers
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, protocol := range []topology.ProbeProtocol{topology.ProbeHTTP, topology.ProbeHTTPS} {
		t.Run(protocol.String(), func(t *testing.T) {
			r := newRig(t, probeOf(t, listener.Addr().String(), protocol))
			eventually(t, "the failure", func() bool { return r.reason() == "no answer within 5ms" })
			if h := r.Health()[0]; h.Up || !h.Asked {
				t.Errorf("%+v", h)
			}
		})
	}
}

func TestEndingWaitsForNoAnswer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	p := probeOf(t, listener.Addr().String(), topology.ProbeHTTP)
	p.Interval = time.Hour
	r := newRig(t, p)
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r.close()
	if h := r.Health()[0]; h.Asked {
		t.Errorf("a question that was broken off counts: %+v", h)
	}
	late := probeOf(t, "127.0.0.1:1", topology.ProbeTCP)
	r.Follow([]*topology.Probe{p, late})
	r.Begin()
	if b := r.backends[keyOf(late)]; b == nil || b.stop != nil {
		t.Error("a backend is asked after the end")
	}
}

func TestABackendThatHasLeftIsAskedNoMore(t *testing.T) {
	r := newRig(t, probeOf(t, "127.0.0.1:1", topology.ProbeTCP))
	eventually(t, "the first probe", func() bool { return r.Health()[0].Asked })
	r.Follow(nil)
	ended := make(chan struct{})
	go func() { r.wait.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("it is still asked")
	}
}

func TestAProbeWaitsAsLongAsAzureAtMost(t *testing.T) {
	for interval, want := range map[time.Duration]time.Duration{time.Second: time.Second, 30 * time.Second: 30 * time.Second, time.Hour: 30 * time.Second} {
		if got := timeout(&topology.Probe{Interval: interval}); got != want {
			t.Errorf("interval %v: %v, want %v", interval, got, want)
		}
	}
}

func TestNoMoreProbesAreInFlightThanTheirBound(t *testing.T) {
	p := New(Options{Socket: loopbackSocket, Source: loopbackOf})
	free := 0
	for full := false; !full; {
		select {
		case p.inFlight <- struct{}{}:
			free++
		default:
			full = true
		}
	}
	if free != maxInFlight {
		t.Errorf("%d are let go at once, want %d", free, maxInFlight)
	}
	one := probeOf(t, "127.0.0.1:1", topology.ProbeTCP)
	b := &backend{prober: p, probe: one}
	asked := make(chan bool, 1)
	go func() { asked <- b.once(t.Context(), one) }()
	stacks := make([]byte, 1<<20)
	eventually(t, "the next one waits", func() bool {
		select {
		case <-asked:
			t.Fatal("the next one did not wait")
		default:
		}
		for _, g := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(g, "(*backend).once") && strings.Contains(g, "[select") {
				return true
			}
		}
		return false
	})
	<-p.inFlight
	if !<-asked {
		t.Error("not asked when there was room")
	}
}

func TestAReloadKeepsWhatIsKnown(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/health" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	first := probeOf(t, hostOf(t, server), topology.ProbeHTTP)
	first.Interval = time.Hour
	r := newRig(t, first)
	eventually(t, "up", first.Up)
	since := r.Health()[0].Since

	second := probeOf(t, hostOf(t, server), topology.ProbeHTTP)
	second.Interval = 2 * time.Hour
	second.Set(false)
	r.Follow([]*topology.Probe{second})
	if !second.Up() || !r.Health()[0].Since.Equal(since) {
		t.Error("a probe that stays has lost its state")
	}
	third := probeOf(t, hostOf(t, server), topology.ProbeHTTP)
	third.Path, third.Interval = "/nothing", time.Hour
	r.Follow([]*topology.Probe{third})
	r.Begin()
	eventually(t, "another path is asked for at once", func() bool { return !third.Up() })

	added := probeOf(t, hostOf(t, server), topology.ProbeHTTP)
	added.Name, added.Interval = "lb/new", time.Hour
	r.Follow([]*topology.Probe{added})
	if list := r.Health(); len(list) != 1 || list[0].Probe != added {
		t.Errorf("health of %d backends, want the new one's alone", len(list))
	}
	r.Begin()
	eventually(t, "the new one is up", added.Up)
	if third.Up() {
		t.Error("a probe that is gone was set")
	}
}

// A probe of a backend that the deciding snapshot does not know yet would be dropped.
func TestANewBackendIsAskedFromBeginOn(t *testing.T) {
	old := probeOf(t, "127.0.0.1:1", topology.ProbeTCP)
	r := newRig(t, old)
	eventually(t, "the first probe", func() bool { return r.Health()[0].Asked })
	added := probeOf(t, "127.0.0.1:2", topology.ProbeTCP)
	r.Follow([]*topology.Probe{old, added})
	if b := r.backends[keyOf(added)]; b == nil || b.stop != nil {
		t.Error("it is asked before its snapshot decides")
	}
	r.Begin()
	eventually(t, "the new one is asked", func() bool { h := r.Health(); return h[0].Asked && h[1].Asked })
}

// Load balancers of two resource groups may have one name: the first one's goroutine was lost.
func TestProbesOfTheSameNameAreTwo(t *testing.T) {
	p := New(Options{Socket: loopbackSocket, Source: loopbackOf})
	one, two := probeOf(t, "127.0.0.1:1", topology.ProbeTCP), probeOf(t, "127.0.0.1:1", topology.ProbeTCP)
	for range 2 {
		p.Follow([]*topology.Probe{one, two})
		if n := len(p.Health()); n != 2 {
			t.Errorf("health of %d backends", n)
		}
	}
}

func TestANewBackendIsDownUntilItHasAnswered(t *testing.T) {
	p := New(Options{Socket: loopbackSocket, Source: loopbackOf})
	four, six := probeOf(t, "127.0.0.1:1", topology.ProbeTCP), probeOf(t, "[::1]:1", topology.ProbeTCP)
	p.Follow([]*topology.Probe{four, six})
	if four.Up() || six.Up() {
		t.Error("up before it was asked")
	}
}

// headerOnly is a connection that fails the test when more is read than is there at once.
type headerOnly struct {
	net.Conn
	t    *testing.T
	left io.Reader
}

func (h *headerOnly) Write(b []byte) (int, error) { return len(b), nil }

func (h *headerOnly) Read(b []byte) (int, error) {
	n, err := h.left.Read(b)
	if err != nil {
		h.t.Error("what is behind the header was read")
	}
	return n, err
}

// A backend may send a header without end.
func TestAnAnswersHeaderIsBounded(t *testing.T) {
	body := "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"
	left := strings.NewReader(body)
	if err := get(&headerOnly{t: t, left: left}, netip.AddrPortFrom(loopback, 80), "/"); err == nil {
		t.Error("it was taken")
	}
	if n := len(body) - left.Len(); n > maxHeader {
		t.Errorf("%d bytes were read", n)
	}
}

// A backend that is slow to send the content has answered all the same.
func TestTheContentOfAnAnswerIsNotWaitedFor(t *testing.T) {
	conn := &headerOnly{t: t, left: strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")}
	if err := get(conn, netip.AddrPortFrom(loopback, 80), "/"); err != nil {
		t.Error(err)
	}
}

func TestAStateChangesByItsThreshold(t *testing.T) {
	silent := errors.New("no answer")
	refused := refusal{errors.New("HTTP status 503")}
	type step struct {
		err         error
		up, changed bool
	}
	tests := []struct {
		name      string
		threshold int
		steps     []step
	}{
		{"the first answer is enough", 3, []step{{nil, true, true}}},
		{"the first silence is enough", 3, []step{{silent, false, true}}},
		{"silence takes an instance down at the threshold", 2,
			[]step{{nil, true, true}, {silent, true, false}, {silent, false, true}, {silent, false, false}}},
		{"answers bring it back at the threshold", 2,
			[]step{{silent, false, true}, {nil, false, false}, {nil, true, true}, {nil, true, false}}},
		{"an answer between begins the row anew", 2,
			[]step{{nil, true, true}, {silent, true, false}, {nil, true, false}, {silent, true, false}, {silent, false, true}}},
		{"a refusal takes it down at once", 5, []step{{nil, true, true}, {refused, false, true}}},
		{"a threshold of none is one of one", 0, []step{{nil, true, true}, {silent, false, true}, {nil, true, true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s state
			for i, step := range tt.steps {
				if changed := s.book(step.err, tt.threshold); changed != step.changed || s.up != step.up {
					t.Fatalf("outcome %d (%v): up %t, changed %t; want %t, %t", i+1, step.err, s.up, changed, step.up, step.changed)
				}
			}
		})
	}
}

// The source port tells which of several virtual networks with one address is meant.
func TestTheSourcePortTellsTheNetwork(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ports := make(chan int)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			ports <- c.RemoteAddr().(*net.TCPAddr).Port
			c.Close()
		}
	}()
	p := New(Options{Socket: loopbackSocket, Source: loopbackOf})
	for range 20 {
		probe := probeOf(t, listener.Addr().String(), topology.ProbeTCP)
		probe.Share, probe.Shares = 2, 3
		go p.ask(t.Context(), probe)
		if port := <-ports; port%3 != 2 {
			t.Fatalf("a probe from port %d, whose remainder is %d", port, port%3)
		}
	}
}
