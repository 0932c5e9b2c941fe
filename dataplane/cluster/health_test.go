package cluster

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// answering is what a host's probes are answered by.
type answering struct {
	mu sync.Mutex
	up []string
}

func (a *answering) list(string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.up)
}

func (a *answering) set(up ...string) { a.mu.Lock(); defer a.mu.Unlock(); a.up = up }

// hearing is what a host hears of the others.
type hearing struct {
	mu   sync.Mutex
	last *Health
	n    int
}

func (h *hearing) hear(last *Health) { h.mu.Lock(); defer h.mu.Unlock(); h.last = last; h.n++ }

func (h *hearing) is(t *testing.T, nic, probe string, up bool, host string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is %v by %q", probe, up, host), func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.last == nil {
			return fmt.Errorf("nothing was heard")
		}
		if is, by, _ := h.last.Of(nic, probe); is != up || by != host {
			return fmt.Errorf("%v by %q", is, by)
		}
		return nil
	})
}

func TestHostsHearOfEachOthersBackends(t *testing.T) {
	s := newServer(t)
	mustApply(t, s.open(), applyOf(t, "one"))
	var up answering
	var ears hearing
	a := newHostIn(t, s, t.TempDir(), AgentOptions{Host: "a", Hear: ears.hear, Lease: MaxLease})
	a.is("one")
	b := newHostIn(t, s, t.TempDir(), AgentOptions{Host: "b", Health: up.list}, "nic1")
	b.is("one", "nic1")
	ears.is(t, "NIC1", "p1", false, "b") // nobody has asked it
	ears.is(t, "nic2", "p2", false, "")
	up.set("p1", "p3")
	b.agent.Wake()
	ears.is(t, "nic1", "p1", true, "b")
	ears.is(t, "nic2", "p3", false, "") // b has no nic2
	up.set("p3")
	b.agent.Wake()
	ears.is(t, "nic1", "p1", false, "b")
	up.set("p1", "p3")
	b.agent.Wake()
	ears.is(t, "nic1", "p1", true, "b")

	c := newHost(t, s, "c", "nic3") // sends no probes
	c.is("one", "nic3")
	ears.is(t, "nic3", "p4", true, "c")

	s.kill() // what was known last goes on
	a.says("without etcd")
	ears.is(t, "nic1", "p1", true, "b")
	s.start()
	b.is("one", "nic1")
	ears.is(t, "nic1", "p1", true, "b")
	b.stop()
	ears.is(t, "nic1", "p1", false, "") // after its lease
}

// A host whose backends come and go writes once a second at most.
func TestHealthIsToldOnceASecond(t *testing.T) {
	s := newServer(t)
	store := s.open()
	mustApply(t, store, applyOf(t, "one"))
	var up answering
	b := newHostIn(t, s, t.TempDir(), AgentOptions{Host: "b", Health: up.list, Lease: DefaultLease}, "nic1")
	b.is("one", "nic1")
	versions := func() int64 {
		r, err := store.client.Get(soon(t), store.keys.health("b"))
		if err != nil || len(r.Kvs) != 1 {
			t.Fatalf("%v, %v", r, err)
		}
		return r.Kvs[0].Version
	}
	before, began := versions(), sinceBegan()
	for i := range 100 {
		up.set(fmt.Sprint("p", i))
		b.agent.Wake()
		up.set()
		b.agent.Wake()
		if i == 99 {
			up.set("p")
			b.agent.Wake()
		}
	}
	eventually(t, "the last state is told", func() error {
		v, err := store.View(t.Context())
		if err == nil && !v.Health["b"].has("p") {
			err = fmt.Errorf("%v", v.Health["b"])
		}
		return err
	})
	if n, most := versions()-before, int64((sinceBegan()-began)/healthPause)+1; n > most {
		t.Errorf("told %d times, at most %d", n, most)
	}
}

func TestAHealthRecordIsBounded(t *testing.T) {
	var many []string
	for i := range maxAnswering + 3 {
		many = append(many, strings.Repeat("x", 300)+fmt.Sprint(i))
	}
	r, left := newHealthRecord(many)
	if text := encode(r); left != 3 || len(text) > maxRecord {
		t.Errorf("%d left out, %d bytes", left, len(text))
	}
	r, left = newHealthRecord(many[:100])
	for i, identity := range many[:200] {
		if left != 0 || r.has(identity) != (i < 100) {
			t.Fatalf("%d left out; %d is said to be %v", left, i, r.has(identity))
		}
	}
	for _, text := range []string{`{}`, `{"up":"AAA="}`} { // the record of a newer or a broken host
		var r HealthRecord
		if err := decode("k", []byte(text), &r); err != nil || r.has("x") {
			t.Errorf("%s: %v, %v", text, err, r.has("x"))
		}
	}
}

// An etcd that was emptied gave a host the epoch that it had before, and the host took what it had written then for there.
func TestHealthIsToldAgainOnceEtcdIsEmpty(t *testing.T) {
	s := newServer(t)
	store := s.open()
	b := newHostIn(t, s, t.TempDir(), AgentOptions{Host: "b", Health: func(string) []string { return []string{"p"} }}, "nic1")
	told := func() error {
		v, err := store.View(t.Context())
		if err == nil && (v.Hosts["b"] == nil || v.Health["b"] == nil || !v.Health["b"].has("p")) {
			err = fmt.Errorf("%v, %v", v.Hosts["b"], v.Health["b"])
		}
		return err
	}
	eventually(t, "a host tells of its backend", told)
	mustApply(t, store, applyOf(t, "one"))
	b.is("one", "nic1")
	s.forget()
	eventually(t, "it tells of it again", told)
}

// A backend that its old host has found up stays so for the others when its network interface moves.
func TestABackendThatMovesIsNotTakenForDown(t *testing.T) {
	var here, refused atomic.Bool // the new host takes over what the old one has found, until its own probe is refused
	m := newMovers(t, AgentOptions{Health: func(string) []string { return []string{"p"} }}, AgentOptions{Health: func(arrives string) []string {
		if arrives == "nic1" {
			here.Store(true)
		}
		if here.Load() && !refused.Load() {
			return []string{"p", "q"}
		}
		return []string{"q"}
	}})
	var mu sync.Mutex
	var heard []string
	c := newHostIn(t, m.server, t.TempDir(), AgentOptions{Host: "c", Lease: DefaultLease, Hear: func(h *Health) {
		mu.Lock()
		defer mu.Unlock()
		up, host, _ := h.Of("nic1", "p")
		if said := fmt.Sprint(host, " ", up); len(heard) == 0 || heard[len(heard)-1] != said {
			heard = append(heard, said)
		}
	}})
	c.is("one")
	says := func(last string) {
		t.Helper()
		eventually(t, last, func() error {
			mu.Lock()
			defer mu.Unlock()
			if len(heard) == 0 || !strings.HasPrefix(heard[len(heard)-1], last) {
				return fmt.Errorf("heard %q", heard)
			}
			return nil
		})
	}
	says("a true")
	if _, err := m.move("b"); err != nil {
		t.Fatal(err)
	}
	says("b ")
	refused.Store(true)
	m.b.agent.Wake()
	says("b false")
	mu.Lock()
	defer mu.Unlock()
	if i := slices.Index(heard, "a true"); !slices.Equal(heard[i:], []string{"a true", "b true", "b false"}) {
		t.Errorf("heard %q", heard)
	}
}
