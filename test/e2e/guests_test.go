package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

const foundAttachments = `
- {networkInterface: vm1-nic, bridge: br0, netns: if-host, device: nsgd-vm1}
- {networkInterface: vm2-nic, bridge: br0, wait: true, netns: if-host, device: nsgd-vm2}
- {subnet: Subnet1, netns: if-host, device: nsgd-sub1}
`

// guestOfBridge puts a namespace behind a new port of the host's bridge.
func guestOfBridge(t *testing.T, port, namespace string, addresses ...string) {
	t.Helper()
	cable(t, port, namespace)
	ip(t, ifHost, "link set "+port+" master br0")
	addressed(t, namespace, addresses...)
}

// stateOf is what nsgctl status says of a guest whose interface is found.
func stateOf(t *testing.T, guest string) (line string) {
	t.Helper()
	for l := range strings.Lines(nsgctl(t, "status")) {
		if strings.Contains(l, "("+guest+")") {
			line = strings.Join(strings.Fields(l), " ")
		}
	}
	return line
}

// mustNotReach is mustNotConnect where ARP is closed too: the kernel gives up by itself then.
func mustNotReach(t *testing.T, from, to lab.Host, port uint16) {
	t.Helper()
	mustFail(t, from, to, port, func(err error) bool { return isTimeout(err) || errors.Is(err, syscall.EHOSTUNREACH) })
}

// mustReach is mustConnect where ARP was closed before: a question of then may still end as unanswered.
func mustReach(t *testing.T, from, to lab.Host, port uint16) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v reaches %v on port %d", from, to, port), func() bool {
		conn, err := connect(from, to, port, patience)
		if errors.Is(err, syscall.EHOSTUNREACH) {
			return false
		}
		if err != nil {
			t.Fatalf("%v to %v port %d: %v", from, to, port, err)
		}
		t.Cleanup(func() { conn.Close() })
		mustEcho(t, conn)
		return true
	})
}

func TestABridgesPortIsFoundByTheGuestsAddress(t *testing.T) {
	bridged(t)
	addNamespaces(t, "if-late")
	before := listings(t)
	dir := interfaceConfig(t, foundAttachments)

	ip(t, "if-rogue", "addr add 10.0.1.4/32 dev eth0")
	a := execute(t, "nsgd", "run", "--config", filepath.Join(dir, lab.ConfigName))
	if want := `several ports of "br0" answer for [10.0.1.4 fd00:db8:1:1::4]: tap-rogue tap-vm1`; a.code != 1 || !strings.Contains(a.stderr, want) {
		t.Errorf("%v\nwant %s", a, want)
	}
	ip(t, "if-rogue", "addr del 10.0.1.4/32 dev eth0")
	if after := listings(t); after != before {
		t.Errorf("a refused start left something:\n%s", differences(before, after))
	}

	ip(t, ifHost, "link del tap-vm2")
	d := startInterfaces(t, dir)
	if got := stateOf(t, "br0 vm1-nic"); !strings.HasPrefix(got, "tap-vm1 (br0 vm1-nic) if-host attached ") {
		t.Errorf("status: %s", nsgctl(t, "status"))
	}
	if got := stateOf(t, "br0 vm2-nic"); !strings.HasPrefix(got, "(br0 vm2-nic) if-host waiting ") {
		t.Errorf("status: %s", nsgctl(t, "status"))
	}
	vm1, vm2, host := guestOf(vm1, "if-vm1"), guestOf(ipv4.vm2, "if-vm2"), hostAt("10.0.1.1")
	rogue := lab.Host{Name: "a neighbour", Namespace: "if-rogue", Address: netip.MustParseAddr("10.0.1.9")}
	late := lab.Host{Name: "who comes late", Namespace: "if-late", Address: netip.MustParseAddr("10.0.1.10")}
	host6 := hostAt("fd00:db8:1:1::1")
	for _, h := range []lab.Host{vm1, host, host6, rogue} {
		serveTCP(t, h, 80)
		serveTCP(t, h, 8081)
	}
	mustConnect(t, host, vm1, 80)
	mustNotConnect(t, host, vm1, 8081)
	mustNotReach(t, rogue, vm1, 80) // whose port no attachment has
	mustNotReach(t, rogue, host, 80)
	mustNotReach(t, host, rogue, 80)

	for _, port := range []string{"tap-vm2", "tap-again"} { // it comes, and comes back under another name
		guestOfBridge(t, port, "if-vm2", "10.0.1.5/24", "fd00:db8:1:1::5/64")
		eventually(t, "VM2's interface is found", func() bool {
			return strings.HasPrefix(stateOf(t, "br0 vm2-nic"), port+" (br0 vm2-nic) if-host attached ")
		})
		mustReach(t, vm2, vm1, 80)
		mustNotConnect(t, vm2, vm1, 8081)
		mustReach(t, guestOf(ipv6.vm2, "if-vm2"), host6, 80)
		ip(t, ifHost, "link del "+port)
		eventually(t, "VM2's interface is missed", func() bool {
			return strings.HasPrefix(stateOf(t, "br0 vm2-nic"), "(br0 vm2-nic) if-host waiting ")
		})
	}

	d.kill()
	guestOfBridge(t, "tap-late", "if-late", "10.0.1.10/24")
	for _, to := range []lab.Host{vm1, host, rogue} {
		mustNotReach(t, late, to, 80)
	}
	mustNotConnect(t, host, vm1, 80)
	again := startInterfaces(t, dir)
	mustConnect(t, host, vm1, 80)
	mustNotReach(t, late, host, 80)
	must(t, "ip", "netns", "exec", ifHost, "nft", "flush", "ruleset")
	again.waitFor(again.stderr, "they are back") // nft lists a table a moment before the kernel minds it
	mustNotReach(t, late, host, 80)
	again.end(syscall.SIGTERM)
	nsgdDetach(t)
	mustReach(t, late, host, 80)
	ip(t, ifHost, "link del tap-late")
	guestOfBridge(t, "tap-vm2", "if-vm2")
	if got := must(t, "ip", "netns", "exec", ifHost, "nft", "list", "ruleset"); got != "" {
		t.Errorf("detach left rules: %s", got)
	}
	for _, port := range []string{"tap-vm1", "tap-rogue", "br0"} {
		if got := must(t, "ip", "netns", "exec", ifHost, "tc", "qdisc", "show", "dev", port); strings.Contains(got, "clsact") {
			t.Errorf("detach left %s", got)
		}
	}
}

func TestClosedAtBootClosesBeforeAnyDaemonRuns(t *testing.T) {
	makeRouter(t)
	before := listings(t)
	dir := interfaceConfig(t, routedAttachments+"closedAtBoot: true\n")
	file := filepath.Join(dir, lab.ConfigName)
	vm1, vm3, _, internet, inSubnet1, _, other := routedHosts(ipv4)
	serveTCP(t, vm1, 80)
	serveTCP(t, other, 80)
	mustConnect(t, internet, vm1, 80)
	closed := func(t *testing.T) {
		t.Helper()
		for _, from := range []lab.Host{vm3, internet, inSubnet1} {
			mustNotConnect(t, from, vm1, 80)
		}
		mustConnect(t, internet, other, 80) // no attachment names that interface
	}
	closing := func() {
		t.Helper()
		a := execute(t, "nsgd", "close", "--config", file)
		if want := "closed in namespace if-host: tap-vm1\nclosed in namespace if-host: tap-vm3\n"; a.code != 0 || a.stdout != want {
			t.Fatalf("close: %v", a)
		}
	}
	must(t, "mv", filepath.Join(dir, "policy"), filepath.Join(dir, "away")) // it needs no policy
	closing()
	closed(t)
	if a := execute(t, "nsgd", "run", "--config", file); a.code != 1 {
		t.Fatalf("run without a policy: %v", a)
	}
	closed(t)
	must(t, "mv", filepath.Join(dir, "away"), filepath.Join(dir, "policy"))
	d := startInterfaces(t, dir)
	open := mustConnect(t, internet, vm1, 80)
	closing() // a daemon that runs keeps what it has
	mustEcho(t, open)
	mustConnect(t, internet, vm1, 80)
	d.end(syscall.SIGTERM)
	closed(t)
	nsgdDetach(t)
	mustEcho(t, open)
	if after := listings(t); after != before {
		t.Errorf("the host's listings differ after detach:\n%s", differences(before, after))
	}

	comesBack := func() {
		ip(t, ifHost, "link del tap-vm1")
		cable(t, "tap-vm1", "if-vm1")
		ip(t, ifHost, "addr add 10.0.1.1/24 dev tap-vm1\naddr add fd00:db8:1:1::1/64 dev tap-vm1")
		addressed(t, "if-vm1", "10.0.1.4/24", "fd00:db8:1:1::4/64")
	}
	closing()
	comesBack()
	closed(t)
	d = startInterfaces(t, dir)
	mustConnect(t, internet, vm1, 80)
	d.kill()
	comesBack()
	closed(t)
	nsgdDetach(t)
	mustConnect(t, internet, vm1, 80)
}

func TestAnInterfaceInTheNamespaceOfAProcessThatEndsIsGone(t *testing.T) {
	needWorld(t)
	addNamespaces(t, ifHost)
	process := exec.Command("unshare", "-n", "sleep", "1000")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() { process.Process.Kill(); process.Wait() }
	t.Cleanup(end)
	pid := process.Process.Pid
	within := fmt.Sprintf("nsenter -t %d -n ", pid)
	eventually(t, "the process has a namespace of its own", func() bool {
		return exec.Command("sh", "-c", within+"ip link show tap-vm1 || "+within+"ip link add tap-vm1 type veth peer name guest && "+within+"ip link set tap-vm1 up").Run() == nil &&
			readFile(t, fmt.Sprintf("/proc/%d/comm", pid)) == "sleep\n"
	})
	must(t, "sh", "-c", within+"ip link set guest up")
	d := startInterfaces(t, interfaceConfig(t, fmt.Sprintf("\n- {networkInterface: vm1-nic, interface: tap-vm1, netns: 'pid:%d', device: nsgd-vm1}\n", pid)))
	d.expectErrors = true
	if got := interfaceStatus(t)["tap-vm1"].State; got != "attached" {
		t.Fatalf("state %q", got)
	}
	end()
	eventually(t, "the interface is missing", func() bool { return interfaceStatus(t)["tap-vm1"].State == "waiting" })
	d.waitFor(d.stderr, fmt.Sprintf("namespace \\\"pid:%d\\\": the network namespace is gone", pid))
	a := execute(t, "nsgd", "run", "--config", filepath.Join(d.dir, lab.ConfigName))
	if a.code != 1 {
		t.Errorf("a second start: %v", a)
	}
	d.end(syscall.SIGTERM)
	a = execute(t, "nsgd", "run", "--config", filepath.Join(d.dir, lab.ConfigName))
	mustName(t, "a start without the namespace", a, []string{fmt.Sprintf("namespace \"pid:%d\"", pid)})
}
