package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// IPv6 between the hosts carries what IPv4 does.
func TestThreeHostsOverAnIPv6Underlay(t *testing.T) {
	s := newSpread(t)
	s.underlay = func(host int) string { return fmt.Sprint("2001:db8:99::", host+1) }
	for i, name := range acrossHosts {
		must(t, "ip", "-n", namespaceOf(name), "addr", "add", s.underlay(i)+"/64", "dev", "eth0", "nodad")
	}
	t.Cleanup(func() { s.t = t; s.stop() })
	s.keep = true
	t.Run("within a subnet", TestIntraSubnetTraffic)
	t.Run("largest datagram", TestLargestDatagramArrivesWhole)
	t.Run("ICMP errors", TestPortUnreachableComesBackThoughNoRuleLetsICMPIn)
	s.keep = false
	t.Run("balancer", TestALoadBalancerKeepsTheClientsSourceAndBothBackendsServe)
	t.Run("public IP", TestOutboundRulesSeeThePrivateSourceAndTheServerThePublicOne)
	t.Run("appliance", TestTrafficThroughAnAppliance)
}

// With the internet at two hosts, what a host has leaves by its own, and answers come back to where a flow came in. The
// two internets have hosts with the same address, so that a server's name tells which one was taken.
func TestTheInternetAtTwoHosts(t *testing.T) {
	s := newSpread(t)
	second := lab.Host{Name: "internet at one", Namespace: "nsgd-internet-one", Address: client.Address}
	dir := translationLab(t)
	edit(t, filepath.Join(dir, lab.ConfigName), "- {platform: true", "- {internet: true, netns: nsgd-internet-one, create: true, device: eth0, addresses: [203.0.113.10/24]}\n- {platform: true")
	s.start(t, dir)
	serveNamed(t, client, 80)
	serveNamed(t, second, 80)
	before := s.scrape(t).drops("no_route") // guests' kernels may have sent before the hosts knew of each other
	for range 5 {
		conn, seen := mustAsk(t, gatewayVM, client, 80) // at one
		mustSee(t, conn, seen, second, "203.0.113.10:80", gatewayIP)
		conn, seen = mustAsk(t, publicVM, client, 80) // at three
		mustSee(t, conn, seen, client, "203.0.113.10:80", vmIP)
	}
	elsewhere := map[string]int{}
	for range 5 {
		_, seen := mustAsk(t, basicVM, client, 80) // at two
		elsewhere[seen.Host]++
	}
	if len(elsewhere) != 1 {
		t.Errorf("a host without the internet takes %v", elsewhere)
	}
	serveShop(t)
	for _, from := range []lab.Host{client, second} {
		if count := shares(t, from, at(shopIP), 80); count["web1"] == 0 || count["web2"] == 0 {
			t.Errorf("from %s the backends got %v", from.Name, count)
		}
	}
	if s.scrape(t).drops("no_route") != before {
		t.Errorf("dropped: %v", status(t).Dropped)
	}
}

// Without etcd the last word about a backend counts, and one of a host that is gone is down after its lease.
func TestBackendsOfAHostThatIsGone(t *testing.T) {
	s := newSpread(t)
	s.start(t, translationLab(t))
	serveShop(t)
	s.killEtcd()
	mustAsk(t, client, at(shopIP), 80)
	waitForHealth(t, map[string]bool{"web1-nic": true, "web2-nic": true})
	s.startEtcd()
	eventually(t, "all are registered again", func() bool {
		for _, name := range acrossHosts {
			if c := s.status(name); !c.Registered || !c.Connected || len(c.Faults) > 0 {
				return false
			}
		}
		return true
	})
	waitForHealth(t, map[string]bool{"web1-nic": true, "web2-nic": true})
	s.kill(1) // it has web2
	waitForHealth(t, map[string]bool{"web1-nic": true, "web2-nic": false})
	if !strings.Contains(nsgctl(t, "status", "--socket", s.socket("three")), "no host has its network interface") {
		t.Error("the status does not say why")
	}
	if count := shares(t, client, at(shopIP), 80); count["web2"] != 0 {
		t.Errorf("the backends got %v", count)
	}
	s.run(t, 1)
	eventually(t, "two is back", func() bool { c := s.status("two"); return c.Registered && len(c.Attached) == 2 })
	serveNamed(t, web2, 8080) // in a new namespace
	waitForHealth(t, map[string]bool{"web1-nic": true, "web2-nic": true})
}
