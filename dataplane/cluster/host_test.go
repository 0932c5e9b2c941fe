package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
)

// host is an agent with a daemon that carries nothing.
type host struct {
	t     testing.TB
	agent *Agent
	stop  func()
	ctx   context.Context // of the agent

	mu         sync.Mutex
	nics       []string
	carries    uint64
	text       string
	attached   []string
	cant       string // a policy with this text is refused
	until      time.Duration
	lapses     int // how often the fence was moved after it had closed
	placements []*Placement
	frozen     string             // a network interface that leaves
	flows      map[string]string  // by network interface
	writing    func()             // within Departing.Write; nil: nothing
	reading    func(string) error // by Arriving.Read; nil: all is well
	carried    time.Duration      // Arrived.Carried
}

var began = time.Now()

var underlays atomic.Int32 // so that no two hosts have the same

func sinceBegan() time.Duration { return time.Hour + time.Since(began) }

// newHost starts a host with its own folder.
func newHost(t testing.TB, s *server, name string, nics ...string) *host {
	return newHostIn(t, s, filepath.Join(t.TempDir(), name), AgentOptions{Host: name}, nics...)
}

// newLasting is newHost with a lease that a busy machine does not miss.
func newLasting(t testing.TB, s *server, name string, nics ...string) *host {
	return newHostIn(t, s, filepath.Join(t.TempDir(), name), AgentOptions{Host: name, Lease: DefaultLease}, nics...)
}

func newHostIn(t testing.TB, s *server, dir string, o AgentOptions, nics ...string) *host {
	t.Helper()
	cache, err := generation.OpenCache(dir, o.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := cache.Lock(); err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, nics: nics, flows: map[string]string{}}
	o.Store, o.Cache, o.Daemon = s.open(), cache, h
	if !o.Underlay.IsValid() {
		o.Underlay = netip.AddrFrom4([4]byte{192, 0, 2, byte(underlays.Add(1))})
	}
	o.Port, o.Version = 4790, "test"
	if o.Listen == nil {
		o.Listen = func(ctx context.Context) (net.Listener, error) {
			var c net.ListenConfig
			return c.Listen(ctx, "tcp", "127.0.0.1:0")
		}
	}
	if o.Dial == nil {
		o.Dial = dialHere
	}
	if o.Lease == 0 {
		o.Lease = MinLease
	}
	o.Boot, o.Clock = "boot", sinceBegan
	o.Fence = func(until time.Duration) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.until != 0 && h.until <= sinceBegan() {
			h.lapses++
		}
		h.until = until
	}
	o.Placed = func(_ context.Context, p *Placement) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.placements = append(h.placements, p)
		return nil
	}
	if o.Start, err = cache.Current(); err != nil {
		t.Fatal(err)
	}
	if o.Start != nil {
		if o.Attached, _, err = LastNICs(cache, o.Host, o.Boot, sinceBegan(), o.GoOn); err != nil {
			t.Fatal(err)
		}
		h.Carry(o.Start, o.Attached)
	}
	if h.agent, err = NewAgent(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.ctx = ctx
	var running sync.WaitGroup
	running.Go(func() { h.agent.Run(ctx) })
	h.stop = sync.OnceFunc(func() { cancel(); running.Wait(); cache.Close() })
	t.Cleanup(h.stop)
	return h
}

// Try implements Daemon.
func (h *host) Try(u *generation.Unpacked) error {
	text, err := os.ReadFile(filepath.Join(u.Folder, "policy/a.json"))
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && h.cant != "" && strings.Contains(string(text), h.cant) {
		err = fmt.Errorf("rule %q can't be built", h.cant)
	}
	return err
}

// Carry implements Daemon.
func (h *host) Carry(u *generation.Unpacked, nics []string) error {
	if err := h.Try(u); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(u.Folder, "policy/a.json"))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.carries, h.text, h.attached = u.Number, string(text), slices.Clone(nics)
	return err
}

// NICs implements Daemon.
func (h *host) NICs() []string { h.mu.Lock(); defer h.mu.Unlock(); return slices.Clone(h.nics) }

// dialHere connects to a port of this machine, whatever the address.
func dialHere(ctx context.Context, address string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", "127.0.0.1:"+port)
}

// hand implements Departing and Arriving.
type handOf struct {
	*host
	nic, came string
}

func (x *handOf) Freeze() { x.mu.Lock(); defer x.mu.Unlock(); x.frozen = x.nic }

func (x *handOf) Write(w io.Writer) (int, error) {
	x.mu.Lock()
	text, writing := x.flows[x.nic], x.writing
	x.mu.Unlock()
	if writing != nil {
		writing()
	}
	return len(text), send(w, text)
}

func (x *handOf) Read(r io.Reader) error {
	err := receive(r, &x.came)
	x.mu.Lock()
	reading := x.reading
	x.mu.Unlock()
	if err == nil && reading != nil {
		err = reading(x.came)
	}
	return err
}

// Depart implements Daemon.
func (h *host) Depart(u *generation.Unpacked, nics []string, nic string, hand func(Departing) error) error {
	err := hand(&handOf{host: h, nic: nic})
	h.mu.Lock()
	h.frozen = ""
	if err == nil {
		delete(h.flows, nic)
		h.attached = slices.Clone(nics)
	}
	h.mu.Unlock()
	return err
}

// Arrive implements Daemon.
func (h *host) Arrive(u *generation.Unpacked, nics []string, nic, from string, take func(Arriving) error) (Arrived, error) {
	x := &handOf{host: h, nic: nic}
	if err := take(x); err != nil {
		return Arrived{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attached, h.flows[nic] = slices.Clone(nics), x.came
	return Arrived{Flows: len(x.came), Carried: h.carried}, nil
}

// carriesNow reports that the host carries a network interface at this moment.
func (h *host) carriesNow(nic string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.attached, nic) && h.frozen != nic && h.until > sinceBegan()
}

// is waits until the host carries a policy with network interfaces, and may.
func (h *host) is(text string, nics ...string) {
	h.t.Helper()
	eventually(h.t, fmt.Sprintf("%s carries %q with %v", h.agent.Host, text, nics), func() error {
		h.mu.Lock()
		carries, attached, left := h.text, slices.Clone(h.attached), h.until-sinceBegan()
		h.mu.Unlock() // the session takes it while Status waits for the session
		if carries != text || !slices.Equal(attached, nics) || left <= 0 {
			return fmt.Errorf("it carries %q with %v, for %v: %+v", carries, attached, left, h.agent.Status())
		}
		return nil
	})
}

// carriedOn holds that the host has never stopped, and has the registration that it had.
func (h *host) carriedOn(epoch int64) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, now, _, _ := h.agent.session.now(); now != epoch || h.lapses > 0 {
		h.t.Errorf("%s: registration %d and now %d, %d times closed", h.agent.Host, epoch, now, h.lapses)
	}
}

func (h *host) epoch() int64 { _, epoch, _, _ := h.agent.session.now(); return epoch }

// fenced waits until the host may not carry any more.
func (h *host) fenced() {
	h.t.Helper()
	eventually(h.t, h.agent.Host+" is fenced", func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if left := h.until - sinceBegan(); left > 0 {
			return fmt.Errorf("it carries for %v", left)
		}
		return nil
	})
}

func (h *host) says(text string) {
	h.t.Helper()
	eventually(h.t, fmt.Sprintf("%s says %q", h.agent.Host, text), func() error {
		s := h.agent.Status()
		if !strings.Contains(strings.Join(s.Faults, "\n"), text) {
			return fmt.Errorf("it says %q", s.Faults)
		}
		return nil
	})
}

func (h *host) waits(nic, holder string) {
	h.t.Helper()
	eventually(h.t, fmt.Sprintf("%s waits for %s of %s", h.agent.Host, nic, holder), func() error {
		if w := h.agent.Status().Waiting; w[nic] != holder || !slices.Contains(slices.Collect(maps.Keys(w)), nic) {
			return fmt.Errorf("it waits for %v", w)
		}
		return nil
	})
}

func (h *host) refuse(text string) { h.mu.Lock(); defer h.mu.Unlock(); h.cant = text }

func TestEveryHostCarriesWhatIsApplied(t *testing.T) {
	s := newServer(t)
	store, a, b := s.open(), newLasting(t, s, "a", "nic1"), newLasting(t, s, "b", "nic2")
	a.says("") // both run
	eventually(t, "both are registered", func() error { return registered(store, 2) })
	if got := mustApply(t, store, applyOf(t, "one")); got.Generation != 1 || !slices.Equal(got.Hosts, []string{"a", "b"}) {
		t.Errorf("applied %+v", got)
	}
	a.is("one", "nic1")
	b.is("one", "nic2")
	if got := mustApply(t, store, applyOf(t, "one")); got.Generation != 1 || !got.Unchanged {
		t.Errorf("the same again: %+v", got)
	}
	newLasting(t, s, "c", "nic3").is("one", "nic3") // comes later
	if got := mustApply(t, store, applyOf(t, "two")); got.Generation != 2 || len(got.Hosts) != 3 {
		t.Errorf("applied %+v", got)
	}
	o := applyOf(t, "")
	o.Packed, o.RollbackTo = nil, 1
	if got := mustApply(t, store, o); got.Generation != 3 {
		t.Errorf("rolled back: %+v", got)
	}
	a.is("one", "nic1")
	eventually(t, "the placement has all", func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if p := a.placements[len(a.placements)-1]; len(p.Hosts) != 3 || p.NICs["nic3"].Host != "c" || !slices.Equal(p.On("b"), []string{"nic2"}) {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}

func registered(store *Store, hosts int) error {
	v, err := store.View(context.Background())
	if err == nil && len(v.Hosts) != hosts {
		err = fmt.Errorf("%d hosts", len(v.Hosts))
	}
	return err
}

func TestAHostThatRefusesKeepsWhatIsCurrent(t *testing.T) {
	s := newServer(t)
	store, a, b := s.open(), newLasting(t, s, "a", "nic1"), newLasting(t, s, "b", "nic2")
	b.refuse("bad")
	eventually(t, "both are registered", func() error { return registered(store, 2) })
	mustApply(t, store, applyOf(t, "one"))
	_, err := store.Apply(t.Context(), applyOf(t, "bad"))
	if refused, ok := errors.AsType[*RefusedError](err); !ok || len(refused.Faults) != 1 || refused.Faults[0] != `b: rule "bad" can't be built` {
		t.Fatalf("got %v", err)
	}
	a.is("one", "nic1")
	v := viewOf(t, store)
	if v.Head.Current != 1 || v.Offer != nil {
		t.Errorf("head %+v, offer %+v", v.Head, v.Offer)
	}
	if history, err := store.History(t.Context()); err != nil || len(history) != 1 {
		t.Errorf("history %v, %v", history, err)
	}
	if got := mustApply(t, store, applyOf(t, "two")); got.Generation < 2 {
		t.Errorf("applied %+v", got)
	}
	b.is("two", "nic2")
}

func TestACanaryCarriesFirstAndGoesBack(t *testing.T) {
	s := newServer(t)
	store, a, b := s.open(), newLasting(t, s, "a", "nic1"), newLasting(t, s, "b", "nic2")
	eventually(t, "both are registered", func() error { return registered(store, 2) })
	mustApply(t, store, applyOf(t, "one"))
	o := applyOf(t, "two")
	o.Canary, o.Wait = []string{"a", "gone"}, 5*time.Second
	_, err := store.Apply(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "gone: there is no such host alive") {
		t.Fatalf("a canary that is not there: %v", err)
	}
	a.is("one", "nic1") // again
	b.mu.Lock()
	if b.text != "one" {
		t.Errorf("the other host carried %q", b.text)
	}
	b.mu.Unlock()
	o = applyOf(t, "three")
	o.Canary = []string{"a"}
	mustApply(t, store, o)
	b.is("three", "nic2")
}

func TestTwoDoNotApplyAtOnce(t *testing.T) {
	s := newServer(t)
	store := s.open()
	first, err := store.Begin(t.Context(), "me", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Apply(t.Context(), applyOf(t, "one")); err == nil || !strings.Contains(err.Error(), "me applies generation 1") {
		t.Errorf("beside another: %v", err)
	}
	if _, err := store.client.Delete(soon(t), store.keys.offer()); err != nil { // as when the lease ends
		t.Fatal(err)
	}
	mustApply(t, store, applyOf(t, "one"))
	first.offer.Bundle = policyOf(t, "evil").Tree
	if err := first.Commit(t.Context(), time.Now()); !errors.Is(err, ErrOfferLost) {
		t.Errorf("a commit without the offer: %v", err)
	}
	if _, _, err := first.Collect(t.Context(), MinKept); err != nil && !errors.Is(err, ErrOfferLost) {
		t.Error(err)
	}
	first.Close(t.Context())
	if v := viewOf(t, store); v.Head.Current != 1 || v.Head.Bundle == first.offer.Bundle {
		t.Errorf("head %+v", v.Head)
	}
}

func TestWhatNobodyNeedsIsCollected(t *testing.T) {
	s := newServer(t)
	store := s.open()
	for i := range 5 {
		o := applyOf(t, fmt.Sprint("policy ", i))
		o.Kept = 2
		mustApply(t, store, o)
	}
	history, err := store.History(t.Context())
	if err != nil || len(history) != 2 || history[0].Number != 5 {
		t.Errorf("history %v, %v", history, err)
	}
	r, err := store.client.Get(soon(t), store.keys.chunks(), clientv3Prefix)
	if err != nil || len(r.Kvs) != 2 {
		t.Errorf("%d chunks, %v", len(r.Kvs), err)
	}
	o := applyOf(t, "")
	o.Packed, o.RollbackTo = nil, 1
	if _, err := store.Apply(t.Context(), o); err == nil || !strings.Contains(err.Error(), "generation 1: there is none") {
		t.Errorf("back to one that is gone: %v", err)
	}
}
