package topology

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// street is a policy with every kind of translation. Network interfaces are named like their
// subnets; those in "open" have no network security group.
const street = `[
  {"type": "Microsoft.Network/networkSecurityGroups", "name": "g"},
  {"type": "Microsoft.Network/routeTables", "name": "rt", "properties": {"routes": [{"name": "r", "properties": {"addressPrefix": "0.0.0.0/0", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.0.8.4"}}]}},
  {"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16", "fd00::/48"]}, "subnets": [
    {"name": "own", "properties": {"addressPrefixes": ["10.0.0.0/24", "fd00::/64"], "networkSecurityGroup": {"id": "g"}}},
    {"name": "nat", "properties": {"addressPrefix": "10.0.1.0/24", "networkSecurityGroup": {"id": "g"}, "natGateway": {"id": "gw"}}},
    {"name": "shut", "properties": {"addressPrefix": "10.0.2.0/24", "networkSecurityGroup": {"id": "g"}, "defaultOutboundAccess": false}},
    {"name": "plain", "properties": {"addressPrefix": "10.0.3.0/24", "networkSecurityGroup": {"id": "g"}}},
    {"name": "pool", "properties": {"addressPrefix": "10.0.4.0/24", "networkSecurityGroup": {"id": "g"}}},
    {"name": "front", "properties": {"addressPrefix": "10.0.5.0/24", "networkSecurityGroup": {"id": "g"}}},
    {"name": "open", "properties": {"addressPrefix": "10.0.6.0/24"}},
    {"name": "routed", "properties": {"addressPrefix": "10.0.7.0/24", "networkSecurityGroup": {"id": "g"}, "routeTable": {"id": "rt"}}},
    {"name": "fw", "properties": {"addressPrefix": "10.0.8.0/24", "networkSecurityGroup": {"id": "g"}}},
    {"name": "byip", "properties": {"addressPrefix": "10.0.9.0/24", "networkSecurityGroup": {"id": "g"}}}],
    "virtualNetworkPeerings": [{"name": "p", "properties": {"remoteVirtualNetwork": {"id": "peer"}}}]}},
  {"type": "Microsoft.Network/virtualNetworks", "name": "peer", "properties": {"addressSpace": {"addressPrefixes": ["10.9.0.0/16"]}, "subnets": [{"name": "away", "properties": {"addressPrefix": "10.9.0.0/24"}}],
    "virtualNetworkPeerings": [{"name": "p", "properties": {"remoteVirtualNetwork": {"id": "v"}}}]}},
  PUBLIC,
  {"type": "Microsoft.Network/publicIPPrefixes", "name": "range", "sku": {"name": "Standard"}, "properties": {"ipPrefix": "203.0.113.32/31"}},
  {"type": "Microsoft.Network/natGateways", "name": "gw", "properties": {"idleTimeoutInMinutes": 60, "publicIpAddresses": [{"id": "gwip"}], "publicIpPrefixes": [{"id": "range"}]}},
  NICS,
  {"type": "Microsoft.Network/loadBalancers", "name": "lb", "sku": {"name": "Standard"}, "properties": {
    "frontendIPConfigurations": [{"name": "public", "properties": {"publicIPAddress": {"id": "front"}}}, {"name": "out", "properties": {"publicIPAddress": {"id": "lbout"}}}],
    "backendAddressPools": [{"name": "pool"}, {"name": "open"}],
    "probes": [{"name": "alive", "properties": {"protocol": "Tcp", "port": 80}}],
    "loadBalancingRules": [
      {"name": "web", "properties": {"frontendIPConfiguration": {"id": "lb/public"}, "backendAddressPool": {"id": "lb/pool"}, "probe": {"id": "lb/alive"}, "protocol": "Tcp", "frontendPort": 80, "backendPort": 8080, "disableOutboundSnat": true, "idleTimeoutInMinutes": 15, "enableTcpReset": true}},
      {"name": "float", "properties": {"frontendIPConfiguration": {"id": "lb/public"}, "backendAddressPool": {"id": "lb/pool"}, "protocol": "Udp", "frontendPort": 53, "backendPort": 53, "disableOutboundSnat": true, "enableFloatingIP": true}},
      {"name": "nobody", "properties": {"frontendIPConfiguration": {"id": "lb/public"}, "backendAddressPool": {"id": "lb/open"}, "protocol": "Tcp", "frontendPort": 81, "backendPort": 81, "disableOutboundSnat": true}}],
    "inboundNatRules": [{"name": "ssh", "properties": {"frontendIPConfiguration": {"id": "lb/public"}, "protocol": "Tcp", "frontendPort": 2200, "backendPort": 22}},
      {"name": "range", "properties": {"frontendIPConfiguration": {"id": "lb/public"}, "protocol": "Tcp", "frontendPortRangeStart": 5000, "frontendPortRangeEnd": 5009, "backendPort": 3389, "backendAddressPool": {"id": "lb/pool"}}}],
    "outboundRules": [{"name": "tcp", "properties": {"frontendIPConfigurations": [{"id": "lb/out"}], "backendAddressPool": {"id": "lb/pool"}, "protocol": "Tcp", "allocatedOutboundPorts": 8000, "idleTimeoutInMinutes": 30, "enableTcpReset": true}}]}},
  {"type": "Microsoft.Network/loadBalancers", "name": "ilb", "sku": {"name": "Standard"}, "properties": {
    "frontendIPConfigurations": [{"name": "f", "properties": {"subnet": {"id": "v/front"}, "privateIPAddress": "10.0.5.9"}}],
    "backendAddressPools": [{"name": "open"}, {"name": "one"}],
    "loadBalancingRules": [{"name": "all", "properties": {"frontendIPConfiguration": {"id": "ilb/f"}, "backendAddressPool": {"id": "ilb/open"}, "protocol": "All", "frontendPort": 0, "backendPort": 0}},
      {"name": "one", "properties": {"frontendIPConfiguration": {"id": "ilb/f"}, "backendAddressPool": {"id": "ilb/one"}, "protocol": "Tcp", "frontendPort": 90, "backendPort": 9090}}]}},
  {"type": "Microsoft.Network/loadBalancers", "name": "basic", "properties": {
    "frontendIPConfigurations": [{"name": "f", "properties": {"publicIPAddress": {"id": "bfront"}}}],
    "backendAddressPools": [{"name": "p", "properties": {"loadBalancerBackendAddresses": [{"name": "x", "properties": {"ipAddress": "10.0.9.77", "virtualNetwork": {"id": "v"}}}]}}, {"name": "implicit"}],
    "loadBalancingRules": [{"name": "r", "properties": {"frontendIPConfiguration": {"id": "basic/f"}, "backendAddressPool": {"id": "basic/p"}, "protocol": "Tcp", "frontendPort": 80, "backendPort": 80}},
      {"name": "i", "properties": {"frontendIPConfiguration": {"id": "basic/f"}, "backendAddressPool": {"id": "basic/implicit"}, "protocol": "Tcp", "frontendPort": 1030, "backendPort": 1030}}]}}
]`

// streetNICs are the network interfaces of street: name, address, subnet, and further fields.
var streetNICs = [][4]string{
	{"own", "10.0.0.4", "v/own", `"publicIPAddress": {"id": "own"}`},
	{"own6", "fd00::4", "v/own", `"publicIPAddress": {"id": "own6"}`},
	{"unknown", "10.0.0.7", "v/own", `"publicIPAddress": {"id": "dynamic"}`},
	{"nat", "10.0.1.4", "v/nat", `"publicIPAddress": {"id": "natown"}`},
	{"shut", "10.0.2.4", "v/shut", ""},
	{"plain", "10.0.3.4", "v/plain", ""},
	{"pool1", "10.0.4.4", "v/pool", `"loadBalancerBackendAddressPools": [{"id": "lb/pool"}, {"id": "ilb/one"}], "loadBalancerInboundNatRules": [{"id": "lb/ssh"}]`},
	{"pool2", "10.0.4.5", "v/pool", `"loadBalancerBackendAddressPools": [{"id": "lb/pool"}]`},
	{"open", "10.0.6.4", "v/open", `"publicIPAddress": {"id": "openstd"}, "loadBalancerBackendAddressPools": [{"id": "ilb/open"}]`},
	{"openbasic", "10.0.6.5", "v/open", `"publicIPAddress": {"id": "openbasic"}`},
	{"inside", "10.0.6.6", "v/open", `"loadBalancerBackendAddressPools": [{"id": "ilb/open"}]`},
	{"implicit", "10.0.6.7", "v/open", `"loadBalancerBackendAddressPools": [{"id": "basic/implicit"}]`},
	{"routed", "10.0.7.4", "v/routed", ""},
	{"fw", "10.0.8.4", "v/fw", `"publicIPAddress": {"id": "fw"}`},
	{"away", "10.9.0.4", "peer/away", ""},
}

func streetPolicy(tb testing.TB) *policy.Set {
	tb.Helper()
	var public, nics []string
	for _, p := range [][3]string{{"own", "203.0.113.4", "Standard"}, {"own6", "2001:db8::4", "Standard"}, {"dynamic", "", "Standard"}, {"natown", "203.0.113.5", "Standard"}, {"front", "203.0.113.6", "Standard"},
		{"lbout", "203.0.113.7", "Standard"}, {"openstd", "203.0.113.8", "Standard"}, {"openbasic", "203.0.113.9", "Basic"}, {"gwip", "203.0.113.10", "Standard"}, {"bfront", "203.0.113.11", "Basic"},
		{"fw", "203.0.113.12", "Standard"}, {"unused", "203.0.113.13", "Standard"}} {
		public = append(public, fmt.Sprintf(`{"type": "Microsoft.Network/publicIPAddresses", "name": %q, "sku": {"name": %q}, "properties": {"ipAddress": %q, "idleTimeoutInMinutes": 20}}`, p[0], p[2], p[1]))
	}
	for _, n := range streetNICs {
		more := n[3]
		if more != "" {
			more = ", " + more
		}
		nics = append(nics, fmt.Sprintf(`{"type": "Microsoft.Network/networkInterfaces", "name": %q, "properties": {"enableIPForwarding": %v, "ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": %q, "subnet": {"id": %q}%s}}]}}`,
			n[0], n[0] == "fw", n[1], n[2], more))
	}
	d := arm.Parse("street.json", []byte(strings.NewReplacer("PUBLIC", strings.Join(public, ","), "NICS", strings.Join(nics, ",")).Replace(street)))
	if len(d.Faults)+len(d.Unresolved) > 0 {
		tb.Fatal(d.Faults, d.Unresolved)
	}
	return d.Set
}

// streetSpecs attaches every NIC, the subnets byip and front, the internet and the platform.
func streetSpecs() (specs []Spec) {
	for _, n := range streetNICs {
		specs = append(specs, Spec{Kind: NetworkInterface, Reference: n[0]})
	}
	return append(specs, Spec{Kind: Subnet, Reference: "v/byip"}, Spec{Kind: Subnet, Reference: "v/front"}, Spec{Kind: Internet}, Spec{Kind: Platform})
}

func streetSnapshot(tb testing.TB, o Options) *Snapshot {
	tb.Helper()
	s, err := o.Build(streetPolicy(tb), streetSpecs(), NewRegistry())
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// from finds the endpoint that sends from an address at a named attachment.
func (s *Snapshot) from(tb testing.TB, name string, a packet.Addr) *Endpoint {
	tb.Helper()
	for _, at := range s.Attachments {
		if at.Name == name {
			return s.Admit(at, a)
		}
	}
	tb.Fatalf("no attachment %s", name)
	return nil
}

func tuple(tb testing.TB, protocol uint8, src string, srcPort uint16, dst string, dstPort uint16) packet.Tuple {
	tb.Helper()
	return packet.Tuple{Src: ip(src), Dst: ip(dst), SrcPort: srcPort, DstPort: dstPort, Proto: protocol}
}

// told shows a way: the receiver's attachment, the packet there, the ranges of source ports, and
// the rest.
func told(s *Snapshot, w *Way, drop packet.Drop) string {
	if drop != packet.NotDropped {
		return drop.String()
	}
	text := s.Attachments[w.To.Attachment].Name + " " + w.Arrives.String()
	for _, p := range w.Ports {
		text += fmt.Sprintf(" %s:%d-%d", p.Address, p.First, p.Last)
	}
	for name, is := range map[string]bool{" floating": w.Floating, " closed": w.Closed} {
		if is {
			text += name
		}
	}
	if w.Translated && !w.Floating {
		text += " " + strings.TrimSuffix(w.Idle.String(), "0s")
	}
	if w.Reset {
		text += " reset"
	}
	return text
}

func TestWaysAreAzures(t *testing.T) {
	const tcp, udp, icmp, gre = packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoGRE
	const client, server = "198.51.100.7", "198.51.100.80"
	tests := []struct {
		name     string
		at       string // attachment
		protocol uint8
		src, dst string
		port     uint16
		want     string
	}{
		{"a public address leads to the private one, and the client stays", "internet", tcp, client, "203.0.113.4", 443, "own TCP 198.51.100.7:40000 -> 10.0.0.4:443 20m"},
		{"so it does for every protocol", "internet", gre, client, "203.0.113.4", 0, "own GRE 198.51.100.7 -> 10.0.0.4 20m"},
		{"a public IPv6 address too", "internet", tcp, "2001:db8:1::7", "2001:db8::4", 443, "own6 TCP [2001:db8:1::7]:40000 -> [fd00::4]:443 20m"},
		{"a private address is not reached from outside where there are public ones", "internet", tcp, client, "10.0.0.4", 443, "no_route"},
		{"a Standard address is closed where no network security group stands", "internet", tcp, client, "203.0.113.8", 443, "open TCP 198.51.100.7:40000 -> 10.0.6.4:443 closed 20m"},
		{"a Basic address is open there", "internet", tcp, client, "203.0.113.9", 443, "openbasic TCP 198.51.100.7:40000 -> 10.0.6.5:443 20m"},
		{"a public address that nothing has is no one's", "internet", tcp, client, "203.0.113.13", 443, "no_frontend"},
		{"a NAT gateway's address takes no new flow", "internet", tcp, client, "203.0.113.10", 443, "no_frontend"},
		{"nor does one of its prefix", "internet", tcp, client, "203.0.113.33", 443, "no_frontend"},
		{"nor the address of default outbound access", "internet", tcp, client, "203.0.113.99", 443, "no_frontend"},
		{"what leaves from an own public address bears it, port and all", "own", udp, "10.0.0.4", server, 53, "internet UDP 203.0.113.4:40000 -> 198.51.100.80:53 20m"},
		{"of every protocol", "own", gre, "10.0.0.4", server, 0, "internet GRE 203.0.113.4 -> 198.51.100.80 20m"},
		{"over IPv6", "own6", tcp, "fd00::4", "2001:db8:1::80", 443, "internet TCP [2001:db8::4]:40000 -> [2001:db8:1::80]:443 20m"},
		{"what leaves from a public address that is not known leaves as sent", "unknown", tcp, "10.0.0.7", server, 443, "internet TCP 10.0.0.7:40000 -> 198.51.100.80:443"},
		{"a NAT gateway goes before an own public address", "nat", tcp, "10.0.1.4", server, 443,
			"internet TCP 10.0.1.4:40000 -> 198.51.100.80:443 203.0.113.10:1024-65535 203.0.113.32:1024-65535 203.0.113.33:1024-65535 1h0m"},
		{"an echo request leaves through it by its identifier", "nat", icmp, "10.0.1.4", server, 0,
			"internet ICMP 10.0.1.4 -> 198.51.100.80 203.0.113.10:1024-65535 203.0.113.32:1024-65535 203.0.113.33:1024-65535 1h0m"},
		{"a protocol without ports does not", "nat", gre, "10.0.1.4", server, 0, "no_outbound"},
		{"inbound, the subnet with a NAT gateway is reached by the own address", "internet", tcp, client, "203.0.113.5", 22, "nat TCP 198.51.100.7:40000 -> 10.0.1.4:22 20m"},
		{"without default outbound access there is no way out", "shut", tcp, "10.0.2.4", server, 443, "no_outbound"},
		{"but one to the network", "shut", tcp, "10.0.2.4", "10.0.3.4", 443, "plain TCP 10.0.2.4:40000 -> 10.0.3.4:443"},
		{"default outbound access shares an address", "plain", tcp, "10.0.3.4", server, 443, "internet TCP 10.0.3.4:40000 -> 198.51.100.80:443 203.0.113.99:1024-65535 4m"},
		{"an outbound rule gives the first backend the first ports", "pool1", tcp, "10.0.4.4", server, 443, "internet TCP 10.0.4.4:40000 -> 198.51.100.80:443 203.0.113.7:1024-9023 30m reset"},
		{"and the second one those behind", "pool2", tcp, "10.0.4.5", server, 443, "internet TCP 10.0.4.5:40000 -> 198.51.100.80:443 203.0.113.7:9024-17023 30m reset"},
		{"an outbound rule is for its protocol; behind a Standard load balancer there is no other way", "pool1", udp, "10.0.4.4", server, 53, "no_outbound"},
		{"an internal Standard load balancer takes default outbound access away", "inside", tcp, "10.0.6.6", server, 443, "no_outbound"},
		{"a load balancing rule lets its pool out by its frontend, past the ports of rules", "implicit", tcp, "10.0.6.7", server, 443, "internet TCP 10.0.6.7:40000 -> 198.51.100.80:443 203.0.113.11:1032-2055 4m"},
		{"for its protocol, and Basic leaves default outbound access for the others", "implicit", udp, "10.0.6.7", server, 53, "internet UDP 10.0.6.7:40000 -> 198.51.100.80:53 203.0.113.99:1024-65535 4m"},
		{"an inbound NAT rule leads to its ipConfiguration", "internet", tcp, client, "203.0.113.6", 2200, "pool1 TCP 198.51.100.7:40000 -> 10.0.4.4:22 4m"},
		{"a range leads each port to a member, the first to the first", "internet", tcp, client, "203.0.113.6", 5000, "pool1 TCP 198.51.100.7:40000 -> 10.0.4.4:3389 4m"},
		{"the second to the second", "internet", tcp, client, "203.0.113.6", 5001, "pool2 TCP 198.51.100.7:40000 -> 10.0.4.5:3389 4m"},
		{"and those beyond to nobody", "internet", tcp, client, "203.0.113.6", 5002, "no_backend"},
		{"a frontend has no other ports", "internet", tcp, client, "203.0.113.6", 443, "no_frontend"},
		{"nor protocols", "internet", udp, client, "203.0.113.6", 80, "no_frontend"},
		{"an empty pool has no backend", "internet", tcp, client, "203.0.113.6", 81, "no_backend"},
		{"a pool by address reaches who has no network interface", "internet", tcp, client, "203.0.113.11", 80, "byip TCP 198.51.100.7:40000 -> 10.0.9.77:80 4m"},
		{"an internal load balancer takes every port where no rule takes it", "plain", udp, "10.0.3.4", "10.0.5.9", 999, "open UDP 10.0.3.4:40000 -> 10.0.6.4:999 4m|inside UDP 10.0.3.4:40000 -> 10.0.6.6:999 4m"},
		{"and is open where no network security group stands", "plain", tcp, "10.0.3.4", "10.0.5.9", 999, "open TCP 10.0.3.4:40000 -> 10.0.6.4:999 4m|inside TCP 10.0.3.4:40000 -> 10.0.6.6:999 4m"},
		{"one of its ports has a rule of its own", "plain", tcp, "10.0.3.4", "10.0.5.9", 90, "pool1 TCP 10.0.3.4:40000 -> 10.0.4.4:9090 4m"},
		{"a peer reaches it", "away", tcp, "10.9.0.4", "10.0.5.9", 90, "pool1 TCP 10.9.0.4:40000 -> 10.0.4.4:9090 4m"},
		{"nobody outside does", "internet", tcp, client, "10.0.5.9", 90, "no_route"},
		{"its backend does not reach itself through it", "pool1", tcp, "10.0.4.4", "10.0.5.9", 90, "hairpin"},
		{"it answers no ping", "plain", icmp, "10.0.3.4", "10.0.5.9", 0, "no_frontend"},
		{"its neighbours in the subnet are reached as they are", "plain", tcp, "10.0.3.4", "10.0.5.10", 90, "front TCP 10.0.3.4:40000 -> 10.0.5.10:90"},
		{"inside, a public address is reached from the sender's own way out", "own", tcp, "10.0.0.4", "203.0.113.5", 22, "nat TCP 203.0.113.4:40000 -> 10.0.1.4:22 20m"},
		{"with a shared source port where that is shared", "plain", tcp, "10.0.3.4", "203.0.113.4", 22, "own TCP 10.0.3.4:40000 -> 10.0.0.4:22 203.0.113.99:1024-65535 4m"},
		{"of two idle timeouts the shorter holds", "nat", tcp, "10.0.1.4", "203.0.113.4", 22, "own TCP 10.0.1.4:40000 -> 10.0.0.4:22 203.0.113.10:1024-65535 203.0.113.32:1024-65535 203.0.113.33:1024-65535 20m"},
		{"closed is closed from inside too", "own", tcp, "10.0.0.4", "203.0.113.8", 22, "open TCP 203.0.113.4:40000 -> 10.0.6.4:22 closed 20m"},
		{"a machine reaches itself by its public address", "own", tcp, "10.0.0.4", "203.0.113.4", 22, "own TCP 203.0.113.4:40000 -> 10.0.0.4:22 20m"},
		{"without a way out no public address is reached", "shut", tcp, "10.0.2.4", "203.0.113.4", 22, "no_outbound"},
		{"nor where the address of the way out is not known", "unknown", tcp, "10.0.0.7", "203.0.113.4", 22, "no_outbound"},
		{"nor from a source that an appliance has borrowed", "fw", tcp, "10.0.7.4", "203.0.113.4", 22, "no_outbound"},
		{"a route to an appliance goes before", "routed", tcp, "10.0.7.4", "203.0.113.4", 22, "fw TCP 10.0.7.4:40000 -> 203.0.113.4:22"},
		{"what an appliance sends for others leaves as sent", "fw", tcp, "10.0.7.4", server, 22, "internet TCP 10.0.7.4:40000 -> 198.51.100.80:22"},
		{"what it sends itself bears its public address", "fw", tcp, "10.0.8.4", server, 22, "internet TCP 203.0.113.12:40000 -> 198.51.100.80:22 20m"},
		{"a host of a subnet without a network interface has default outbound access", "byip", tcp, "10.0.9.5", server, 22, "internet TCP 10.0.9.5:40000 -> 198.51.100.80:22 203.0.113.99:1024-65535 4m"},
		{"the platform reaches backends as they are", "platform", tcp, "168.63.129.16", "10.0.4.4", 80, "pool1 TCP 168.63.129.16:40000 -> 10.0.4.4:80"},
		{"and a backend the platform", "pool1", tcp, "10.0.4.4", "168.63.129.16", 80, "platform TCP 10.0.4.4:40000 -> 168.63.129.16:80"},
		{"a floating address cannot begin a flow", "pool1", udp, "203.0.113.6", client, 53, "spoofed_source"},
	}
	s := streetSnapshot(t, Options{DefaultOutbound: ip("203.0.113.99").Netip()})
	if !s.Translates() {
		t.Fatal("the policy translates nothing")
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := tuple(t, tt.protocol, tt.src, 40000, tt.dst, tt.port)
			src := s.from(t, tt.at, p.Src)
			if src == nil {
				t.Fatalf("%s is not admitted at %s", tt.src, tt.at)
			}
			var w Way
			drop := s.Way(src, &p, &w)
			if got := told(s, &w, drop); !slices.Contains(strings.Split(tt.want, "|"), got) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if w.Translated != (w.Arrives != p || w.Ports != nil) {
				t.Errorf("translated %v of %s", w.Translated, w.Arrives)
			}
		})
	}
}

func TestAFloatingAddressIsLeftAlone(t *testing.T) {
	s := streetSnapshot(t, Options{})
	p := tuple(t, packet.ProtoUDP, "198.51.100.7", 40000, "203.0.113.6", 53)
	var w Way
	if drop := s.Way(s.outside, &p, &w); drop != packet.NotDropped || !w.Floating || w.Translated || w.Arrives != p {
		t.Fatalf("%s: %+v", drop, w)
	}
	if s.Attachments[w.To.Attachment].Name != "pool1" && s.Attachments[w.To.Attachment].Name != "pool2" {
		t.Errorf("delivered to %s", s.Attachments[w.To.Attachment].Name)
	}
	for _, tt := range []struct {
		name, at, src string
		want          bool
	}{
		{"its backends send from it", "pool2", "203.0.113.6", true},
		{"nobody else does", "plain", "203.0.113.6", false},
		{"not from a frontend whose rules rewrite", "pool2", "203.0.113.11", false},
		{"the outside has no public address of the policy", "internet", "203.0.113.6", false},
		{"nor a NAT gateway's", "internet", "203.0.113.10", false},
		{"nor one of a prefix", "internet", "203.0.113.32", false},
		{"its other addresses are the outside's", "internet", "203.0.113.200", true},
		{"nobody in its subnet has an internal frontend's address", "front", "10.0.5.9", false},
		{"but its neighbour's", "front", "10.0.5.10", true},
	} {
		if got := s.from(t, tt.at, ip(tt.src)) != nil; got != tt.want {
			t.Errorf("%s: %s at %s admitted: %v", tt.name, tt.src, tt.at, got)
		}
	}
}

func TestNothingIsTranslatedWithoutAnAddress(t *testing.T) {
	s, err := Build(twoNetworks(), nil, NewRegistry())
	if err != nil || s.Translates() {
		t.Errorf("%v, translates %v", err, s.Translates())
	}
}

func TestABackendThatIsDownGetsNoNewFlow(t *testing.T) {
	s := streetSnapshot(t, Options{})
	probes := s.Probes()
	if len(probes) != 2 {
		t.Fatalf("%d probes, want one a backend", len(probes))
	}
	one, two := probes[0], probes[1]
	if one.Name != "lb/alive" || one.Address.String() != "10.0.4.4" || one.Target.NetworkInterface.Name != "pool1" || one.Protocol != ProbeTCP || one.Port != 80 || one.Interval != 15*time.Second || one.Threshold != 1 || !one.Up() {
		t.Errorf("probe %+v", one)
	}
	where := func() (got [2]int, drops int) {
		for port := range uint16(1000) {
			p := tuple(t, packet.ProtoTCP, "198.51.100.7", 1+port, "203.0.113.6", 80)
			var w Way
			switch s.Way(s.outside, &p, &w) {
			case packet.NotDropped:
				got[w.Arrives.Dst.V4()&1]++
			case packet.DropNoBackend:
				drops++
			}
		}
		return got, drops
	}
	if got, _ := where(); got[0] < 400 || got[1] < 400 {
		t.Errorf("flows of two backends %v", got)
	}
	one.Set(false)
	if got, _ := where(); got != [2]int{0, 1000} {
		t.Errorf("with the first one down: %v", got)
	}
	two.Set(false)
	if _, drops := where(); drops != 1000 {
		t.Errorf("with both down: %d dropped", drops)
	}
	// A state outlives a reload, and both snapshots share it.
	next := streetSnapshot(t, Options{})
	next.Follow(s)
	if p := next.Probes(); p[0].Up() || p[1].Up() {
		t.Error("a reload takes backends for up")
	}
	next.Probes()[0].Set(true)
	if !one.Up() {
		t.Error("the snapshot before does not see the state")
	}
	if got, _ := where(); got != [2]int{1000, 0} {
		t.Errorf("with the first one up: %v", got)
	}
}

func TestWhichFieldsChooseABackend(t *testing.T) {
	for _, tt := range []struct {
		distribution              policy.Distribution
		port, protocol, addresses bool // whether another one chooses another backend
	}{
		{policy.DistributionDefault, true, true, true},
		{policy.DistributionSourceIPProtocol, false, true, true},
		{policy.DistributionSourceIP, false, false, true},
	} {
		v := frontendRule{distribution: tt.distribution, backends: make([]backend, 16)}
		seen := func(change func(i int, p *packet.Tuple)) bool {
			found := map[*backend]bool{}
			for i := range 64 {
				p := tuple(t, packet.ProtoTCP, "198.51.100.7", 40000, "203.0.113.6", 80)
				change(i, &p)
				found[v.choose(7, &p, nil)] = true
			}
			return len(found) > 1
		}
		if got := seen(func(i int, p *packet.Tuple) { p.SrcPort += uint16(i) }); got != tt.port {
			t.Errorf("%s: source port matters: %v", tt.distribution, got)
		}
		if got := seen(func(i int, p *packet.Tuple) { p.Proto = uint8(i) }); got != tt.protocol {
			t.Errorf("%s: protocol matters: %v", tt.distribution, got)
		}
		if got := seen(func(i int, p *packet.Tuple) { p.Src.Lo += uint64(i) }); got != tt.addresses {
			t.Errorf("%s: source matters: %v", tt.distribution, got)
		}
	}
}

// A client keeps a backend that stays up, whatever happens to the others.
func TestTheOthersKeepTheirBackend(t *testing.T) {
	v := frontendRule{distribution: policy.DistributionSourceIP}
	for range 10 {
		v.backends = append(v.backends, backend{health: newHealth()})
	}
	before := map[int]*backend{}
	load := map[*backend]int{}
	for i := range 10000 {
		p := packet.Tuple{Src: packet.Addr{Lo: uint64(i)}}
		before[i] = v.choose(1, &p, nil)
		load[before[i]]++
	}
	for b, n := range load {
		if n < 800 || n > 1200 {
			t.Errorf("a backend of ten has %d of 10000 clients: %v", n, b)
		}
	}
	down := &v.backends[3]
	down.health.down.Store(true)
	for i := range 10000 {
		p := packet.Tuple{Src: packet.Addr{Lo: uint64(i)}}
		switch after := v.choose(1, &p, nil); {
		case before[i] != down && after != before[i]:
			t.Fatalf("client %d moved though its backend is up", i)
		case before[i] == down && (after == down || after == nil):
			t.Fatalf("client %d has no backend that is up", i)
		}
	}
}

func TestWayAllocatesNothing(t *testing.T) {
	s := streetSnapshot(t, Options{DefaultOutbound: ip("203.0.113.99").Netip()})
	for _, tt := range [][3]string{{"internet", "198.51.100.7", "203.0.113.4"}, {"internet", "198.51.100.7", "203.0.113.6"}, {"plain", "10.0.3.4", "198.51.100.7"}, {"plain", "10.0.3.4", "203.0.113.4"}, {"plain", "10.0.3.4", "10.0.5.9"}} {
		p := tuple(t, packet.ProtoTCP, tt[1], 40000, tt[2], 80)
		src := s.from(t, tt[0], p.Src)
		var w Way
		if n := testing.AllocsPerRun(100, func() { s.Way(src, &p, &w) }); n != 0 {
			t.Errorf("%s to %s: %v allocations", tt[1], tt[2], n)
		}
	}
}

func TestDefaultPortsByTheSizeOfThePool(t *testing.T) {
	m := &membership{balancer: &policy.LoadBalancer{}}
	a := ip("203.0.113.4").Netip()
	for _, tt := range []struct{ size, ports, frontends, total int }{
		{1, 1024, 1, 1024}, {50, 1024, 3, 1024}, {51, 512, 1, 512}, {100, 512, 2, 1024}, {100, 512, 3, 1024}, {101, 256, 1, 256}, {201, 128, 1, 128}, {401, 64, 2, 128}, {801, 32, 1, 32}, {1000, 32, 1, 32},
	} {
		addresses := slices.Repeat([]netip.Addr{a}, tt.frontends)
		total := 0
		for _, r := range m.defaultPorts(addresses, tt.size-1, tt.size) {
			if int(r.First) != firstSharedPort+(tt.size-1)*tt.ports {
				t.Errorf("the last of %d begins at %d", tt.size, r.First)
			}
			total += int(r.Last) - int(r.First) + 1
		}
		if total != tt.total {
			t.Errorf("%d backends and %d frontends: %d ports, want %d", tt.size, tt.frontends, total, tt.total)
		}
	}
}

// balancer is street with a number of backends by address in the first load balancer's pool.
func balancer(tb testing.TB, backends int) *Snapshot {
	tb.Helper()
	set := streetPolicy(tb)
	pool := set.LoadBalancers[0].Pools[0]
	v := set.VirtualNetworks[0]
	pool.Backends = nil
	for i := range backends {
		pool.Backends = append(pool.Backends, policy.Backend{VirtualNetwork: v, Address: netip.AddrFrom4([4]byte{10, 0, 9, byte(10 + i)})})
	}
	s, err := Options{DefaultOutbound: netip.MustParseAddr("203.0.113.99")}.Build(set, streetSpecs(), NewRegistry())
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func BenchmarkWay(b *testing.B) {
	for _, bench := range []struct {
		name, at, src, dst string
		backends, down     int
	}{
		{"InToPublicIP", "internet", "198.51.100.7", "203.0.113.4", 2, 0},
		{"OutByPublicIP", "own", "10.0.0.4", "198.51.100.7", 2, 0},
		{"OutByNATGateway", "nat", "10.0.1.4", "198.51.100.7", 2, 0},
		{"LoadBalancer2", "internet", "198.51.100.7", "203.0.113.6", 2, 0},
		{"LoadBalancer100", "internet", "198.51.100.7", "203.0.113.6", 100, 0},
		{"LoadBalancer100HalfDown", "internet", "198.51.100.7", "203.0.113.6", 100, 50},
		{"WithinNetwork", "own", "10.0.0.4", "10.0.3.4", 2, 0},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := balancer(b, bench.backends)
			for _, p := range s.Probes()[:bench.down] {
				p.Set(false)
			}
			p := tuple(b, packet.ProtoTCP, bench.src, 1, bench.dst, 80)
			src := s.from(b, bench.at, p.Src)
			var w Way
			b.ReportAllocs()
			for b.Loop() {
				p.SrcPort++
				if drop := s.Way(src, &p, &w); drop != packet.NotDropped {
					b.Fatal(drop)
				}
			}
		})
	}
}

func TestAWayBeginsAnew(t *testing.T) {
	tuple := packet.Tuple{SrcPort: 7}
	used := Way{To: &Endpoint{}, Ports: []PortRange{{}}, Translated: true, Floating: true, Outward: true, Closed: true, Idle: 1, Reset: true, Contended: true}
	for f := range reflect.ValueOf(used).NumField() {
		if name := reflect.TypeOf(used).Field(f).Name; name != "Arrives" && reflect.ValueOf(used).Field(f).IsZero() {
			t.Errorf("the test leaves %s zero", name)
		}
	}
	if used.reset(&tuple); !reflect.DeepEqual(used, Way{Arrives: tuple}) {
		t.Errorf("%+v", used)
	}
}

// A Standard load balancer leads to a host of a subnet without an NSG. It closes that way, and not the
// other hosts of the subnet.
func TestAStandardFrontendIsClosedToAHostWithoutANIC(t *testing.T) {
	const text = `[
	 {"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.1.0/24"}}]}},
	 {"type": "Microsoft.Network/publicIPAddresses", "name": "ip", "sku": {"name": "Standard"}, "properties": {"ipAddress": "198.51.100.4"}},
	 {"type": "Microsoft.Network/loadBalancers", "name": "lb", "sku": {"name": "Standard"}, "properties": {
	   "frontendIPConfigurations": [{"name": "f", "properties": {"publicIPAddress": {"id": "ip"}}}],
	   "backendAddressPools": [{"name": "p", "properties": {"loadBalancerBackendAddresses": [{"name": "b", "properties": {"ipAddress": "10.0.1.77", "virtualNetwork": {"id": "v"}}}]}}],
	   "loadBalancingRules": [{"name": "r", "properties": {"frontendIPConfiguration": {"id": "lb/f"}, "backendAddressPool": {"id": "lb/p"}, "protocol": "Tcp", "frontendPort": 80, "backendPort": 80, "disableOutboundSnat": true}}]}}
	]`
	d := arm.Parse("policy.json", []byte(text))
	s, err := Options{ReachPrivate: true}.Build(d.Set, []Spec{{Kind: Subnet, Reference: "v/s"}, {Kind: Internet}}, NewRegistry())
	if err != nil || len(d.Faults) > 0 {
		t.Fatal(err, d.Faults)
	}
	for dst, closed := range map[string]bool{"198.51.100.4": true, "10.0.1.77": true, "10.0.1.78": false} {
		p := tuple(t, packet.ProtoTCP, "203.0.113.9", 40000, dst, 80)
		var w Way
		if drop := s.Way(s.outside, &p, &w); drop != packet.NotDropped || w.Closed != closed {
			t.Errorf("%s: %s, closed %v", dst, drop, w.Closed)
		}
	}
}
