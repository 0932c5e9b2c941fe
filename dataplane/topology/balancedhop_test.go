package topology

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/arm"
)

// sandwich is a policy whose clients (10.0.1.0/24) and servers (10.0.2.0/24) reach each other through the
// load balancer 10.0.9.200, with n appliances behind it from 10.0.9.10 on.
func sandwich(n int) string {
	nic := func(name, subnet, address, more string) string {
		return fmt.Sprintf(`{"type": "Microsoft.Network/networkInterfaces", "name": %q, "properties": {%s"ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": %q, "subnet": {"id": "v/%s"}}}]}},`,
			name, more, address, subnet)
	}
	table := func(name, prefix string) string {
		return fmt.Sprintf(`{"type": "Microsoft.Network/routeTables", "name": %q, "properties": {"routes": [{"name": "r", "properties": {"addressPrefix": %q, "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.0.9.200"}}]}},`,
			name, prefix)
	}
	text := "[" + table("out", "10.0.2.0/24") + table("back", "10.0.1.0/24") + nic("client", "clients", "10.0.1.4", "") + nic("server", "servers", "10.0.2.4", "")
	members := make([]string, n)
	for i := range n {
		address := fmt.Sprint("10.0.9.", 10+i)
		text += nic(fmt.Sprint("nva", i), "hub", address, `"enableIPForwarding": true, `)
		members[i] = fmt.Sprintf(`{"name": "m%d", "properties": {"ipAddress": %q, "virtualNetwork": {"id": "v"}}}`, i, address)
	}
	return text + `{"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": [
  {"name": "clients", "properties": {"addressPrefix": "10.0.1.0/24", "routeTable": {"id": "out"}}}, {"name": "servers", "properties": {"addressPrefix": "10.0.2.0/24", "routeTable": {"id": "back"}}},
  {"name": "hub", "properties": {"addressPrefix": "10.0.9.0/24"}}]}},
 {"type": "Microsoft.Network/loadBalancers", "name": "lb", "sku": {"name": "Standard"}, "properties": {
  "frontendIPConfigurations": [{"name": "f", "properties": {"subnet": {"id": "v/hub"}, "privateIPAddress": "10.0.9.200"}}], "probes": [{"name": "alive", "properties": {"protocol": "Tcp", "port": 8080}}],
  "backendAddressPools": [{"name": "p", "properties": {"loadBalancerBackendAddresses": [` + strings.Join(members, ",") + `]}}],
  "loadBalancingRules": [{"name": "ha", "properties": {"frontendIPConfiguration": {"id": "lb/f"}, "backendAddressPool": {"id": "lb/p"}, "probe": {"id": "lb/alive"}, "protocol": "All", "frontendPort": 0, "backendPort": 0}}]}}]`
}

func sandwichSnapshot(tb testing.TB, n int, text string) *Snapshot {
	tb.Helper()
	specs := []Spec{{Kind: NetworkInterface, Reference: "client"}, {Kind: NetworkInterface, Reference: "server"}}
	for i := range n {
		specs = append(specs, Spec{Kind: NetworkInterface, Reference: fmt.Sprint("nva", i)})
	}
	d := arm.Parse("policy.json", []byte(text))
	s, err := Options{Seed: 7}.Build(d.Set, append(specs, Spec{Kind: Subnet, Reference: "v/clients"}, Spec{Kind: Subnet, Reference: "v/servers"}), NewRegistry())
	if err != nil || len(d.Faults) > 0 {
		tb.Fatal(err, d.Faults)
	}
	return s
}

// carriedBy is the appliance that carries packets between two addresses, in both directions; -1: none.
func (s *Snapshot) carriedBy(t *testing.T, from, to string) int {
	t.Helper()
	carrier := func(at, from, to string) int {
		e := s.Owner(netip.MustParseAddr(at))
		hop, drop := s.Route(e, packet.AddrFrom(netip.MustParseAddr(from)), packet.AddrFrom(netip.MustParseAddr(to)))
		if (hop == nil) != (drop == packet.DropNextHop) {
			t.Fatalf("%s to %s: %v, %s", from, to, hop, drop)
		}
		if hop == nil {
			return -1
		}
		return hop.Attachment - 2
	}
	there, back := carrier(from, from, to), carrier(to, to, from)
	if there != back {
		t.Errorf("%s reaches %s by appliance %d, and is answered by %d", from, to, there, back)
	}
	return there
}

func TestALoadBalancerIsANextHop(t *testing.T) {
	const n = 3
	s := sandwichSnapshot(t, n, sandwich(n))
	chosen := map[string]int{}
	used := map[int]int{}
	for i := range 60 {
		client := fmt.Sprint("10.0.1.", 10+i)
		chosen[client] = s.carriedBy(t, client, "10.0.2.4")
		used[chosen[client]]++
	}
	for i := range n {
		if used[i] < 10 {
			t.Errorf("the appliances carry %v of 60 pairs", used)
		}
	}
	s.Probes()[1].Set(false)
	for client, was := range chosen {
		switch is := s.carriedBy(t, client, "10.0.2.4"); {
		case is == 1:
			t.Errorf("%s is led to an appliance that is down", client)
		case was != 1 && is != was:
			t.Errorf("%s changes from %d to %d when another one goes down", client, was, is)
		}
	}
	for _, p := range s.Probes() {
		p.Set(false)
	}
	if got := s.carriedBy(t, "10.0.1.4", "10.0.2.4"); got != -1 {
		t.Errorf("all are down, and %d carries", got)
	}
}

func TestWhichLoadBalancersAreNoNextHop(t *testing.T) {
	for _, tt := range []struct{ name, from, to string }{
		{"no rule for every port", `"protocol": "All", "frontendPort": 0, "backendPort": 0`, `"protocol": "Tcp", "frontendPort": 80, "backendPort": 80`},
		{"a backend that does not forward", `"enableIPForwarding": true, `, ""},
		{"another address", `"nextHopIpAddress": "10.0.9.200"`, `"nextHopIpAddress": "10.0.9.201"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := sandwichSnapshot(t, 1, strings.ReplaceAll(sandwich(1), tt.from, tt.to))
			if got := s.carriedBy(t, "10.0.1.4", "10.0.2.4"); got != -1 {
				t.Errorf("appliance %d carries", got)
			}
		})
	}
}

func BenchmarkRouteByLoadBalancer(b *testing.B) {
	for _, n := range []int{2, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := sandwichSnapshot(b, n, sandwich(n))
			from, to := packet.AddrFrom(netip.MustParseAddr("10.0.1.4")), packet.AddrFrom(netip.MustParseAddr("10.0.2.4"))
			e := s.Owner(netip.MustParseAddr("10.0.1.4"))
			b.ReportAllocs()
			for b.Loop() {
				if _, drop := s.Route(e, from, to); drop != packet.NotDropped {
					b.Fatal(drop)
				}
			}
		})
	}
}
