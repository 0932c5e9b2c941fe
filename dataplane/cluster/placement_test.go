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
