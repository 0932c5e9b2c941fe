package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// A host with interfaces that exist: guests are behind them, the internet is behind its eth0. Each is a network
// namespace.
const ifHost = "if-host"

// deny8081 is a rule within the virtual network.
var deny8081 = rule{name: "Deny8081", priority: 110, direction: "Inbound", access: "Deny", protocol: "Tcp", source: "VirtualNetwork", port: "8081"}

// must runs a program that must succeed.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	c := exec.Command(name, args...)
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// ip runs ip commands in a namespace, one a line.
func ip(t *testing.T, namespace, commands string) {
	t.Helper()
	c := exec.Command("ip", "-n", namespace, "-batch", "-")
	c.Stdin = strings.NewReader(commands)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("ip -n %s: %v\n%s\n%s", namespace, err, commands, out)
	}
}

// addNamespaces makes namespaces until the test ends. Their addresses are usable at once.
func addNamespaces(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		must(t, "ip", "netns", "add", name)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
		must(t, "ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")
		ip(t, name, "link set lo up")
	}
}

// cable connects an interface of the host with eth0 of another namespace.
func cable(t *testing.T, name, namespace string) {
	t.Helper()
	ip(t, ifHost, fmt.Sprintf("link add %s type veth peer name eth0 netns %s\nlink set %s up", name, namespace, name))
	ip(t, namespace, "link set eth0 up")
}

// addressed gives eth0 of a namespace addresses, and default routes through the host.
func addressed(t *testing.T, namespace string, addresses ...string) {
	t.Helper()
	var b strings.Builder
	for _, a := range addresses {
		p := netip.MustParsePrefix(a)
		fmt.Fprintf(&b, "addr add %s dev eth0\nroute replace default via %s\n", a, p.Masked().Addr().Next())
	}
	ip(t, namespace, b.String())
}

// guestOf is a host of the lab in a namespace of this test.
func guestOf(h lab.Host, namespace string) lab.Host {
	h.Namespace = namespace
	return h
}

// hostAt is the host itself under an address.
func hostAt(address string) lab.Host {
	return lab.Host{Name: "the host", Namespace: ifHost, Address: netip.MustParseAddr(address)}
}

// interfaceConfig writes the lab's policy with other attachments.
func interfaceConfig(t *testing.T, attachments string) (dir string) {
	t.Helper()
	dir = configure(t, labPolicy().with(nsg1, deny8081))
	writeFile(t, filepath.Join(dir, lab.ConfigName), "policy: [policy/]\nmetrics: {listen: 'off'}\nattachments:\n"+attachments)
	return dir
}

// startInterfaces starts the daemon and detaches at the end of the test.
func startInterfaces(t *testing.T, dir string) *daemon {
	t.Helper()
	d := startIn(t, dir)
	t.Cleanup(func() {
		if !d.done {
			d.end(syscall.SIGTERM)
		}
		execute(t, "nsgd", "detach")
	})
	return d
}

// listings are what a user sees of the host's network, once the kernel has made up its mind: addresses are of use and cables
// carry a little later than they are there.
func listings(t *testing.T) (at string) {
	t.Helper()
	eventually(t, "the host's network is at rest", func() bool {
		before := at
		at = listed(t)
		return at == before && !strings.Contains(at, " tentative") && !strings.Contains(at, "LOWERLAYERDOWN") && !uncarried.MatchString(at)
	})
	return at
}

// uncarried is an end of a cable that does not carry yet.
var uncarried = regexp.MustCompile(`@\S+: <NO-CARRIER`)

func listed(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, c := range []string{
		"ip link", "ip addr", "ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all", "tc qdisc", "nft list ruleset",
		"sh -c 'for d in $(ls /sys/class/net); do tc filter show dev $d ingress; tc filter show dev $d egress; done'",
		"sh -c 'sysctl -a -r ^net\\. 2>/dev/null | grep -v -e conntrack -e _count'",
	} {
		b.WriteString(must(t, "sh", "-c", "ip netns exec "+ifHost+" "+c))
	}
	return b.String()
}

// makeRouter makes a host that routes between VM1, VM3 and the internet. A guest of nobody is behind an interface that no
// attachment names.
func makeRouter(t *testing.T) {
	t.Helper()
	needWorld(t)
	addNamespaces(t, ifHost, "if-vm1", "if-vm3", "if-inet", "if-other")
	must(t, "ip", "netns", "exec", ifHost, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	for name, namespace := range map[string]string{"tap-vm1": "if-vm1", "tap-vm3": "if-vm3", "eth0": "if-inet", "tap-other": "if-other"} {
		cable(t, name, namespace)
	}
	ip(t, ifHost, `addr add 10.0.1.1/24 dev tap-vm1
addr add fd00:db8:1:1::1/64 dev tap-vm1
addr add 10.0.2.1/24 dev tap-vm3
addr add fd00:db8:1:2::1/64 dev tap-vm3
addr add 203.0.113.1/24 dev eth0
addr add 2001:db8::1/64 dev eth0
addr add 10.0.9.1/24 dev tap-other
addr add fd00:db8:1:9::1/64 dev tap-other`)
	addressed(t, "if-vm1", "10.0.1.4/24", "fd00:db8:1:1::4/64")
	addressed(t, "if-vm3", "10.0.2.4/24", "fd00:db8:1:2::4/64", "10.0.2.77/24", "fd00:db8:1:2::77/64")
	addressed(t, "if-inet", "203.0.113.10/24", "2001:db8::10/64")
	addressed(t, "if-other", "10.0.9.9/24", "fd00:db8:1:9::9/64")
}

const routedAttachments = `
- {networkInterface: vm1-nic, interface: tap-vm1, netns: if-host, device: nsgd-vm1}
- {networkInterface: vm3-nic, interface: tap-vm3, netns: if-host, device: nsgd-vm3}
- {subnet: Subnet1, netns: if-host, device: nsgd-sub1}
- {subnet: Subnet2, netns: if-host, device: nsgd-sub2}
- {internet: true, netns: if-host, device: nsgd-inet}
`

// routedHosts are the hosts of makeRouter under their addresses of a family.
func routedHosts(f family) (vm1, vm3, spoofer, internet, inSubnet1, outside, other lab.Host) {
	vm1, vm3, internet = guestOf(f.vm1, "if-vm1"), guestOf(f.vm3, "if-vm3"), guestOf(f.internet, "if-inet")
	spoofer, other = vm3, lab.Host{Name: "a guest of nobody", Namespace: "if-other"}
	if f.Family == lab.IPv4 {
		spoofer.Address, other.Address = netip.MustParseAddr("10.0.2.77"), netip.MustParseAddr("10.0.9.9")
		return vm1, vm3, spoofer, internet, hostAt("10.0.1.1"), hostAt("203.0.113.1"), other
	}
	spoofer.Address, other.Address = netip.MustParseAddr("fd00:db8:1:2::77"), netip.MustParseAddr("fd00:db8:1:9::9")
	return vm1, vm3, spoofer, internet, hostAt("fd00:db8:1:1::1"), hostAt("2001:db8::1"), other
}

func TestARoutersInterfacesCarryWhatTheRulesAllow(t *testing.T) {
	makeRouter(t)
	startInterfaces(t, interfaceConfig(t, routedAttachments))
	eachFamily(t, func(t *testing.T, f family) {
		vm1, vm3, spoofer, internet, inSubnet1, outside, other := routedHosts(f)
		for _, h := range []lab.Host{vm1, vm3, internet} {
			for _, port := range []uint16{80, 8080, 8081} {
				serveTCP(t, h, port)
			}
		}
		mustConnect(t, internet, vm1, 80)
		mustNotConnect(t, internet, vm1, 8080)
		mustConnect(t, vm1, internet, 8080)
		mustConnect(t, vm3, vm1, 80)
		mustConnect(t, vm1, vm3, 8081)
		mustNotConnect(t, vm3, vm1, 8081)
		mustConnect(t, inSubnet1, vm1, 8080)
		mustNotConnect(t, inSubnet1, vm1, 8081)
		mustConnect(t, outside, vm1, 80)
		mustNotConnect(t, outside, vm1, 8080)
		mustNotConnect(t, other, vm1, 80)
		mustNotConnect(t, spoofer, vm1, 80)
		mustNotConnect(t, spoofer, internet, 80)
		echoes(t, mustConnect(t, internet, vm1, 80), 1<<20)
		echoes(t, mustConnect(t, vm3, vm1, 80), 1<<20)
	})
}

func TestInterfacesStayClosedUntilTheyAreDetached(t *testing.T) {
	makeRouter(t)
	before := listings(t)
	d := startInterfaces(t, interfaceConfig(t, routedAttachments))
	closed := func(t *testing.T) {
		t.Helper()
		for _, f := range families {
			vm1, vm3, _, internet, inSubnet1, _, _ := routedHosts(f)
			for _, from := range []lab.Host{vm3, internet, inSubnet1} {
				mustNotConnect(t, from, vm1, 80)
			}
		}
	}
	for _, f := range families {
		vm1, _, _, _, _, _, _ := routedHosts(f)
		serveTCP(t, vm1, 80)
		serveTCP(t, vm1, 8080)
	}
	vm1, _, _, internet, _, _, _ := routedHosts(ipv4)
	open := mustConnect(t, internet, vm1, 80)
	if changed := differences(before, listings(t)); !strings.Contains(changed, "+filter protocol all pref 1 bpf") || !strings.Contains(changed, "nsgd-vm1") {
		t.Errorf("the host's listings show nothing of nsgd:\n%s", changed)
	}
	d.kill()
	closed(t)
	again := startInterfaces(t, d.dir)
	mustEcho(t, open)
	for _, f := range families {
		vm1, _, _, internet, _, _, _ := routedHosts(f)
		mustConnect(t, internet, vm1, 80)
		mustNotConnect(t, internet, vm1, 8080)
	}
	again.end(syscall.SIGTERM)
	closed(t)
	if a := execute(t, "nsgd", "detach"); a.code != 0 || !strings.Contains(a.stdout, "open in namespace if-host: ") {
		t.Errorf("detach: %v", a)
	}
	for _, f := range families {
		vm1, _, _, internet, _, _, _ := routedHosts(f)
		mustConnect(t, internet, vm1, 8080)
	}
	if after := listings(t); after != before {
		t.Errorf("the host's listings differ after detach:\n%s", differences(before, after))
	}
}

// differences are the lines that only one of two texts has.
func differences(before, after string) string {
	var b strings.Builder
	only := func(sign, these, those string) {
		for line := range strings.Lines(these) {
			if !strings.Contains(those, line) {
				b.WriteString(sign + line)
			}
		}
	}
	only("-", before, after)
	only("+", after, before)
	return b.String()
}
