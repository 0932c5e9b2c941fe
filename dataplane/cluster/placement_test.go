package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// One host's record is not allowed to cost the others: it is left out with its network interfaces, by name.
func TestHostsThatTunnelsCanNotLeadToAreLeftOut(t *testing.T) {
	p := &Placement{Self: "h1", Hosts: map[string]PlacedHost{}, NICs: map[string]PlacedNIC{}}
	for i, tt := range []struct {
		name, underlay string
		port           uint16
		mtu            int
	}{
		{"h1", "192.168.99.1", 4790, 1500},
		{"h2", "192.168.99.2", 4790, 1336},
		{"unknown-mtu", "192.168.99.3", 4790, 0},
		{"again", "192.168.99.2", 4790, 1500},
		{"mine", "192.168.99.1", 4790, 1500},
		{"none", "", 4790, 1500},
		{"loopback", "127.0.0.1", 4790, 1500},
		{"other-family", "2001:db8::1", 4790, 1500},
		{"mapped", "::ffff:192.168.99.9", 4790, 1500},
		{"other-port", "192.168.99.10", 4789, 1500},
		{"small", "192.168.99.11", 4790, 100},
		{"negative", "192.168.99.12", 4790, -1},
		{"huge", "192.168.99.13", 4790, 1 << 40},
	} {
		h := PlacedHost{Port: tt.port, MTU: tt.mtu, Epoch: int64(i + 1)}
		if tt.underlay != "" {
			h.Underlay = netip.MustParseAddr(tt.underlay)
		}
		p.Hosts[tt.name] = h
		p.NICs["nic of "+tt.name] = PlacedNIC{Host: tt.name}
	}
	faults := fmt.Sprint(p.Confine(netip.MustParseAddrPort("192.168.99.1:4790")))
	var stay []string
	for name := range p.Hosts {
		stay = append(stay, name)
		if _, known := p.NICs["nic of "+name]; !known {
			t.Errorf("the network interface of %s has gone", name)
		}
	}
	slices.Sort(stay)
	if want := []string{"h1", "h2", "unknown-mtu"}; !slices.Equal(stay, want) || len(p.NICs) != len(want) {
		t.Errorf("hosts %v with %v, want %v", stay, p.NICs, want)
	}
	for _, name := range []string{"again", "mine", "none", "loopback", "other-family", "mapped", "other-port", "small", "negative", "huge"} {
		if !strings.Contains(faults, fmt.Sprintf("%q", name)) {
			t.Errorf("no fault names %s: %s", name, faults)
		}
	}
}

// A placement that was taken in part is not in force, and neither is the one before it: when etcd came back to that, the
// host stayed with the part.
func TestAPlacementComesAgainAfterAFault(t *testing.T) {
	var told []int
	var fault error
	a := &Agent{AgentOptions: AgentOptions{Host: "h1", Clock: func() time.Duration { return 0 }, Placed: func(_ context.Context, p *Placement) error {
		told = append(told, len(p.VNIs))
		return fault
	}}}
	view := newView("/nsgd/")
	a.place(t.Context(), view)
	changed := view.clone()
	changed.put(&mvccpb.KeyValue{Key: []byte(changed.keys.vni("a")), Value: []byte("1")})
	fault = errors.New("in part")
	a.place(t.Context(), changed)
	fault = nil
	a.place(t.Context(), view)
	a.place(t.Context(), view)
	if !slices.Equal(told, []int{0, 1, 0}) || len(a.unplaced) > 0 {
		t.Errorf("told %v, faults %v", told, a.unplaced)
	}
}

// When etcd was away for longer than all leases, everybody has gone at once and comes back one by one.
func TestWhoComesBackKeepsWhatItKnewOfOthersForALease(t *testing.T) {
	now := time.Duration(0)
	var last *Placement
	a := &Agent{AgentOptions: AgentOptions{Host: "h1", Clock: func() time.Duration { return now }, Lease: MinLease, Underlay: netip.MustParseAddr("192.0.2.1"), Port: 4790,
		Placed: func(_ context.Context, p *Placement) error { last = p; return nil }}}
	whole := newView("/nsgd/")
	whole.put(&mvccpb.KeyValue{Key: []byte(whole.keys.host("h2")), CreateRevision: 5, Value: []byte(`{"underlay":"192.0.2.2","port":4790}`)})
	whole.put(&mvccpb.KeyValue{Key: []byte(whole.keys.claim("nic2")), CreateRevision: 6, Value: []byte(`{"host":"h2","epoch":5}`)})
	empty := func() *View {
		v := newView("/nsgd/")
		v.put(&mvccpb.KeyValue{Key: []byte(v.keys.host("h1")), CreateRevision: 9, Value: []byte(`{"underlay":"192.0.2.1","port":4790}`)})
		return v
	}
	a.place(t.Context(), whole)
	a.place(t.Context(), newView("/nsgd/")) // it has no registration itself
	a.returned = 10
	a.place(t.Context(), empty())
	if last.NICs["nic2"].Host != "h2" || last.Hosts["h2"].Port != 4790 {
		t.Errorf("it has forgotten h2: %+v", last)
	}
	now = 20
	a.place(t.Context(), empty())
	if len(last.NICs) != 0 || len(last.Hosts) != 1 {
		t.Errorf("h2 has not come back, and is still there: %+v", last)
	}
}

// A host that has no registration, and goes on, shares the ports of public addresses as before.
func TestAHostIsAlwaysInItsOwnPlacement(t *testing.T) {
	var last *Placement
	a := &Agent{AgentOptions: AgentOptions{Host: "h1", Clock: func() time.Duration { return 0 }, Underlay: netip.MustParseAddr("192.0.2.1"), Port: 4790,
		Internet: func() bool { return true }, InternetHosts: []string{"h3"}, Placed: func(_ context.Context, p *Placement) error { last = p; return nil }}}
	view := newView("/nsgd/")
	for i, name := range []string{"h2", "h3"} {
		view.put(&mvccpb.KeyValue{Key: []byte(view.keys.host(name)), CreateRevision: int64(i + 1), Value: fmt.Appendf(nil, `{"underlay":"192.0.2.%d","port":4790,"internet":true}`, i+2)})
	}
	a.place(t.Context(), view)
	if !last.Hosts["h1"].Internet || last.Hosts["h2"].Internet || !last.Hosts["h3"].Internet {
		t.Errorf("hosts %+v", last.Hosts)
	}
	if faults := fmt.Sprint(a.faults); !strings.Contains(faults, `host "h2" says that it has the internet`) || len(a.faults) != 1 {
		t.Errorf("faults %s", faults)
	}
}

// Its name was taken while its lease lives: what the lease allows already stays, and no more is added.
func TestWhoseNameIsTakenCarriesNoLonger(t *testing.T) {
	a := &Agent{AgentOptions: AgentOptions{Host: "h1"}, session: &session{lease: 5, epoch: 3, open: true}}
	view := newView("/nsgd/")
	view.Revision = 10
	view.put(&mvccpb.KeyValue{Key: []byte(view.keys.host("h1")), CreateRevision: 9, Lease: 7, Value: []byte(`{"underlay":"192.0.2.1","port":4790}`)})
	if epoch := a.register(t.Context(), view); epoch != 0 || a.session.open || a.session.lease != 5 {
		t.Errorf("epoch %d, open %v, lease %d", epoch, a.session.open, a.session.lease)
	}
}

// wants is a daemon that is to have network interfaces, and is asked nothing else.
type wants struct {
	Daemon
	nics []string
}

func (w wants) NICs() []string { return w.nics }

// Of two hosts that come to a new cluster at once, one sees for a moment that nobody has said since when etcd holds anything.
func TestANewEtcdHasForgottenNothing(t *testing.T) {
	a := &Agent{AgentOptions: AgentOptions{Host: "h1", Clock: func() time.Duration { return 0 }, Daemon: wants{nics: []string{"nic1"}}},
		session: &session{}, waiting: map[string]string{}}
	view := newView("/nsgd/")
	a.claim(t.Context(), view, 1)
	if _, waits := a.waiting["nic1"]; !waits || len(a.faults) > 0 {
		t.Errorf("waiting %v, faults %v", a.waiting, a.faults)
	}
	view.Age = &Age{ID: "young"}
	a.claim(t.Context(), view, 1)
	if _, waits := a.waiting["nic1"]; !waits || len(a.faults) != 1 {
		t.Errorf("etcd is young: waiting %v, faults %v", a.waiting, a.faults)
	}
}
