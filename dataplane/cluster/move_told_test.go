package cluster

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// What somebody hears whose move does not take place.

func TestAMoveThatCanNotBeIsRefusedByName(t *testing.T) {
	m := newMovers(t, AgentOptions{}, AgentOptions{})
	newHost(t, m.server, "c", "nic4").is("one", "nic4")
	newHostIn(t, m.server, t.TempDir(), AgentOptions{Host: "d", Underlay: netip.MustParseAddr("127.0.0.1")}, "nic1", "nic5").is("one", "nic5")
	for _, tt := range []struct {
		nic, to, want string
	}{
		{"nic1", "nowhere", `host "nowhere": there is no such host alive: there are a, b, c, d`},
		{"nic1", "a", "nic1 is at a already"},
		{"nic9", "b", `network interface "nic9": no host has it`},
		{"nic1", "c", "c: the attachments of this host's nsgd.yaml lack it"},
		{"nic1", "d", `a: nothing goes to host "d": underlay 127.0.0.1: allowed is an address that a host can have`},
	} {
		_, err := m.store.Move(t.Context(), &MoveOptions{NIC: tt.nic, To: tt.to, By: "me", Wait: 10 * time.Second, Now: time.Now})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s to %s: %v, want %q", tt.nic, tt.to, err, tt.want)
		}
	}
	m.b.mu.Lock()
	m.b.reading = func(string) error { return errors.New("flows of a newer version") }
	m.b.mu.Unlock()
	if _, err := m.move("b"); err == nil || !strings.Contains(err.Error(), "flows of a newer version") {
		t.Errorf("flows that b does not understand: %v", err)
	}
	m.a.is("one", "nic1", "nic2")
	m.b.is("one", "nic3")
	if _, err := m.move("b", func(o *MoveOptions) { o.WithoutFlows = true }); err != nil {
		t.Error(err)
	}
	m.b.is("one", "nic1", "nic3")
}

// A host that says that it has taken a network interface is not believed: the claim says who has it.
func TestAMoveIsDoneWhenTheClaimSaysSo(t *testing.T) {
	m := newMovers(t, AgentOptions{}, AgentOptions{})
	says := HostRecord{Underlay: netip.MustParseAddr("192.0.2.250"), Port: 4790, Mover: "00"}
	put := func() {
		if _, err := m.store.client.Put(soon(t), m.store.keys.host("liar"), encode(&says)); err != nil {
			t.Error(err)
		}
	}
	put()
	if _, err := m.store.client.Put(soon(t), m.store.keys.report("liar"), encode(&Report{Generation: 1})); err != nil {
		t.Fatal(err)
	}
	got, err := m.move("liar", func(o *MoveOptions) {
		o.Wait = patience + 3*time.Second
		o.Tell = func(step string) {
			if !strings.HasPrefix(step, "nic1 is at a") {
				return
			}
			go func() {
				for ctx := soon(t); ctx.Err() == nil; {
					if v, err := m.store.View(ctx); err == nil && v.Moves["nic1"] != nil {
						says.Moves = map[string]MoveState{"nic1": {Move: v.Moves["nic1"].Revision, Stage: StageDone}}
						put()
						return
					}
				}
			}()
		}
	})
	if err == nil || !strings.Contains(err.Error(), "liar: done; a has not answered); it is at a") {
		t.Errorf("%+v, %v", got, err)
	}
	m.a.is("one", "nic1", "nic2")
}

// Whoever waits for a move in vain learns who has kept it waiting, and at once when it can't take place any more.
func TestAMoveSaysWhoKeepsItWaiting(t *testing.T) {
	m := newMovers(t, AgentOptions{}, AgentOptions{})
	k := m.store.keys
	record := encode(&HostRecord{Underlay: netip.MustParseAddr("192.0.2.250"), Port: 4790, Mover: "00"})
	for key, value := range map[string]string{k.host("silent"): record, k.report("silent"): encode(&Report{Generation: 1})} {
		if _, err := m.store.client.Put(soon(t), key, value); err != nil {
			t.Fatal(err)
		}
	}
	briefly := func(o *MoveOptions) { o.Wait = time.Second }
	if _, err := m.move("silent", briefly); err == nil || !strings.HasSuffix(err.Error(), "in time (a has not answered; silent has not answered); it is at a") {
		t.Error(err)
	}
	if _, err := m.store.client.Put(soon(t), k.move("nic7"), encode(&MoveRecord{From: "silent", To: "nobody"})); err != nil {
		t.Fatal(err)
	}
	if _, err := m.move("silent", briefly); err == nil || !strings.Contains(err.Error(), "silent has not answered: it moves nic7 first)") {
		t.Error(err)
	}
	_, err := m.move("silent", func(o *MoveOptions) {
		o.Wait = 4 * patience
		o.Tell = func(string) {
			go func() {
				for ctx := soon(t); ctx.Err() == nil; {
					if v, err := m.store.View(ctx); err == nil && v.Moves["nic1"] != nil {
						m.store.client.Delete(ctx, k.host("silent"))
						return
					}
				}
			}()
		}
	})
	if err == nil || !strings.Contains(err.Error(), "nic1 has not moved: silent is not registered any more as it was") || !strings.HasSuffix(err.Error(), "it is at a") {
		t.Error(err)
	}
	m.a.is("one", "nic1", "nic2")
}
