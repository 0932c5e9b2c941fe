package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// The hosts of the routed world: a hub with an appliance and a gateway, two networks
// peered with it, and a third one that is a peer of the second only.
var (
	hubFW     = lab.Host{Name: "fw", Namespace: "nsgd-fw", Address: netip.MustParseAddr("10.100.0.132")}
	leftVM    = lab.Host{Name: "left", Namespace: "nsgd-left", Address: netip.MustParseAddr("10.101.0.4")}
	rightVM   = lab.Host{Name: "right", Namespace: "nsgd-right", Address: netip.MustParseAddr("10.102.0.4")}
	thirdVM   = lab.Host{Name: "third", Namespace: "nsgd-third", Address: netip.MustParseAddr("10.103.0.4")}
	premises  = lab.Host{Name: "on-premises", Namespace: "nsgd-premises", Address: netip.MustParseAddr("192.168.50.9")}
	webHost   = lab.Host{Name: "outside", Namespace: "nsgd-internet", Address: netip.MustParseAddr("203.0.113.10")}
	routedAll = []lab.Host{hubFW, leftVM, rightVM, thirdVM, premises, webHost}
)

const routedConfig = `policy: [policy/]
attachments:
- {networkInterface: fw-nic, netns: nsgd-fw, create: true, device: eth0}
- {networkInterface: left-nic, netns: nsgd-left, create: true, device: eth0}
- {networkInterface: right-nic, netns: nsgd-right, create: true, device: eth0}
- {networkInterface: third-nic, netns: nsgd-third, create: true, device: eth0}
- {gateway: hub, netns: nsgd-premises, create: true, device: eth0, addresses: [192.168.50.9/24], prefixes: [192.168.50.0/24]}
- {internet: true, netns: nsgd-internet, create: true, device: eth0, addresses: [203.0.113.10/24]}
`

// routed is what differs between policies of the routed world.
type routed struct {
	left, right []string // routes of the subnets
	direct      bool     // left and right are peers
	fw          []rule   // of the appliance's NSG
}

// hop is a route; an address makes it a virtual appliance's.
func hop(prefix, kind, address string) string {
	text := fmt.Sprintf(`{"name": %q, "properties": {"addressPrefix": %q, "nextHopType": %q`, strings.NewReplacer("/", "-", ".", "-").Replace(prefix), prefix, kind)
	if address != "" {
		text += fmt.Sprintf(`, "nextHopIpAddress": %q`, address)
	}
	return text + "}}"
}

func byAppliance(prefix string) []string {
	return []string{hop(prefix, "VirtualAppliance", hubFW.Address.String())}
}

func (r routed) write(t *testing.T, dir string) {
	t.Helper()
	var resources []string
	network := func(name, prefix, subnets string, peers ...string) {
		var peerings []string
		for _, peer := range peers {
			peerings = append(peerings, fmt.Sprintf(`{"name": %q, "properties": {"remoteVirtualNetwork": {"id": %q}, "peeringState": "Connected",
				"allowForwardedTraffic": true, "allowGatewayTransit": %v, "useRemoteGateways": %v}}`, peer, peer, name == "hub", peer == "hub"))
		}
		resources = append(resources, fmt.Sprintf(`{"type": "Microsoft.Network/virtualNetworks", "name": %q, "properties": {"addressSpace": {"addressPrefixes": [%q]},
			"subnets": [%s], "virtualNetworkPeerings": [%s]}}`, name, prefix, subnets, strings.Join(peerings, ",")))
	}
	subnet := func(name, prefix, more string) string {
		return fmt.Sprintf(`{"name": %q, "properties": {"addressPrefix": %q%s}}`, name, prefix, more)
	}
	nic := func(h lab.Host, subnet, more string) {
		resources = append(resources, fmt.Sprintf(`{"type": "Microsoft.Network/networkInterfaces", "name": "%s-nic", "properties": {%s"ipConfigurations": [
			{"name": "c", "properties": {"privateIPAddress": %q, "subnet": {"id": %q}}}]}}`, h.Name, more, h.Address, subnet))
	}
	table := func(name string, routes []string) string {
		resources = append(resources, fmt.Sprintf(`{"type": "Microsoft.Network/routeTables", "name": %q, "properties": {"routes": [%s]}}`, name, strings.Join(routes, ",")))
		return fmt.Sprintf(`, "routeTable": {"id": %q}`, name)
	}
	var rules []any
	for _, r := range r.fw {
		rules = append(rules, r.document())
	}
	group, err := json.Marshal(map[string]any{"type": "Microsoft.Network/networkSecurityGroups", "name": "fw-nsg", "properties": map[string]any{"securityRules": rules}})
	if err != nil {
		t.Fatal(err)
	}
	resources = append(resources, string(group))
	leftPeers, rightPeers := []string{"hub"}, []string{"hub", "third"}
	if r.direct {
		leftPeers, rightPeers = append(leftPeers, "right"), append(rightPeers, "left")
	}
	network("hub", "10.100.0.0/24", subnet("GatewaySubnet", "10.100.0.0/27", "")+","+subnet("s", "10.100.0.128/25", ""), "left", "right")
	network("left", "10.101.0.0/24", subnet("s", "10.101.0.0/24", table("left-routes", r.left)), leftPeers...)
	network("right", "10.102.0.0/24", subnet("s", "10.102.0.0/24", table("right-routes", r.right)), rightPeers...)
	network("third", "10.103.0.0/24", subnet("s", "10.103.0.0/24", ""), "right")
	nic(hubFW, "hub/s", `"enableIPForwarding": true, "networkSecurityGroup": {"id": "fw-nsg"}, `)
	nic(leftVM, "left/s", "")
	nic(rightVM, "right/s", "")
	nic(thirdVM, "third/s", "")
	writeFile(t, filepath.Join(dir, "policy", "world.json"), "["+strings.Join(resources, ",\n")+"]")
}

// startRouted runs the routed world, with the appliance forwarding and every host
// listening on port 80.
func startRouted(t *testing.T, r routed) (reload func(routed)) {
	t.Helper()
	needWorld(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "policy"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write(t, dir)
	writeFile(t, filepath.Join(dir, lab.ConfigName), routedConfig)
	startIn(t, dir)
	forward(t, true)
	for _, h := range routedAll {
		serveTCP(t, h, 80)
	}
	return func(r routed) {
		t.Helper()
		r.write(t, dir)
		nsgctl(t, "reload")
	}
}

// forward lets the appliance's kernel forward or not. It sends no redirects: the hosts have one
// interface and no other router.
func forward(t *testing.T, on bool) {
	t.Helper()
	value := map[bool]string{true: "1", false: "0"}[on]
	inside(t, hubFW, func() error {
		for key, value := range map[string]string{"ip_forward": value, "conf/all/send_redirects": "0", "conf/eth0/send_redirects": "0"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/"+key, []byte(value), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}

// passesBy checks that a connection needs the appliance: it is not there when that
// stops forwarding.
func passesBy(t *testing.T, from, to lab.Host) {
	t.Helper()
	mustConnect(t, from, to, 80)
	forward(t, false)
	mustNotConnect(t, from, to, 80)
	forward(t, true)
}

func TestPeeringsAreNotTransitive(t *testing.T) {
	startRouted(t, routed{})
	for _, pair := range [][2]lab.Host{{leftVM, hubFW}, {rightVM, hubFW}, {hubFW, leftVM}, {rightVM, thirdVM}, {thirdVM, rightVM}} {
		mustConnect(t, pair[0], pair[1], 80)
		mustPing(t, pair[0], pair[1])
	}
	for _, pair := range [][2]lab.Host{{leftVM, rightVM}, {leftVM, thirdVM}, {thirdVM, hubFW}} {
		before := scrape(t)
		mustNotConnect(t, pair[0], pair[1], 80)
		since(t, before, func(c counts) bool { return c.after.drops("no_route") > before.drops("no_route") })
	}
}

func TestTrafficThroughAnAppliance(t *testing.T) {
	both := routed{left: byAppliance("10.102.0.0/24"), right: byAppliance("10.101.0.0/24")}
	t.Run("both ways, between networks that are not peers", func(t *testing.T) {
		startRouted(t, both)
		passesBy(t, leftVM, rightVM)
		passesBy(t, rightVM, leftVM)
		mustPing(t, leftVM, rightVM)
	})
	t.Run("there through it, back straight", func(t *testing.T) {
		startRouted(t, routed{left: both.left, direct: true})
		passesBy(t, leftVM, rightVM)
		mustPing(t, leftVM, rightVM)
		mustPing(t, rightVM, leftVM)
	})
	t.Run("there straight, back through it", func(t *testing.T) {
		startRouted(t, routed{right: both.right, direct: true})
		passesBy(t, leftVM, rightVM)
		mustPing(t, leftVM, rightVM)
	})
	t.Run("by the rules of its NSG, inbound and outbound", func(t *testing.T) {
		deny := func(name string, d, port string) rule {
			return rule{name: name, priority: 100 + len(name), direction: d, access: "Deny", protocol: "Tcp", port: port}
		}
		r := both
		r.fw = []rule{deny("In", "Inbound", "81"), deny("Out", "Outbound", "82")}
		startRouted(t, r)
		mustConnect(t, leftVM, rightVM, 80)
		for port, by := range map[uint16]decided{81: {"fw-nsg", "Inbound", "In", "Deny"}, 82: {"fw-nsg", "Outbound", "Out", "Deny"}} {
			before := scrape(t)
			mustNotConnect(t, leftVM, rightVM, port)
			since(t, before, func(c counts) bool { return c.rule(by).hits > 0 })
		}
	})
	t.Run("nsgctl says where packets go", func(t *testing.T) {
		startRouted(t, both)
		got := nsgctl(t, "next-hop", "--nic", "left-nic", "--source-ip", "10.101.0.4", "--dest-ip", "10.102.0.4", "-o", "json")
		if !strings.Contains(got, `"nextHopType": "VirtualAppliance"`) || !strings.Contains(got, `"nextHopIpAddress": "10.100.0.132"`) || !strings.Contains(got, `routeTables/left-routes"`) {
			t.Errorf("got %s", got)
		}
		got = nsgctl(t, "next-hop", "--nic", "left-nic", "--source-ip", "10.101.0.4", "--dest-ip", "192.168.50.9")
		if !strings.Contains(got, "VirtualNetworkGateway  -                    System Route") {
			t.Errorf("got %s", got)
		}
	})
}

func TestAGatewayStandsForOnPremises(t *testing.T) {
	reload := startRouted(t, routed{})
	for _, pair := range [][2]lab.Host{{premises, hubFW}, {premises, leftVM}, {leftVM, premises}, {hubFW, premises}} {
		mustConnect(t, pair[0], pair[1], 80)
	}
	mustNotConnect(t, premises, thirdVM, 80)
	mustNotConnect(t, thirdVM, premises, 80)
	reload(routed{left: byAppliance("192.168.50.0/24")}) // back through the appliance only
	passesBy(t, premises, leftVM)
}

func TestARouteToNowhere(t *testing.T) {
	reload := startRouted(t, routed{})
	conn := mustConnect(t, leftVM, webHost, 80)
	reload(routed{left: []string{hop("203.0.113.0/24", "None", "")}})
	before := scrape(t)
	if err := echo(conn, silence); !isTimeout(err) {
		t.Errorf("a connection whose way is gone: %v", err)
	}
	mustNotConnect(t, leftVM, webHost, 80)
	since(t, before, func(c counts) bool { return c.after.drops("route_none") >= before.drops("route_none")+2 })
	reload(routed{})
	mustEcho(t, conn)
}

func TestAConnectionTakesTheWayThatAReloadGivesIt(t *testing.T) {
	both := routed{left: byAppliance("10.102.0.0/24"), right: byAppliance("10.101.0.0/24")}
	reload := startRouted(t, both)
	conn := mustConnect(t, leftVM, rightVM, 80)
	forward(t, false)
	reload(routed{direct: true})
	mustEcho(t, conn)
	reload(routed{left: both.left, direct: true})
	forward(t, true)
	mustEcho(t, conn)
	reload(routed{}) // neither peers nor an appliance
	if err := echo(conn, silence); !isTimeout(err) {
		t.Errorf("a connection between networks that no longer reach each other: %v", err)
	}
}
