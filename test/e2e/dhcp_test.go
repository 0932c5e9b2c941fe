package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/nsgd/nsgd/dataplane/dhcp"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// A machine's namespace and its host's, with one link between them.
const (
	machineNamespace = "dhcp-machine"
	machineHost      = "dhcp-host"
	tap              = "tap-vm"
)

// machineMAC keeps the machine's address of the link the same when its interface is made anew.
var machineMAC = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}

// guest is a machine: one side of a link whose other side a responder answers.
type guest struct {
	t   *testing.T
	dir string // what its clients were told
	*dhcp.Responder
}

// newGuest makes the two namespaces, the link and a responder for a NIC.
func newGuest(t *testing.T, nic *policy.NetworkInterface, gateway bool) *guest {
	t.Helper()
	needWorld(t)
	for _, name := range []string{machineNamespace, machineHost} {
		if err := makeNamespace(name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := netns.DeleteNamed(name); err != nil {
				t.Error(err)
			}
		})
	}
	m := &guest{t: t, dir: t.TempDir()}
	m.plug()
	m.Responder = dhcp.New(dhcp.Options{Open: func() (fd, mtu int, err error) { return dhcp.Open(machineHost, tap, gateway) }, Interface: tap, Gateway: gateway, NetworkInterface: func() *policy.NetworkInterface { return nic }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { m.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

// plug makes the link, also in place of one that was there.
func (m *guest) plug() {
	m.t.Helper()
	m.in(machineHost, func() error {
		if old, err := netlink.LinkByName(tap); err == nil {
			if err := netlink.LinkDel(old); err != nil {
				return err
			}
		}
		peer, err := netns.GetFromName(machineNamespace)
		if err != nil {
			return err
		}
		defer peer.Close()
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: tap}, PeerName: "eth0", PeerNamespace: netlink.NsFd(peer), PeerHardwareAddr: machineMAC}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
	m.in(machineNamespace, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
}

func (m *guest) in(namespace string, f func() error) {
	m.t.Helper()
	if err := tun.Do(namespace, f); err != nil {
		m.t.Fatalf("%s: %v", namespace, err)
	}
}

// run runs a program in a namespace to its end and returns what it printed.
func (m *guest) run(namespace, name string, args ...string) (string, error) {
	m.t.Helper()
	return runOn(m.t, lab.Host{Namespace: namespace}, name, args...)
}

// udhcpcScript does what a distribution's script does, and writes down what it was told.
const udhcpcScript = `#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
env | grep -E '^(ip|mask|router|dns|domain|lease|serverid|staticroutes|mtu|opt245)=' | sort >"$TOLD"
busybox ip addr replace "$ip/$mask" dev "$interface"
set -- $staticroutes
while [ $# -gt 1 ]; do busybox ip route replace "$1" via "$2" dev "$interface"; shift 2; done
`

// udhcpc asks with busybox's client, for a minute unless more says less. It returns what the client was told.
func (m *guest) udhcpc(namespace, device string, more ...string) (map[string]string, error) {
	m.t.Helper()
	script, told := filepath.Join(m.dir, "udhcpc.sh"), filepath.Join(m.dir, "told")
	text := strings.ReplaceAll(udhcpcScript, "$TOLD", told)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		m.t.Fatal(err)
	}
	os.Remove(told)
	args := append([]string{"udhcpc", "-f", "-q", "-n", "-t", "60", "-T", "1", "-i", device, "-s", script, "-O", "staticroutes", "-O", "245", "-O", "mtu"}, more...)
	out, err := m.run(namespace, "busybox", args...)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return m.environment(told), nil
}

func (m *guest) environment(file string) map[string]string {
	m.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		m.t.Fatal(err)
	}
	told := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		told[key] = value
	}
	return told
}

// dualStack is a NIC of both families in a virtual network with a resolver of its own for IPv6.
func dualStack(address string) *policy.NetworkInterface {
	v := &policy.VirtualNetwork{AddressSpace: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16"), netip.MustParsePrefix("fd00:8::/48")}}
	s := &policy.Subnet{VirtualNetwork: v, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.8.1.0/24"), netip.MustParsePrefix("fd00:8:0:1::/64")}}
	return &policy.NetworkInterface{Name: "vm-nic", DomainNameSuffix: "abc.internal.cloudapp.net", IPConfigurations: []policy.IPConfiguration{
		{Address: netip.MustParseAddr(address), Subnet: s, Primary: true}, {Address: netip.MustParseAddr("fd00:8:0:1::4"), Subnet: s}}}
}

func TestAMachineGetsItsAddressesByDHCP(t *testing.T) {
	m := newGuest(t, dualStack("10.8.1.4"), true)
	told, err := m.udhcpc(machineNamespace, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"ip": "10.8.1.4", "mask": "24", "router": "10.8.1.1", "dns": "168.63.129.16", "domain": "abc.internal.cloudapp.net",
		"lease": "4294967295", "serverid": "168.63.129.16", "opt245": "a83f8110",
		"staticroutes": "0.0.0.0/0 10.8.1.1 168.63.129.16/32 10.8.1.1 169.254.169.254/32 10.8.1.1"}
	for key, value := range want {
		if told[key] != value {
			t.Errorf("%s is %q, want %q", key, told[key], value)
		}
	}
	for _, target := range []string{"10.8.1.1", "10.8.1.9", "10.8.200.9"} {
		m.mustReachByGateway(target)
	}
	if out, err := m.run(machineNamespace, "busybox", "arping", "-D", "-c", "1", "-w", "1", "-I", "eth0", "10.8.1.4"); err != nil {
		t.Errorf("its own address is taken: %s", out)
	}
	if _, err := m.udhcpc(machineNamespace, "eth0", "-r", "10.8.1.77"); err != nil {
		t.Errorf("a client that asks for another address: %v", err)
	}
	// An interface that is made anew, as when a virtual machine starts again.
	m.plug()
	eventually(t, "an answer on the new interface", func() bool { _, err := m.udhcpc(machineNamespace, "eth0"); return err == nil })
}

// mustReachByGateway checks that the machine's kernel sends what is for an address to the gateway.
func (m *guest) mustReachByGateway(target string) {
	m.t.Helper()
	if out, err := m.run(machineNamespace, "busybox", "arping", "-f", "-c", "60", "-w", "60", "-I", "eth0", target); err != nil || !strings.Contains(out, "12:34:56:78:9a:bc") {
		m.t.Errorf("%s: %v: %s", target, err, out)
	}
}

func TestAMachineGetsItsIPv6AddressByDHCP(t *testing.T) {
	nic := dualStack("10.8.1.4")
	nic.DNSServers = []netip.Addr{netip.MustParseAddr("fd00:8:0:1::53")}
	m := newGuest(t, nic, true)
	eventually(t, "a default route by the router's advertisement", func() bool {
		out, _ := m.run(machineNamespace, "ip", "-6", "route", "show", "default")
		return strings.Contains(out, "via fe80::1234:5678:9abc dev eth0 proto ra")
	})
	addresses, err := m.run(machineNamespace, "ip", "-6", "addr", "show", "dev", "eth0", "scope", "global")
	if err != nil || addresses != "" {
		t.Errorf("addresses that the machine made itself: %s, %v", addresses, err)
	}
	eventually(t, "an address of the link", func() bool {
		out, _ := m.run(machineNamespace, "ip", "-6", "addr", "show", "dev", "eth0", "-tentative")
		return strings.Contains(out, "fe80::")
	})
	told := m.dhclient6(machineNamespace)
	if told["new_ip6_address"] != "fd00:8:0:1::4" || told["new_dhcp6_name_servers"] != "fd00:8:0:1::53" || told["new_dhcp6_domain_search"] != "reddog.microsoft.com." ||
		told["new_max_life"] != "17280000" || told["new_preferred_life"] != "8640000" {
		t.Errorf("%v", told)
	}
	eventually(t, "another machine is at the gateway", func() bool {
		m.run(machineNamespace, "ping", "-6", "-c", "1", "-W", "1", "fd00:8:0:1::9")
		neighbours, _ := m.run(machineNamespace, "ip", "-6", "neigh", "show", "fd00:8:0:1::9")
		return strings.Contains(neighbours, "12:34:56:78:9a:bc")
	})
}

// dhclient6 asks with ISC's client until it is bound, and returns what it was told.
func (m *guest) dhclient6(namespace string) map[string]string {
	m.t.Helper()
	at := func(name string) string { return filepath.Join(m.dir, name) }
	script := fmt.Sprintf("#!/bin/sh\n[ \"$reason\" = BOUND6 ] || exit 0\nenv | grep ^new_ >%s\nip -6 addr add \"$new_ip6_address/128\" dev \"$interface\"\n", at("told6"))
	for name, text := range map[string]string{"dhclient.sh": script, "dhclient.conf": ""} {
		if err := os.WriteFile(at(name), []byte(text), 0o755); err != nil {
			m.t.Fatal(err)
		}
	}
	out, err := m.run(namespace, "dhclient", "-6", "-1", "-v", "-cf", at("dhclient.conf"), "-lf", at("leases"), "-pf", at("pid"), "-sf", at("dhclient.sh"), "eth0")
	m.t.Cleanup(func() {
		m.run(namespace, "dhclient", "-6", "-x", "-lf", at("leases"), "-pf", at("pid"), "-sf", at("dhclient.sh"), "eth0")
	})
	if err != nil {
		m.t.Fatalf("dhclient: %v: %s", err, out)
	}
	return m.environment(at("told6"))
}

func TestDHCPIsAnsweredOnItsInterfaceAlone(t *testing.T) {
	m := newGuest(t, dualStack("10.8.1.4"), false)
	// The link becomes a port of a bridge with a router.
	m.in(machineHost, func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", HardwareAddr: net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0xff}}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		router, err := netlink.ParseAddr("10.8.1.1/24")
		if err != nil {
			return err
		}
		port, err := netlink.LinkByName(tap)
		return errors.Join(err, netlink.AddrAdd(bridge, router), netlink.LinkSetUp(bridge), netlink.LinkSetMaster(port, bridge))
	})
	if told, err := m.udhcpc(machineNamespace, "eth0"); err != nil || told["ip"] != "10.8.1.4" {
		t.Fatalf("a bridge's port: %v, %v", told, err)
	}
	if out, err := m.run(machineNamespace, "busybox", "arping", "-f", "-c", "60", "-w", "60", "-I", "eth0", "10.8.1.1"); err != nil ||
		!strings.Contains(out, "52:54:00:00:00:ff") || strings.Contains(out, "12:34:56") {
		t.Errorf("the router's own answer: %v: %s", err, out)
	}
	for _, tt := range []struct{ name, namespace, device string }{
		{"the host's own question, which leaves by the interface", machineHost, tap},
		{"the bridge", machineHost, "br0"},
	} {
		before := m.Stats()
		if told, err := m.udhcpc(tt.namespace, tt.device, "-t", "1"); err == nil || m.Stats() != before {
			t.Errorf("%s: %v, %+v after %+v", tt.name, told, m.Stats(), before)
		}
	}
}

// A tag is taken off before a packet socket sees the frame: without a look at it the answer would go to another network.
func TestATaggedQuestionHasNoAnswer(t *testing.T) {
	m := newGuest(t, dualStack("10.8.1.4"), false)
	var conn *packet.Conn
	m.in(machineNamespace, func() error {
		device, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		conn, err = packet.Listen(device, packet.Raw, int(layers.EthernetTypeIPv4), nil)
		return err
	})
	defer conn.Close()
	ask := func(tag ...gopacket.SerializableLayer) dhcpv4.TransactionID {
		q, err := dhcpv4.NewDiscovery(machineMAC)
		if err != nil {
			t.Fatal(err)
		}
		ethernet := &layers.Ethernet{SrcMAC: machineMAC, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeIPv4}
		if len(tag) > 0 {
			ethernet.EthernetType = layers.EthernetTypeDot1Q
		}
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4zero, DstIP: net.IPv4bcast}
		udp := &layers.UDP{SrcPort: dhcpv4.ClientPort, DstPort: dhcpv4.ServerPort}
		udp.SetNetworkLayerForChecksum(ip)
		parts := append(append([]gopacket.SerializableLayer{ethernet}, tag...), ip, udp, gopacket.Payload(q.ToBytes()))
		frame := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(frame, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, parts...); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.WriteTo(frame.Bytes(), &packet.Addr{HardwareAddr: layers.EthernetBroadcast}); err != nil {
			t.Fatal(err)
		}
		return q.TransactionID
	}
	answered := func() (id dhcpv4.TransactionID) {
		buffer := make([]byte, 2048)
		conn.SetReadDeadline(time.Now().Add(patience))
		n, _, err := conn.ReadFrom(buffer)
		if err != nil {
			t.Fatal(err)
		}
		udp, _ := gopacket.NewPacket(buffer[:n], layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeUDP).(*layers.UDP)
		if udp == nil {
			t.Fatalf("% x", buffer[:n])
		}
		a, err := dhcpv4.FromBytes(udp.Payload)
		if err != nil {
			t.Fatal(err)
		}
		return a.TransactionID
	}
	// The responder may not have opened its socket yet.
	if told, err := m.udhcpc(machineNamespace, "eth0"); err != nil {
		t.Fatalf("%v, %v", told, err)
	}
	tagged := ask(&layers.Dot1Q{VLANIdentifier: 5, Type: layers.EthernetTypeIPv4})
	for plain, id := ask(), tagged; id != plain; {
		if id = answered(); id == tagged { // others are udhcpc's
			t.Fatal("the tagged question was answered")
		}
	}
}

// A guest that knows nothing but its interface is told by nsgd who it is, and is judged by that.
func TestAGuestBeforeNsgdGetsItsAddressesAndIsJudgedByThem(t *testing.T) {
	makeRouter(t)
	ip(t, ifHost, "link set tap-vm1 address 12:34:56:78:9a:bc")
	ip(t, "if-vm1", "addr flush dev eth0 scope global\nneigh flush dev eth0")
	startInterfaces(t, interfaceConfig(t, strings.Replace(routedAttachments, "device: nsgd-vm1", "device: nsgd-vm1, dhcp: true, defaultGateway: true", 1)))
	m := &guest{t: t, dir: t.TempDir()}
	told, err := m.udhcpc("if-vm1", "eth0")
	if err != nil || told["ip"] != "10.0.1.4" || told["router"] != "10.0.1.1" {
		t.Fatalf("%v, %v", told, err)
	}
	if told := m.dhclient6("if-vm1"); told["new_ip6_address"] != "fd00:db8:1:1::4" {
		t.Fatalf("%v", told)
	}
	eachFamily(t, func(t *testing.T, f family) {
		vm1, vm3, _, internet, _, _, _ := routedHosts(f)
		if f.Family == lab.IPv6 {
			eventually(t, "the advertised router", func() bool {
				out, _ := m.run("if-vm1", "ip", "-6", "route", "show", "default")
				return strings.Contains(out, "via fe80::1234:5678:9abc dev eth0 proto ra")
			})
		}
		for _, h := range []lab.Host{vm1, vm3, internet} {
			for _, port := range []uint16{80, 8080, 8081} {
				serveTCP(t, h, port)
			}
		}
		mustConnect(t, vm1, internet, 8080)
		mustConnect(t, vm3, vm1, 80)
		mustConnect(t, internet, vm1, 80)
		mustNotConnect(t, internet, vm1, 8080)
		mustNotConnect(t, vm3, vm1, 8081)
	})
}

// On a bridge the host and the neighbours have the addresses that the gateway answers for: a guest saw two answers.
func TestOnABridgeTheGatewayAloneAnswers(t *testing.T) {
	bridged(t)
	ip(t, ifHost, "link set br0 address 12:34:56:78:9a:bc\naddr add 10.0.1.2/24 dev br0")
	d := startInterfaces(t, interfaceConfig(t, strings.NewReplacer("device: nsgd-vm1", "device: nsgd-vm1, dhcp: true, defaultGateway: true",
		"device: nsgd-vm2", "device: nsgd-vm2, dhcp: true, defaultGateway: true").Replace(bridgedAttachments)))
	m := &guest{t: t, dir: t.TempDir()}
	eventually(t, "the gateway answers", func() bool { // its socket opens behind the daemon's ready
		_, err := m.run("if-vm1", "busybox", "arping", "-f", "-c", "1", "-w", "1", "-I", "eth0", "10.0.1.1")
		return err == nil
	})
	for _, target := range []string{"10.0.1.5", "10.0.1.9", "10.0.1.1"} {
		eventually(t, target+" has one answer to each question", func() bool {
			out, err := m.run("if-vm1", "busybox", "arping", "-c", "2", "-w", "2", "-I", "eth0", target)
			answers := strings.Count(out, "reply from")
			if answers > 2 || strings.Count(out, "[12:34:56:78:9a:bc]") != answers {
				t.Fatalf("%s: %v: %s", target, err, out)
			}
			return err == nil && answers == 2 // one of a busy machine may be late
		})
	}
	eachFamily(t, func(t *testing.T, f family) {
		vm1, vm2 := guestOf(f.vm1, "if-vm1"), guestOf(f.vm2, "if-vm2")
		serveTCP(t, vm1, 80)
		serveTCP(t, vm1, 8081)
		mustConnect(t, vm2, vm1, 80)
		mustNotConnect(t, vm2, vm1, 8081)
	})
	// What the host asks reaches its guests.
	serveTCP(t, guestOf(vm1, "if-vm1"), 8080)
	mustConnect(t, hostAt("10.0.1.1"), guestOf(vm1, "if-vm1"), 8080)
	told, err := m.udhcpc("if-vm2", "eth0")
	if err != nil || told["ip"] != "10.0.1.5" {
		t.Errorf("%v, %v", told, err)
	}
	if n := nsgctl(t, "status", "--query", "interfaces[?interface=='tap-vm2'].dhcp.answered | [0]", "-o", "json"); strings.TrimSpace(n) == "0" || strings.TrimSpace(n) == "null" {
		t.Errorf("status: %s", nsgctl(t, "status"))
	}
	// Without the gateway in the configuration nobody is answered in its place any more.
	path := filepath.Join(d.dir, lab.ConfigName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, strings.ReplaceAll(string(text), ", dhcp: true, defaultGateway: true", ""))
	nsgctl(t, "reload")
	if told, err := m.udhcpc("if-vm2", "eth0", "-t", "1"); err == nil {
		t.Errorf("answered after the reload: %v", told)
	}
	if out, err := m.run("if-vm1", "busybox", "arping", "-f", "-c", "60", "-w", "60", "-I", "eth0", "10.0.1.5"); err != nil || strings.Contains(out, "12:34:56") {
		t.Errorf("the neighbour's own answer after the reload: %v: %s", err, out)
	}
}
