package e2e

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// closed denies everything that a policy with the rules in front doesn't allow.
func closed(r ...rule) []rule { return append(rules(denyAllIn, denyAllOut), r...) }

func TestReturnTrafficNeedsNoRule(t *testing.T) {
	t.Run("of what came in while nothing may go out", func(t *testing.T) {
		allow := rule{name: "AllowInternetInBound", priority: 200, direction: "Inbound", access: "Allow", source: "Internet"}
		start(t, groups(closed(allow), closed(allow)))
		serveTCP(t, vm1, 80)
		mustConnect(t, internet, vm1, 80)
		mustPing(t, internet, vm1)
		mustExchange(t, bindUDP(t, internet, 0), bindUDP(t, vm1, 0))
		mustNotPing(t, vm1, internet)
	})
	t.Run("of what went out while nothing may come in", func(t *testing.T) {
		allow := rule{name: "AllowInternetOut", priority: 200, direction: "Outbound", access: "Allow", destination: "Internet"}
		start(t, groups(closed(allow), closed(allow)))
		serveTCP(t, internet, 80)
		mustConnect(t, vm1, internet, 80)
		mustPing(t, vm1, internet)
		mustExchange(t, bindUDP(t, vm1, 0), bindUDP(t, internet, 0))
		mustNotPing(t, internet, vm1)
	})
}

// mustExchange sends a datagram one way and then one back.
func mustExchange(t *testing.T, client, server *net.UDPConn) {
	t.Helper()
	send(t, client, address(server), 1, 100)
	receive(t, server, 1)
	send(t, server, address(client), 1, 100)
	receive(t, client, 1)
}

func TestRemovedRuleLeavesAnOpenConnectionAliveAndRefusesANewOne(t *testing.T) {
	tests := []struct {
		name   string
		reload func(t *testing.T, d *daemon)
	}{
		{"after nsgctl reload", func(t *testing.T, d *daemon) { nsgctl(t, "reload") }},
		{"after SIGHUP", func(t *testing.T, d *daemon) {
			reloads := sampleKey("nsgd_policy_reloads_total", map[string]string{"result": "success"})
			before := scrape(t)[reloads]
			if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a reload", func() bool { return scrape(t)[reloads] == before+1 })
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := start(t, labPolicy())
			serveTCP(t, vm1, 80)
			conn := mustConnect(t, internet, vm1, 80)

			d.setPolicy(groups(nil, nil))
			tt.reload(t, d)

			before := scrape(t)
			mustNotConnect(t, internet, vm1, 80)
			deniedBy(t, before, deniedIn(nsg1), "")
			mustEcho(t, conn)
		})
	}
}

func TestIdleFlowPastItsTimeoutIsGone(t *testing.T) {
	t.Run("and the next datagram of its other end is judged by the rules", func(t *testing.T) {
		start(t, labPolicy(), "timeouts: {udpOneWay: 1s, udpTwoWay: 1s}")
		vm, remote := bindUDP(t, vm2, 0), bindUDP(t, internet, 0)
		mustExchange(t, vm, remote)
		flowGone(t, address(remote).String())
		before := scrape(t)
		send(t, remote, address(vm), 1, 100)
		deniedBy(t, before, deniedIn(nsg1), "")
		receiveNothing(t, vm)
	})
	t.Run("and the next segment of a connection that the rules no longer allow is dropped", func(t *testing.T) {
		d := start(t, labPolicy(), "timeouts: {tcpEstablished: 1s}")
		serveTCP(t, vm2, 80)
		conn := mustConnect(t, internet, vm2, 80)
		d.setPolicy(groups(nil, nil))
		nsgctl(t, "reload")
		flowGone(t, conn.LocalAddr().String())
		before := scrape(t)
		if err := echo(conn, silence); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("echo over the idle connection: %v, want a timeout", err)
		}
		deniedBy(t, before, deniedIn(nsg1), "")
	})
	t.Run("and the next segment of a connection that the rules still allow makes a new flow", func(t *testing.T) {
		start(t, labPolicy(), "timeouts: {tcpEstablished: 1s}")
		serveTCP(t, vm2, 80)
		conn := mustConnect(t, internet, vm2, 80)
		flowGone(t, conn.LocalAddr().String())
		before := scrape(t)
		mustEcho(t, conn)
		since(t, before, func(c counts) bool { return c.rule(allowedIn(nsg1)).hits == 1 })
	})
	t.Run("and under tcpStrict only an opening segment makes a flow", func(t *testing.T) {
		start(t, labPolicy(), "timeouts: {tcpEstablished: 1s}", "tcpStrict: true")
		serveTCP(t, vm2, 80)
		conn := mustConnect(t, internet, vm2, 80)
		flowGone(t, conn.LocalAddr().String())
		before := scrape(t)
		if err := echo(conn, silence); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("echo over the idle connection: %v, want a timeout", err)
		}
		since(t, before, func(c counts) bool { return c.after.drops("tcp_no_syn") > c.before.drops("tcp_no_syn") })
		mustConnect(t, internet, vm2, 80)
	})
}

// flowGone waits until nsgctl shows no flow with this end. It must have shown it
// before, or the wait would prove nothing; flows are short-lived in these
// tests, so what proves it is the counter of flows.
func flowGone(t *testing.T, end string) {
	t.Helper()
	if scrape(t)["nsgd_flows_created_total"] == 0 {
		t.Fatal("no flow was ever made")
	}
	_, port, err := net.SplitHostPort(end)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the flow of "+end+" expires", func() bool {
		return !strings.Contains(nsgctl(t, "flows", "-o", "json"), port)
	})
}
