package cluster

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster/clustertest"
	"github.com/nsgd/nsgd/dataplane/cluster/generation"
)

// movers are two hosts that both attach nic1, which a has. Nobody ever finds both to carry it.
type movers struct {
	*testing.T
	server *server
	store  *Store
	dirs   [2]string
	a, b   *host

	hosts sync.Mutex // held to replace a or b, and by whoever watches them meanwhile
}

func newMovers(t *testing.T, a, b AgentOptions) *movers {
	s := newServer(t)
	m := &movers{T: t, server: s, store: s.open(), dirs: [2]string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}}
	mustApply(t, m.store, applyOf(t, "one"))
	a.Host, b.Host = "a", "b"
	a.Lease, b.Lease = cmp.Or(a.Lease, DefaultLease), cmp.Or(b.Lease, DefaultLease)
	m.a = newHostIn(t, s, m.dirs[0], a, "nic1", "nic2")
	m.a.is("one", "nic1", "nic2")
	m.a.flows["nic1"] = "flows of nic1"
	m.b = newHostIn(t, s, m.dirs[1], b, "nic1", "nic3")
	m.b.is("one", "nic3")
	m.b.waits("nic1", "a")
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			m.hosts.Lock()
			a, b := m.a, m.b
			m.hosts.Unlock()
			a.mu.Lock()
			b.mu.Lock()
			now := sinceBegan()
			carries := func(h *host) bool {
				for _, nic := range h.attached {
					if nic == "nic1" {
						return h.frozen != nic && h.until > now
					}
				}
				return false
			}
			if carries(a) && carries(b) {
				m.Error("both hosts carry nic1")
			}
			b.mu.Unlock()
			a.mu.Unlock()
		}
	})
	t.Cleanup(func() { close(stop); watching.Wait() })
	return m
}

func (m *movers) move(to string, more ...func(*MoveOptions)) (*Moved, error) {
	return m.moveWithin(m.Context(), to, more...)
}

func (m *movers) moveWithin(ctx context.Context, to string, more ...func(*MoveOptions)) (*Moved, error) {
	o := &MoveOptions{NIC: "nic1", To: to, By: "me", Wait: 20 * time.Second, Now: time.Now}
	for _, change := range more {
		change(o)
	}
	return m.store.Move(ctx, o)
}

func TestANetworkInterfaceMovesWithWhatItsHostKnows(t *testing.T) {
	m := newMovers(t, AgentOptions{}, AgentOptions{})
	m.b.mu.Lock()
	m.b.carried = time.Hour // what follows is no part of the gap
	m.b.mu.Unlock()
	var steps []string
	got, err := m.move("b", func(o *MoveOptions) { o.Tell = func(s string) { steps = append(steps, s) } })
	if err != nil {
		t.Fatal(err)
	}
	if want := len("flows of nic1"); got.From != "a" || got.To != "b" || got.Flows != want || got.Sent != want || got.Bytes == 0 || got.GapMilliseconds > -3_500_000 {
		t.Errorf("%+v", got)
	}
	if all := strings.Join(steps, "; "); !strings.Contains(all, "b: ready to take it; b: done") && !strings.Contains(all, "b: done") {
		t.Errorf("steps %q", steps)
	}
	m.a.is("one", "nic2")
	m.b.is("one", "nic1", "nic3")
	m.a.waits("nic1", "b")
	m.b.mu.Lock()
	if m.b.flows["nic1"] != "flows of nic1" {
		t.Errorf("flows %q", m.b.flows)
	}
	m.b.mu.Unlock()
	if v := viewOf(t, m.store); len(v.Moves) != 0 || v.Claims["nic1"].Host != "b" || v.Claims["nic1"].Revision <= v.Hosts["b"].Epoch {
		t.Errorf("moves %v, claims %v", v.Moves, v.Claims)
	}
	if got, err := m.move("a", func(o *MoveOptions) { o.WithoutFlows = true }); err != nil || got.Flows != 0 || !got.WithoutFlows {
		t.Errorf("back, without flows: %+v, %v", got, err)
	}
	m.a.is("one", "nic1", "nic2")
	m.b.is("one", "nic3")
	if s := m.a.agent.Status(); s.Moves["left"] != 1 || s.Moves["arrived"] != 1 {
		t.Errorf("outcomes %v", s.Moves)
	}
	m.b.stop() // nobody else has it then
	m.a.is("one", "nic1", "nic2")
}

// Others may have a host say so much that nobody could read its record, and it would be gone for them, and for itself.
func TestAHostsRecordStaysReadable(t *testing.T) {
	m := newMovers(t, AgentOptions{}, AgentOptions{})
	epoch := m.a.epoch()
	nic := strings.Repeat("x", maxRecord)
	if _, err := m.store.client.Put(soon(t), m.store.keys.move(nic), encode(&MoveRecord{From: "a", To: "b"})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a leaves out what is too long", func() error {
		v, err := m.store.View(soon(t))
		if err == nil && (v.Hosts["a"] == nil || !strings.Contains(fmt.Sprint(v.Hosts["a"].Faults), "left out")) {
			err = fmt.Errorf("%d hosts, %v", len(v.Hosts), v.Faults)
		}
		return err
	})
	if _, err := m.store.client.Delete(soon(t), m.store.keys.move(nic)); err != nil {
		t.Fatal(err)
	}
	m.a.is("one", "nic1", "nic2")
	m.a.carriedOn(epoch)
	m.a.stop()
	m.b.stop()
	clear(m.a.agent.moving.states)
	for i := range maxMoves {
		m.a.agent.end(fmt.Sprint("nic", i), MoveState{Stage: StageFailed, Fault: strings.Repeat("<", maxFault)}, "failed")
	}
	if r := m.a.agent.record(); len(encode(r)) > maxRecord/2 {
		t.Errorf("a record of %d bytes, for what the other host said of %d moves", len(encode(r)), len(r.Moves))
	}
}

// cutConn loses what comes from some read on.
type cutConn struct {
	net.Conn
	reads, after int
}

func (c *cutConn) Read(b []byte) (int, error) {
	if c.reads++; c.reads > c.after {
		c.Conn.Close()
		return 0, errors.New("cut")
	}
	return c.Conn.Read(b)
}

// Wherever the connection ends, one host has it, and they agree which.
func TestAConnectionThatEndsLeavesOneHolder(t *testing.T) {
	after := 1
	m := newMovers(t, AgentOptions{Dial: func(ctx context.Context, address string) (net.Conn, error) {
		c, err := dialHere(ctx, address)
		if err != nil {
			return nil, err
		}
		return &cutConn{Conn: c, after: after}, nil
	}}, AgentOptions{})
	at := map[string]int{}
	for after = 1; after < 12; after++ {
		before := where(t, m.store)
		if before == "b" {
			if _, err := m.move("a"); err != nil {
				t.Fatal(err)
			}
			m.a.is("one", "nic1", "nic2")
		}
		_, err := m.move("b")
		now := where(t, m.store)
		at[now]++
		if (err == nil) != (now == "b") {
			t.Errorf("cut behind %d reads: it is at %s: %v", after, now, err)
		}
		if now == "b" {
			m.b.is("one", "nic1", "nic3")
			m.a.is("one", "nic2")
		} else {
			m.a.is("one", "nic1", "nic2")
			m.b.is("one", "nic3")
		}
	}
	if at["a"] == 0 || at["b"] == 0 {
		t.Errorf("at %v: wanted are both", at)
	}
}

func where(t *testing.T, s *Store) string {
	t.Helper()
	return claimOf(t, s).Host
}

// A process that ends within a move must not go on with the network interface before it is known who has it.
func TestTheOldHostsProcessEndsWithinAMove(t *testing.T) {
	var conn net.Conn
	m := newMovers(t, AgentOptions{Dial: func(ctx context.Context, address string) (c net.Conn, err error) {
		conn, err = dialHere(ctx, address)
		return conn, err
	}, Lease: 30 * time.Second}, AgentOptions{})
	first := m.a
	ended := make(chan struct{})
	ctx, giveUp := context.WithCancel(t.Context())
	first.mu.Lock()
	var next []string // what a process that follows now begins with
	first.writing = func() {
		time.AfterFunc(2*time.Second, giveUp)
		cache, err := generation.OpenCache(m.dirs[0], nil)
		if err == nil {
			next, _, err = LastNICs(cache, "a", "boot", sinceBegan(), false)
			cache.Close()
		}
		if err != nil {
			t.Error(err)
		}
		go func() { first.stop(); close(ended) }()
		for first.ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		conn.Close() // as of a process that is killed
	}
	first.mu.Unlock()
	if _, err := m.moveWithin(ctx, "b"); err == nil {
		t.Fatal("it has moved")
	}
	<-ended
	if !slices.Equal(next, []string{"nic2"}) {
		t.Errorf("the next process begins with %v", next)
	}
	revision := claimOf(t, m.store).Revision
	following := newHostIn(t, m.server, m.dirs[0], AgentOptions{Host: "a", Lease: 30 * time.Second}, "nic1", "nic2")
	m.hosts.Lock()
	m.a = following
	m.hosts.Unlock()
	m.a.is("one", "nic1", "nic2")
	if now := claimOf(t, m.store); now.Host != "a" || now.Revision <= revision {
		t.Errorf("the claim is %+v: it was not written anew, behind revision %d", now, revision)
	}
	m.b.is("one", "nic3")
}

func claimOf(t *testing.T, s *Store) Claim {
	t.Helper()
	return viewOf(t, s).Claims["nic1"]
}

// Whoever etcd is away from learns what became of the move when it is back.
func TestEtcdGoesWithinAMove(t *testing.T) {
	m := newMovers(t, AgentOptions{Lease: 30 * time.Second}, AgentOptions{Lease: 30 * time.Second})
	ctx, giveUp := context.WithCancel(t.Context())
	m.a.mu.Lock()
	m.a.writing = func() {
		m.server.kill()
		time.AfterFunc(2*time.Second, giveUp)
	}
	m.a.mu.Unlock()
	if _, err := m.moveWithin(ctx, "b"); err == nil {
		t.Fatal("it has moved without etcd")
	}
	m.a.mu.Lock()
	m.a.writing = nil
	m.a.mu.Unlock()
	m.server.start()
	eventually(t, "one host carries it", func() error {
		if a, b := m.a.carriesNow("nic1"), m.b.carriesNow("nic1"); a == b || where(t, m.store) == "a" != a {
			return fmt.Errorf("a %v, b %v, claimed by %s; %v %v", a, b, where(t, m.store), m.a.agent.Status().Faults, m.b.agent.Status().Faults)
		}
		return nil
	})
}

// An etcd that is emptied within a move leaves the network interface with one host, as any other.
func TestEtcdIsEmptiedWithinAMove(t *testing.T) {
	m := newMovers(t, AgentOptions{Lease: 5 * time.Second}, AgentOptions{Lease: 5 * time.Second})
	ctx, giveUp := context.WithCancel(t.Context())
	m.a.mu.Lock()
	m.a.writing = func() {
		m.server.forget()
		time.AfterFunc(2*time.Second, giveUp)
	}
	m.a.mu.Unlock()
	if _, err := m.moveWithin(ctx, "b"); err == nil {
		t.Fatal("it has moved")
	}
	m.a.mu.Lock()
	m.a.writing = nil
	m.a.mu.Unlock()
	eventually(t, "one host carries it", func() error {
		if a, b := m.a.carriesNow("nic1"), m.b.carriesNow("nic1"); a == b || where(t, m.store) == "a" != a {
			return fmt.Errorf("a %v, b %v, claimed by %s; %v %v", a, b, where(t, m.store), m.a.agent.Status().Faults, m.b.agent.Status().Faults)
		}
		return nil
	})
}

// An etcd that was restored from a copy says that the old host has it. The new one may carry it until its lease ends.
func TestAnEtcdFromBeforeAMoveIsNotBelieved(t *testing.T) {
	s := newServer(t)
	store := s.open()
	mustApply(t, store, applyOf(t, "one"))
	link := clustertest.NewLink(t, s.client)
	a := newHost(t, s, "a", "nic1")
	a.is("one", "nic1")
	b := newHostIn(t, at(t, link.Client), t.TempDir(), AgentOptions{Host: "b", Lease: 6 * time.Second}, "nic1")
	b.is("one")
	b.waits("nic1", "a")
	s.kill()
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	s.start()
	if _, err := store.Move(t.Context(), &MoveOptions{NIC: "nic1", To: "b", By: "me", Wait: 20 * time.Second, Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	b.is("one", "nic1")
	a.is("one")
	asked := sinceBegan()
	eventually(t, "b has just renewed its lease", func() error {
		if _, _, until, _ := b.agent.session.now(); until < asked+4*time.Second {
			return fmt.Errorf("until %v", until)
		}
		return nil
	})
	link.Set(clustertest.Silent)
	s.kill()
	if err := errors.Join(os.RemoveAll(s.dir), os.CopyFS(s.dir, os.DirFS(backup))); err != nil {
		t.Fatal(err)
	}
	s.start()
	a.agent.watcher.look() // it would within confirmEvery
	a.is("one", "nic1")
	b.mu.Lock()
	defer b.mu.Unlock()
	if left := b.until - sinceBegan(); left > 0 {
		t.Errorf("a carries nic1, and b for another %v", left)
	}
}

// Without its lease a host learns nothing more of a claim, and carries nothing until it has another one.
func TestAHostWithoutItsLeaseDoesNotAskOn(t *testing.T) {
	a := newHost(t, newServer(t), "a")
	a.stop()
	a.agent.session.gone()
	asked := 0
	a.agent.Clock = func() time.Duration { asked++; return time.Duration(asked) * knowWait / 4 }
	if _, err := a.agent.know(t.Context(), "nic1", &Move{}, 1); !errors.Is(err, errNoLease) || asked != 1 {
		t.Errorf("%v, after %d looks at the clock", err, asked)
	}
}

// What a host remembers of claims is of one etcd: revisions begin anew in the next.
func TestAnotherEtcdBeginsWithoutWhatWasLeft(t *testing.T) {
	a := newHost(t, newServer(t), "a", "nic1")
	a.stop()
	x := &a.agent.moving
	x.left["nic1"], x.unsettled["nic2"] = 1000, 1000
	a.agent.notice(&View{Revision: 1}, a.agent.rewinds+1)
	v := newView(a.agent.Store.keys)
	v.Revision, v.Claims["nic1"] = 10, Claim{ClaimRecord{"a", 5, 3}, 7}
	if mine := a.agent.mine(v, 5); mine["nic1"] != 7 || len(x.unsettled) > 0 {
		t.Errorf("its claims are %v, and %v may be another host's", mine, x.unsettled)
	}
}

// Somebody else at the port gets nothing, and brings nothing.
func TestAStrangerIsNotLetIn(t *testing.T) {
	own, hash, err := newIdentity(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := newIdentity(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := openEntrance(l, own, hash) // lets in whoever has own
	defer e.close()
	for _, tt := range []struct {
		name string
		as   tls.Certificate
		want string
		ok   bool
	}{
		{"a stranger", other, hash, false},
		{"who trusts another one", own, "00", false},
		{"the host", own, hash, true},
	} {
		conn, err := call(t.Context(), dialHere, l.Addr().String(), tt.as, tt.want)
		if err == nil {
			if err = send(conn, &hello{NIC: "nic1"}); err == nil {
				err = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			}
			if !tt.ok {
				_, err = conn.Read(make([]byte, 1))
			}
			conn.Close()
		}
		if tt.ok {
			select {
			case c := <-e.come:
				c.Close()
			case <-time.After(10 * time.Second):
				t.Errorf("%s has not come: %v", tt.name, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: let in", tt.name)
		}
		select {
		case <-e.come:
			t.Errorf("%s has come", tt.name)
		default:
		}
	}
}

// Hosts, and whoever asks for a move, have wall clocks that are centuries apart.
func TestWallClocksDoNotMatterToAMove(t *testing.T) {
	m := newMovers(t, AgentOptions{}, AgentOptions{})
	for _, years := range []int{-300, 300} {
		at := time.Now().AddDate(years, 0, 0)
		own, hash, err := newIdentity(at)
		if err != nil {
			t.Fatal(err)
		}
		other, theirs, err := newIdentity(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		e := openEntrance(l, own, theirs)
		if conn, err := call(t.Context(), dialHere, l.Addr().String(), other, hash); err != nil {
			t.Errorf("%d years: %v", years, err)
		} else {
			conn.Close()
		}
		e.close()
		to := map[bool]string{true: "a", false: "b"}[years > 0]
		if _, err := m.move(to, func(o *MoveOptions) { o.Now = func() time.Time { return at } }); err != nil {
			t.Errorf("%d years: %v", years, err)
		}
	}
}

// The new host takes the claim only as it was when somebody asked, and while they ask.
func TestAClaimIsTakenAsItWasAskedFor(t *testing.T) {
	m := newMovers(t, AgentOptions{}, AgentOptions{})
	v, err := m.store.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old, err := m.store.client.Put(t.Context(), m.store.keys.host("x"), encode(&HostRecord{}))
	if err != nil {
		t.Fatal(err)
	}
	epoch := old.Header.Revision
	put, err := m.store.client.Put(t.Context(), m.store.keys.claim("nic9"), encode(&ClaimRecord{"x", epoch, 3}))
	if err != nil {
		t.Fatal(err)
	}
	asked, err := m.store.client.Put(t.Context(), m.store.keys.move("nic9"), encode(&MoveRecord{From: "x", To: "nobody"}))
	if err != nil {
		t.Fatal(err)
	}
	right := Move{MoveRecord{From: "x", To: "b", FromEpoch: epoch, ToEpoch: v.Hosts["b"].Epoch, Claim: put.Header.Revision}, asked.Header.Revision}
	for name, change := range map[string]func(*Move){
		"written since":             func(m *Move) { m.Claim-- },
		"nobody asks any more":      func(m *Move) { m.Revision-- },
		"the old host is a new one": func(m *Move) { m.FromEpoch-- },
	} {
		wrong := right
		change(&wrong)
		if revision, err := m.b.agent.seize(t.Context(), "nic9", &wrong, wrong.ToEpoch); err == nil {
			t.Errorf("%s: taken at %d", name, revision)
		}
	}
	if revision, err := m.b.agent.seize(t.Context(), "nic9", &right, right.ToEpoch); err != nil || revision <= asked.Header.Revision {
		t.Errorf("as it was asked for: %d, %v", revision, err)
	}
}
