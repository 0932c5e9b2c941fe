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
	"time"

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
	makeHypervisor(t)
	disk := guestDisk(t)
	for i := 1; i <= 4; i++ {
		tap := fmt.Sprintf("tap-vm%d", i)
		addTap(t, tap)
		machines = append(machines, boot(t, fmt.Sprintf("VM%d", i), tap, fmt.Sprintf("52:54:00:00:00:0%d", i), disk))
	}
	for _, m := range machines {
		m.answer()
	}
	return machines
}

// addTap makes a tap at the bridge that is there before its machine.
func addTap(t *testing.T, name string) {
	t.Helper()
	ip(t, ifHost, fmt.Sprintf("tuntap add %[1]s mode tap\nlink set %[1]s master br0 up", name))
}

// makeHypervisor makes the host without machines.
func makeHypervisor(t *testing.T) {
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
}

// reach says on which ports a host reaches another one.
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

// lines is text that several add to.
type lines struct {
	mu   sync.Mutex
	list []string
}

func (l *lines) add(more ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, more...)
}

// machinesReach lets every host ask every other one at the same time, in both families, and holds what was answered against
// what is wanted.
func machinesReach(t *testing.T, machines []*virtualMachine, want reach) {
	t.Helper()
	isWanted := func(from, to lab.Host, port string) bool {
		return slices.Contains(strings.Fields(want(from.Name, to.Name)), port)
	}
	questions := func(from lab.Host, ask func(to lab.Host, port string)) {
		for _, to := range lab.Hosts(from.Family()) {
			for _, port := range strings.Fields(guestPorts) {
				if to != from {
					ask(to, port)
				}
			}
		}
	}
	answers := map[string]*lines{}
	for _, h := range lab.Hosts(lab.IPv4) {
		answers[h.Name] = &lines{}
	}
	for _, m := range machines {
		command := "reach"
		for _, f := range families {
			from := m.host(f)
			questions(from, func(to lab.Host, port string) {
				command += fmt.Sprintf(" %s %s %d", to.Address, port, map[bool]int{true: 300, false: 1}[isWanted(from, to, port)])
			})
		}
		m.send("%s", command)
	}
	var wait sync.WaitGroup
	for _, f := range families {
		questions(f.internet, func(to lab.Host, port string) {
			wait.Go(func() {
				n, _ := strconv.Atoi(port)
				conn, err := connect(guestOf(f.internet, "if-inet"), to, uint16(n), map[bool]time.Duration{true: patience, false: silence}[isWanted(f.internet, to, port)])
				if err != nil {
					return
				}
				defer conn.Close()
				if echo(conn, patience) == nil {
					answers[f.internet.Name].add(to.Address.String() + " " + port)
				}
			})
		})
	}
	wait.Wait()
	for _, m := range machines {
		printed, _ := m.answer()
		answers[m.name].add(strings.Split(printed, "\n")...)
	}
	var got, wanted strings.Builder
	for _, from := range lab.AllHosts() {
		questions(from, func(to lab.Host, port string) {
			question := fmt.Sprintf("%s -> %s %s\n", from, to, port)
			if isWanted(from, to, port) {
				wanted.WriteString(question)
			}
			if slices.Contains(answers[from.Name].list, to.Address.String()+" "+port) {
				got.WriteString(question)
			}
		})
	}
	if d := cmp.Diff(wanted.String(), got.String()); d != "" {
		t.Errorf("who got through (-want +got):\n%s", d)
		for _, m := range machines {
			m.must("cat /proc/net/netstat /proc/net/snmp /proc/net/snmp6") // for its console
		}
	}
}

func TestVirtualMachinesGetTheirAddressesAndWhatTheRulesAllow(t *testing.T) {
	machines := hypervisor(t)
	before := listings(t)
	d := startInterfaces(t, interfaceConfig(t, hypervisorAttachments))
	internet := guestOf(internet, "if-inet")
	for _, port := range []uint16{80, 8080, 8081} {
		acceptTCP(t, internet, netip.AddrPortFrom(netip.IPv6Unspecified(), port), func(conn net.Conn) {
			go func() {
				io.Copy(conn, conn)
				conn.Close()
			}()
		})
	}
	configureMachines(t, machines)
	for _, m := range machines {
		printed := m.must("nslookup vm4; wget -q -O - --header 'Metadata: true' 'http://169.254.169.254/metadata/instance?api-version=2021-02-01'")
		for _, want := range []string{vm4.Address.String(), `"privateIpAddress":"` + m.host(ipv4).Address.String(), `"macAddress":"52540000000` + m.name[2:] + `"`} {
			if !strings.Contains(printed, want) {
				t.Errorf("%s is not told %s: %s", m.name, want, printed)
			}
		}
	}
	open := mustConnect(t, internet, ipv4.vm2, 80)
	session := machines[1]
	session.must("mkfifo /tmp/in; nc %s 80 </tmp/in >/tmp/out & exec 9>/tmp/in", vm1.Address)
	session.must("said() { echo $1 >&9; until grep -q $1 /tmp/out; do sleep 0.1; done; }; said one")

	t.Run("the rules of the figure", func(t *testing.T) { machinesReach(t, machines, asDrawn) })
	t.Run("superpackets of cards of virtio", func(t *testing.T) {
		for _, f := range families {
			echoes(t, mustConnect(t, guestOf(f.internet, "if-inet"), f.vm1, 80), 1<<20)
			if sum := session.must("head -c 1000000 /dev/zero | nc %s 80 | wc -c", f.vm1.Address); sum != "1000000" {
				t.Errorf("%s of 1000000 bytes came back from %s to VM2", sum, f.vm1)
			}
		}
	})
	t.Run("a machine that pretends to be another one", func(t *testing.T) { pretend(t, machines) })
	d.reload(t, groups(rules(allowHTTPIn), rules(denyHTTPOut)))
	t.Run("other rules", func(t *testing.T) { machinesReach(t, machines, withoutNSG2) })

	d.kill()
	t.Run("nsgd is killed", func(t *testing.T) {
		machinesReach(t, machines, func(_, _ string) string { return "" })
		mustNotConnect(t, hostAt("10.0.1.1"), vm1, 80)
	})
	t.Run("nsgd starts again", func(t *testing.T) {
		again := startInterfaces(t, d.dir)
		mustEcho(t, open)
		session.must("said two")
		mustConnect(t, internet, ipv4.vm2, 80)
		mustNotConnect(t, internet, vm1, 80)
		again.end(syscall.SIGTERM)
		mustNotConnect(t, internet, ipv4.vm2, 80)
	})
	nsgdDetach(t)
	t.Run("nsgd is gone", func(t *testing.T) { machinesReach(t, machines, func(_, _ string) string { return guestPorts }) })
	session.must("said three")
	if after := listings(t); after != before {
		t.Errorf("the host's listings differ after detach:\n%s", differences(before, after))
	}
}

// configureMachines lets the machines ask who they are, and checks what they made of the answers.
func configureMachines(t *testing.T, machines []*virtualMachine) {
	t.Helper()
	for _, m := range machines {
		m.send("udhcpc -q -n -t 300 -T 1 -i eth0 -s /etc/udhcpc.sh -O staticroutes && " +
			"dhclient -6 -1 -v -cf /etc/dhclient.conf -lf /tmp/leases -pf /tmp/pid -sf /etc/dhclient.sh eth0")
	}
	for _, m := range machines {
		if printed, code := m.answer(); code != 0 {
			t.Fatalf("%s: exit code %d: %s", m.name, code, printed)
		}
		told := m.must("ip addr show dev eth0; ip route; ip -6 route show default")
		for _, want := range []string{m.host(ipv4).Address.String() + "/24", m.host(ipv6).Address.String() + "/128",
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
	const ping, patientPing = "ping -c 1 -W 1 %s >/dev/null", "ping -c 1 -W 60 %s >/dev/null"
	arrived := func() (echoRequests string) {
		return must(t, "ip", "netns", "exec", "if-inet", "sh", "-c", "grep -h -e ^Icmp: /proc/net/snmp && grep -h InEchos /proc/net/snmp6")
	}
	thief.must(patientPing, internet.Address)
	before := arrived()
	thief.must("pretend() { ip addr add $1 dev eth0; ping -c 1 -W 1 -I $1 $2; ip addr del $1 dev eth0; }")
	thief.must("pretend 10.0.3.77 %[1]s & a=$!; pretend 10.0.2.4 %[1]s & b=$!; pretend fd00:db8:1:3::77 %[2]s & wait $a $b $!", internet.Address, ipv6.internet.Address)
	for _, mac := range []string{"52:54:00:00:00:01", "12:34:56:78:9a:bc"} { // VM1's, the gateway's
		thief.must("ip link set eth0 address %s; ! "+ping+" && ip link set eth0 address 52:54:00:00:00:04", mac, internet.Address)
	}
	if after := arrived(); after != before {
		t.Errorf("echo requests arrived:\n%s", differences(before, after))
	}
	if n := strings.TrimSpace(nsgctl(t, "status", "--query", "dropped.spoofed_source", "-o", "json")); n == "null" || n == "0" {
		t.Errorf("spoofed_source counts %s", n)
	}
	thief.must("ip addr add %[1]s/32 dev eth0; arping -A -c 1 -I eth0 -s %[1]s %[1]s; ip addr del %[1]s/32 dev eth0", vm1.Address)
	dropped := interfaceStatus(t)["tap-vm4"].Dropped
	if dropped["spoofed_mac"] == 0 || dropped["spoofed_address"] == 0 {
		t.Errorf("dropped at the interface: %v", dropped)
	}
	mustConnect(t, guestOf(internet, "if-inet"), vm1, 80)
	thief.must(patientPing, internet.Address)
}
