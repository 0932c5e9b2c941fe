package e2e

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/deploy/lab"
)

// A hypervisor: a host with one bridge, a tap for each virtual machine, and the internet behind its eth0. The bridge has
// the gateway's MAC and addresses. The machines know nothing.
const hypervisorAttachments = `
- {networkInterface: vm1-nic, interface: tap-vm1, netns: if-host, device: nsgd-vm1, dhcp: true, defaultGateway: true}
- {networkInterface: vm2-nic, interface: tap-vm2, netns: if-host, device: nsgd-vm2, dhcp: true, defaultGateway: true}
- {networkInterface: vm3-nic, interface: tap-vm3, netns: if-host, device: nsgd-vm3, dhcp: true, defaultGateway: true}
- {networkInterface: vm4-nic, interface: tap-vm4, netns: if-host, device: nsgd-vm4, dhcp: true, defaultGateway: true}
- {subnet: Subnet1, netns: if-host, device: nsgd-sub1}
- {subnet: Subnet2, netns: if-host, device: nsgd-sub2}
- {subnet: Subnet3, netns: if-host, device: nsgd-sub3}
- {internet: true, netns: if-host, device: nsgd-inet}
- {platform: true, platformServices: true, netns: if-platform, create: true}
`

// hypervisor makes the host and boots its machines.
func hypervisor(t *testing.T) (machines []*virtualMachine) {
	t.Helper()
	needMachines(t)
	addNamespaces(t, ifHost, "if-inet")
	must(t, "ip", "netns", "exec", ifHost, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.send_redirects=0",
		"net.ipv4.conf.default.send_redirects=0")
	cable(t, "eth0", "if-inet")
	addressed(t, "if-inet", "203.0.113.10/24", "2001:db8::10/64")
	ip(t, ifHost, `link add br0 address 12:34:56:78:9a:bc type bridge
link set br0 up
addr add 203.0.113.1/24 dev eth0
addr add 2001:db8::1/64 dev eth0
addr add 10.0.1.1/24 dev br0
addr add 10.0.2.1/24 dev br0
addr add 10.0.3.1/24 dev br0
addr add fe80::1234:5678:9abc/64 dev br0
addr add fd00:db8:1:1::1/64 dev br0
addr add fd00:db8:1:2::1/64 dev br0
addr add fd00:db8:1:3::1/64 dev br0`)
	disk := guestDisk(t)
	for i := 1; i <= 4; i++ {
		name := fmt.Sprintf("tap-vm%d", i)
		ip(t, ifHost, fmt.Sprintf("tuntap add %[1]s mode tap\nlink set %[1]s master br0 up", name))
		machines = append(machines, boot(t, fmt.Sprintf("VM%d", i), name, fmt.Sprintf("52:54:00:00:00:0%d", i), disk))
	}
	for _, m := range machines {
		m.answer()
	}
	return machines
}

// The ports on which a host reaches another one.
type reach func(from, to string) (ports string)

// asDrawn is the seed's figure with the rules of labPolicy and deny8081.
func asDrawn(from, to string) string {
	if from == "internet" {
		return map[string]string{"VM1": "80", "VM2": "80", "VM3": "80", "VM4": guestPorts}[to]
	}
	return map[string]string{"VM1": "80 8080", "VM2": "80 8080", "VM3": guestPorts, "VM4": guestPorts, "internet": guestPorts}[to]
}

// withoutNSG2 is the figure where NSG1 alone lets HTTP in, and NSG2 keeps it from going out.
func withoutNSG2(from, to string) string {
	switch {
	case from == "internet":
		return map[string]string{"VM1": "", "VM2": "80", "VM3": "", "VM4": guestPorts}[to]
	case to == "internet" && (from == "VM1" || from == "VM3"):
		return "8080 8081"
	}
	return guestPorts
}

// mustReach lets every host ask every other one at the same time, and holds what was answered against what is wanted.
func mustReach(t *testing.T, f family, machines []*virtualMachine, want reach) {
	t.Helper()
	hosts := []lab.Host{f.vm1, f.vm2, f.vm3, f.vm4, guestOf(f.internet, "if-inet")}
	internet := hosts[4]
	isWanted := func(from, to lab.Host, port string) bool {
		return slices.Contains(strings.Fields(want(from.Name, to.Name)), port)
	}
	for i, m := range machines {
		command := "reach"
		for _, to := range hosts {
			for _, port := range strings.Fields(guestPorts) {
				seconds := 1 // silence
				if isWanted(hosts[i], to, port) {
					seconds = 30 // patience
				}
				if to != hosts[i] {
					command += fmt.Sprintf(" %s %s %d", to.Address, port, seconds)
				}
			}
		}
		m.send("%s", command)
	}
	answers := make([]string, len(hosts)) // lines of an address and a port, by who asked
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, to := range hosts[:4] {
		for _, port := range strings.Fields(guestPorts) {
			wait.Go(func() {
				timeout := silence
				if isWanted(internet, to, port) {
					timeout = patience
				}
				n, _ := strconv.Atoi(port)
				conn, err := connect(internet, to, uint16(n), timeout)
				if err != nil {
					return
				}
				defer conn.Close()
				if echo(conn, patience) == nil {
					mu.Lock()
					defer mu.Unlock()
					answers[4] += fmt.Sprintf("%s %s\n", to.Address, port)
				}
			})
		}
	}
	wait.Wait()
	for i, m := range machines {
		answers[i], _ = m.answer()
	}
	var got, wanted strings.Builder
	for i, from := range hosts {
		for _, to := range hosts {
			if from == to {
				continue
			}
			var open []string
			for _, port := range strings.Fields(guestPorts) {
				if strings.Contains(answers[i], fmt.Sprintf("%s %s\n", to.Address, port)) {
					open = append(open, port)
				}
			}
			fmt.Fprintf(&got, "%-8s -> %-8s %s\n", from.Name, to.Name, strings.Join(open, " "))
			fmt.Fprintf(&wanted, "%-8s -> %-8s %s\n", from.Name, to.Name, want(from.Name, to.Name))
		}
	}
	if d := cmp.Diff(wanted.String(), got.String()); d != "" {
		t.Errorf("who got through (-want +got):\n%s", d)
	}
}

func TestVirtualMachinesGetTheirAddressesAndWhatTheRulesAllow(t *testing.T) {
	machines := hypervisor(t)
	before := listings(t)
	d := startInterfaces(t, interfaceConfig(t, hypervisorAttachments))
	t.Run("each machine is told its addresses", func(t *testing.T) { configureMachines(t, machines) })
	t.Run("each machine resolves names and knows itself", func(t *testing.T) {
		for i, m := range machines {
			printed := m.must("nslookup vm4; wget -q -O - --header 'Metadata: true' 'http://169.254.169.254/metadata/instance?api-version=2021-02-01'")
			for _, want := range []string{vm4.Address.String(), `"privateIpAddress":"` + lab.Hosts(lab.IPv4)[i].Address.String()} {
				if !strings.Contains(printed, want) {
					t.Errorf("%s is not told %s: %s", m.name, want, printed)
				}
			}
		}
	})
	internet := guestOf(internet, "if-inet")
	for _, port := range []uint16{80, 8080, 8081} {
		acceptTCP(t, internet, netip.AddrPortFrom(netip.IPv6Unspecified(), port), func(conn net.Conn) {
			go func() {
				io.Copy(conn, conn)
				conn.Close()
			}()
		})
	}
	eachFamily(t, func(t *testing.T, f family) {
		mustReach(t, f, machines, asDrawn)
		echoes(t, mustConnect(t, guestOf(f.internet, "if-inet"), f.vm1, 80), 1<<20)
		if sum := machines[1].must("head -c 1000000 /dev/zero | nc %s 80 | wc -c", f.vm1.Address); sum != "1000000" {
			t.Errorf("%s of 1000000 bytes came back from VM1 to VM2", sum)
		}
	})
	d.reload(t, groups(rules(allowHTTPIn), rules(denyHTTPOut)))
	eachFamily(t, func(t *testing.T, f family) { mustReach(t, f, machines, withoutNSG2) })
	d.reload(t, labPolicy().with(nsg1, deny8081))

	t.Run("a machine that pretends to be another one gets nowhere", func(t *testing.T) { pretend(t, machines) })

	open := mustConnect(t, internet, vm1, 80)
	session := machines[1]
	session.must("mkfifo /tmp/in; nc %s 80 </tmp/in >/tmp/out & exec 9>/tmp/in", vm1.Address)
	session.must("said() { echo $1 >&9; until grep -q $1 /tmp/out; do sleep 0.1; done; }; said one")
	nobody := func(_, _ string) string { return "" }
	d.kill()
	t.Run("when nsgd is killed nobody reaches anybody", func(t *testing.T) {
		eachFamily(t, func(t *testing.T, f family) { mustReach(t, f, machines, nobody) })
		mustNotConnect(t, hostAt("10.0.1.1"), vm1, 80)
	})
	again := startInterfaces(t, d.dir)
	mustEcho(t, open)
	session.must("said two")
	eachFamily(t, func(t *testing.T, f family) { mustReach(t, f, machines, asDrawn) })
	again.end(syscall.SIGTERM)
	mustReach(t, ipv4, machines, nobody)
	nsgdDetach(t)
	eachFamily(t, func(t *testing.T, f family) { mustReach(t, f, machines, func(_, _ string) string { return guestPorts }) })
	session.must("said three")
	if after := listings(t); after != before {
		t.Errorf("the host's listings differ after detach:\n%s", differences(before, after))
	}
}

// configureMachines lets the machines ask who they are, and checks what they made of the answers.
func configureMachines(t *testing.T, machines []*virtualMachine) {
	t.Helper()
	for _, m := range machines {
		m.send("udhcpc -q -n -t 30 -T 1 -i eth0 -s /etc/udhcpc.sh -O staticroutes && " +
			"dhclient -6 -1 -cf /etc/dhclient.conf -lf /tmp/leases -pf /tmp/pid -sf /etc/dhclient.sh eth0")
	}
	for i, m := range machines {
		if printed, code := m.answer(); code != 0 {
			t.Fatalf("%s: exit code %d: %s", m.name, code, printed)
		}
		told := m.must("ip addr show dev eth0; ip route; ip -6 route show default")
		for _, want := range []string{lab.Hosts(lab.IPv4)[i].Address.String() + "/24", lab.Hosts(lab.IPv6)[i].Address.String() + "/128",
			"default via 10.0.", "168.63.129.16 via 10.0.", "default via fe80::1234:5678:9abc"} {
			if !strings.Contains(told, want) {
				t.Errorf("%s has no %s:\n%s", m.name, want, told)
			}
		}
	}
}

// pretend lets VM4, whose user is root there, use addresses and MACs that are not its own.
func pretend(t *testing.T, machines []*virtualMachine) {
	t.Helper()
	thief := machines[3]
	const ping = "ping -c 1 -W 1 %s >/dev/null"
	arrived := func() (echoRequests string) {
		return must(t, "ip", "netns", "exec", "if-inet", "sh", "-c", "grep -h -e ^Icmp: /proc/net/snmp && grep -h InEchos /proc/net/snmp6")
	}
	thief.must(ping, internet.Address)
	before := arrived()
	for address, to := range map[string]netip.Addr{"10.0.3.77": internet.Address, "10.0.2.4": internet.Address, "fd00:db8:1:3::77": ipv6.internet.Address} {
		if printed, code := thief.run("ip addr add %[1]s dev eth0; ping -c 1 -W 1 -I %[1]s %[2]s; code=$?; ip addr del %[1]s dev eth0; (exit $code)", address, to); code == 0 {
			t.Errorf("as %s: %s", address, printed)
		}
	}
	for _, mac := range []string{"52:54:00:00:00:01", "52:54:00:00:00:99", "12:34:56:78:9a:bc"} {
		if printed, code := thief.run("ip link set eth0 address %s && "+ping+"; code=$?; ip link set eth0 address 52:54:00:00:00:04; (exit $code)", mac, internet.Address); code == 0 {
			t.Errorf("as %s: %s", mac, printed)
		}
	}
	if after := arrived(); after != before {
		t.Errorf("echo requests arrived:\n%s", differences(before, after))
	}
	// A claim to VM1's address.
	thief.run("arping -U -c 1 -I eth0 -s %[1]s %[1]s", vm1.Address)
	dropped := interfaceStatus(t)["tap-vm4"].Dropped
	if dropped["spoofed_mac"] == 0 || dropped["spoofed_address"] == 0 {
		t.Errorf("dropped at the interface: %v", dropped)
	}
	mustConnect(t, guestOf(internet, "if-inet"), vm1, 80)
	thief.must(ping, internet.Address)
}
