package probe

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// subnetOfNobody gives endpoints without a network interface an identity.
var subnetOfNobody = &policy.Subnet{ID: "/subnets/s"}

// away is a probe whose backend is attached to another host.
func away(t *testing.T, address string) *topology.Probe {
	p := probeOf(t, address, topology.ProbeTCP)
	p.Target = &topology.Endpoint{Attachment: 0, Elsewhere: true, Subnet: subnetOfNobody}
	return p
}

// A backend of another host is never asked: it is as that host says, over reloads and for the next process too.
func TestABackendOfAnotherHostIsAsThatHostSays(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer server.Close()
	far, memory := away(t, hostOf(t, server)), &remembered{up: map[string]bool{}}
	r := newRigWith(t, Options{Shared: true, Memory: memory}, far)
	health := func() Health {
		t.Helper()
		list := r.Health()
		if len(list) != 1 {
			t.Fatalf("health %+v", list)
		}
		return list[0]
	}
	if h := health(); !far.Up() || h.Asked || h.Reason == "" {
		t.Errorf("before anybody has told: %v, %+v", far.Up(), h)
	}
	told := Told{Host: "b"}
	r.Hear(func(*topology.Probe) (Told, bool) { return told, true })
	if h := health(); far.Up() || h.Up || h.Host != "b" || !h.Asked {
		t.Errorf("down at its host: %v, %+v", far.Up(), h)
	}
	again := away(t, hostOf(t, server)) // of a reload
	r.Follow([]*topology.Probe{again})
	if again.Up() {
		t.Error("a reload takes it for up")
	}
	next := New(Options{Shared: true, Memory: memory, Socket: loopbackSocket})
	last := away(t, hostOf(t, server))
	if next.Follow([]*topology.Probe{last}); last.Up() {
		t.Error("the next process takes it for up")
	}
	told.Up = true
	r.Hear(func(*topology.Probe) (Told, bool) { return told, true })
	if h := health(); !again.Up() || h.Reason != "" {
		t.Errorf("up at its host: %v, %+v", again.Up(), h)
	}
	if n := r.Answering(nil); len(n) != 0 || asked.Load() != 0 {
		t.Errorf("this host answers for %q, and asked %d times", n, asked.Load())
	}
	if n := r.Answering(func(p *topology.Probe) bool { return p == again }); len(n) != 1 || n[0] != again.Identity() {
		t.Errorf("once it comes this host answers for %q", n)
	}
	if n := r.Answering(func(*topology.Probe) bool { return false }); len(n) != 0 {
		t.Errorf("another comes, and this host answers for %q", n)
	}
	// Its network interface comes to this host: it is up until it has failed.
	here := probeOf(t, hostOf(t, server), topology.ProbeTCP)
	here.Target = &topology.Endpoint{Attachment: 0, Subnet: subnetOfNobody}
	r.Follow([]*topology.Probe{here})
	if !here.Up() || len(r.Answering(nil)) != 1 {
		t.Errorf("at this host it is up: %v, answering %q", here.Up(), r.Answering(nil))
	}
}

// Without a platform this host asks nobody: its own backends are up, and those of others as they say.
func TestAHostWithoutAPlatformHearsOthers(t *testing.T) {
	own, far := probeOf(t, "127.0.0.1:1", topology.ProbeTCP), away(t, "127.0.0.1:2")
	own.Set(false) // at another host, until now
	p := New(Options{Shared: true})
	p.Hear(func(*topology.Probe) (Told, bool) { return Told{Host: "b"}, true })
	p.Follow([]*topology.Probe{own, far})
	if !own.Up() || far.Up() || p.Sends() {
		t.Errorf("own %v, far %v, sends %v", own.Up(), far.Up(), p.Sends())
	}
}

func TestAChangeOfABackendIsTold(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	changed := make(chan struct{}, 100)
	p := probeOf(t, hostOf(t, server), topology.ProbeTCP)
	newRigWith(t, Options{Shared: true, Changed: func() { changed <- struct{}{} }}, p)
	<-changed // of Follow
	eventually(t, "up", p.Up)
	eventually(t, "told", func() bool { return len(changed) > 0 })
}
