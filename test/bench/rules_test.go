package main

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// matches says whether a rule meets a packet of the measured traffic.
func (r *rule) matches(protocol, source, dest string, port int) bool {
	return (r.protocol == "" || r.protocol == protocol) && (r.protocol == "" || r.ports <= port && port <= r.portsLast) &&
		netip.MustParsePrefix(r.source).Contains(netip.MustParseAddr(source)) && netip.MustParsePrefix(r.dest).Contains(netip.MustParseAddr(dest))
}

func TestOnlyTheLastRuleMeetsTheMeasuredTraffic(t *testing.T) {
	for _, n := range []int{1, 10, maxRules} {
		list := rules(n)
		for _, traffic := range []struct {
			protocol string
			port     int
		}{{"tcp", 5201}, {"tcp", connectPort}, {"tcp", httpPort}, {"tcp", pingPort}, {"udp", udpPort}, {"udp", pingPort}, {"udp", quicPort}} {
			for i, r := range list {
				if got := r.matches(traffic.protocol, clientAddress, serverAddress, traffic.port); got != (i == n-1) {
					t.Errorf("%d rules: rule %d meets %s to port %d: %v", n, i, traffic.protocol, traffic.port, got)
				}
			}
		}
		if !list[n-1].allow {
			t.Errorf("%d rules: the last one denies", n)
		}
	}
}

func TestPolicyIsReadAsItWasMeant(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "policy")
	if err := writePolicy(dir, rules(maxRules)); err != nil {
		t.Fatal(err)
	}
	set, err := inspect.NewPolicyFiles("", dir).Load()
	if err != nil {
		t.Fatal(err)
	}
	if groups, nics := len(set.NetworkSecurityGroups), len(set.NetworkInterfaces); groups != 2 || nics != 2 {
		t.Errorf("%d groups and %d NICs, want 2 and 2", groups, nics)
	}
}

func TestEveryFilterHoldsEveryRule(t *testing.T) {
	list := rules(100)
	text := nftables(list)
	if got := strings.Count(text, "counter drop\n"); got != 2*99 {
		t.Errorf("nftables has %d rules that drop, want 99 in each of two chains", got)
	}
	if got := strings.Count(openFlows(list), "+new"); got != 100 {
		t.Errorf("Open vSwitch has %d rules, want 100", got)
	}
}
