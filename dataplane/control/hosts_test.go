package control_test

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

// hosts is what a rig says of its cluster.
func (r *rig) hosts(self string, controls ...string) {
	list := &inspect.ClusterHosts{Host: self}
	for pair := range slices.Chunk(controls, 2) {
		list.Hosts = append(list.Hosts, inspect.ClusterHost{Name: pair[0], Control: pair[1]})
	}
	r.cluster.Store(list)
}

// asked asks each host for its flows, and lists who has answered.
func asked(t *testing.T, e control.EachHost, c *control.Client) (names []string, faults map[string]string) {
	t.Helper()
	var mu sync.Mutex
	list, err := e.Ask(t.Context(), c, func(ctx context.Context, host string, one *control.Client, _ func()) error {
		if _, err := one.Flows(ctx, inspect.FlowFilter{}); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		names = append(names, host)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	faults = map[string]string{}
	for _, f := range list {
		faults[f.Host] = f.Fault
	}
	slices.Sort(names)
	return names, faults
}

func TestEachHostIsAsked(t *testing.T) {
	own, other := newRig(t), newRemote(t)
	other.hosts("b")
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := nobody.Addr().String()
	nobody.Close()
	own.hosts("a", "a", "", "b", other.address, "c", other.address, "d", "", "e", free, "f", "over there")
	e := control.EachHost{Files: other.files("bob", "ca")}
	names, faults := asked(t, e, own.client)
	if !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("answered: %q", names)
	}
	for host, want := range map[string]string{"c": `host "b" answers there`, "d": "no control.listen", "e": "no daemon answers", "f": `"over there" is not ADDRESS:PORT`} {
		if !strings.Contains(faults[host], want) {
			t.Errorf("host %s: %q, want %q", host, faults[host], want)
		}
	}
	e.AtOnce = 5
	if _, err := e.Ask(t.Context(), own.client, nil); err == nil || !strings.Contains(err.Error(), "6 hosts: at most 5") {
		t.Errorf("more than at once: %v", err)
	}
	own.cluster.Store(nil)
	if _, err := e.Ask(t.Context(), own.client, nil); err == nil || !strings.Contains(err.Error(), "in no cluster") {
		t.Errorf("without a cluster: %v", err)
	} else {
		wantRefusal(t, err, http.StatusNotFound)
	}
}

// A host that accepts connections and says nothing costs its patience, and nobody else's answer.
func TestAHostThatIsSilentIsNamed(t *testing.T) {
	own, other := newRig(t), newRemote(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	own.hosts("a", "a", "", "b", silent.Addr().String())
	names, faults := asked(t, control.EachHost{Files: other.files("bob", "ca"), Patience: 5 * time.Second}, own.client)
	if !slices.Equal(names, []string{"a"}) || faults["b"] != "no answer within 5s" {
		t.Errorf("answered %q; faults %q", names, faults)
	}
}
