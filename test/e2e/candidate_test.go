package e2e

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// answered has nsgctl answer in JSON.
func answered[T any](t *testing.T, args ...string) (answer T) {
	t.Helper()
	out := nsgctl(t, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("nsgctl %s printed %q: %v", strings.Join(args, " "), out, err)
	}
	return answer
}

// One of a hundred live connections would be cut. That is told before, with the connection; the candidate cuts nothing,
// and its promotion cuts just that one.
func TestACandidateTellsWhichConnectionItWouldCutAndPromotionCutsIt(t *testing.T) {
	const connections, otherPort = 100, 8080
	allowOther := rule{name: "AllowOther", priority: 110, direction: "Inbound", access: "Allow", protocol: "Tcp", source: "Internet", port: "8080"}
	denyOther := rule{name: "DenyOther", priority: 105, direction: "Inbound", access: "Deny", protocol: "Tcp", source: "Internet", port: "8080"}
	now := groups(rules(allowHTTPIn, allowOther), rules(allowHTTPIn, allowOther))
	d := start(t, now, "tcpStrict: true")
	flush := func(properties map[string]any) { properties["flushConnection"] = true }
	editDocument(t, d.dir, "nsg1", flush)
	nsgctl(t, "reload")
	serveTCP(t, vm1, 80)
	serveTCP(t, vm1, otherPort)
	var kept []net.Conn
	for range connections - 1 {
		kept = append(kept, mustConnect(t, internet, vm1, 80))
	}
	lost := mustConnect(t, internet, vm1, otherPort)

	now.with(nsg1, denyOther).write(t, d.dir)
	editDocument(t, d.dir, "nsg1", flush)
	begun := answered[inspect.Candidate](t, "candidate", "start")
	if l := begun.LiveFlows; l.Cut != 1 || l.Live < connections || l.List[0].DestinationPort != otherPort || l.List[0].SourcePort != uint16(lost.LocalAddr().(*net.TCPAddr).Port) ||
		l.List[0].NetworkSecurityGroup != "NSG1" || l.List[0].RuleName != "securityRules/DenyOther" {
		t.Fatalf("%+v", l)
	}
	mustConnect(t, internet, vm1, otherPort).Close() // not enforced
	mustConnect(t, internet, vm1, 80).Close()
	eventually(t, "new flows are judged", func() bool {
		c := answered[inspect.Candidate](t, "candidate", "status")
		return c.Judged >= 2 && c.WouldDeny.Packets == 1 && c.WouldDeny.Rules[0].RuleName == "securityRules/DenyOther" && c.WouldDeny.Rules[0].Examples[0].DestinationPort == otherPort
	})
	for _, conn := range append(kept, lost) {
		mustEcho(t, conn)
	}
	d.expectErrors = true
	for _, verb := range [][]string{{"reload", "--max-cut", "0"}, {"candidate", "promote", "--max-cut", "0"}} {
		if a := execute(t, "nsgctl", verb...); a.code != 1 || !strings.Contains(a.stderr, "allowed are 0: TCP ") || !strings.Contains(a.stderr, "NSG1/securityRules/DenyOther") {
			t.Errorf("%v: %v", verb, a)
		}
	}
	mustEcho(t, lost)
	nsgctl(t, "candidate", "promote", "--confirm", "1h")
	if err := echo(lost, silence); !isTimeout(err) {
		t.Errorf("%v, want a timeout", err)
	}
	for _, conn := range kept {
		mustEcho(t, conn)
	}
	nsgctl(t, "confirm")
	if list := answered[inspect.ReloadList](t, "reloads"); len(list.Reloads) != 4 || list.Reloads[0].Error != "" || !strings.Contains(list.Reloads[1].Error, "live flow") {
		t.Errorf("%+v", list)
	}
}

func TestTheLastHourIsRemembered(t *testing.T) {
	start(t, labPolicy())
	serveTCP(t, vm1, 80)
	from, to := bindUDP(t, internet, 0), bindUDP(t, vm3, 0)
	const sent = 7
	send(t, from, address(to), sent, 64)
	var drops inspect.DropList
	eventually(t, "the denied packets are remembered", func() bool {
		drops = answered[inspect.DropList](t, "drops", "--since", "1m", "dst nic vm3-nic and reason rule_deny")
		return len(drops.Pairs) == 1 && drops.Pairs[0].Packets == sent
	})
	if p := drops.Pairs[0]; p.Source != internet.Address.String() || p.Destination != vm3.Address.String() || p.From != "internet" || p.To != "vm3-nic" ||
		p.NetworkSecurityGroup != "NSG2" || !strings.HasSuffix(p.RuleName, "DenyAllInBound") || drops.Dropped["rule_deny"] < sent {
		t.Errorf("%+v", drops)
	}
	conn := mustConnect(t, internet, vm1, 80)
	rules := answered[inspect.RuleList](t, "rules", "--nsg", "NSG1", "--since", "1m")
	for _, r := range rules.Rules {
		if r.Name == allowHTTPIn.name && r.Counters.Hits != 1 {
			t.Errorf("%+v", r)
		}
	}
	port := uint16(conn.LocalAddr().(*net.TCPAddr).Port)
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close() // with an RST, so that it ends soon
	eventually(t, "the connection has ended", func() bool {
		list := answered[inspect.EndedList](t, "flows", "--since", "1m", "--protocol", "TCP", "--nic", "vm1-nic")
		return len(list.Flows) == 1 && list.Flows[0].SourcePort == port && len(list.Pairs) == 1 && list.Pairs[0].Flows == 1
	})
}
