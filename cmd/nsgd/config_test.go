package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/ruleset/arm"
)

const clusterMinimal = "cluster: {endpoints: ['http://h:2379'], host: h, underlay: 192.0.2.1}\nattachments:\n- {internet: true, device: a}\n"

const minimal = "policy: [policy/]\nattachments:\n- {networkInterface: vm1-nic, netns: vm1, create: true, device: eth0}\n"

func TestConfigDefaults(t *testing.T) {
	got, err := parseConfig("/etc/nsgd/nsgd.yaml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Policy:      []string{"/etc/nsgd/policy"},
		Attachments: []AttachmentConfig{{NetworkInterface: "vm1-nic", Netns: "vm1", Create: true, Device: "eth0"}},
		Metrics:     MetricsConfig{Listen: "127.0.0.1:9646"},
		Control:     ControlConfig{Socket: "/run/nsgd/nsgd.sock"},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.IgnoreUnexported(Config{}, AttachmentConfig{})); diff != "" {
		t.Error(diff)
	}
}

func TestConfigTakesEveryKey(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "full.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseConfig("/srv/nsgd.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	prefix := func(s string) Prefix { return Prefix{netip.MustParsePrefix(s)} }
	second := Duration(time.Second)
	want := &Config{
		Policy: []string{"/srv/policy", "/abs/nsg.json"},
		Attachments: []AttachmentConfig{
			{NetworkInterface: "vm1-nic", Netns: "vm1", Create: true, Device: "eth0", MTU: 1400},
			{Subnet: "vnet1/subnet3", Device: "nsg-sub3", Addresses: []Prefix{prefix("10.0.3.1/24"), prefix("fd00::1/64")}},
			{Internet: true, Netns: "internet", Device: "inet0", Addresses: []Prefix{prefix("203.0.113.10/24")}},
			{Platform: true, PlatformServices: true, DNSForwarders: []Address{{netip.MustParseAddr("9.9.9.9")}, {netip.MustParseAddr("2620:fe::fe")}}, Netns: "host", Device: "nsgd-platform"},
			{Gateway: "vnet1", Netns: "onprem", Device: "gw0", Prefixes: []Prefix{prefix("192.168.0.0/16")}},
			{NetworkInterface: "vm2-nic", Interface: "tap-vm2", Wait: true, DHCP: true, DefaultGateway: true, DHCPClient: MAC{net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}}, Netns: "pid:1234", Device: "nsgd-vm2"},
			{NetworkInterface: "vm3-nic", Interface: "eth0", Host: true, Netns: "/run/netns/other", Device: "nsgd-vm3"},
			{NetworkInterface: "vm4-nic", Container: "web", Bridge: "br-web", Wait: true, Netns: "guests", Device: "nsgd-vm4"},
			{NetworkInterface: "vm5-nic", Bridge: "br0", Netns: "guests", Device: "nsgd-vm5"},
		},
		ClosedAtBoot: true, Watch: true, AzureQuirks: true, DefaultOutboundAddress: Address{netip.MustParseAddr("203.0.113.200")},
		Workers: 2, Offload: "tso", TCPStrict: true, TCPWindow: "off",
		Flows: FlowsConfig{Max: 1000, MaxPerNetworkInterface: 500, NewPerSecond: 50},
		Timeouts: TimeoutsConfig{TCPSyn: second, TCPEstablished: 2 * second, TCPClosing: 3 * second, TCPTimeWait: 4 * second,
			TCPReset: 5 * second, UDPOneWay: 6 * second, UDPTwoWay: 7 * second, ICMP: 8 * second, Other: 9 * second, Fragment: 10 * second, Translation: 11 * second},
		Fragments: FragmentsConfig{Max: 2000, Hold: 100},
		Metrics:   MetricsConfig{Listen: "off", WebConfig: "/srv/web.yaml", Pprof: true},
		Control: ControlConfig{Socket: "/srv/run/nsgd.sock", Group: "adm", Mode: "0660", Listen: "127.0.0.1:9647", Certificate: "/srv/tls/nsgd.crt",
			Key: "/srv/tls/nsgd.key", ClientCA: "/etc/nsgd/clients.crt", ClientCRL: "/srv/clients.crl", MayChange: []string{"deploy"}},
		Platform: PlatformConfig{Subscription: "csp", CreatedBefore20171115: true, SMTPExempt: true},
		DenyLog:  DenyLogConfig{PerSecond: 5},
		History:  HistoryConfig{Keep: new(Duration(30 * time.Minute))},
		FlowLogs: []FlowLogConfig{
			{Version: "nsg2", Target: "NSG1", Folder: "/srv/logs", MaxSize: 5 << 30},
			{Version: "vnet4", Folder: "/srv/logs", MaxSize: 5 << 30, Stdout: true},
		},
		FlowLogInterval: 30 * second,
		Log:             LogConfig{Format: "json", Level: "warn"},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.IgnoreUnexported(Config{}, AttachmentConfig{})); diff != "" {
		t.Error(diff)
	}
}

func TestConfigFaults(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"nothing at all", "", []string{"c.yaml: policy: missing", "c.yaml: attachments: missing"}},
		{"an unknown key", minimal + "wrokers: 1\n", []string{`c.yaml:4: unknown key "wrokers": allowed are policy, serviceTags, templates, allowPartial, watch, attachments, closedAtBoot, user, workers`}},
		{"an unknown key of an attachment", "policy: [p]\nattachments:\n- internet: true\n  devise: eth0\n",
			[]string{`c.yaml:4: unknown key "devise": allowed are networkInterface, subnet`}},
		{"a key given twice", minimal + "workers: 1\nworkers: 2\n", []string{`c.yaml:5: mapping key "workers" already defined at line 4`}},
		{"a value of the wrong type", minimal + "workers: many\n", []string{"c.yaml:4: cannot unmarshal !!str `many` into int"}},
		{"text that is no YAML", "policy: [p\n", []string{"c.yaml:"}},
		{"a second document", minimal + "---\nworkers: 1\n", []string{"c.yaml: a second YAML document"}},
		{"a timeout without a unit", minimal + "timeouts: {tcpSyn: 30}\n", []string{`c.yaml:4: "30" is not a duration`}},
		{"a timeout of zero", minimal + "timeouts:\n  icmp: 0s\n", []string{"c.yaml:5: timeouts.icmp: 0s: allowed are 10ms to 168h0m0s"}},
		{"a timeout too long", minimal + "timeouts:\n  udpOneWay: 900h\n", []string{"c.yaml:5: timeouts.udpOneWay: 900h0m0s: allowed"}},
		{"an unknown offload", minimal + "offload: gro\n", []string{`c.yaml:4: offload: "gro": allowed are auto, tso and off`}},
		{"workers out of range", minimal + "workers: -1\n", []string{"c.yaml:4: workers: -1: allowed are 0 to 256"}},
		// The last 1,024 records of each worker are no flows: 16 Mi were taken, and the start failed.
		{"as many flows as there are record numbers", minimal + "flows: {max: 16777216}\n",
			[]string{fmt.Sprintf("c.yaml:4: flows.max: 16777216: allowed are 0 to %d", conntrack.MaxFlows)}},
		{"flows out of range", minimal + "flows: {max: 99999999, maxPerNetworkInterface: -1}\n",
			[]string{"c.yaml:4: flows.max: 99999999: allowed are 0 to 15728640", "c.yaml:4: flows.maxPerNetworkInterface: -1"}},
		{"too many denied packets in the log", minimal + "denyLog: {perSecond: 5000}\n", []string{"c.yaml:4: denyLog.perSecond: 5000: allowed are 0 to 1000, 0 means none"}},
		{"a history that is too long", minimal + "history: {keep: 25h}\n", []string{"c.yaml:4: history.keep: 25h0m0s: allowed are 1m0s to 24h0m0s, and 0s, which remembers nothing"}},
		{"an unknown key of the history", minimal + "history: {for: 1h}\n", []string{`c.yaml:4: unknown key "for": allowed are keep`}},
		{"an unknown key of the log of denied packets", minimal + "denyLog: {rate: 5}\n", []string{`c.yaml:4: unknown key "rate": allowed are perSecond`}},
		{"metrics without a port", minimal + "metrics: {listen: localhost}\n", []string{`c.yaml:4: metrics.listen: "localhost": allowed is HOST:PORT`}},
		{"profiles for everybody", minimal + "metrics: {listen: ':9646', pprof: true}\n", []string{"c.yaml:4: metrics.pprof: true: profiles show what is in memory, and :9646 is open to others: set metrics.webConfig"}},
		{"a log of another form", minimal + "log: {format: xml, level: loud}\n", []string{`c.yaml:4: log.format: "xml": allowed are text and json`, `c.yaml:4: log.level: "loud": allowed are [debug info warn error]`}},
		{"an unknown key of the log", minimal + "log: {levels: info}\n", []string{`c.yaml:4: unknown key "levels": allowed are format, level`}},
		{"an unknown subscription", minimal + "platform: {subscription: student}\n", []string{`c.yaml:4: platform.subscription: "student": allowed are enterprise, payg, msdn and csp`}},
		{"an exemption where nothing is blocked", minimal + "platform: {smtpExempt: true}\n", []string{"c.yaml:4: platform.smtpExempt: true: allowed with subscription payg and csp only; with enterprise port 25 is not blocked"}},
		{"an exemption where none is given", minimal + "platform: {subscription: msdn, createdBefore20171115: true}\n", []string{"c.yaml:4: platform.createdBefore20171115: true: allowed with", "with msdn port 25 is blocked always"}},
		{"an unknown key of the platform", minimal + "platform: {subscripton: payg}\n", []string{`unknown key "subscripton": allowed are subscription, createdBefore20171115, smtpExempt`}},
		{"an address of default outbound access that is none", minimal + "defaultOutboundAddress: 203.0.113.0/24\n", []string{`c.yaml:4: "203.0.113.0/24" is not an IP address such as`}},
		{"an IPv6 address of default outbound access", minimal + "defaultOutboundAddress: 2001:db8::1\n", []string{"c.yaml:4: defaultOutboundAddress: 2001:db8::1: allowed is an IPv4 address"}},
		{"a socket path too long", minimal + "control: {socket: /" + strings.Repeat("x", 107) + "}\n", []string{"c.yaml:4: control.socket:", "at most 107 bytes"}},
		{"clients elsewhere without certificates", minimal + "control: {listen: ':0', key: k}\n", []string{"c.yaml:4: control.certificate: missing: control.listen needs", "c.yaml:4: control.clientCA: missing"}},
		{"certificates for nobody", minimal + "control: {clientCA: ca.crt, mayChange: [alice]}\n", []string{"c.yaml:4: control.clientCA:", "c.yaml:4: control.mayChange: \"alice\": it is for control.listen, which is missing"}},
		{"a port without a number", minimal + "control: {listen: 'localhost:https', certificate: c, key: k, clientCA: a, mayChange: ['']}\n", []string{`c.yaml:4: control.listen: "localhost:https": allowed is HOST:PORT`, `c.yaml:4: control.mayChange[0]: "": a name in a client's certificate of 1 to 256 bytes`}},
		{"a socket of another mode", minimal + "control: {mode: 0777, group: -5}\n", []string{`c.yaml:4: control.mode: "0777": allowed are 0600, 0660 and 0666`, "c.yaml:4: control.group: -5: allowed are a group's name, and 0 to"}},
		{"an empty policy path", "policy: ['']\nattachments: [{internet: true, device: i}]\n", []string{"c.yaml:1: policy[0]: empty"}},
		{"an attachment of no kind", "policy: [p]\nattachments:\n- device: eth0\n", []string{"c.yaml:3: attachments[0]: 0 of networkInterface, subnet"}},
		{"an attachment of two kinds", "policy: [p]\nattachments:\n- {internet: true, subnet: s, device: eth0}\n", []string{"c.yaml:3: attachments[0]: 2 of"}},
		{"no device", "policy: [p]\nattachments:\n- {internet: true}\n", []string{"c.yaml:3: attachments[0].device: missing"}},
		{"a device name too long", "policy: [p]\nattachments:\n- internet: true\n  device: abcdefghijklmnop\n",
			[]string{`c.yaml:4: attachments[0].device: "abcdefghijklmnop": an interface's name has at most 15 bytes`}},
		{"a device name the kernel refuses", "policy: [p]\nattachments:\n- {internet: true, device: a/b}\n", []string{`attachments[0].device: "a/b"`}},
		{"the same device twice in one namespace", "policy: [p]\nattachments:\n- {internet: true, device: a}\n- {subnet: s, device: a}\n",
			[]string{`c.yaml:4: attachments[1].device: "a": attachments[0] has a device of that name`}},
		{"a namespace to create without a name", "policy: [p]\nattachments:\n- {internet: true, device: a, create: true}\n", []string{"attachments[0].create: true: netns"}},
		{"a namespace given as a relative path", "policy: [p]\nattachments:\n- {internet: true, device: a, netns: netns/a}\n", []string{`attachments[0].netns: "netns/a"`}},
		{"a namespace to create given as a path", "policy: [p]\nattachments:\n- {internet: true, device: a, netns: /run/netns/a, create: true}\n",
			[]string{`attachments[0].create: true: netns is "/run/netns/a": only a namespace with a name can be made`}},
		{"a namespace of no process", "policy: [p]\nattachments:\n- {internet: true, device: a, netns: 'pid:x'}\n", []string{`attachments[0].netns: "pid:x": a process's number follows pid:`}},
		{"two attachments before one interface", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, interface: tap1}\n- {networkInterface: m, device: b, interface: tap1}\n",
			[]string{`c.yaml:4: attachments[1].interface: "tap1": attachments[0] stands before it already`}},
		{"an interface of the internet", "policy: [p]\nattachments:\n- {internet: true, device: a, interface: eth0}\n", []string{`attachments[0].interface: "eth0": it is for a networkInterface`}},
		{"an interface that is the device", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, interface: a}\n", []string{`attachments[0].interface: "a": device is nsgd's own`}},
		{"an interface in a namespace to be made", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, interface: b, netns: x, create: true}\n", []string{`attachments[0].create: true: a new namespace has no interface "b"`}},
		{"an MTU before an interface", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, interface: b, mtu: 1400}\n", []string{"attachments[0].mtu: 1400: the interface has one"}},
		{"a host without an interface", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, host: true}\n", []string{"attachments[0]: host, wait, dhcp, defaultGateway and dhcpClient are for an attachment with interface"}},
		{"a guest with a name and without one", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, interface: b, container: web}\n", []string{`attachments[0].interface: "b": the guest's interface has one name`}},
		{"a container's interface of the internet", "policy: [p]\nattachments:\n- {internet: true, device: a, container: web}\n", []string{`attachments[0].container: "web": it is for a networkInterface`}},
		{"two attachments of one container", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, container: web}\n- {networkInterface: m, device: b, container: web}\n",
			[]string{`c.yaml:4: attachments[1].container: "container web": attachments[0] stands before it already`}},
		{"a container's name that Docker refuses", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, container: ../x}\n", []string{`attachments[0].container: "../x": allowed are letters`}},
		{"a bridge's name that the kernel refuses", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, bridge: a/b}\n", []string{"attachments[0].bridge: "}},
		{"this host behind a bridge's port", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, bridge: br0, host: true}\n", []string{"attachments[0].host: true: this host is behind an interface with a name"}},
		{"DHCP for a guest that is found", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, bridge: br0, dhcp: true}\n", []string{"attachments[0].dhcp: true: it answers at an interface with a name"}},
		{"DHCP without an interface", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, dhcp: true}\n", []string{"attachments[0]: host, wait, dhcp, defaultGateway"}},
		{"DHCP for this host", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, interface: b, host: true, dhcp: true}\n", []string{"attachments[0].dhcp: true: it is for a guest"}},
		{"a client that is told no address", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, interface: b, dhcpClient: '52:54:00:00:00:01'}\n", []string{"attachments[0].dhcpClient: 52:54:00:00:00:01: it needs dhcp: true"}},
		{"a client with the address of a group", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, interface: b, dhcp: true, dhcpClient: '53:54:00:00:00:01'}\n", []string{`"53:54:00:00:00:01" is not one interface's address such as 52:54:00:12:34:56`}},
		{"a gateway that tells no address", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, interface: b, defaultGateway: true}\n", []string{"attachments[0].defaultGateway: true: it needs dhcp: true"}},
		{"addresses beside an interface", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, interface: b}\n- {internet: true, device: i, addresses: [203.0.113.1/24]}\n",
			[]string{"c.yaml:4: attachments[1].addresses: 203.0.113.1/24: beside an attachment with interface in the same namespace this device has none"}},
		{"an MTU too small for IPv6", "policy: [p]\nattachments:\n- {internet: true, device: a, mtu: 576, addresses: ['2001:db8::1/64']}\n", []string{"attachments[0].mtu: 576: allowed are 1280 to 65521"}},
		{"addresses on a network interface", "policy: [p]\nattachments:\n- {networkInterface: n, device: a, addresses: [10.0.0.4/24]}\n", []string{"attachments[0].addresses: 10.0.0.4/24: a network interface's addresses come from the policy"}},
		{"an address without a prefix length", "policy: [p]\nattachments:\n- {internet: true, device: a, addresses: [10.0.0.4]}\n", []string{"c.yaml:3: ", "10.0.0.4"}},
		{"a multicast address", "policy: [p]\nattachments:\n- {internet: true, device: a, addresses: [224.0.0.1/24]}\n", []string{"attachments[0].addresses[0]: 224.0.0.1/24: not an address"}},
		{"a gateway without prefixes", "policy: [p]\nattachments:\n- {gateway: v, device: a}\n", []string{"c.yaml:3: attachments[0].prefixes: missing: a gateway needs"}},
		{"prefixes of something else", "policy: [p]\nattachments:\n- {platform: true, device: a, prefixes: [10.0.0.0/8]}\n", []string{"c.yaml:3: attachments[0].prefixes: 10.0.0.0/8: they are for a gateway and for the internet"}},
		{"prefixes of the internet that hold addresses of nobody", "policy: [p]\nattachments:\n- {internet: true, device: a, prefixes: [172.16.0.0/12, 0.0.0.0/0, 240.0.0.0/4]}\n",
			[]string{"c.yaml:3: attachments[0].prefixes[1]: 0.0.0.0/0: nobody sends from all of it; allowed are", "c.yaml:3: attachments[0].prefixes[2]: 240.0.0.0/4: nobody sends"}},
		{"private addresses reached from elsewhere", "policy: [p]\nattachments:\n- {gateway: v, device: a, prefixes: [10.0.0.0/8], reachPrivate: true}\n", []string{"c.yaml:3: attachments[0].reachPrivate: true: it is for the internet"}},
		{"host bits and repetition in prefixes", "policy: [p]\nattachments:\n- {gateway: v, device: a, prefixes: [10.0.0.1/8, 11.0.0.0/8, 11.0.0.0/8]}\n",
			[]string{"attachments[0].prefixes[0]: 10.0.0.1/8: host bits are set; the network is 10.0.0.0/8", "attachments[0].prefixes[2]: 11.0.0.0/8: listed twice"}},
		{"a flow log of another version", minimal + "flowLogs:\n- {version: nsg1, folder: l}\n", []string{`c.yaml:5: flowLogs[0].version: "nsg1": allowed are nsg2 and vnet4`}},
		{"a flow log that goes nowhere", minimal + "flowLogs:\n- {version: nsg2}\n", []string{"c.yaml:5: flowLogs[0]: neither folder nor stdout"}},
		{"a flow log's unknown key", minimal + "flowLogs:\n- {verzion: nsg2}\n", []string{`unknown key "verzion": allowed are version, target, fromPolicy, folder, stdout, maxSize`}},
		{"a flow log with two targets", minimal + "flowLogs:\n- {version: nsg2, target: a, fromPolicy: true, folder: l}\n", []string{`c.yaml:5: flowLogs[0].fromPolicy: true: the log has a target already, "a"`}},
		{"sizes that are none", minimal + "flowLogs:\n- {version: nsg2, folder: l, maxSize: 5GB}\n", []string{`c.yaml:5: "5GB" is not a size such as 512MiB`}},
		{"a flow log too small", minimal + "flowLogs:\n- {version: nsg2, folder: l, maxSize: 1MiB}\n", []string{"c.yaml:5: flowLogs[0].maxSize: 1048576: at least 4194304"}},
		{"a size of no folder", minimal + "flowLogs:\n- {version: nsg2, stdout: true, maxSize: 8MiB}\n", []string{"flowLogs[0].maxSize: 8388608: it is a folder's"}},
		{"two sizes of a folder", minimal + "flowLogs:\n- {version: nsg2, folder: l}\n- {version: vnet4, folder: l, maxSize: 8MiB}\n", []string{"c.yaml:6: flowLogs[1].maxSize: 8388608: flowLogs[0] has the same folder, and 0"}},
		{"a policy besides the cluster's", "policy: [p]\nazureQuirks: true\n" + clusterMinimal, []string{"c.yaml:1: policy: the cluster brings it", "c.yaml:2: azureQuirks: the cluster brings it"}},
		{"a cluster without etcd and underlay", "cluster: {host: h}\nattachments:\n- {internet: true, device: a}\n", []string{"c.yaml:1: cluster.endpoints: 0 of them: allowed are 1 to 16 URLs", "c.yaml:1: cluster.underlay: missing"}},
		{"an unknown key of the cluster", "cluster: {hots: h}\n", []string{`c.yaml:1: unknown key "hots": allowed are endpoints, tls, username, passwordFile, prefix, host, underlay, port, internetHosts, lease, onLost, cache, publicKey`}},
		{"endpoints that are none", "cluster: {endpoints: [etcd1, 'http://h', 'https://h:1/x', 'http://u:p@h:1'], host: h, underlay: 192.0.2.1}\nattachments:\n- {internet: true, device: a}\n",
			[]string{`cluster.endpoints[0]: "etcd1": allowed is http://HOST:PORT or https://HOST:PORT`, `cluster.endpoints[1]: "http://h"`, `cluster.endpoints[2]: "https://h:1/x"`, `cluster.endpoints[3]: "http://u:p@h:1"`}},
		{"https without certificates", strings.Replace(clusterMinimal, "http:", "https:", 1), []string{"cluster.tls.certificate: missing", "cluster.tls.key: missing", "cluster.tls.ca: missing"}},
		{"certificates without https", strings.Replace(clusterMinimal, "host: h", "host: h, tls: {ca: x}", 1), []string{`cluster.tls.ca: "/`, "it is for https endpoints"}},
		{"names, times and words of a cluster", strings.Replace(clusterMinimal, "host: h", "host: -h, prefix: nsgd, lease: 1s, onLost: panic, port: 70000, username: u", 1),
			[]string{`cluster.host: "-h": allowed are 1 to 63 letters`, `cluster.prefix: "nsgd": allowed are`, "cluster.lease: 1s: allowed are whole seconds from 3s to 10m0s", `cluster.onLost: "panic": allowed are stop and goOn`, "cluster.port: 70000: allowed are 1 to 65535", `cluster.username: "u" with passwordFile "": both are needed`}},
		{"an interface that exists, in a cluster", clusterMinimal + "- {networkInterface: n, device: b, interface: tap0}\n", []string{`attachments[1].interface: "tap0": not in a cluster`}},
		{"an interval too short", minimal + "flowLogInterval: 1ms\n", []string{"c.yaml:4: flowLogInterval: 1ms: allowed are 1s to 1h0m0s"}},
		{"an address twice", "policy: [p]\nattachments:\n- {internet: true, device: a, addresses: [1.0.0.1/24, 1.0.0.1/8]}\n", []string{"attachments[0].addresses[1]: 1.0.0.1/8: listed twice"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseConfig("c.yaml", []byte(tt.text))
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
		})
	}
}

func TestFilesOfTemplatesAreRelativeToTheConfiguration(t *testing.T) {
	c, err := parseConfig("/etc/nsgd/nsgd.yaml", []byte(minimal+"templates: {parameters: [prod.json, /srv/p.json, name=a/b], runtime: azure.json, resourceGroup: shop}\nallowPartial: true\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := arm.Deployment{
		Parameters: []string{"/etc/nsgd/prod.json", "/srv/p.json", "name=a/b"}, Runtime: "/etc/nsgd/azure.json", ResourceGroup: "shop", Partial: true,
	}
	if diff := cmp.Diff(want, c.deployment()); diff != "" {
		t.Error(diff)
	}
	_, err = parseConfig("c.yaml", []byte(minimal+"templates: {parameter: [a]}\n"))
	if err == nil || !strings.Contains(err.Error(), `unknown key "parameter": allowed are parameters, subscription, resourceGroup, location, runtime`) {
		t.Errorf("error %v", err)
	}
}

func TestServiceTagsOfTheEnvironmentAreTheDefault(t *testing.T) {
	t.Setenv(arm.ServiceTagsVariable, "/srv/tags.json")
	for text, want := range map[string]string{minimal: "/srv/tags.json", minimal + "serviceTags: own.json\n": "/etc/nsgd/own.json"} {
		if c, err := parseConfig("/etc/nsgd/nsgd.yaml", []byte(text)); err != nil || c.ServiceTags != want {
			t.Errorf("got %q, want %q: %v", c.ServiceTags, want, err)
		}
	}
}

func TestServiceTagsAreRelativeToTheConfiguration(t *testing.T) {
	for given, want := range map[string]string{"tags.json": "/etc/nsgd/tags.json", "/srv/tags.json": "/srv/tags.json"} {
		c, err := parseConfig("/etc/nsgd/nsgd.yaml", []byte(minimal+"serviceTags: "+given+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		if c.ServiceTags != want {
			t.Errorf("%s is read as %s", given, c.ServiceTags)
		}
	}
}
