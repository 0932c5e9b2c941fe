package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
)

// Each host reports twice for each policy. If all others were sent that, the work of etcd would grow with the square of the
// hosts.
func TestHostsAreNotSentWhatOthersReport(t *testing.T) {
	s := newServer(t)
	store, a, b := s.open(), newLasting(t, s, "a", "nic1"), newLasting(t, s, "b", "nic2")
	eventually(t, "both are registered", func() error { return registered(store, 2) })
	mustApply(t, store, applyOf(t, "one"))
	a.is("one", "nic1")
	b.is("one", "nic2")
	eventually(t, "whoever asks sees what hosts carry", func() error {
		v, err := store.View(t.Context())
		for _, name := range []string{"a", "b"} {
			if err == nil && (v.Hosts[name] == nil || v.Hosts[name].Generation != 1 || v.Hosts[name].Committed != 1) {
				err = fmt.Errorf("%s reports %+v", name, v.Hosts[name])
			}
		}
		return err
	})
	for _, h := range []*host{a, b} {
		v, _, _ := h.agent.watcher.now()
		if len(v.Hosts) != 2 || len(v.reports) > 0 || v.Hosts["a"].Generation+v.Hosts["b"].Generation > 0 {
			t.Errorf("%s was sent reports: %+v", h.agent.Host, v.reports)
		}
	}
	for _, key := range []string{store.keys.report("a"), store.keys.chunk(policyOf(t, "one").Tree)} {
		if key >= store.keys.claims() && key < store.keys.watchEnd() {
			t.Errorf("%s is among what hosts watch", key)
		}
	}
}

// The report of a host that goes is gone with it, and one whose host is not there yet waits for it.
func TestAReportIsOfItsHost(t *testing.T) {
	s := newServer(t)
	store := s.open()
	put := func(key string, record any) {
		t.Helper()
		if _, err := store.client.Put(soon(t), key, encode(record)); err != nil {
			t.Fatal(err)
		}
	}
	w := newWatcher(store, true)
	go w.run(t.Context())
	carries := func(what string, want uint64, alive bool) {
		t.Helper()
		eventually(t, what, func() error {
			v, _, err := w.now()
			if v == nil || err != nil {
				return fmt.Errorf("no view: %v", err)
			}
			if h := v.Hosts["x"]; (h != nil) != alive || h != nil && h.Generation != want {
				return fmt.Errorf("%+v", h)
			}
			return nil
		})
	}
	put(store.keys.report("x"), &Report{Generation: 7})
	put(store.keys.host("x"), &HostRecord{Port: 4790})
	carries("the report was first", 7, true)
	put(store.keys.report("x"), &Report{Generation: 8})
	carries("another report", 8, true)
	if _, err := store.client.Delete(soon(t), store.keys.report("x")); err != nil {
		t.Fatal(err)
	}
	carries("no report", 0, true)
	if _, err := store.client.Delete(soon(t), store.keys.host("x")); err != nil {
		t.Fatal(err)
	}
	carries("no host", 0, false)
}

// Names of a policy are in faults, and may be of bytes that JSON writes as six. A report that nobody can read hides all of them.
func TestAReportStaysReadable(t *testing.T) {
	for _, tt := range []struct{ name, one string }{{"plain", "x"}, {"of HTML", "<"}, {"a control character", "\x01"}, {"no UTF-8", "\xff"}, {"of three bytes", "\u2028"}} {
		a := &Agent{tried: math.MaxInt64, committed: &generation.Unpacked{Manifest: &generation.Manifest{Number: math.MaxUint64}}}
		long := errors.New(strings.Repeat(tt.one, 2*maxFault))
		for range 2 * maxFaults {
			a.fault(long)
		}
		a.unplaced = a.faults
		a.refused = &Refusal{math.MaxUint64, inBrief(long)}
		var read Report
		err := decode("report", []byte(encode(a.state())), &read)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := read.Faults; len(got) != maxFaults || len(got[0]) < maxFault/4 || read.Refused == nil || read.Refused.Fault != got[0] {
			t.Errorf("%s: %d faults, the first of %d bytes, refused %v", tt.name, len(got), len(got[0]), read.Refused)
		}
	}
	if got := inBrief(errors.New("no room")); got != "no room" {
		t.Errorf("a short fault is %q", got)
	}
}

// Both hosts of a move carry the same policy: else flows would go on that the new host's does not allow.
func TestNothingMovesBetweenGenerations(t *testing.T) {
	m := newMovers(t, AgentOptions{}, AgentOptions{})
	o := applyOf(t, "two")
	o.Canary = []string{"a"}
	o.Progress = func(step string) {
		if step == "carried by a" {
			m.b.refuse("two")
		}
	}
	if applied, err := m.store.Apply(t.Context(), o); err != nil || len(applied.Missing) != 1 {
		t.Fatalf("applied %+v, %v", applied, err)
	}
	const want = "a carries generation 2, and b carries 1"
	if _, err := m.move("b"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("by what b reports: %v", err)
	}
	eventually(t, "it is refused by what b says in the move", func() error { // b may just report anew
		if _, err := m.store.client.Put(soon(t), m.store.keys.report("b"), encode(&Report{Generation: 2})); err != nil {
			return err
		}
		_, err := m.move("b")
		if err == nil {
			t.Fatal("it has moved")
		}
		if !strings.Contains(err.Error(), "a: "+want) {
			return err
		}
		return nil
	})
	m.a.is("two", "nic1", "nic2")
}

// The old host's view of the new one may be old: the new one compares what both carry when the old one comes.
func TestTheNewHostComparesGenerations(t *testing.T) {
	var m *movers
	var says hello
	var heard invitation
	m = newMovers(t, AgentOptions{Dial: func(ctx context.Context, address string) (net.Conn, error) {
		v, err := m.store.View(ctx)
		if err != nil {
			return nil, err
		}
		conn, err := call(ctx, dialHere, address, m.a.agent.moving.own, v.Hosts["b"].Mover)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		says.NIC, says.Move = "nic1", v.Moves["nic1"].Revision
		if err = errors.Join(send(conn, &says), receive(conn, &heard)); err == nil {
			err = errors.New("only asked")
		}
		return nil, err
	}}, AgentOptions{})
	for n, want := range []string{
		"a does not say which generation it carries: its nsgd is older than this host's",
		"",
		"a carries generation 2, and b carries 1",
	} {
		says.Generation, heard = uint64(n), invitation{}
		if _, err := m.move("b"); err == nil || !strings.Contains(heard.Fault, want) || (heard.Fault == "") != (want == "") {
			t.Errorf("generation %d: %v, b answers %q, want %q", n, err, heard.Fault, want)
		}
		m.a.is("one", "nic1", "nic2")
		m.b.is("one", "nic3")
	}
}
