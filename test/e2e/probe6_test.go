package e2e

import (
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/deploy/lab"
)

// sixPolicy is a load balancer for IPv6 before two network interfaces with both families.
const sixPolicy = `[
 {"name": "web-nsg", "type": "Microsoft.Network/networkSecurityGroups", "properties": {"securityRules": [RULES
  {"name": "web", "properties": {"priority": 200, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourceAddressPrefix": "Internet",
   "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "8080"}}]}},
 {"name": "v", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": ["10.1.0.0/16", "fd00:db8:1::/48"]},
  "subnets": [{"name": "web", "properties": {"addressPrefixes": ["10.1.1.0/24", "fd00:db8:1:1::/64"], "networkSecurityGroup": {"id": "web-nsg"}}}]}},
 {"name": "six-ip", "type": "Microsoft.Network/publicIPAddresses", "sku": {"name": "Standard"}, "properties": {"ipAddress": "2001:db8:ffff::10",
  "publicIPAddressVersion": "IPv6", "publicIPAllocationMethod": "Static"}},
 {"name": "web1-nic", "type": "Microsoft.Network/networkInterfaces", "properties": {"ipConfigurations": [
  {"name": "four", "properties": {"primary": true, "privateIPAddress": "10.1.1.4", "subnet": {"id": "v/web"}}},
  {"name": "six", "properties": {"privateIPAddress": "fd00:db8:1:1::4", "privateIPAddressVersion": "IPv6", "subnet": {"id": "v/web"},
   "loadBalancerBackendAddressPools": [{"id": "six-lb/web"}]}}]}},
 {"name": "web2-nic", "type": "Microsoft.Network/networkInterfaces", "properties": {"ipConfigurations": [
  {"name": "four", "properties": {"primary": true, "privateIPAddress": "10.1.1.5", "subnet": {"id": "v/web"}}},
  {"name": "six", "properties": {"privateIPAddress": "fd00:db8:1:1::5", "privateIPAddressVersion": "IPv6", "subnet": {"id": "v/web"},
   "loadBalancerBackendAddressPools": [{"id": "six-lb/web"}]}}]}},
 {"name": "six-lb", "type": "Microsoft.Network/loadBalancers", "sku": {"name": "Standard"}, "properties": {
  "frontendIPConfigurations": [{"name": "front", "properties": {"publicIPAddress": {"id": "six-ip"}}}],
  "backendAddressPools": [{"name": "web"}],
  "probes": [{"name": "tcp", "properties": {"protocol": "Tcp", "port": 8080, "intervalInSeconds": 5, "probeThreshold": 1}}],
  "loadBalancingRules": [{"name": "http", "properties": {"frontendIPConfiguration": {"id": "six-lb/front"}, "backendAddressPool": {"id": "six-lb/web"},
   "probe": {"id": "six-lb/tcp"}, "protocol": "Tcp", "frontendPort": 80, "backendPort": 8080, "disableOutboundSnat": true}}]}}]`

const sixConfig = `policy: [policy/]
attachments:
- {networkInterface: web1-nic, netns: nsgd-web1, create: true, device: eth0}
- {networkInterface: web2-nic, netns: nsgd-web2, create: true, device: eth0}
- {internet: true, netns: nsgd-internet, create: true, device: eth0, addresses: ['2001:db8::10/64']}
- {platform: true, netns: nsgd-platform, create: true, device: eth0}
metrics: {listen: "127.0.0.1:9646"}
control: {socket: /run/nsgd/nsgd.sock}
`

// Probes of IPv6 backends come from fe80::1234:5678:9abc through the platform's attachment, and meet the NSGs.
func TestIPv6BackendsAreProbedFromTheLinkLocalAddress(t *testing.T) {
	needWorld(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "policy"), 0o755); err != nil {
		t.Fatal(err)
	}
	rules := func(text string) {
		writeFile(t, policyFile(dir, "all"), strings.Replace(sixPolicy, "RULES", text, 1))
	}
	rules("")
	writeFile(t, filepath.Join(dir, lab.ConfigName), sixConfig)
	startIn(t, dir)
	web1, web2, client := trHost("web1", "fd00:db8:1:1::4"), trHost("web2", "fd00:db8:1:1::5"), trHost("internet", "2001:db8::10")
	waitForHealth(t, map[string]bool{"web1-nic": false, "web2-nic": false})

	probed := make(chan netip.Addr, 1)
	acceptTCP(t, web1, netip.AddrPortFrom(netip.IPv6Unspecified(), 8080), func(conn net.Conn) {
		from := netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr()
		if from.IsLinkLocalUnicast() {
			select {
			case probed <- from:
			default:
			}
		}
		echoBack(conn)
	})
	waitForHealth(t, map[string]bool{"web1-nic": true, "web2-nic": false})
	if from := <-probed; from.WithZone("") != topology.ProbeSource(web1.Address) {
		t.Errorf("the backend is probed from %s", from)
	}
	closeWeb2 := acceptTCP(t, web2, netip.AddrPortFrom(netip.IPv6Unspecified(), 8080), echoBack)
	waitForHealth(t, map[string]bool{"web1-nic": true, "web2-nic": true})
	mustConnect(t, client, at("2001:db8:ffff::10"), 80)
	closeWeb2()
	waitForHealth(t, map[string]bool{"web1-nic": true, "web2-nic": false})

	rules(`{"name": "probes", "properties": {"priority": 100, "direction": "Inbound", "access": "Deny", "protocol": "*", "sourceAddressPrefix": "AzureLoadBalancer",
		"sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "*"}},`)
	nsgctl(t, "reload")
	waitForHealth(t, map[string]bool{"web1-nic": false, "web2-nic": false})
	mustDrop(t, client, at("2001:db8:ffff::10"), 80, "no_backend")
}

// echoBack sends back all that comes.
func echoBack(conn net.Conn) {
	go func() {
		defer conn.Close()
		io.Copy(conn, conn)
	}()
}
