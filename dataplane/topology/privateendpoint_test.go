package topology

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// endpoints is a hub with an appliance, a subnet of private endpoints behind a group that denies all,
// and a peered spoke. POLICIES is the subnet's privateEndpointNetworkPolicies, ROUTE what the hub's
// and the spoke's route table leads to the appliance.
const endpoints = `[
{"name": "deny", "type": "Microsoft.Network/networkSecurityGroups", "properties": {"securityRules": [{"name": "all", "properties": {"priority": 100,
  "direction": "Inbound", "access": "Deny", "protocol": "*", "sourceAddressPrefix": "*", "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "*"}}]}},
{"name": "t", "type": "Microsoft.Network/routeTables", "properties": {"routes": [
  {"name": "r", "properties": {"addressPrefix": "ROUTE", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.0.9.4"}}]}},
{"name": "hub", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": [
  {"name": "app", "properties": {"addressPrefix": "10.0.1.0/24", "routeTable": {"id": "t"}}},
  {"name": "data", "properties": {"addressPrefix": "10.0.2.0/24", "networkSecurityGroup": {"id": "deny"}, "routeTable": {"id": "t"}, "privateEndpointNetworkPolicies": "POLICIES"}},
  {"name": "fw", "properties": {"addressPrefix": "10.0.9.0/24"}}],
  "virtualNetworkPeerings": [{"name": "p", "properties": {"remoteVirtualNetwork": {"id": "spoke"}, "peeringState": "Connected"}}]}},
{"name": "spoke", "type": "Microsoft.Network/virtualNetworks", "properties": {"addressSpace": {"addressPrefixes": ["10.1.0.0/16"]}, "subnets": [
  {"name": "web", "properties": {"addressPrefix": "10.1.1.0/24", "routeTable": {"id": "t"}}}],
  "virtualNetworkPeerings": [{"name": "p", "properties": {"remoteVirtualNetwork": {"id": "hub"}, "peeringState": "Connected"}}]}},
{"name": "app-nic", "type": "Microsoft.Network/networkInterfaces", "properties": {"ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.1.4", "subnet": {"id": "hub/app"}}}]}},
{"name": "web-nic", "type": "Microsoft.Network/networkInterfaces", "properties": {"ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.1.1.4", "subnet": {"id": "spoke/web"}}}]}},
{"name": "vm-nic", "type": "Microsoft.Network/networkInterfaces", "properties": {"ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.2.9", "subnet": {"id": "hub/data"}}}]}},
{"name": "fw-nic", "type": "Microsoft.Network/networkInterfaces", "properties": {"enableIPForwarding": true, "ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.9.4", "subnet": {"id": "hub/fw"}}}]}},
{"name": "db", "type": "Microsoft.Network/privateEndpoints", "properties": {"subnet": {"id": "hub/data"}, "customNetworkInterfaceName": "db-nic",
  "ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.2.4", "groupId": "sqlServer", "memberName": "sqlServer"}}]}}]`

func endpointWorld(t *testing.T, policies, route string) *Snapshot {
	t.Helper()
	d := arm.Parse("endpoints.json", []byte(strings.NewReplacer("POLICIES", policies, "ROUTE", route).Replace(endpoints)))
	if len(d.Faults)+len(d.Unresolved) > 0 {
		t.Fatal(d.Faults, d.Unresolved)
	}
	s, err := Build(d.Set, nil, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func endpointAt(t *testing.T, s *Snapshot, address string) *Endpoint {
	t.Helper()
	for _, nic := range s.Policy.NetworkInterfaces {
		if e := s.Endpoint(nic, netip.MustParseAddr(address)); e != nil {
			return e
		}
	}
	t.Fatalf("no network interface has %s", address)
	return nil
}

func TestPoliciesOfPrivateEndpoints(t *testing.T) {
	for _, tt := range []struct {
		policies       string
		groups, routes bool
	}{{"Disabled", false, false}, {"", false, false}, {"Enabled", true, true}, {"NetworkSecurityGroupEnabled", true, false}, {"routetableenabled", false, true}} {
		t.Run(tt.policies, func(t *testing.T) {
			s := endpointWorld(t, tt.policies, "10.0.0.0/16")
			db := endpointAt(t, s, "10.0.2.4")
			if got := len(db.Inbound) + len(db.Outbound); (got > 0) != tt.groups {
				t.Errorf("%d stages stand before the private endpoint", got)
			}
			if (db.routes.table != nil) != tt.routes {
				t.Errorf("its route table is %v", db.routes.table)
			}
			if vm := endpointAt(t, s, "10.0.2.9"); len(vm.Inbound) == 0 || vm.routes.table == nil {
				t.Error("the policies change what holds for a machine of the subnet")
			}
			want := HopPrivateEndpoint
			if tt.routes {
				want = policy.HopVirtualAppliance
			}
			for _, from := range []string{"10.0.1.4", "10.1.1.4"} {
				if hop := s.NextHop(endpointAt(t, s, from), netip.MustParseAddr("10.0.2.4")); hop.Type != want {
					t.Errorf("from %s the next hop is %s, want %s", from, hop.Type, want)
				}
			}
		})
	}
}

func TestRoutesToPrivateEndpoints(t *testing.T) {
	for _, tt := range []struct {
		policies, route string
		want            policy.NextHopType
	}{
		{"Disabled", "0.0.0.0/0", HopPrivateEndpoint},
		{"Disabled", "10.0.2.0/24", HopPrivateEndpoint},
		{"Disabled", "10.0.2.4/32", policy.HopVirtualAppliance}, // as long as the system's route
		{"RouteTableEnabled", "0.0.0.0/0", HopPrivateEndpoint},  // wider than the network
		{"RouteTableEnabled", "10.0.0.0/16", policy.HopVirtualAppliance},
		{"RouteTableEnabled", "10.0.2.0/24", policy.HopVirtualAppliance},
		{"RouteTableEnabled", "10.0.7.0/24", HopPrivateEndpoint}, // for others
	} {
		t.Run(fmt.Sprint(tt.policies, " ", tt.route), func(t *testing.T) {
			s := endpointWorld(t, tt.policies, tt.route)
			app := endpointAt(t, s, "10.0.1.4")
			if hop := s.NextHop(app, netip.MustParseAddr("10.0.2.4")); hop.Type != tt.want {
				t.Errorf("the next hop is %s, want %s", hop.Type, tt.want)
			}
			to, _ := s.Route(app, app.address, packet.AddrFrom(netip.MustParseAddr("10.0.2.4")))
			if direct := to == endpointAt(t, s, "10.0.2.4"); direct != (tt.want == HopPrivateEndpoint) {
				t.Errorf("the packet goes to %v", to.Address())
			}
			active := false
			for _, r := range s.EffectiveRoutes(app) {
				active = active || r.Type == HopPrivateEndpoint && r.Active
			}
			if active != (tt.want == HopPrivateEndpoint) {
				t.Errorf("effective routes have it active: %v", active)
			}
		})
	}
}

func TestServiceEndpointsLeadPastDefaultRoutesAndTranslation(t *testing.T) {
	s := endpointWorld(t, "Disabled", "0.0.0.0/0")
	set := s.Policy
	set.ServiceTags = map[string][]netip.Prefix{"Sql": {netip.MustParsePrefix("203.0.113.0/28")}}
	app := set.VirtualNetworks[0].Subnets[0]
	app.ServiceEndpoints, app.DisableDefaultOutbound = []string{"Sql"}, true
	s, err := Build(set, nil, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	sql := netip.MustParseAddr("203.0.113.1")
	from := endpointAt(t, s, "10.0.1.4")
	if hop := s.NextHop(from, sql); hop.Type != HopServiceEndpoint {
		t.Errorf("the next hop is %s", hop.Type)
	}
	sent := packet.Tuple{Src: from.address, Dst: packet.AddrFrom(sql), SrcPort: 5000, DstPort: 1433, Proto: packet.ProtoTCP}
	var way Way
	if s.Way(from, &sent, &way); way.To != s.endpoints.services || way.Translated {
		t.Errorf("the packet goes to %v, translated: %v", way.To, way.Translated)
	}
	// A subnet with the same route table and without service endpoints has the other routes.
	if hop := s.NextHop(endpointAt(t, s, "10.0.2.9"), sql); hop.Type != policy.HopVirtualAppliance {
		t.Errorf("the other subnet's next hop is %s", hop.Type)
	}
}

// Microsoft: "Routes with a virtual network service endpoint as the next hop type can't be overridden, even when you
// use a route table", and they are preferred even if BGP routes are more specific.
func TestNoRouteOverridesAServiceEndpoints(t *testing.T) {
	const in = "203.0.113.1"
	for _, tt := range []struct {
		name  string
		route policy.Route
		learn string // by a gateway
		to    string
		want  policy.NextHopType
	}{
		{"a wider route", policy.Route{Prefix: pfx("203.0.0.0/16"), Hop: policy.HopNone}, "", in, HopServiceEndpoint},
		{"the same prefix", policy.Route{Prefix: pfx("203.0.113.0/28"), Hop: policy.HopNone}, "", in, HopServiceEndpoint},
		{"a longer prefix", policy.Route{Prefix: pfx("203.0.113.1/32"), Hop: policy.HopInternet}, "", in, HopServiceEndpoint},
		{"the tag", policy.Route{Tag: "Sql", Hop: policy.HopNone}, "", in, HopServiceEndpoint},
		{"an address beside", policy.Route{Prefix: pfx("203.0.0.0/16"), Hop: policy.HopNone}, "", "203.0.113.16", policy.HopNone},
		{"a gateway's longer prefix", policy.Route{}, "203.0.113.0/29", in, HopServiceEndpoint},
		{"a gateway's beside", policy.Route{}, "203.0.114.0/24", "203.0.114.1", policy.HopGateway},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set := endpointWorld(t, "Disabled", "0.0.0.0/0").Policy
			set.ServiceTags = map[string][]netip.Prefix{"Sql": {pfx("203.0.113.0/28")}}
			app := set.VirtualNetworks[0].Subnets[0]
			app.ServiceEndpoints, app.RouteTable = []string{"Sql"}, &policy.RouteTable{ID: "/rt"}
			var specs []Spec
			if tt.learn != "" {
				specs = []Spec{{Kind: Gateway, Reference: set.VirtualNetworks[0].ID, Prefixes: []netip.Prefix{pfx(tt.learn)}}}
			} else {
				tt.route.Name = "own"
				app.RouteTable.Routes = []policy.Route{tt.route}
			}
			s, err := Build(set, specs, NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			from := endpointAt(t, s, "10.0.1.4")
			if hop := s.NextHop(from, netip.MustParseAddr(tt.to)); hop.Type != tt.want {
				t.Errorf("the next hop is %s, want %s", hop.Type, tt.want)
			}
			for _, r := range s.EffectiveRoutes(from) {
				if r.Type == HopServiceEndpoint && !r.Active {
					t.Error("the route of the service endpoint is not active")
				}
				if r.Source == RouteUser && r.Active != (r.Prefixes[0].Bits() < 28) {
					t.Errorf("the user-defined route to %v is active: %v", r.Prefixes, r.Active)
				}
			}
		})
	}
}
