package e2e

import (
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
)

// closed denies everything that a policy with the rules in front doesn't allow.
func closed(r ...rule) []rule { return append(rules(denyAllIn, denyAllOut), r...) }

func TestReturnTrafficNeedsNoRule(t *testing.T) {
	t.Run("of what came in while nothing may go out", func(t *testing.T) {
		allow := rule{name: "AllowInternetInBound", priority: 200, direction: "Inbound", access: "Allow", source: "Internet"}
		start(t, groups(closed(allow), closed(allow)))
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm1, 80)
			mustConnect(t, f.internet, f.vm1, 80)
			mustPing(t, f.internet, f.vm1)
			mustExchange(t, bindUDP(t, f.internet, 0), bindUDP(t, f.vm1, 0))
			mustNotPing(t, f.vm1, f.internet)
		})
	})
	t.Run("of what went out while nothing may come in", func(t *testing.T) {
		allow := rule{name: "AllowInternetOut", priority: 200, direction: "Outbound", access: "Allow", destination: "Internet"}
		start(t, groups(closed(allow), closed(allow)))
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.internet, 80)
			mustConnect(t, f.vm1, f.internet, 80)
			mustPing(t, f.vm1, f.internet)
			mustExchange(t, bindUDP(t, f.vm1, 0), bindUDP(t, f.internet, 0))
			mustNotPing(t, f.internet, f.vm1)
		})
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
			eachFamily(t, func(t *testing.T, f family) {
				d.reload(t, labPolicy())
				serveTCP(t, f.vm1, 80)
				conn := mustConnect(t, f.internet, f.vm1, 80)

				groups(nil, nil).write(t, d.dir)
				tt.reload(t, d)

				before := scrape(t)
				mustNotConnect(t, f.internet, f.vm1, 80)
				deniedBy(t, before, deniedIn(nsg1), "")
				mustEcho(t, conn)
			})
		})
	}
}

func TestIdleFlowPastItsTimeoutIsGone(t *testing.T) {
	t.Run("and the next datagram of its other end is judged by the rules", func(t *testing.T) {
		start(t, labPolicy(), "timeouts: {udpOneWay: 3s, udpTwoWay: 3s}")
		eachFamily(t, func(t *testing.T, f family) {
			vm, remote := bindUDP(t, f.vm2, 0), bindUDP(t, f.internet, 0)
			mustExchange(t, vm, remote)
			flowGone(t, address(remote))
			before := scrape(t)
			send(t, remote, address(vm), 1, 100)
			deniedBy(t, before, deniedIn(nsg1), "")
			receiveNothing(t, vm)
		})
	})
	t.Run("and the next segment of a connection that the rules no longer allow is dropped", func(t *testing.T) {
		d := start(t, labPolicy(), "timeouts: {tcpEstablished: 3s}")
		eachFamily(t, func(t *testing.T, f family) {
			d.reload(t, labPolicy())
			serveTCP(t, f.vm2, 80)
			conn := mustConnect(t, f.internet, f.vm2, 80)
			d.reload(t, groups(nil, nil))
			flowGone(t, conn.LocalAddr().(*net.TCPAddr).AddrPort())
			before := scrape(t)
			if err := echo(conn, silence); !isTimeout(err) {
				t.Errorf("echo over the idle connection: %v, want a timeout", err)
			}
			deniedBy(t, before, deniedIn(nsg1), "")
		})
	})
	t.Run("and the next segment of a connection that the rules still allow makes a new flow", func(t *testing.T) {
		start(t, labPolicy(), "timeouts: {tcpEstablished: 3s}")
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm2, 80)
			conn := mustConnect(t, f.internet, f.vm2, 80)
			flowGone(t, conn.LocalAddr().(*net.TCPAddr).AddrPort())
			before := scrape(t)
			mustEcho(t, conn)
			since(t, before, func(c counts) bool { return c.rule(allowedIn(nsg1)).hits == 1 })
		})
	})
	t.Run("and under tcpStrict only an opening segment makes a flow", func(t *testing.T) {
		start(t, labPolicy(), "timeouts: {tcpEstablished: 3s}", "tcpStrict: true")
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm2, 80)
			conn := mustConnect(t, f.internet, f.vm2, 80)
			flowGone(t, conn.LocalAddr().(*net.TCPAddr).AddrPort())
			before := scrape(t)
			if err := echo(conn, silence); !isTimeout(err) {
				t.Errorf("echo over the idle connection: %v, want a timeout", err)
			}
			since(t, before, func(c counts) bool { return c.after.drops("tcp_no_syn") > c.before.drops("tcp_no_syn") })
			mustConnect(t, f.internet, f.vm2, 80)
		})
	})
}

// flowGone waits until nsgctl shows no flow with this end, address and port. That one
// was there is known from the counter, since it may have expired already.
func flowGone(t *testing.T, end netip.AddrPort) {
	t.Helper()
	if scrape(t)["nsgd_flows_created_total"] == 0 {
		t.Fatal("no flow was ever made")
	}
	eventually(t, "the flow of "+end.String()+" expires", func() bool {
		for _, f := range flows(t) {
			if f.Source == end.Addr() && f.SourcePort == end.Port() || f.Destination == end.Addr() && f.DestinationPort == end.Port() {
				return false
			}
		}
		return true
	})
}

type flow struct {
	Protocol                    string
	Source, Destination         netip.Addr
	SourcePort, DestinationPort uint16
}

func flows(t *testing.T) []flow {
	t.Helper()
	var list struct{ Flows []flow }
	if out := nsgctl(t, "flows", "-o", "json"); json.Unmarshal([]byte(out), &list) != nil {
		t.Fatalf("nsgctl flows printed %q", out)
	}
	return list.Flows
}

// TestFlowsShowsALiveFlow is what makes the absence of a flow in the other tests mean
// something.
func TestFlowsShowsALiveFlow(t *testing.T) {
	start(t, labPolicy())
	eachFamily(t, func(t *testing.T, f family) {
		vm, remote := bindUDP(t, f.vm2, 0), bindUDP(t, f.internet, 0)
		mustExchange(t, vm, remote)
		want := flow{"UDP", address(vm).Addr(), address(remote).Addr(), address(vm).Port(), address(remote).Port()}
		if list := flows(t); !slices.Contains(list, want) {
			t.Errorf("flows %+v, want %+v among them", list, want)
		}
	})
}
