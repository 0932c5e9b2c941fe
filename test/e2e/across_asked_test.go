package e2e

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/dataplane/serve/servetest"
	"github.com/nsgd/nsgd/deploy/lab"
)

// Two networks with the same addresses, two machines in each. The second host has nothing of the second network.
var (
	firstA  = lab.Host{Name: "first-a", Namespace: "nsgd-first-a", Address: netip.MustParseAddr("10.9.0.4")}
	firstB  = lab.Host{Name: "first-b", Namespace: "nsgd-first-b", Address: netip.MustParseAddr("10.9.0.5")}
	secondA = lab.Host{Name: "second-a", Namespace: "nsgd-second-a", Address: netip.MustParseAddr("10.9.0.4")}
	secondB = lab.Host{Name: "second-b", Namespace: "nsgd-second-b", Address: netip.MustParseAddr("10.9.0.5")}
)

// twins writes the world of the two networks. In the second one an NSG lets only port 80 to the second machine.
func twins(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "policy"), 0o755); err != nil {
		t.Fatal(err)
	}
	resources := []string{`{"type": "Microsoft.Network/networkSecurityGroups", "name": "web", "properties": {"securityRules": [
		{"name": "AllowHttp", "properties": {"priority": 100, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourceAddressPrefix": "VirtualNetwork", "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "80"}},
		{"name": "DenyOthers", "properties": {"priority": 200, "direction": "Inbound", "access": "Deny", "protocol": "*", "sourceAddressPrefix": "*", "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "*"}}]}}`}
	config := "policy: [policy/]\nattachments:\n"
	for _, network := range []string{"first", "second"} {
		resources = append(resources, fmt.Sprintf(`{"type": "Microsoft.Network/virtualNetworks", "name": %q, "properties": {"addressSpace": {"addressPrefixes": ["10.9.0.0/24"]},
			"subnets": [{"name": "s", "properties": {"addressPrefix": "10.9.0.0/24"}}]}}`, network))
	}
	for _, h := range []lab.Host{firstA, firstB, secondA, secondB} {
		network, more := strings.Split(h.Name, "-")[0], ""
		if h == secondB {
			more = `"networkSecurityGroup": {"id": "web"}, `
		}
		resources = append(resources, fmt.Sprintf(`{"type": "Microsoft.Network/networkInterfaces", "name": "%s-nic", "properties": {%s"ipConfigurations": [
			{"name": "c", "properties": {"privateIPAddress": %q, "subnet": {"id": "%s/s"}}}]}}`, h.Name, more, h.Address, network))
		config += fmt.Sprintf("- {networkInterface: %s-nic, netns: %s, create: true, device: eth0}\n", h.Name, h.Namespace)
	}
	writeFile(t, filepath.Join(dir, "policy", "world.json"), "["+strings.Join(resources, ",\n")+"]")
	writeFile(t, filepath.Join(dir, lab.ConfigName), config)
	return dir
}

// Whatever host is asked says the same about every network, also about one of which it has nothing, and shows the flows
// and packets of all.
func TestAnyHostIsAskedForAll(t *testing.T) {
	s := newSpread(t)
	ca := servetest.NewAuthority(t, t.TempDir(), "ca")
	ca.Issue("me", nil)
	s.listen = map[string]string{}
	for i, name := range acrossHosts[:2] { // the third one can't be asked from elsewhere
		ca.Issue(name, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, byte(i+1))} })
		s.listen[name] = fmt.Sprintf("{listen: '0.0.0.0:9647', certificate: %q, key: %q, clientCA: %q}", ca.Path(name+".crt"), ca.Path(name+".key"), ca.Path("ca.crt"))
	}
	world := twins(t)
	s.start(t, world)
	at := func(host string, args ...string) answer {
		return execute(t, "nsgctl", append(args, "--socket", s.socket(host))...)
	}

	for _, h := range []lab.Host{firstB, secondB} {
		serveNamed(t, h, 80)
		serveNamed(t, h, 81)
	}
	conn, seen := mustAsk(t, firstA, firstB, 80)
	mustSee(t, conn, seen, firstB, "10.9.0.5:80", conn.LocalAddr().String())
	conn, seen = mustAsk(t, secondA, secondB, 80)
	mustSee(t, conn, seen, secondB, "10.9.0.5:80", conn.LocalAddr().String())
	mustConnectOnly(t, firstA, firstB, 81)
	mustNotConnect(t, secondA, secondB, 81)

	for _, question := range [][]string{
		{"verify", "--path", "--nic", "second-a-nic", "--direction", "Outbound", "--protocol", "TCP", "--local", "10.9.0.4:50000", "--remote", "10.9.0.5:80", "-o", "json"},
		{"verify", "--path", "--nic", "second-a-nic", "--direction", "Outbound", "--protocol", "TCP", "--local", "10.9.0.4:50000", "--remote", "10.9.0.5:81", "-o", "json"},
		{"reach", "--from", "nic:second-a-nic", "--to", "nic:second-b-nic", "-o", "json"},
		{"reach", "--from", "nic:first-a-nic", "--to", "nic:first-b-nic", "-o", "json"},
		{"explain", "nic:second-a-nic", "nic:second-b-nic:80-81/tcp", "--query", "paths[].[access,ruleName,networkSecurityGroup,reason,boxes]", "-o", "json"},
		{"next-hop", "--nic", "second-a-nic", "--source-ip", "10.9.0.4", "--dest-ip", "10.9.0.5", "-o", "json"},
	} {
		first := at("one", question...)
		if first.code != 0 || strings.Contains(first.stdout, "noRoute") || !strings.Contains(first.stdout, "\"") {
			t.Errorf("%s: %v", strings.Join(question, " "), first)
		}
		for _, host := range acrossHosts[1:] {
			if other := at(host, question...); other != first {
				t.Errorf("%s: at one %v\nat %s %v", strings.Join(question, " "), first, host, other)
			}
		}
	}

	next := t.TempDir()
	text, err := os.ReadFile(filepath.Join(world, "policy", "world.json"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(next, "world.json"), strings.ReplaceAll(string(text), `"destinationPortRange": "80"`, `"destinationPortRange": "8080"`))
	compare := []string{"diff", "--running", next, "--query", "changes[].[kind,direction,networkInterfaces,boxes]", "-o", "json"}
	first := at("one", compare...)
	if first.code != 0 || !strings.Contains(first.stdout, "second-b-nic") || !strings.Contains(first.stdout, "8080") {
		t.Errorf("a policy that opens another port in the second network: %v", first)
	}
	for _, host := range acrossHosts[1:] { // the second one has nothing of that network
		if other := at(host, compare...); other != first {
			t.Errorf("%s: at one %v\nat %s %v", strings.Join(compare, " "), first, host, other)
		}
	}

	files := []string{"--cert", ca.Path("me.crt"), "--key", ca.Path("me.key"), "--ca", ca.Path("ca.crt")}
	for host, missing := range map[string][]string{"one": {"three"}, "two": {"three"}, "three": nil} {
		a := at(host, append([]string{"flows", "--all-hosts", "-o", "json"}, files...)...)
		var list struct {
			Flows      []struct{ Host, Source, Destination string }
			Unanswered []struct{ Host, Fault string }
		}
		if err := json.Unmarshal([]byte(a.stdout), &list); err != nil || (a.code == 0) != (missing == nil) {
			t.Fatalf("asked at %s: %v, %v", host, err, a)
		}
		records := map[string]int{}
		for _, f := range list.Flows {
			records[f.Host]++
		}
		// first-a is at one, first-b at two, second-a at three, second-b at one: a record at each end.
		if records["one"] < 2 || records["two"] < 1 || (records["three"] > 0) != (missing == nil) {
			t.Errorf("asked at %s: records %v", host, records)
		}
		var named []string
		for _, u := range list.Unanswered {
			named = append(named, u.Host)
		}
		if !slices.Equal(named, missing) || missing != nil && !strings.Contains(a.stderr, "host three has not answered: its configuration has no control.listen") {
			t.Errorf("asked at %s: %q did not answer: %s", host, named, a.stderr)
		}
	}
	if a := at("one", append([]string{"flows", "--all-hosts", "--cert", ca.Path("other.crt")}, files[2:]...)...); a.code != 1 || !strings.Contains(a.stderr, "host two has not answered: ") {
		t.Errorf("without a certificate: %v", a)
	}

	stdout := newOutput()
	d := launchCommand(t, "", stdout, append([]string{program("nsgctl"), "trace", "--all-hosts", "--socket", s.socket("three"), "dst port 80"}, files...)...)
	d.done = true
	for _, host := range acrossHosts {
		d.waitFor(d.stderr, host+"  watching")
	}
	mustAsk(t, firstA, firstB, 80)
	d.waitFor(stdout, "one  ")
	d.waitFor(stdout, "two  ")
	d.cmd.Process.Signal(syscall.SIGINT)
	d.wait()
}

// mustConnectOnly is mustConnect without an echo.
func mustConnectOnly(t *testing.T, from, to lab.Host, port uint16) {
	t.Helper()
	conn, err := connect(from, to, port, patience)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
