package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
)

// serveShop has both backends of the load balancer serve, and waits until their probes have found
// that out.
func serveShop(t *testing.T) (close map[string]func()) {
	t.Helper()
	close = map[string]func(){}
	for _, h := range []lab.Host{web1, web2} {
		close[h.Name] = serveNamed(t, h, 8080)
	}
	waitForHealth(t, map[string]bool{"web1-nic": true, "web2-nic": true})
	return close
}

// shares connects so often that with two backends up both get a share for certain (of so many
// connections all go to one in a case of a quintillion), and counts.
func shares(t *testing.T, from, to lab.Host, port uint16) map[string]int {
	t.Helper()
	count := map[string]int{}
	for range 60 {
		conn, s := mustAsk(t, from, to, port)
		if s.Remote != conn.LocalAddr().String() {
			t.Fatalf("%s sees %s as %s", s.Host, conn.LocalAddr(), s.Remote)
		}
		count[s.Host]++
		conn.Close()
	}
	return count
}

func TestALoadBalancerKeepsTheClientsSourceAndBothBackendsServe(t *testing.T) {
	startTranslation(t)
	serveShop(t)
	before := scrape(t)
	conn, s := mustAsk(t, client, at(shopIP), 80)
	host := map[string]lab.Host{"web1": web1, "web2": web2}[s.Host]
	mustSee(t, conn, s, host, netip.AddrPortFrom(host.Address, 8080).String(), conn.LocalAddr().String())
	if count := shares(t, client, at(shopIP), 80); count["web1"] == 0 || count["web2"] == 0 {
		t.Errorf("of the connections the backends got %v", count)
	}
	// The rule is about the backend's port, 8080, not the frontend's.
	since(t, before, func(c counts) bool {
		return c.rule(decided{"web-nsg", "Inbound", "AllowHttpInBound", "Allow"}).hits >= 61
	})
	mustDrop(t, client, at(shopIP), 81, "no_frontend")
}

func TestADeadBackendLeavesTheRotationAndReturns(t *testing.T) {
	d := startTranslation(t)
	close := serveShop(t)
	var old net.Conn
	for old == nil { // a connection with the one that stays
		if conn, s := mustAsk(t, client, at(shopIP), 80); s.Host == "web1" {
			old = conn
		}
	}
	close["web2"]()
	waitForHealth(t, map[string]bool{"web1-nic": true, "web2-nic": false})
	d.waitFor(d.stderr, `msg="backend down" probe=shop-lb/http backend=10.1.1.5:8080`)
	if count := shares(t, client, at(shopIP), 80); count["web2"] != 0 {
		t.Errorf("of the connections the backends got %v", count)
	}
	up := func(backend string) float64 {
		return scrape(t)[sampleKey("nsgd_backend_up", map[string]string{"load_balancer": "shop-lb", "probe": "http", "backend": backend, "port": "8080"})]
	}
	if up("10.1.1.4") != 1 || up("10.1.1.5") != 0 {
		t.Errorf("nsgd_backend_up is %v of web1 and %v of web2", up("10.1.1.4"), up("10.1.1.5"))
	}
	mustEcho(t, old)

	close["web1"]()
	waitForHealth(t, map[string]bool{"web1-nic": false, "web2-nic": false})
	mustDrop(t, client, at(shopIP), 80, "no_backend")
	mustEcho(t, old) // what is open goes on, as with a Standard load balancer

	close["web2"] = serveNamed(t, web2, 8080)
	waitForHealth(t, map[string]bool{"web1-nic": false, "web2-nic": true})
	if count := shares(t, client, at(shopIP), 80); count["web2"] != 60 {
		t.Errorf("of the connections the backends got %v", count)
	}
}

func TestARuleThatBlocksProbesTakesTheBackendsOut(t *testing.T) {
	d := startTranslation(t)
	serveShop(t)
	allow := allowHTTPIn8080
	allow.priority = 200 // the tag Internet holds the probes' source too
	setRules(t, d.dir, "web-nsg", allow,
		rule{name: "DenyProbesInBound", priority: 100, direction: "Inbound", access: "Deny", source: "AzureLoadBalancer"})
	before := scrape(t)
	nsgctl(t, "reload")
	waitForHealth(t, map[string]bool{"web1-nic": false, "web2-nic": false})
	deniedBy(t, before, decided{"web-nsg", "Inbound", "DenyProbesInBound", "Deny"}, "")
	mustDrop(t, client, at(shopIP), 80, "no_backend")
	setRules(t, d.dir, "web-nsg", allowHTTPIn8080)
	nsgctl(t, "reload")
	waitForHealth(t, map[string]bool{"web1-nic": true, "web2-nic": true})
	mustAsk(t, client, at(shopIP), 80)
}

var allowHTTPIn8080 = rule{name: "AllowHttpInBound", priority: 100, direction: "Inbound", access: "Allow",
	protocol: "Tcp", source: "Internet", port: "8080"}

func TestWithoutAPlatformBackendsCountAsUp(t *testing.T) {
	dir := translationLab(t)
	file := dir + "/" + lab.ConfigName
	var lines []string
	for line := range strings.Lines(readFile(t, file)) {
		if !strings.Contains(line, "platform: true") {
			lines = append(lines, line)
		}
	}
	writeFile(t, file, strings.Join(lines, ""))
	d := startIn(t, dir)
	d.waitFor(d.stderr, "no health probe is sent, every backend counts as up")
	serveNamed(t, web1, 8080)
	serveNamed(t, web2, 8080)
	if count := shares(t, client, at(shopIP), 80); count["web1"] == 0 || count["web2"] == 0 {
		t.Errorf("of the connections the backends got %v", count)
	}
	if s := status(t); !strings.Contains(s.Unprobed, "no attachment is platform: true") || len(s.Backends) != 2 || !s.Backends[0].Up {
		t.Errorf("status shows %+v", s)
	}
}

func TestAnInboundNATRuleLeadsToOneBackend(t *testing.T) {
	startTranslation(t)
	for i, h := range []lab.Host{web1, web2} {
		serveNamed(t, h, 22)
		conn, s := mustAsk(t, client, at(shopIP), uint16(2201+i))
		mustSee(t, conn, s, h, netip.AddrPortFrom(h.Address, 22).String(), conn.LocalAddr().String())
	}
	mustDrop(t, client, at(shopIP), 2203, "no_frontend")
}

func TestAnOutboundRuleLendsTheFrontendsAddressAndPorts(t *testing.T) {
	startTranslation(t)
	serveNamed(t, client, 80)
	ports := map[string][]uint16{}
	for range 20 {
		for _, h := range []lab.Host{web1, web2} {
			conn, s := mustAsk(t, h, client, 80)
			mustSee(t, conn, s, client, "203.0.113.10:80", shopIP)
			ports[h.Name] = append(ports[h.Name], netip.MustParseAddrPort(s.Remote).Port())
		}
	}
	// Each has 1024 ports of its own; the 8 around those of the inbound NAT rules, 2200 to 2207, are nobody's.
	slices.Sort(ports["web1"])
	slices.Sort(ports["web2"])
	for name, list := range ports {
		if list[len(list)-1]-list[0] >= 1024+8 || len(slices.Compact(slices.Clone(list))) != len(list) {
			t.Errorf("%s got ports %v", name, list)
		}
	}
	if a, b := ports["web1"], ports["web2"]; a[0] < b[0] && a[len(a)-1] > b[0] || b[0] < a[0] && b[len(b)-1] > a[0] {
		t.Errorf("they got ports %v", ports)
	}
}

func TestFloatingIPLeavesTheFrontendsAddress(t *testing.T) {
	dir := translationLab(t)
	editBalancer(t, dir, "loadBalancingRules", "http", func(p map[string]any) {
		p["enableFloatingIP"], p["frontendPort"], p["backendPort"] = true, 8080, 8080
	})
	// The rule is about the frontend's address.
	setRules(t, dir, "web-nsg", rule{name: "AllowFrontendInBound", priority: 100, direction: "Inbound", access: "Allow",
		protocol: "Tcp", source: "Internet", destination: shopIP, port: "8080"})
	startIn(t, dir)
	for _, h := range []lab.Host{web1, web2} {
		command(t, fmt.Sprintf("ip -n %s address add %s/32 dev lo", h.Namespace, shopIP))
	}
	serveShop(t)
	before := scrape(t)
	conn, s := mustAsk(t, client, at(shopIP), 8080)
	if s.Local != shopIP+":8080" || s.Remote != conn.LocalAddr().String() {
		t.Errorf("the server sees %+v", s)
	}
	since(t, before, func(c counts) bool {
		return c.rule(decided{"web-nsg", "Inbound", "AllowFrontendInBound", "Allow"}).hits == 1
	})
	backend := map[string]lab.Host{"web1": web1, "web2": web2}[s.Host].Address.String()
	if flows := flowsOf(t, "--address", shopIP); len(flows) != 1 || flows[0].DeliveredTo != backend || flows[0].Translated != nil {
		t.Errorf("nsgctl flows shows %+v", flows)
	}
}

func TestAConnectionThatFallsSilentIsReset(t *testing.T) {
	startTranslation(t, "timeouts: {translation: 3s}") // the rule has 4 minutes
	serveShop(t)
	conn, s := mustAsk(t, client, at(shopIP), 80)
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client's socket, connected to %s, says %v; want a reset", s.Host, err)
	}
}

func TestAnInternalLoadBalancerAndItsHairpin(t *testing.T) {
	dir := translationLab(t)
	const frontend = "10.1.1.100"
	editBalancerFrontend(t, dir, frontend)
	setRules(t, dir, "web-nsg", rule{name: "AllowAllInBound", priority: 100, direction: "Inbound", access: "Allow"})
	startIn(t, dir)
	serveShop(t)
	internal := lab.Host{Name: "at " + frontend, Address: netip.MustParseAddr(frontend)}
	if count := shares(t, publicVM, internal, 80); count["web1"] == 0 || count["web2"] == 0 {
		t.Errorf("of the connections the backends got %v", count)
	}
	// A backend that its own load balancer leads to itself gets no answer; the others' it does.
	before := scrape(t)
	answered := 0
	for answered == 0 || scrape(t).drops("hairpin") == before.drops("hairpin") {
		conn, s, err := ask(web1, internal, 80, silence)
		switch {
		case err == nil && s.Host == "web2":
			answered++
			conn.Close()
		case isTimeout(err): // it was led to itself, or the other is slow
		default:
			t.Fatalf("%+v, %v", s, err)
		}
	}
}

// editBalancerFrontend makes the load balancer an internal one, without outbound rules.
func editBalancerFrontend(t *testing.T, dir, address string) {
	t.Helper()
	editDocument(t, dir, "shop-lb", func(properties map[string]any) { delete(properties, "outboundRules") })
	editBalancer(t, dir, "frontendIPConfigurations", "front", func(p map[string]any) {
		delete(p, "publicIPAddress")
		p["privateIPAddress"] = address
		p["subnet"] = map[string]any{"id": "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/lab/providers/Microsoft.Network/virtualNetworks/shop/subnets/web"}
	})
}

func TestAPublicLoadBalancersHairpinComesFromItsOwnAddress(t *testing.T) {
	dir := translationLab(t)
	setRules(t, dir, "web-nsg", rule{name: "AllowAllInBound", priority: 100, direction: "Inbound", access: "Allow"})
	startIn(t, dir)
	serveShop(t)
	count := map[string]int{}
	for range 60 {
		conn, s := mustAsk(t, web1, at(shopIP), 80)
		if host, _, _ := net.SplitHostPort(s.Remote); host != shopIP {
			t.Fatalf("%s sees %s as %s", s.Host, conn.LocalAddr(), s.Remote)
		}
		count[s.Host]++
		conn.Close()
	}
	if count["web1"] == 0 || count["web2"] == 0 {
		t.Errorf("of the connections the backends got %v", count)
	}
	// By way of the public IP of another, too: inbound rules see what the outside would.
	serveNamed(t, publicVM, 80)
	conn, s := mustAsk(t, plainVM, at(vmIP), 80)
	mustSee(t, conn, s, publicVM, "10.1.2.4:80", defaultOutb)
}

func TestDistributionBySourceKeepsAClientAtItsBackend(t *testing.T) {
	dir := translationLab(t)
	editBalancer(t, dir, "loadBalancingRules", "http", func(p map[string]any) { p["loadDistribution"] = "SourceIP" })
	startIn(t, dir)
	serveShop(t)
	for _, h := range []lab.Host{client, otherHost} {
		if count := shares(t, h, at(shopIP), 80); len(count) != 1 {
			t.Errorf("%v: of the connections the backends got %v", h, count)
		}
	}
}
