package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster/clustertest"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// at is a server whose processes others look after.
func at(t testing.TB, endpoints ...string) *server {
	return &server{t: t, client: strings.Join(endpoints, ",")}
}

func TestALeaderOfThreeThatDiesStopsNobody(t *testing.T) {
	e := clustertest.New(t, 3)
	s := at(t, e.Endpoints()...)
	store := s.open()
	a, b := newHostIn(t, s, t.TempDir(), AgentOptions{Host: "a", Lease: DefaultLease}, "nic1"), newHostIn(t, s, t.TempDir(), AgentOptions{Host: "b", Lease: DefaultLease}, "nic2")
	eventually(t, "both are registered", func() error { return registered(store, 2) })
	mustApply(t, store, applyOf(t, "one"))
	a.is("one", "nic1")
	b.is("one", "nic2")
	epochs := []int64{a.epoch(), b.epoch()}
	leader := func() (dead *clustertest.Member) {
		eventually(t, "one leads", func() error {
			if dead = e.Leader(); dead == nil {
				return errors.New("nobody does")
			}
			return nil
		})
		return dead
	}
	dead := leader()
	dead.Kill()
	leader() // another one
	mustApply(t, store, applyOf(t, "two"))
	a.is("two", "nic1")
	b.is("two", "nic2")
	dead.Start() // it catches up
	e.Await()
	mustApply(t, store, applyOf(t, "three"))
	a.carriedOn(epochs[0])
	b.carriedOn(epochs[1])
}

// A full etcd takes no policy and no claim, and says why. Leases live, so that whoever carries goes on.
func TestAFullEtcdStopsNobodyWhoCarries(t *testing.T) {
	e := clustertest.New(t, 1, "--quota-backend-bytes", "1000000")
	s := at(t, e.Endpoints()...)
	store := s.open()
	a := newHostIn(t, s, t.TempDir(), AgentOptions{Host: "a", Lease: DefaultLease}, "nic1")
	eventually(t, "it is registered", func() error { return registered(store, 1) })
	mustApply(t, store, applyOf(t, "one"))
	a.is("one", "nic1")
	epoch := a.epoch()
	eventually(t, "etcd is full", func() error {
		if _, err := store.client.Put(soon(t), "fill", strings.Repeat("x", 100_000)); !errors.Is(err, rpctypes.ErrNoSpace) {
			return fmt.Errorf("the last put: %v", err)
		}
		return nil
	})
	if _, err := store.Apply(t.Context(), applyOf(t, "two")); err == nil || !strings.Contains(err.Error(), "etcd is full") {
		t.Errorf("an apply: %v", err)
	}
	b := newHost(t, s, "b", "nic2")
	eventually(t, "b says why it has nothing", func() error {
		if s := b.agent.Status(); !strings.Contains(fmt.Sprint(s.Faults), "etcd is full") || s.Registered {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	asked := sinceBegan()
	eventually(t, "a's lease is renewed", func() error {
		if _, _, until, err := a.agent.session.now(); until < asked+a.agent.Lease-a.agent.session.margin() {
			return fmt.Errorf("until %v: %w", until, err)
		}
		return nil
	})
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	v, err := store.View(t.Context())
	must(v, err)
	must(store.client.Compact(soon(t), v.Revision, clientv3.WithCompactPhysical()))
	must(store.client.Defragment(soon(t), s.client))
	must(store.client.AlarmDisarm(soon(t), &clientv3.AlarmMember{}))
	mustApply(t, store, applyOf(t, "two"))
	b.is("two", "nic2")
	a.is("two", "nic1")
	a.carriedOn(epoch)
}

// An etcd that stands still, as with a disk that does not answer, costs only those whose lease is shorter than that.
func TestAnEtcdThatStandsStill(t *testing.T) {
	e := clustertest.New(t, 1)
	s := at(t, e.Endpoints()...)
	mustApply(t, s.open(), applyOf(t, "one"))
	long, short := newHostIn(t, s, t.TempDir(), AgentOptions{Host: "long", Lease: time.Minute}, "nic1"), newHost(t, s, "short", "nic2")
	long.is("one", "nic1")
	short.is("one", "nic2")
	epoch := long.epoch()
	e.Members[0].Stop()
	short.fenced()
	eventually(t, "its lease is not renewed", func() error {
		if _, _, _, err := short.agent.session.now(); err == nil {
			return errors.New("nothing is wrong")
		}
		return nil
	})
	e.Members[0].Continue()
	short.is("one", "nic2")
	eventually(t, "both are registered", func() error { return registered(s.open(), 2) })
	long.is("one", "nic1")
	long.carriedOn(epoch)
}

// What a host asks for takes place, and it never hears so.
func TestClaimsWhoseAnswerIsLostTookPlace(t *testing.T) {
	e := clustertest.New(t, 1)
	store := at(t, e.Endpoints()...).open()
	mustApply(t, store, applyOf(t, "one"))
	link := clustertest.NewLink(t, e.Members[0].Client)
	a := newHost(t, at(t, link.Client), "a", "nic1")
	a.is("one", "nic1")
	link.Set(clustertest.Unanswered)
	a.mu.Lock()
	a.nics = []string{"nic1", "nic2"}
	a.mu.Unlock()
	a.agent.Wake()
	var claim Claim
	eventually(t, "nic2 is claimed", func() error {
		v, err := store.View(t.Context())
		if err == nil && v.Claims["nic2"].Host != "a" {
			err = fmt.Errorf("claims %v", v.Claims)
		} else if err == nil {
			claim = v.Claims["nic2"]
		}
		return err
	})
	a.mu.Lock()
	if len(a.attached) != 1 {
		t.Errorf("it has attached %v, and knows of no claim", a.attached)
	}
	a.mu.Unlock()
	a.fenced() // nor does it hear of its lease
	link.Set(clustertest.Whole)
	a.is("one", "nic1", "nic2")
	v, err := store.View(t.Context())
	if err != nil || v.Hosts["a"] == nil || v.Claims["nic2"].Epoch != v.Hosts["a"].Epoch {
		t.Errorf("%v: host %+v, the claim was %v and is %v", err, v.Hosts["a"], claim, v.Claims["nic2"])
	}
}

// Whoever applies finds out that the commit has taken place, though its answer is late.
func TestACommitWhoseAnswerIsLateIsNotDoubted(t *testing.T) {
	e := clustertest.New(t, 1)
	s := at(t, e.Endpoints()...)
	store := s.open()
	silent := newHostIn(t, s, t.TempDir(), AgentOptions{Host: "silent", Lease: MaxLease})
	eventually(t, "it is registered", func() error { return registered(store, 1) })
	silent.stop()
	link := clustertest.NewLink(t, e.Members[0].Client)
	o := applyOf(t, "one")
	o.Wait, o.MaxUnavailable = 3*time.Second, 1
	o.Progress = func(line string) {
		if strings.HasPrefix(line, "goes on without") { // what comes next is the commit
			link.Set(clustertest.Unanswered)
		}
	}
	committed := make(chan error, 1)
	go func() {
		defer link.Set(clustertest.Whole)
		for ctx := soon(t); ; {
			head, _, err := store.get(ctx, store.keys.head())
			if head != nil || ctx.Err() != nil {
				committed <- errors.Join(err, context.Cause(ctx))
				return
			}
		}
	}()
	applied, err := at(t, link.Client).open().Apply(t.Context(), o)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	if err != nil || applied.Generation != 1 || len(applied.Missing) != 1 {
		t.Errorf("applied %+v, %v", applied, err)
	}
}

// A watch is resumed where it was, and an emptied etcd may have grown beyond that meanwhile: what was seen before is not
// there, and nothing says so.
func TestAnEmptiedEtcdThatHasGrownIsNotTakenForTheOldOne(t *testing.T) {
	e := clustertest.New(t, 1)
	link := clustertest.NewLink(t, e.Members[0].Client)
	store := at(t, e.Endpoints()...).open()
	mustApply(t, store, applyOf(t, "one"))
	a := newHost(t, at(t, link.Client), "a", "nic1")
	a.is("one", "nic1")
	link.Set(clustertest.Refused)
	e.Forget()
	if _, err := store.client.Put(soon(t), store.keys.age(), encode(&Age{"another", true})); err != nil { // by somebody who was there first
		t.Fatal(err)
	}
	for range 200 {
		if _, err := store.client.Put(soon(t), "x", "x"); err != nil {
			t.Fatal(err)
		}
	}
	link.Set(clustertest.Whole)
	eventually(t, "it is registered", func() error { return registered(store, 1) })
	a.says("etcd has no current generation any more: generation 1 stays")
	a.is("one", "nic1")
}

// Who comes to an emptied etcd later, and can't see that by its revision, waits for those whose claims are forgotten.
func TestWhoComesToAnEmptiedEtcdLaterWaitsToo(t *testing.T) {
	e := clustertest.New(t, 1)
	link := clustertest.NewLink(t, e.Members[0].Client)
	s, dir := at(t, e.Endpoints()...), t.TempDir()
	store := s.open()
	mustApply(t, store, applyOf(t, "one"))
	o := AgentOptions{Host: "b", Lease: 5 * time.Second}
	b := newHostIn(t, s, dir, o)
	b.is("one")
	a := newHostIn(t, at(t, link.Client), t.TempDir(), AgentOptions{Host: "a", Lease: 5 * time.Second}, "nic1")
	a.is("one", "nic1")
	b.stop()
	asked := sinceBegan()
	eventually(t, "a has just renewed its lease", func() error {
		if _, _, until, _ := a.agent.session.now(); until < asked+4*time.Second {
			return fmt.Errorf("until %v", until)
		}
		return nil
	})
	link.Set(clustertest.Silent)
	e.Forget()
	for range 100 { // beyond the epochs from before
		if _, err := store.client.Put(soon(t), "x", "x"); err != nil {
			t.Fatal(err)
		}
	}
	b = newHostIn(t, s, dir, o, "nic1")
	b.is("one", "nic1")
	a.mu.Lock()
	defer a.mu.Unlock()
	if left := a.until - sinceBegan(); left > 0 {
		t.Errorf("b carries nic1, and a for another %v", left)
	}
}

// A member that stood still renews a lease with which the next leader has ended the registration.
func TestARenewalWithoutTheRegistrationDoesNotCount(t *testing.T) {
	s := newServer(t)
	store := s.open()
	mustApply(t, store, applyOf(t, "one"))
	a := newHostIn(t, s, t.TempDir(), AgentOptions{Host: "a", Lease: MaxLease}, "nic1")
	a.is("one", "nic1")
	a.stop() // its lease lives
	x := a.agent.session
	if err := x.renew(soon(t)); err != nil {
		t.Fatal(err)
	}
	_, _, until, _ := x.now()
	if _, err := store.client.Delete(soon(t), store.keys.host("a")); err != nil {
		t.Fatal(err)
	}
	if err := x.renew(soon(t)); err == nil || !strings.Contains(err.Error(), "is gone, though its lease was renewed") {
		t.Errorf("renewed: %v", err)
	}
	if _, _, now, _ := x.now(); now != until || x.carriesUntil() != until {
		t.Errorf("it carried until %v, and does until %v", until, now)
	}
}

// A leader that stood still ends leases that the next leader has renewed: their holders don't know, and carry on.
func TestALeaseThatEndsBeforeItsTimeHasNoTwoHolders(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before bool // the other host has seen the claim before
	}{{"the other host has waited", true}, {"the other host comes later", false}} {
		t.Run(tt.name, func(t *testing.T) {
			e := clustertest.New(t, 1)
			s, link := at(t, e.Endpoints()...), clustertest.NewLink(t, e.Members[0].Client)
			store := s.open()
			mustApply(t, store, applyOf(t, "one"))
			b := newHostIn(t, at(t, link.Client), t.TempDir(), AgentOptions{Host: "b", Lease: 5 * time.Second}, "nic1")
			b.is("one", "nic1")
			var a *host
			if tt.before {
				a = newHost(t, s, "a", "nic1")
				a.waits("nic1", "b")
			}
			asked := sinceBegan()
			eventually(t, "b has just renewed its lease", func() error {
				if until := b.agent.session.carriesUntil(); until < asked+4*time.Second {
					return fmt.Errorf("until %v", until)
				}
				return nil
			})
			link.Set(clustertest.Silent)
			v, err := store.View(soon(t))
			if err == nil {
				_, err = store.client.Revoke(soon(t), v.Hosts["b"].lease)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !tt.before {
				a = newHost(t, s, "a", "nic1")
			}
			a.is("one", "nic1")
			if left := b.agent.session.carriesUntil() - sinceBegan(); left > 0 {
				t.Errorf("a carries nic1, and b for another %v", left)
			}
		})
	}
}

// Whoever has lost its registration too early claims anew what it had: no other host can have it.
func TestAHostHasItsOwnClaimsAgainAtOnce(t *testing.T) {
	s := newServer(t)
	store, dir := s.open(), t.TempDir()
	mustApply(t, store, applyOf(t, "one"))
	o := AgentOptions{Host: "a", Lease: MaxLease}
	a := newHostIn(t, s, dir, o, "nic1", "nic2")
	a.is("one", "nic1", "nic2")
	b := newHost(t, s, "b", "nic1", "nic2", "nic3")
	b.is("one", "nic3")
	a.stop()
	lease, epoch, _, _ := a.agent.session.now()
	if _, err := store.client.Revoke(soon(t), lease); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a is gone", func() error { return registered(store, 1) })
	a = newHostIn(t, s, dir, o, "nic1") // the next process, whose configuration lacks nic2
	a.is("one", "nic1")
	b.is("one", "nic2", "nic3")
	b.waits("nic1", "a")
	if now := a.epoch(); now <= epoch {
		t.Errorf("registration %d, before it %d", now, epoch)
	}
}

func TestClaimsOfAHostThatIsGoneAreCollected(t *testing.T) {
	s := newServer(t)
	store := s.open()
	mustApply(t, store, applyOf(t, "one"))
	a := newHostIn(t, s, t.TempDir(), AgentOptions{Host: "a", Lease: 5 * time.Second}, "nic1")
	a.is("one", "nic1")
	newHost(t, s, "b", "nic2").is("one", "nic2")
	newHost(t, s, "c", "nic3").is("one", "nic3")
	a.stop()
	lease, _, _, _ := a.agent.session.now()
	if _, err := store.client.Revoke(soon(t), lease); err != nil { // before its time
		t.Fatal(err)
	}
	eventually(t, "nic1 is not claimed", func() error {
		v, err := store.View(t.Context())
		if err == nil && len(v.Claims) != 2 {
			err = fmt.Errorf("claims %v", v.Claims)
		}
		return err
	})
	if left := a.agent.session.carriesUntil() - sinceBegan(); left > 0 {
		t.Errorf("nobody has claimed nic1, and a carries it for another %v", left)
	}
}

// The claim outlives the registration, and another host may have it soon.
func TestAClaimWithoutTheRegistrationIsNotReclaimed(t *testing.T) {
	s := newServer(t)
	store := s.open()
	mustApply(t, store, applyOf(t, "one"))
	a := newHostIn(t, s, t.TempDir(), AgentOptions{Host: "a", Lease: MaxLease}, "nic1")
	a.is("one", "nic1")
	a.stop()
	v, err := store.View(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	lease, epoch, _, _ := a.agent.session.now()
	if mine, err := a.agent.reclaim(soon(t), "nic1", v.Claims["nic1"].Revision, epoch); !mine || err != nil {
		t.Errorf("registered: %v, %v", mine, err)
	}
	if _, err := store.client.Revoke(soon(t), lease); err != nil {
		t.Fatal(err)
	}
	if mine, err := a.agent.reclaim(soon(t), "nic1", a.agent.held["nic1"], epoch); mine || !errors.Is(err, errNoLease) {
		t.Errorf("not registered: %v, %v", mine, err)
	}
}
