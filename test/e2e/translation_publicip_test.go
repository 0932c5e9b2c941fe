package e2e

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
)

func TestAPublicIPIsTranslatedBeforeInboundRules(t *testing.T) {
	d := startTranslation(t)
	serveNamed(t, publicVM, 80)
	before := scrape(t)
	conn, s := mustAsk(t, client, at(vmIP), 80)
	mustSee(t, conn, s, publicVM, "10.1.2.4:80", conn.LocalAddr().String())
	allowed := decided{"vm-nsg", "Inbound", "AllowHttpToPrivateInBound", "Allow"}
	since(t, before, func(c counts) bool { return c.rule(allowed).hits == 1 })

	flows := flowsOf(t, "--address", vmIP)
	if len(flows) != 1 || flows[0].Translated == nil || flows[0].Destination != vmIP || flows[0].Translated.Destination != "10.1.2.4" ||
		flows[0].Translated.Source != client.Address.String() || flows[0].Translated.SourcePort != flows[0].SourcePort {
		t.Errorf("nsgctl flows shows %+v", flows)
	}

	// A rule on the public address is one on nobody's.
	setRules(t, d.dir, "vm-nsg", rule{name: "AllowHttpToPublicInBound", priority: 100, direction: "Inbound", access: "Allow",
		protocol: "Tcp", source: "Internet", destination: vmIP, port: "80"})
	nsgctl(t, "reload")
	before = scrape(t)
	mustNotConnect(t, client, at(vmIP), 80)
	deniedBy(t, before, decided{"vm-nsg", "Inbound", "DenyAllInBound", "Deny"}, "")
	mustEcho(t, conn) // an open connection stays
}

func TestOutboundRulesSeeThePrivateSourceAndTheServerThePublicOne(t *testing.T) {
	d := startTranslation(t)
	serveNamed(t, client, 80)
	setRules(t, d.dir, "vm-nsg",
		rule{name: "AllowPrivateOutBound", priority: 100, direction: "Outbound", access: "Allow", protocol: "Tcp", source: publicVM.Address.String(), destination: "Internet", port: "80"},
		rule{name: "AllowPublicOutBound", priority: 101, direction: "Outbound", access: "Allow", protocol: "Tcp", source: vmIP, destination: "Internet", port: "81"},
		denyAllOut)
	nsgctl(t, "reload")
	before := scrape(t)
	conn, s := mustAsk(t, publicVM, client, 80)
	mustSee(t, conn, s, client, "203.0.113.10:80", vmIP+":"+ownPort(conn)) // one to one: the port stays
	since(t, before, func(c counts) bool {
		return c.rule(decided{"vm-nsg", "Outbound", "AllowPrivateOutBound", "Allow"}).hits == 1
	})
	before = scrape(t)
	mustNotConnect(t, publicVM, client, 81)
	deniedBy(t, before, decided{"vm-nsg", "Outbound", denyAllOut.name, "Deny"}, "")
}

func TestAStandardPublicIPIsClosedWithoutAnNSGAndABasicOneIsOpen(t *testing.T) {
	startTranslation(t)
	serveNamed(t, basicVM, 80)
	serveNamed(t, closedVM, 80)
	conn, s := mustAsk(t, client, at(basicIP), 80)
	mustSee(t, conn, s, basicVM, "10.1.4.4:80", conn.LocalAddr().String())
	mustDrop(t, client, at(closedIP), 80, "closed")

	serveNamed(t, client, 81) // outbound it is open, and answers come in
	conn, s = mustAsk(t, closedVM, client, 81)
	mustSee(t, conn, s, client, "203.0.113.10:81", closedIP)
}

func TestDefaultOutboundAccess(t *testing.T) {
	d := startTranslation(t)
	serveNamed(t, client, 80)
	conn, s := mustAsk(t, plainVM, client, 80)
	mustSee(t, conn, s, client, "203.0.113.10:80", defaultOutb)
	mustDrop(t, client, at(defaultOutb), 80, "no_frontend")

	editDocument(t, d.dir, "shop", func(properties map[string]any) {
		for _, s := range properties["subnets"].([]any) {
			s.(map[string]any)["properties"].(map[string]any)["defaultOutboundAccess"] = false
		}
	})
	nsgctl(t, "reload")
	mustDrop(t, plainVM, client, 80, "no_outbound")
}

func TestEchoAndDatagramsThroughAPublicIP(t *testing.T) {
	d := startTranslation(t)
	setRules(t, d.dir, "vm-nsg", rule{name: "AllowAllInBound", priority: 100, direction: "Inbound", access: "Allow", source: "Internet"})
	nsgctl(t, "reload")
	public := at(vmIP)
	mustPing(t, client, public)
	mustPing(t, publicVM, client)
	server := bindUDP(t, publicVM, 5000)
	conn := dialUDP(t, client, netip.AddrPortFrom(public.Address, 5000))
	// One that fits, one in fragments of it, both ways.
	for _, size := range []int{100, 1472, 8000} {
		message := make([]byte, size)
		for i := range message {
			message[i] = byte(i * size)
		}
		if _, err := conn.Write(message); err != nil {
			t.Fatal(err)
		}
		from := mustArrive(t, server, message)
		if from != address(conn) {
			t.Errorf("a datagram of %d bytes comes from %s, want %s", size, from, address(conn))
		}
		if _, err := server.WriteToUDPAddrPort(message, from); err != nil {
			t.Fatal(err)
		}
		mustArrive(t, conn, message)
	}
}

// mustArrive reads one datagram and says who sent it.
func mustArrive(t *testing.T, conn *net.UDPConn, want []byte) netip.AddrPort {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1<<16)
	n, from, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatalf("datagram of %d bytes at %s: %v", len(want), conn.LocalAddr(), err)
	}
	if string(buf[:n]) != string(want) {
		t.Fatalf("a datagram of %d bytes arrived as other %d bytes", len(want), n)
	}
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// An address that the outside sees is no host: a port there that nobody listens on refuses, and the
// refusal comes from there.
func TestARefusalComesFromThePublicAddress(t *testing.T) {
	d := startTranslation(t)
	setRules(t, d.dir, "vm-nsg", rule{name: "AllowAllInBound", priority: 100, direction: "Inbound", access: "Allow", source: "Internet"})
	nsgctl(t, "reload")
	if conn, err := connect(client, at(vmIP), 9, patience); !isRefused(err) {
		t.Errorf("TCP: %v, %v", conn, err)
	}
	if err := refusal(t, client, lab.Host{Address: at(vmIP).Address}); !isRefused(err) {
		t.Errorf("UDP: %v", err)
	}
}
