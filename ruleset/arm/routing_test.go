package arm

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// network is a virtual network of one prefix, with the fields of more.
func network(name, prefix string, more string) string {
	return `{"type": "Microsoft.Network/virtualNetworks", "name": "` + name + `", "properties": {"addressSpace": {"addressPrefixes": ["` + prefix + `"]},
		"subnets": [{"name": "s", "properties": {"addressPrefix": "` + prefix + `"}}]` + more + `}}`
}

// peered are the peerings of a network with others.
func peered(peerings ...string) string {
	return `, "virtualNetworkPeerings": [` + strings.Join(peerings, ",") + `]`
}

func peering(name, remote, more string) string {
	return `{"name": "` + name + `", "properties": {"remoteVirtualNetwork": {"id": "` + remote + `"}` + more + `}}`
}

// table is a route table "t".
func table(routes ...string) string {
	return `{"type": "Microsoft.Network/routeTables", "name": "t", "properties": {"routes": [` + strings.Join(routes, ",") + `]}}`
}

func route(name, prefix, hop, address string) string {
	return `{"name": "` + name + `", "properties": {"addressPrefix": "` + prefix + `", "nextHopType": "` + hop + `", "nextHopIpAddress": "` + address + `"}}`
}

func TestARouteTableInEveryForm(t *testing.T) {
	pfx := netip.MustParsePrefix
	want := &policy.RouteTable{Name: "t", DisableGatewayRoutes: true, Routes: []policy.Route{
		{Name: "all", Prefix: pfx("0.0.0.0/0"), Hop: policy.HopVirtualAppliance, Appliance: netip.MustParseAddr("10.0.0.4")},
		{Name: "six", Prefix: pfx("fd00::/8"), Hop: policy.HopNone},
		{Name: "tag", Tag: "Storage.WestEurope", Hop: policy.HopInternet},
	}}
	routes := `{"name": "all", "properties": {"addressPrefix": "0.0.0.0/0", "nextHopType": "virtualappliance", "nextHopIpAddress": "10.0.0.4", "hasBgpOverride": false}},
		{"name": "six", "properties": {"addressPrefix": "fd00::/8", "nextHopType": "None"}}`
	tag := `"addressPrefix": "Storage.WestEurope", "nextHopType": "Internet", "nextHopIpAddress": ""`
	tests := []struct{ name, document string }{
		{"REST", `{"type": "Microsoft.Network/routeTables", "name": "t", "properties": {"disableBgpRoutePropagation": true, "routes": [` + routes + `, {"name": "tag", "properties": {` + tag + `}}]}}`},
		{"az, without a type", `{"name": "t", "disableBgpRoutePropagation": true, "routes": [` + routes + `, {"name": "tag", ` + tag + `}]}`},
		{"a route of its own", `[{"type": "Microsoft.Network/routeTables", "name": "t", "properties": {"disableBgpRoutePropagation": true, "routes": [` + routes + `]}},
			{"type": "Microsoft.Network/routeTables/routes", "name": "t/tag", "properties": {` + tag + `}}]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set := parse(t, tt.document)
			if len(set.RouteTables) != 1 {
				t.Fatalf("%d route tables", len(set.RouteTables))
			}
			got := *set.RouteTables[0]
			got.ID = ""
			if !reflect.DeepEqual(&got, want) {
				t.Errorf("got %+v, want %+v", got, *want)
			}
		})
	}
}

func TestASubnetFindsItsRouteTable(t *testing.T) {
	set := parse(t, "["+strings.Replace(network("v", "10.0.0.0/16", ""), `"addressPrefix"`, `"routeTable": {"id": "t"}, "addressPrefix"`, 1)+","+table()+"]")
	if got := set.VirtualNetworks[0].Subnets[0].RouteTable; got == nil || got != set.RouteTables[0] {
		t.Errorf("the subnet has route table %v", got)
	}
}

func TestWhenAPeeringIsConnected(t *testing.T) {
	state := func(s string) string { return `, "peeringState": "` + s + `"` }
	both := func(there, back string) string {
		return "[" + network("a", "10.1.0.0/16", peered(peering("p", "b", there))) + "," + network("b", "10.2.0.0/16", peered(peering("q", "a", back))) + "]"
	}
	alone := `, "remoteAddressSpace": {"addressPrefixes": ["10.2.0.0/16"]}`
	tests := []struct {
		name, document string
		want           bool
	}{
		{"both sides are there and say so", both(state("Connected"), state("Connected")), true},
		{"both are there and say nothing", both("", ""), true},
		{"this side is disconnected", both(state("Disconnected"), ""), false},
		{"the other side is initiated", both("", state("Initiated")), false},
		{"the other network has no peering back", "[" + network("a", "10.1.0.0/16", peered(peering("p", "b", state("Connected")))) + "," + network("b", "10.2.0.0/16", "") + "]", false},
		{"the other network is not in the policy, and this side says that it is connected", network("a", "10.1.0.0/16", peered(peering("p", "b", alone+state("Connected")))), true},
		{"the other network is not in the policy, and this side says nothing", network("a", "10.1.0.0/16", peered(peering("p", "b", alone))), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := parse(t, tt.document).VirtualNetworks[0]
			if got := v.Connected(&v.Peerings[0]); got != tt.want {
				t.Errorf("connected %v, want %v", got, tt.want)
			}
			if got, want := v.Peerings[0].Space(), []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")}; !slices.Equal(got, want) {
				t.Errorf("space %v, want %v", got, want)
			}
		})
	}
}

func TestFaultsOfPeeringsAndRouteTables(t *testing.T) {
	two := func(a, b string) string { return "[" + a + "," + b + "]" }
	tests := []struct {
		name, document            string
		code, field, value, place string
	}{
		{"a peering with itself", network("a", "10.1.0.0/16", peered(peering("p", "a", ""))),
			"VirtualNetworkPeeringToItself", "remoteVirtualNetwork", "a", "virtualNetworks/a/virtualNetworkPeerings/p"},
		{"a peering with a network that nobody knows", network("a", "10.1.0.0/16", peered(peering("p", "b", ""))),
			"InvalidResourceReference", "remoteVirtualNetwork", "b", "virtualNetworks/a/virtualNetworkPeerings/p"},
		{"peers whose address spaces overlap", two(network("a", "10.1.0.0/16", peered(peering("p", "b", ""))), network("b", "10.0.0.0/8", "")),
			"VnetAddressSpacesOverlap", "remoteVirtualNetwork", "b", "virtualNetworks/a/virtualNetworkPeerings/p"},
		{"a remote address space that overlaps", network("a", "10.1.0.0/16", peered(peering("p", "b", `, "remoteAddressSpace": {"addressPrefixes": ["10.1.2.0/24"]}`))),
			"VnetAddressSpacesOverlap", "remoteVirtualNetwork", "b", "virtualNetworks/a/virtualNetworkPeerings/p"},
		{"two peers whose address spaces overlap", "[" + network("a", "10.1.0.0/16", peered(peering("p", "b", ""), peering("q", "c", ""))) + "," + network("b", "10.2.0.0/16", "") + "," + network("c", "10.2.0.0/24", "") + "]",
			"VnetAddressSpaceOverlapsWithAlreadyPeeredVnet", "remoteVirtualNetwork", "c", "virtualNetworks/a/virtualNetworkPeerings/q"},
		{"two peerings with one network", two(network("a", "10.1.0.0/16", peered(peering("p", "b", ""), peering("q", "B", ""))), network("b", "10.2.0.0/16", "")),
			"AnotherPeeringAlreadyReferencesRemoteVnet", "remoteVirtualNetwork", "B", "virtualNetworks/a/virtualNetworkPeerings/q"},
		{"a peering without the other network", network("a", "10.1.0.0/16", peered(`{"name": "p"}`)),
			"InvalidResourceReference", "remoteVirtualNetwork", "", "virtualNetworks/a/virtualNetworkPeerings/p"},
		{"a state that there is not", two(network("a", "10.1.0.0/16", peered(peering("p", "b", `, "peeringState": "Up"`))), network("b", "10.2.0.0/16", "")),
			"VirtualNetworkPeeringInvalidState", "peeringState", "Up", "virtualNetworks/a/virtualNetworkPeerings/p"},
		{"a route table that is not there", strings.Replace(network("v", "10.0.0.0/16", ""), `"addressPrefix"`, `"routeTable": {"id": "t"}, "addressPrefix"`, 1),
			"InvalidResourceReference", "routeTable", "t", "virtualNetworks/v/subnets/s"},
		{"an appliance without its address", table(route("r", "0.0.0.0/0", "VirtualAppliance", "")), "MissingNextHopIpAddress", "nextHopIpAddress", "", "routeTables/t/routes/r"},
		{"an address with another next hop", table(route("r", "0.0.0.0/0", "Internet", "10.0.0.4")), "RouteInvalidNextHopIpAddress", "nextHopIpAddress", "10.0.0.4", "routeTables/t/routes/r"},
		{"an appliance's address that is none", table(route("r", "0.0.0.0/0", "VirtualAppliance", "fw")), "RouteInvalidNextHopIpAddress", "nextHopIpAddress", "fw", "routeTables/t/routes/r"},
		{"an appliance of the other family", table(route("r", "::/0", "VirtualAppliance", "10.0.0.4")), "RouteInvalidNextHopIpAddress", "nextHopIpAddress", "10.0.0.4", "routeTables/t/routes/r"},
		{"a next hop that there is not", table(route("r", "0.0.0.0/0", "VirtualNetworkPeering", "")), "RouteInvalidNextHopType", "nextHopType", "VirtualNetworkPeering", "routeTables/t/routes/r"},
		{"no next hop", table(route("r", "0.0.0.0/0", "", "")), "RouteInvalidNextHopType", "nextHopType", "", "routeTables/t/routes/r"},
		{"host bits in a route", table(route("r", "10.0.0.1/8", "None", "")), "RouteInvalidAddressPrefix", "addressPrefix", "10.0.0.1/8", "routeTables/t/routes/r"},
		{"a route without a destination", table(route("r", "", "None", "")), "RouteInvalidAddressPrefix", "addressPrefix", "", "routeTables/t/routes/r"},
		{"an address as destination", table(route("r", "10.0.0.1", "None", "")), "RouteInvalidAddressPrefix", "addressPrefix", "10.0.0.1", "routeTables/t/routes/r"},
		{"a tag of security rules", table(route("r", "virtualnetwork", "None", "")), "RouteInvalidAddressPrefix", "addressPrefix", "virtualnetwork", "routeTables/t/routes/r"},
		{"two routes of one name", table(route("r", "10.0.0.0/8", "None", ""), route("R", "11.0.0.0/8", "None", "")), "RouteTableInvalidDuplicateName", "name", "R", "routeTables/t/routes/R"},
		{"two routes of one prefix", table(route("r", "10.0.0.0/8", "None", ""), route("q", "10.0.0.0/8", "Internet", "")), "RouteTableInvalidDuplicateAddressPrefix", "addressPrefix", "10.0.0.0/8", "routeTables/t/routes/q"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			faults := Parse("f.json", []byte(tt.document)).Faults
			if len(faults) != 1 {
				t.Fatalf("%d faults: %v", len(faults), faults)
			}
			f := faults[0]
			if f.Code != tt.code || f.Field != tt.field || f.Value != tt.value || f.Resource != tt.place || f.File != "f.json" || f.Message == "" {
				t.Errorf("got %+v", f)
			}
		})
	}
}

func TestWhatKeepsAPeeringOrARouteTableOpen(t *testing.T) {
	open := func(name string) string {
		return strings.Replace(network(name, "10.2.0.0/16", ""), `["10.2.0.0/16"]`, `"[variables('space')]"`, 1)
	}
	tests := []struct{ name, document, code, field string }{
		{"a peer that is left open", "[" + network("a", "10.1.0.0/16", peered(peering("p", "b", ""))) + "," + open("b") + "]", CodeTemplateExpression, "addressPrefixes"},
		{"a next hop that is an expression", table(route("r", "0.0.0.0/0", "VirtualAppliance", "[parameters('fw')]")), CodeTemplateExpression, "nextHopIpAddress"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("f.json", []byte(tt.document))
			has := slices.ContainsFunc(d.Unresolved, func(f ruleset.Fault) bool { return f.Code == tt.code && f.Field == tt.field })
			if len(d.Faults) > 0 || !has || len(d.Set.RouteTables) > 0 {
				t.Errorf("faults %v, unresolved %v", d.Faults, d.Unresolved)
			}
		})
	}
}

func TestADefaultRouteIsAWarningWhereAnNSGStands(t *testing.T) {
	policy := func(group string, routes string) string {
		subnet := `"routeTable": {"id": "t"}, ` + group + `"addressPrefix"`
		return `[{"type": "Microsoft.Network/networkSecurityGroups", "name": "g", "properties": {}}, ` +
			strings.Replace(network("v", "10.0.0.0/16", ""), `"addressPrefix"`, subnet, 1) + "," + table(routes) + "]"
	}
	guarded := `"networkSecurityGroup": {"id": "g"}, `
	tests := []struct {
		name, document string
		want           []string
	}{
		{"a default route", policy(guarded, route("r", "0.0.0.0/0", "None", "")), []string{"routeTables/t/routes/r 0.0.0.0/0"}},
		{"of IPv6", policy(guarded, route("r", "::/0", "Internet", "")), []string{"routeTables/t/routes/r ::/0"}},
		{"another route", policy(guarded, route("r", "10.0.0.0/8", "None", "")), nil},
		{"no NSG that it could open", policy("", route("r", "0.0.0.0/0", "None", "")), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("f.json", []byte(tt.document))
			var got []string
			for _, w := range d.Warnings {
				got = append(got, w.Resource+" "+w.Value)
			}
			if len(d.Faults) > 0 || !slices.Equal(got, tt.want) {
				t.Errorf("faults %v, warnings %v, want %v", d.Faults, got, tt.want)
			}
		})
	}
}

func TestALoadBalancerWithoutARuleForEveryPortIsNoNextHop(t *testing.T) {
	const text = `[
 {"type": "Microsoft.Network/routeTables", "name": "rt", "properties": {"routes": [{"name": "r", "properties": {"addressPrefix": "10.9.0.0/16", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.0.0.200"}}]}},
 {"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24", "routeTable": {"id": "rt"}}}]}},
 {"type": "Microsoft.Network/loadBalancers", "name": "lb", "sku": {"name": "Standard"}, "properties": {"frontendIPConfigurations": [{"name": "f", "properties": {"subnet": {"id": "v/s"}, "privateIPAddress": "10.0.0.200"}}],
  "backendAddressPools": [{"name": "p"}], "loadBalancingRules": [{"name": "ha", "properties": {"frontendIPConfiguration": {"id": "lb/f"}, "backendAddressPool": {"id": "lb/p"}, "protocol": "All", "frontendPort": 0, "backendPort": 0}}]}}]`
	for rule, want := range map[string]int{`"protocol": "All", "frontendPort": 0, "backendPort": 0`: 0, `"protocol": "Tcp", "frontendPort": 80, "backendPort": 80`: 1} {
		d := Parse("test.json", []byte(strings.Replace(text, `"protocol": "All", "frontendPort": 0, "backendPort": 0`, rule, 1)))
		told := 0
		for _, w := range d.Warnings {
			if w.Code == CodeUnfitNextHop && w.Value == "10.0.0.200" {
				told++
			}
		}
		if told != want || len(d.Faults) > 0 {
			t.Errorf("%s: %v %v", rule, d.Warnings, d.Faults)
		}
	}
}
