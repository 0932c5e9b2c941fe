package e2e

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/deploy/lab"
)

// interfaceStatus is what nsgctl status says of the host's interfaces, by name.
func interfaceStatus(t *testing.T) map[string]inspect.InterfaceStatus {
	t.Helper()
	var status inspect.Status
	if err := json.Unmarshal([]byte(nsgctl(t, "status", "-o", "json")), &status); err != nil {
		t.Fatal(err)
	}
	found := map[string]inspect.InterfaceStatus{}
	for _, i := range status.Interfaces {
		found[i.Interface] = i
	}
	return found
}

// bridged is a host with VM1, VM2 and somebody on one bridge, who has no attachment.
func bridged(t *testing.T) {
	t.Helper()
	needWorld(t)
	addNamespaces(t, ifHost, "if-vm1", "if-vm2", "if-rogue")
	ip(t, ifHost, `link add br0 type bridge
link set br0 up
addr add 10.0.1.1/24 dev br0
addr add fd00:db8:1:1::1/64 dev br0`)
	for name, namespace := range map[string]string{"tap-vm1": "if-vm1", "tap-vm2": "if-vm2", "tap-rogue": "if-rogue"} {
		cable(t, name, namespace)
		ip(t, ifHost, "link set "+name+" master br0")
	}
	addressed(t, "if-vm1", "10.0.1.4/24", "fd00:db8:1:1::4/64")
	addressed(t, "if-vm2", "10.0.1.5/24", "fd00:db8:1:1::5/64")
	addressed(t, "if-rogue", "10.0.1.9/24", "fd00:db8:1:1::9/64")
}

const bridgedAttachments = `
- {networkInterface: vm1-nic, interface: tap-vm1, netns: if-host, device: nsgd-vm1}
- {networkInterface: vm2-nic, interface: tap-vm2, netns: if-host, device: nsgd-vm2}
- {subnet: Subnet1, netns: if-host, device: nsgd-sub1}
`

func TestABridgesPortsCarryWhatTheRulesAllow(t *testing.T) {
	bridged(t)
	startInterfaces(t, interfaceConfig(t, bridgedAttachments))
	eachFamily(t, func(t *testing.T, f family) {
		vm1, vm2 := guestOf(f.vm1, "if-vm1"), guestOf(f.vm2, "if-vm2")
		host, rogue := hostAt("10.0.1.1"), lab.Host{Name: "a neighbour", Namespace: "if-rogue", Address: netip.MustParseAddr("10.0.1.9")}
		if f.Family == lab.IPv6 {
			host, rogue.Address = hostAt("fd00:db8:1:1::1"), netip.MustParseAddr("fd00:db8:1:1::9")
		}
		for _, h := range []lab.Host{vm1, vm2, rogue} {
			serveTCP(t, h, 80)
			serveTCP(t, h, 8081)
		}
		mustConnect(t, vm2, vm1, 80)
		mustNotConnect(t, vm2, vm1, 8081)
		mustConnect(t, host, vm1, 80)
		mustNotConnect(t, host, vm1, 8081)
		mustConnect(t, rogue, vm1, 80)
		mustNotConnect(t, rogue, vm1, 8081)
		mustConnect(t, vm1, rogue, 80)
		mustNotConnect(t, vm1, rogue, 8081) // the rules of Subnet1 are the neighbour's too
		echoes(t, mustConnect(t, vm2, vm1, 80), 1<<20)
	})
	t.Run("a neighbour that takes another's address gets nothing", func(t *testing.T) {
		vm1, thief := guestOf(vm1, "if-vm1"), lab.Host{Name: "a thief", Namespace: "if-rogue", Address: netip.MustParseAddr("10.0.1.5")}
		serveTCP(t, vm1, 90)
		ip(t, "if-rogue", "addr add 10.0.1.5/32 dev eth0")
		mustNotConnect(t, thief, vm1, 90)
	})
	t.Run("a guest with another MAC or another's address in ARP is dropped at its interface", func(t *testing.T) {
		ip(t, "if-vm2", "addr add 10.0.1.77/32 dev eth0")
		spoofer := lab.Host{Name: "VM2", Namespace: "if-vm2", Address: netip.MustParseAddr("10.0.1.77")}
		mustNotConnect(t, spoofer, lab.Host{Name: "nobody", Address: netip.MustParseAddr("10.0.1.78")}, 80)
		if s := interfaceStatus(t)["tap-vm2"]; s.Dropped["spoofed_address"] == 0 || !slices.Contains(s.Strangers, spoofer.Address) || len(s.Used) != 2 || s.LastOut == nil || s.LastIn == nil {
			t.Errorf("status: %s", nsgctl(t, "status"))
		}
		ip(t, "if-vm2", "link set eth0 address 02:00:00:00:00:99")
		mustNotConnect(t, guestOf(ipv4.vm2, "if-vm2"), guestOf(vm1, "if-vm1"), 80)
		if n := interfaceStatus(t)["tap-vm2"].Dropped["spoofed_mac"]; n == 0 {
			t.Errorf("status: %s", nsgctl(t, "status"))
		}
	})
}

func TestAHostProtectsItself(t *testing.T) {
	needWorld(t)
	addNamespaces(t, ifHost, "if-inet")
	cable(t, "eth0", "if-inet")
	ip(t, ifHost, `addr add 10.0.1.4/24 dev eth0
addr add fd00:db8:1:1::4/64 dev eth0
route add default via 10.0.1.1
route add default via fd00:db8:1:1::1`)
	ip(t, "if-inet", `addr add 10.0.1.1/24 dev eth0
addr add fd00:db8:1:1::1/64 dev eth0
addr add 203.0.113.10/32 dev lo
addr add 2001:db8::10/128 dev lo`)
	before := listings(t)
	d := startInterfaces(t, interfaceConfig(t, `
- {networkInterface: vm1-nic, interface: eth0, host: true, netns: if-host, device: nsgd-host}
- {subnet: Subnet1, netns: if-host, device: nsgd-sub1}
- {internet: true, netns: if-host, device: nsgd-inet}
`))
	eachFamily(t, func(t *testing.T, f family) {
		host, internet := guestOf(f.vm1, ifHost), guestOf(f.internet, "if-inet")
		router := lab.Host{Name: "the router", Namespace: "if-inet", Address: netip.MustParseAddr("10.0.1.1")}
		if f.Family == lab.IPv6 {
			router.Address = netip.MustParseAddr("fd00:db8:1:1::1")
		}
		for _, h := range []lab.Host{host, internet, router} {
			for _, port := range []uint16{80, 8080, 8081} {
				serveTCP(t, h, port)
			}
		}
		mustConnect(t, internet, host, 80)
		mustNotConnect(t, internet, host, 8080)
		mustConnect(t, router, host, 8080)
		mustNotConnect(t, router, host, 8081)
		mustConnect(t, host, internet, 8081)
		echoes(t, mustConnect(t, internet, host, 80), 1<<20)
	})
	host, internet := guestOf(vm1, ifHost), guestOf(internet, "if-inet")
	serveTCP(t, host, 80)
	open := mustConnect(t, internet, host, 80)
	d.kill()
	mustNotConnect(t, internet, host, 80)
	startInterfaces(t, d.dir).end(syscall.SIGTERM)
	mustNotConnect(t, internet, host, 80)
	nsgdDetach(t)
	mustEcho(t, open)
	if after := listings(t); after != before {
		t.Errorf("the host's listings differ after detach:\n%s", differences(before, after))
	}

	file := filepath.Join(d.dir, lab.ConfigName)
	writeFile(t, file, readFile(t, file)+"closedAtBoot: true\n")
	serveTCP(t, internet, 80)
	if a := execute(t, "nsgd", "close", "--config", file); a.code != 0 || a.stdout != "closed in namespace if-host: eth0\n" {
		t.Errorf("close: %v", a)
	}
	mustNotConnect(t, internet, host, 80)
	mustNotConnect(t, host, internet, 80)
	if a := execute(t, "nsgd", "detach"); a.code != 0 || a.stdout != "open in namespace if-host: interfaces that were closed before nsgd stood there\n" {
		t.Errorf("detach: %v", a)
	}
	mustConnect(t, host, internet, 80)
}

// nsgdDetach opens the interfaces.
func nsgdDetach(t *testing.T) {
	t.Helper()
	if a := execute(t, "nsgd", "detach"); a.code != 0 {
		t.Fatalf("detach: %v", a)
	}
}

func TestAnUnconfirmedRunOpensTheInterfacesAgain(t *testing.T) {
	makeRouter(t)
	vm1, _, _, internet, _, _, _ := routedHosts(ipv4)
	serveTCP(t, vm1, 8080)
	before := listings(t)
	dir := interfaceConfig(t, routedAttachments)
	config := filepath.Join(dir, lab.ConfigName)

	d := launch(t, "run", "--config", config, "--confirm", "1s")
	d.done = true // it ends by itself
	d.waitFor(d.stderr, "no nsgctl confirm came in time")
	d.wait()
	mustConnect(t, internet, vm1, 8080)
	if after := listings(t); after != before {
		t.Errorf("the host's listings differ:\n%s", differences(before, after))
	}

	killed := launch(t, "run", "--config", config, "--confirm", "2s")
	killed.waitFor(killed.stderr, "msg=ready")
	killed.kill()
	eventually(t, "an unconfirmed run that was killed opens", func() bool {
		conn, err := connect(internet, vm1, 8080, silence)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})

	confirmed := launch(t, "run", "--config", config, "--confirm", "1h")
	confirmed.waitFor(confirmed.stderr, "msg=ready")
	mustNotConnect(t, internet, vm1, 8080)
	if out := nsgctl(t, "confirm"); !strings.Contains(out, "confirmed") {
		t.Errorf("confirm printed %q", out)
	}
	if out := nsgctl(t, "confirm"); !strings.Contains(out, "nothing waits") {
		t.Errorf("a second confirm printed %q", out)
	}
	confirmed.end(syscall.SIGTERM)
	mustNotConnect(t, internet, vm1, 8080)
	nsgdDetach(t)
}

func TestAnInterfaceThatComesIsClosedAtOnce(t *testing.T) {
	makeRouter(t)
	ip(t, ifHost, "link del tap-vm1")
	startInterfaces(t, interfaceConfig(t, strings.Replace(routedAttachments, "interface: tap-vm1", "interface: tap-vm1, wait: true", 1)))
	vm1, _, _, internet, _, _, _ := routedHosts(ipv4)
	for _, first := range []bool{true, false} {
		if got := interfaceStatus(t)["tap-vm1"].State; got != "waiting" {
			t.Fatalf("state %q, want waiting", got)
		}
		cable(t, "tap-vm1", "if-vm1")
		ip(t, ifHost, "addr add 10.0.1.1/24 dev tap-vm1")
		addressed(t, "if-vm1", "10.0.1.4/24")
		eventually(t, "the interface is attached", func() bool { return interfaceStatus(t)["tap-vm1"].State == "attached" })
		if first {
			serveTCP(t, vm1, 80)
			serveTCP(t, vm1, 8080)
		}
		mustConnect(t, internet, vm1, 80)
		mustNotConnect(t, internet, vm1, 8080)
		ip(t, ifHost, "link del tap-vm1")
		eventually(t, "the interface is missed", func() bool { return interfaceStatus(t)["tap-vm1"].State == "waiting" })
	}
	if got := interfaceStatus(t)["tap-vm3"]; got.State != "attached" || got.MAC == "" {
		t.Errorf("VM3's interface: %+v", got)
	}
	must(t, "ip", "netns", "exec", ifHost, "tc", "filter", "del", "dev", "tap-vm3", "egress")
	eventually(t, "nsgd puts back what somebody took away", func() bool { return interfaceStatus(t)["tap-vm3"].State == "attached" })
	ip(t, ifHost, "link set tap-vm3 netns if-vm1")
	eventually(t, "the move is named", func() bool { return strings.Contains(interfaceStatus(t)["tap-vm3"].Trouble, "it is open there") })
}

func TestAReloadTakesInterfacesAndLetsThemGo(t *testing.T) {
	makeRouter(t)
	without := strings.Replace(routedAttachments, "- {networkInterface: vm3-nic, interface: tap-vm3, netns: if-host, device: nsgd-vm3}\n", "", 1)
	dir := interfaceConfig(t, without)
	d := startInterfaces(t, dir)
	d.expectErrors = true
	vm1, vm3, spoofer, internet, _, _, _ := routedHosts(ipv4)
	serveTCP(t, vm1, 80)
	open := mustConnect(t, internet, vm1, 80)
	before := listings(t)
	mustConnect(t, spoofer, vm1, 80) // nobody stands before VM3's interface: its subnet may send
	reload := func(attachments string) {
		t.Helper()
		writeFile(t, filepath.Join(dir, lab.ConfigName), "policy: [policy/]\nmetrics: {listen: 'off'}\nattachments:\n"+attachments)
	}
	for range 2 {
		reload(routedAttachments)
		nsgctl(t, "reload")
		mustConnect(t, vm3, vm1, 80)
		mustNotConnect(t, spoofer, vm1, 80)
		if got := interfaceStatus(t)["tap-vm3"].State; got != "attached" {
			t.Errorf("state %q, want attached", got)
		}
		mustEcho(t, open)
		reload(without)
		nsgctl(t, "reload")
		mustConnect(t, spoofer, vm1, 80)
		mustEcho(t, open)
		if after := listings(t); after != before {
			t.Errorf("the interface that went left something:\n%s", differences(before, after))
		}
	}
	reload(strings.ReplaceAll(routedAttachments, "tap-vm3", "tap-vm7"))
	if a := execute(t, "nsgctl", "reload"); a.code != 1 || !strings.Contains(a.String(), "no such interface") {
		t.Errorf("a reload with an interface that is missing: %v", a)
	}
	mustEcho(t, open)
	if after := listings(t); after != before {
		t.Errorf("a refused reload left something:\n%s", differences(before, after))
	}
}

func TestWhatWouldDefeatTheProgramsIsRefused(t *testing.T) {
	bridged(t)
	tests := []struct {
		name, attachments string
		prepare, undo     string // commands in the host's namespace
		want              string
	}{
		{"an interface that is missing", strings.ReplaceAll(bridgedAttachments, "tap-vm1", "tap-vm7"), "", "", `interface "tap-vm7": no such interface`},
		{"a bridge in place of its port", strings.ReplaceAll(bridgedAttachments, "tap-vm1", "br0"), "", "", `interface "br0": it is a bridge`},
		{"this host behind a bridge's port", strings.ReplaceAll(bridgedAttachments, "interface: tap-vm1", "interface: tap-vm1, host: true"), "", "",
			`interface "tap-vm1": it is a port of the bridge "br0"`},
		{"no Ethernet", strings.ReplaceAll(bridgedAttachments, "tap-vm1", "lo"), "", "", `interface "lo": it is of the kind "device", link type loopback`},
		{"another MTU", bridgedAttachments, "ip link set tap-vm1 mtu 1400", "ip link set tap-vm1 mtu 1500", `interface "tap-vm2": mtu 1500: "tap-vm1" has 1400`},
		{"an ingress qdisc", bridgedAttachments, "tc qdisc add dev tap-vm1 ingress", "tc qdisc del dev tap-vm1 ingress", `interface "tap-vm1": it has a qdisc ingress`},
		{"a filter that comes first", bridgedAttachments,
			"tc qdisc add dev tap-vm1 clsact; tc filter add dev tap-vm1 egress prio 1 u32 match u32 0 0 flowid :1", "tc qdisc del dev tap-vm1 clsact",
			`interface "tap-vm1": at egress a filter of priority 1 decides before nsgd`},
		{"one interface under two names", strings.ReplaceAll(bridgedAttachments, "tap-vm1", "first-guest"), "ip link property add dev tap-vm2 altname first-guest",
			"ip link property del dev tap-vm2 altname first-guest", `interface "tap-vm2": it is "first-guest", which another attachment has`},
		{"an address that the policy doesn't have", "\n- {networkInterface: vm1-nic, interface: br0, host: true, netns: if-host, device: nsgd-host}\n", "", "",
			`interface "br0": it has the address 10.0.1.1, which the network interface doesn't have in the policy`},
	}
	before := listings(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inHost := func(commands string) {
				if commands != "" {
					must(t, "ip", "netns", "exec", ifHost, "sh", "-c", commands)
				}
			}
			inHost(tt.prepare)
			defer inHost(tt.undo)
			a := execute(t, "nsgd", "run", "--config", filepath.Join(interfaceConfig(t, tt.attachments), lab.ConfigName))
			if a.code != 1 || !strings.Contains(a.stderr, tt.want) {
				t.Errorf("%v\nwant %s", a, tt.want)
			}
		})
	}
	if after := listings(t); after != before {
		t.Errorf("a refused start left something:\n%s", differences(before, after))
	}
}
