package cluster

import (
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var clientv3Prefix = clientv3.WithPrefix()

func TestANetworkInterfaceIsOnOneHost(t *testing.T) {
	s := newServer(t)
	store := s.open()
	mustApply(t, store, applyOf(t, "one"))
	a := newHost(t, s, "a", "nic1", "nic2")
	a.is("one", "nic1", "nic2")
	b := newHost(t, s, "b", "nic2", "nic3")
	b.is("one", "nic3")
	b.waits("nic2", "a")
	a.mu.Lock()
	a.nics = []string{"nic1"} // its configuration has it no more
	a.mu.Unlock()
	a.agent.Wake()
	eventually(t, "a gives nic2 back", func() error {
		v, err := store.View(t.Context())
		if err == nil && v.Claims["nic2"].Host == "a" && len(a.NICs()) == 1 {
			err = fmt.Errorf("claims %v", v.Claims)
		}
		return err
	})
	b.is("one", "nic2", "nic3")
	b.stop() // without giving back its lease
	a.mu.Lock()
	a.nics = []string{"nic1", "nic3"}
	a.mu.Unlock()
	a.agent.Wake()
	a.waits("nic3", "b")
	b.fenced()
	a.is("one", "nic1", "nic3")
}

func TestAProcessOfTheSameNameIsRefused(t *testing.T) {
	s := newServer(t)
	mustApply(t, s.open(), applyOf(t, "one"))
	a := newLasting(t, s, "a", "nic1")
	a.is("one", "nic1")
	other := newHostIn(t, s, filepath.Join(t.TempDir(), "other"), AgentOptions{Host: "a", Lease: DefaultLease}, "nic1")
	other.says(`another process is host "a"`)
	other.fenced()
	a.is("one", "nic1")
}

func TestTheNextProcessGoesOnWithTheLease(t *testing.T) {
	s := newServer(t)
	store, dir := s.open(), t.TempDir()
	mustApply(t, store, applyOf(t, "one"))
	o := AgentOptions{Host: "a", Lease: time.Minute}
	a := newHostIn(t, s, dir, o, "nic1")
	a.is("one", "nic1")
	before := viewOf(t, store)
	a.stop()
	again := newHostIn(t, s, dir, o, "nic1")
	again.mu.Lock()
	if again.until <= sinceBegan() || len(again.attached) != 1 {
		t.Errorf("it begins with %v until %v", again.attached, again.until-sinceBegan())
	}
	again.mu.Unlock()
	again.is("one", "nic1")
	eventually(t, "it is registered", func() error {
		if !again.agent.Status().Registered || !again.agent.Status().Connected {
			return fmt.Errorf("%+v", again.agent.Status())
		}
		return nil
	})
	after := viewOf(t, store)
	if before.Claims["nic1"] != after.Claims["nic1"] {
		t.Errorf("the claim was %v and is %v", before.Claims["nic1"], after.Claims["nic1"])
	}
}

func TestALeaseThatIsTakenAwayFencesAtOnce(t *testing.T) {
	s := newServer(t)
	store := s.open()
	mustApply(t, store, applyOf(t, "one"))
	a := newHostIn(t, s, t.TempDir(), AgentOptions{Host: "a", Lease: 20 * time.Second}, "nic1")
	a.is("one", "nic1")
	lease, epoch, _, _ := a.agent.session.now()
	if _, err := store.client.Revoke(soon(t), lease); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has another registration", func() error {
		if _, now, _, _ := a.agent.session.now(); now <= epoch {
			return fmt.Errorf("epoch %d", now)
		}
		return nil
	})
	a.is("one", "nic1")
}

func TestWithoutEtcdAHostStopsByItsOwnClock(t *testing.T) {
	s := newServer(t)
	mustApply(t, s.open(), applyOf(t, "one"))
	a, b := newHost(t, s, "a", "nic1"), newHostIn(t, s, t.TempDir(), AgentOptions{Host: "b", GoOn: true}, "nic2")
	a.is("one", "nic1")
	b.is("one", "nic2")
	s.kill()
	killed := sinceBegan()
	a.says("without etcd")
	a.fenced()
	a.mu.Lock()
	if a.until > killed+MinLease {
		t.Errorf("it carries up to %v after etcd has gone, and its lease is %v", a.until-killed, MinLease)
	}
	if a.carries != 1 || len(a.attached) != 1 {
		t.Errorf("it carries generation %d with %v", a.carries, a.attached)
	}
	a.mu.Unlock()
	b.is("one", "nic2") // goes on
	s.start()
	a.is("one", "nic1")
}

func TestAHostStartsWithoutEtcd(t *testing.T) {
	s := newServer(t)
	dir, other := t.TempDir(), t.TempDir()
	mustApply(t, s.open(), applyOf(t, "one"))
	a, b := newHostIn(t, s, dir, AgentOptions{Host: "a", GoOn: true}, "nic1"), newHostIn(t, s, other, AgentOptions{Host: "b"}, "nic2")
	a.is("one", "nic1")
	b.is("one", "nic2")
	a.stop()
	b.stop()
	s.kill()
	b.fenced()
	newHostIn(t, s, dir, AgentOptions{Host: "a", GoOn: true}, "nic1").is("one", "nic1")
	late := newHostIn(t, s, other, AgentOptions{Host: "b"}, "nic2")
	late.says("without etcd")
	late.fenced()
	late.mu.Lock()
	if late.carries != 1 || len(late.attached) != 0 {
		t.Errorf("it carries generation %d with %v", late.carries, late.attached)
	}
	late.mu.Unlock()
}

func TestHostsDoNotForgetWhatEtcdHasForgotten(t *testing.T) {
	s := newServer(t)
	store := s.open()
	a, b := newHost(t, s, "a", "nic1"), newHost(t, s, "b", "nic1")
	eventually(t, "both are registered", func() error { return registered(store, 2) })
	mustApply(t, store, applyOf(t, "one"))
	mustApply(t, store, applyOf(t, "two"))
	holder, other := a, b
	eventually(t, "nic1 has a host", func() error {
		v, err := store.View(t.Context())
		if err == nil && v.Claims["nic1"].Host == "" {
			err = fmt.Errorf("claims %v", v.Claims)
		} else if err == nil && v.Claims["nic1"].Host == "b" {
			holder, other = b, a
		}
		return err
	})
	holder.is("two", "nic1")
	s.forget()
	holder.says("etcd has no current generation any more: generation 2 stays")
	other.says("etcd has no current generation any more: generation 2 stays")
	holder.is("two", "nic1")
	other.is("two")
	eventually(t, "both are registered again", func() error { return registered(store, 2) })
	if got := mustApply(t, store, applyOf(t, "three")); got.Generation != 3 {
		t.Errorf("applied %+v: a number that hosts have seen is not used again", got)
	}
	holder.is("three", "nic1")
}

// An emptied etcd to which no host has come yet begins with number one again.
func TestAnotherGenerationOfTheSameNumberIsOvertaken(t *testing.T) {
	s := newServer(t)
	store, dir := s.open(), t.TempDir()
	mustApply(t, store, applyOf(t, "one"))
	a := newHostIn(t, s, dir, AgentOptions{Host: "a"}, "nic1")
	a.is("one", "nic1")
	a.stop()
	s.forget()
	if got := mustApply(t, store, applyOf(t, "two")); got.Generation != 1 {
		t.Fatalf("applied %+v", got)
	}
	a = newHostIn(t, s, dir, AgentOptions{Host: "a"}, "nic1")
	a.says("etcd has another generation 1 than the one that was current here, which stays")
	a.is("one", "nic1")
	if got := mustApply(t, store, applyOf(t, "two")); got.Generation != 2 { // though it is current
		t.Errorf("applied %+v", got)
	}
	a.is("two", "nic1")
}

func TestAnEarlierHeadIsNotFollowed(t *testing.T) {
	s := newServer(t)
	store, a := s.open(), newHost(t, s, "a", "nic1")
	eventually(t, "it is registered", func() error { return registered(store, 1) })
	mustApply(t, store, applyOf(t, "one"))
	mustApply(t, store, applyOf(t, "two"))
	a.is("two", "nic1")
	old, err := store.Generation(t.Context(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.client.Put(soon(t), store.keys.head(), encode(&Head{Current: 1, Bundle: old.Manifest.Bundle})); err != nil {
		t.Fatal(err)
	}
	a.says("etcd went back to generation 1: generation 2 stays")
	a.is("two", "nic1")
}

func TestOnlyWhatIsSignedIsCarried(t *testing.T) {
	s := newServer(t)
	public, private, _ := ed25519.GenerateKey(nil)
	store, a := s.open(), newHostIn(t, s, t.TempDir(), AgentOptions{Host: "a", Key: public}, "nic1")
	eventually(t, "it is registered", func() error { return registered(store, 1) })
	if _, err := store.Apply(t.Context(), applyOf(t, "one")); err == nil || !strings.Contains(err.Error(), "it is not signed") {
		t.Fatalf("not signed: %v", err)
	}
	o := applyOf(t, "one")
	o.Key = private
	mustApply(t, store, o)
	a.is("one", "nic1")
	if _, err := store.client.Put(soon(t), store.keys.chunk(o.Packed.Tree), "x"); err != nil { // a chunk of nobody
		t.Fatal(err)
	}
}

func TestAForgedChunkIsRefused(t *testing.T) {
	s := newServer(t)
	store := s.open()
	mustApply(t, store, applyOf(t, "one"))
	g, err := store.Generation(t.Context(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.client.Put(soon(t), store.keys.chunk(g.Chunks[0]), "forged"); err != nil {
		t.Fatal(err)
	}
	a := newHost(t, s, "a", "nic1")
	a.says("generation 1 is current and can't be had: generation 1: chunk 1 is not what its name says")
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.carries != 0 {
		t.Errorf("it carries %d", a.carries)
	}
}

func TestAWatchBehindACompactionReadsAgain(t *testing.T) {
	s := newServer(t)
	store, a := s.open(), newHost(t, s, "a", "nic1")
	eventually(t, "it is registered", func() error { return registered(store, 1) })
	mustApply(t, store, applyOf(t, "one"))
	a.is("one", "nic1")
	s.kill() // the watch is behind when etcd is back
	s.start()
	o := applyOf(t, "two")
	o.MaxUnavailable = 1
	if _, err := store.Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	v, err := store.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.client.Compact(soon(t), v.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	a.is("two", "nic1")
}

func TestANumberOfVXLANHasOneName(t *testing.T) {
	s := newServer(t)
	store := s.open()
	seen := map[uint32]string{}
	for i := range 20 {
		name := fmt.Sprint("group ", i)
		n, err := store.VNI(t.Context(), name)
		if err != nil || n == 0 || n > MaxVNI || seen[n] != "" {
			t.Fatalf("%s: %d, %v; it is %q's", name, n, err, seen[n])
		}
		seen[n] = name
		if again, err := store.VNI(t.Context(), name); err != nil || again != n {
			t.Fatalf("%s: %d and then %d, %v", name, n, again, err)
		}
	}
	first, _ := store.VNI(t.Context(), "group 0")
	if _, err := store.client.Delete(soon(t), store.keys.vni("group 0")); err != nil { // the number stays taken
		t.Fatal(err)
	}
	if n, err := store.VNI(t.Context(), "group 0"); err != nil || n == first {
		t.Errorf("a number that is taken was given: %d, %v", n, err)
	}
	if err := store.ReleaseVNI(t.Context(), "group 1"); err != nil {
		t.Fatal(err)
	}
	v := viewOf(t, store)
	if _, there := v.VNIs["group 1"]; there || len(v.VNIs) != 19 {
		t.Errorf("VNIs %v", v.VNIs)
	}
}

// A view is older than etcd: what it does not show may be taken.
func TestAClaimIsNotTakenFromSomebody(t *testing.T) {
	s := newServer(t)
	store, a := s.open(), newHostIn(t, s, t.TempDir(), AgentOptions{Host: "a", Lease: MaxLease})
	mustApply(t, store, applyOf(t, "one"))
	a.is("one")
	a.stop() // its lease lives; the test claims in its place
	_, epoch, _, _ := a.agent.session.now()
	if _, err := store.client.Put(soon(t), store.keys.claim("nic1"), encode(&ClaimRecord{"b", 1, 3})); err != nil {
		t.Fatal(err)
	}
	if a.agent.take(t.Context(), epoch, "nic1") {
		t.Error("nic1 was taken from b")
	}
	if !a.agent.take(t.Context(), epoch, "nic2") {
		t.Error("nic2 is free and was not taken")
	}
	for nic, c := range map[string]ClaimRecord{"nic4": {"a", epoch, 3}, "nic5": {"b", 1, 3}} { // a is registered, and nic5 is claimed anew
		put, err := store.client.Put(soon(t), store.keys.claim(nic), encode(&c))
		if err != nil {
			t.Fatal(err)
		}
		seen := put.Header.Revision
		if nic == "nic5" {
			seen--
		}
		a.agent.orphans[nic] = orphan{Claim: Claim{c, seen}}
		if a.agent.take(t.Context(), epoch, nic) {
			t.Errorf("%s was taken", nic)
		}
	}
	if _, err := store.client.Delete(soon(t), store.keys.host("a")); err != nil {
		t.Fatal(err)
	}
	if a.agent.take(t.Context(), epoch, "nic3") {
		t.Error("nic3 was taken without a registration")
	}
}

// A lease from before the machine's start, or of a start that nobody knows, allows nothing.
func TestALeaseOfAnotherBootDoesNotCount(t *testing.T) {
	cache, err := generation.OpenCache(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	for _, boots := range [][2]string{{"one", "one"}, {"one", "two"}, {"one", ""}, {"", ""}} {
		if err := cache.SaveLease([]byte(encode(&savedLease{Host: "a", Lease: 1, Epoch: 1, Boot: boots[0], Until: time.Hour, NICs: []string{"nic1"}}))); err != nil {
			t.Fatal(err)
		}
		nics, until, err := LastNICs(cache, "a", boots[1], time.Minute, false)
		if same := boots[0] == boots[1] && boots[0] != ""; err != nil || (until != 0) != same || (len(nics) == 1) != same {
			t.Errorf("of boot %q at boot %q: %v until %v, %v", boots[0], boots[1], nics, until, err)
		}
	}
}
