package probe

import (
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/continuity"
	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/topology"
)

var _ Memory = (*continuity.Backends)(nil)

// remembered is a Memory that holds what a process has left.
type remembered struct {
	mu sync.Mutex
	up map[string]bool // guarded by mu
}

// Find implements Memory.
func (r *remembered) Find(name string) (up bool, since time.Time, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	up, known = r.up[name]
	return up, time.Unix(1, 0), known
}

// Set implements Memory.
func (r *remembered) Set(name string, up bool, _ time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up[name] = up
}

// Keep implements Memory.
func (r *remembered) Keep(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.up, func(name string, _ bool) bool { return !slices.Contains(names, name) })
}

func TestBackendsGoOnAsTheLastProcessKnewThem(t *testing.T) {
	up, down, fresh := probeOf(t, "127.0.0.1:1", topology.ProbeTCP), probeOf(t, "127.0.0.1:2", topology.ProbeTCP), probeOf(t, "127.0.0.1:3", topology.ProbeTCP)
	memory := &remembered{up: map[string]bool{up.Identity(): true, down.Identity(): false, "another": true}}
	p := New(Options{Socket: loopbackSocket, Source: loopbackOf, Memory: memory})
	p.Follow([]*topology.Probe{up, down, fresh})
	if !up.Up() || down.Up() || fresh.Up() {
		t.Errorf("up %v, down %v, fresh %v", up.Up(), down.Up(), fresh.Up())
	}
	health := p.Health()
	if !health[0].Asked || !health[1].Asked || health[2].Asked || !health[0].Since.Equal(time.Unix(1, 0)) {
		t.Errorf("%+v", health)
	}
	if len(memory.up) != 2 {
		t.Errorf("a backend that is gone is kept: %v", memory.up)
	}
	// The threshold counts from here on, as for a backend that this process has asked.
	b := p.backends[keyOf(up)]
	for i, want := range []bool{true, false} {
		if b.state.book(errors.New("no answer"), 2); b.state.up != want {
			t.Errorf("failure %d: up %v, want %v", i+1, b.state.up, want)
		}
	}
}

func TestAnswersAreKeptForTheNextProcess(t *testing.T) {
	memory := &remembered{up: map[string]bool{}}
	one := probeOf(t, "127.0.0.1:1", topology.ProbeTCP) // nobody listens there
	r := newRigWith(t, Options{Memory: memory}, one)
	eventually(t, "the first probe", func() bool { return r.Health()[0].Asked })
	if up, _, known := memory.Find(one.Identity()); up || !known {
		t.Error("the answer is not kept")
	}
	other := probeOf(t, "127.0.0.1:1", topology.ProbeTCP)
	other.Path = "/another" // a reload: the backend keeps its state under its new identity
	r.Follow([]*topology.Probe{other})
	r.close()
	if up, known := memory.up[other.Identity()]; up || !known || len(memory.up) != 1 {
		t.Errorf("%v", memory.up)
	}
}

// TestAPanicAtAProbeIsNoAnswer has the sockets of a backend panic for a while.
func TestAPanicAtAProbeIsNoAnswer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	faults := fault.NewLog(slog.New(slog.DiscardHandler), func() time.Duration { return 0 })
	r := newRigWith(t, Options{Faults: faults})
	var broken atomic.Bool
	broken.Store(true)
	r.options.Socket = func(source netip.Addr) (fd, zone int, err error) {
		if broken.Load() {
			panic("a fault for a test")
		}
		return loopbackSocket(source)
	}
	r.Follow([]*topology.Probe{probeOf(t, listener.Addr().String(), topology.ProbeTCP)})
	r.Begin()
	eventually(t, "the fault is the reason", func() bool { return strings.HasPrefix(r.reason(), "nsgd failed") })
	if h := r.Health()[0]; h.Up || !h.Asked {
		t.Errorf("%+v", h)
	}
	broken.Store(false)
	eventually(t, "the backend comes up", func() bool { return r.Health()[0].Up })
	if faults.Counts()[fault.Probe] == 0 {
		t.Error("no fault is counted")
	}
}
