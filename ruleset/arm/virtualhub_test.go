package arm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// hubDocument has two hubs of one WAN, network a and b at the first, c at the second, and more documents.
func hubDocument(a, more string) string {
	const id = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Network/"
	network := func(name, space string) string {
		return `{"id": "` + id + `virtualNetworks/` + name + `", "properties": {"addressSpace": {"addressPrefixes": ["` + space + `"]}, "subnets": []}},`
	}
	connect := func(hub, name, properties string) string {
		return `{"id": "` + id + `virtualHubs/` + hub + `/hubVirtualNetworkConnections/` + name + `", "properties": {"remoteVirtualNetwork": {"id": "` + id + `virtualNetworks/` + name + `"}` + properties + `}},`
	}
	return strings.ReplaceAll("["+network("a", "10.1.0.0/16")+network("b", "10.2.0.0/16")+network("c", "10.3.0.0/16")+more+
		connect("one", "a", a)+connect("one", "b", "")+connect("two", "c", "")+
		`{"id": "ID/virtualHubs/one", "properties": {"virtualWan": {"id": "ID/virtualWans/w"}}}, {"id": "ID/virtualHubs/two", "properties": {"virtualWan": {"id": "ID/virtualWans/w"}}}]`, "ID/", id)
}

func TestNetworksLearnTheRoutesOfTheirHub(t *testing.T) {
	const (
		intent = `{"id": "ID/virtualHubs/one/routingIntent/i", "properties": {"routingPolicies": [{"name": "p", "destinations": ["%s"], "nextHop": "ID/azureFirewalls/f"}]}},`
		table  = `{"id": "ID/virtualHubs/one/hubRouteTables/%s", "properties": {"labels": ["%s"], "routes": [{"name": "r", "destinationType": "CIDR", "destinations": ["%s"], "nextHopType": "ResourceId", "nextHop": "ID/azureFirewalls/f"}]}},`
	)
	red := func(propagated string) string {
		return `, "routingConfiguration": {"associatedRouteTable": {"id": "ID/virtualHubs/one/hubRouteTables/red"}, "propagatedRouteTables": ` + propagated + `}`
	}
	for _, tt := range []struct{ name, a, more, want string }{
		{"the other networks of the WAN", "", "", "a: 10.2.0.0/16 to b, 10.3.0.0/16 to c; b: 10.1.0.0/16 to a, 10.3.0.0/16 to c; c: 10.1.0.0/16 to a, 10.2.0.0/16 to b; "},
		{"no default route without enableInternetSecurity", "", fmt.Sprintf(intent, "Internet"), "a: 10.2.0.0/16 to b, 10.3.0.0/16 to c; b: 10.1.0.0/16 to a, 10.3.0.0/16 to c; c: 10.1.0.0/16 to a, 10.2.0.0/16 to b; "},
		{"a routing intent for the internet", `, "enableInternetSecurity": true`, fmt.Sprintf(intent, "Internet"), "a: 0.0.0.0/0, 10.2.0.0/16 to b, 10.3.0.0/16 to c; b: 10.1.0.0/16 to a, 10.3.0.0/16 to c; c: 10.1.0.0/16 to a, 10.2.0.0/16 to b; "},
		{"a routing intent for private traffic", "", fmt.Sprintf(intent, "PrivateTraffic") + strings.ReplaceAll(fmt.Sprintf(intent, "PrivateTraffic"), "one", "two"),
			"a: 10.2.0.0/16, 10.3.0.0/16, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16; b: 10.1.0.0/16, 10.3.0.0/16, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16; c: 10.1.0.0/16, 10.2.0.0/16, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16; "},
		{"a static route of the default table", `, "enableInternetSecurity": true`, fmt.Sprintf(table, "defaultRouteTable", "default", "0.0.0.0/0"),
			"a: 0.0.0.0/0, 10.2.0.0/16 to b, 10.3.0.0/16 to c; b: 10.1.0.0/16 to a, 10.3.0.0/16 to c; c: 10.1.0.0/16 to a, 10.2.0.0/16 to b; "},
		{"a table of its own, and none learns of it", red(`{"ids": [{"id": "ID/virtualHubs/one/hubRouteTables/noneRouteTable"}]}`), fmt.Sprintf(table, "red", "red", "10.9.0.0/16"),
			"a: 10.9.0.0/16; b: 10.3.0.0/16 to c; c: 10.2.0.0/16 to b; "},
		{"a table of its own, and the other hub learns of it", red(`{"ids": [{"id": "ID/virtualHubs/two/hubRouteTables/defaultRouteTable"}], "labels": ["none"]}`), fmt.Sprintf(table, "red", "red", "10.9.0.0/16"),
			"a: 10.9.0.0/16; b: 10.3.0.0/16 to c; c: 10.1.0.0/16 to a, 10.2.0.0/16 to b; "},
		{"one table by its id, and no label beside it", red(`{"ids": [{"id": "ID/virtualHubs/one/hubRouteTables/red"}]}`), fmt.Sprintf(table, "red", "red", "10.9.0.0/16"),
			"a: 10.9.0.0/16; b: 10.3.0.0/16 to c; c: 10.2.0.0/16 to b; "},
		{"hubs of one name in two resource groups", red(`{"ids": [{"id": "ID/virtualHubs/one/hubRouteTables/red"}]}`),
			fmt.Sprintf(table, "red", "none", "10.9.0.0/16") + strings.ReplaceAll(fmt.Sprintf(table, "red", "none", "10.8.0.0/16"), "ID/", "/subscriptions/s/resourceGroups/other/providers/Microsoft.Network/") +
				`{"id": "/subscriptions/s/resourceGroups/other/providers/Microsoft.Network/virtualHubs/one", "properties": {}},
				{"id": "ID/virtualNetworks/d", "properties": {"addressSpace": {"addressPrefixes": ["10.4.0.0/16"]}, "subnets": []}},
				{"id": "/subscriptions/s/resourceGroups/other/providers/Microsoft.Network/virtualHubs/one/hubVirtualNetworkConnections/d", "properties": {"remoteVirtualNetwork": {"id": "ID/virtualNetworks/d"},
					"routingConfiguration": {"associatedRouteTable": {"id": "/subscriptions/s/resourceGroups/other/providers/Microsoft.Network/virtualHubs/one/hubRouteTables/red"}}}},`,
			"a: 10.9.0.0/16; b: 10.3.0.0/16 to c; c: 10.2.0.0/16 to b; d: 10.8.0.0/16; "},
		{"hubs carry no IPv6", "", `{"id": "ID/virtualNetworks/d", "properties": {"addressSpace": {"addressPrefixes": ["10.4.0.0/16", "fd00:4::/48"]}, "subnets": []}},
			{"id": "ID/virtualHubs/two/hubVirtualNetworkConnections/d", "properties": {"remoteVirtualNetwork": {"id": "ID/virtualNetworks/d"}}},`,
			"a: 10.4.0.0/16 to d, 10.3.0.0/16 to c, 10.2.0.0/16 to b; b: 10.4.0.0/16 to d, 10.3.0.0/16 to c, 10.1.0.0/16 to a; c: 10.4.0.0/16 to d, 10.1.0.0/16 to a, 10.2.0.0/16 to b; d: 10.3.0.0/16 to c, 10.1.0.0/16 to a, 10.2.0.0/16 to b; "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(hubDocument(tt.a, tt.more)))
			if len(d.Faults)+len(d.Unresolved)+len(d.Warnings) > 0 {
				t.Errorf("faults %v, unresolved %v, warnings %v", d.Faults, d.Unresolved, d.Warnings)
			}
			got := ""
			for _, v := range d.Set.VirtualNetworks {
				var routes []string
				for _, r := range v.HubTable.Routes {
					if slices.Contains(v.AddressSpace, r.Prefix) {
						continue // networks share the table
					}
					text := r.Prefix.String()
					if r.Network != nil {
						text += " to " + r.Network.Name
					}
					routes = append(routes, text)
				}
				got += v.Name + ": " + strings.Join(routes, ", ") + "; "
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestWhatIsNotReadOfAHubHasAWarning(t *testing.T) {
	for _, tt := range []struct{ name, a, more, field string }{
		{"a network elsewhere", "", `{"id": "ID/virtualHubs/one/hubVirtualNetworkConnections/d", "properties": {"remoteVirtualNetwork": {"id": "ID/virtualNetworks/d"}}},`, "remoteVirtualNetwork"},
		{"static routes of a connection", `, "routingConfiguration": {"vnetRoutes": {"staticRoutes": [{"name": "r", "addressPrefixes": ["10.8.0.0/16"], "nextHopIpAddress": "10.1.0.4"}]}}`, "", "staticRoutes"},
		{"route maps", `, "routingConfiguration": {"inboundRouteMap": {"id": "ID/virtualHubs/one/routeMaps/m"}}`, "", "inboundRouteMap"},
		{"an associated table that no document has", `, "routingConfiguration": {"associatedRouteTable": {"id": "ID/virtualHubs/one/hubRouteTables/red"}}`, "", "associatedRouteTable"},
		{"an associated table of another hub", `, "routingConfiguration": {"associatedRouteTable": {"id": "ID/virtualHubs/two/hubRouteTables/defaultRouteTable"}}`, "", "associatedRouteTable"},
		{"a table that no document has learns of the network", `, "routingConfiguration": {"propagatedRouteTables": {"ids": [{"id": "ID/virtualHubs/one/hubRouteTables/red"}]}}`, "", "ids"},
		{"a hub that only its connection names", "", `{"id": "ID/virtualNetworks/d", "properties": {"addressSpace": {"addressPrefixes": ["10.4.0.0/16"]}, "subnets": []}},
			{"id": "ID/virtualHubs/three/hubVirtualNetworkConnections/d", "properties": {"remoteVirtualNetwork": {"id": "ID/virtualNetworks/d"}}},`, "name"},
		{"a network at two hubs", "", `{"id": "ID/virtualHubs/two/hubVirtualNetworkConnections/d", "properties": {"remoteVirtualNetwork": {"id": "ID/virtualNetworks/a"}}},`, "remoteVirtualNetwork"},
		{"a routing intent for private traffic at one of two hubs", "",
			`{"id": "ID/virtualHubs/one/routingIntent/i", "properties": {"routingPolicies": [{"name": "p", "destinations": ["PrivateTraffic"], "nextHop": "ID/azureFirewalls/f"}]}},`, "routingPolicies"},
		{"a route that leads to a connection", "", `{"id": "ID/virtualHubs/one/hubRouteTables/red", "properties": {"routes": [{"name": "r", "destinationType": "CIDR", "destinations": ["10.9.0.0/16"],
			"nextHopType": "ResourceId", "nextHop": "ID/virtualHubs/one/hubVirtualNetworkConnections/a"}]}},`, "nextHop"},
		{"a hub's table of version 2", "", `{"name": "one/v2", "type": "Microsoft.Network/virtualHubs/routeTables", "properties": {}},`, "type"},
		{"a Basic WAN", "", `{"id": "ID/virtualWans/w", "properties": {"type": "Basic"}},`, "properties.type"},
		{"a Basic WAN as az writes it", "", `{"id": "ID/virtualWans/w", "name": "w", "type": "Microsoft.Network/virtualWans", "typePropertiesType": "Basic"},`, "properties.type"},
		{"branches", "", `{"id": "ID/vpnGateways/g", "type": "Microsoft.Network/vpnGateways", "properties": {}},`, "type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(hubDocument(tt.a, tt.more)))
			if len(d.Faults)+len(d.Unresolved) > 0 || len(d.Warnings) != 1 || d.Warnings[0].Code != CodeResourceNotRead || d.Warnings[0].Field != tt.field {
				t.Errorf("faults %v, unresolved %v, warnings %v", d.Faults, d.Unresolved, d.Warnings)
			}
		})
	}
}

// What a hub of 2019 said inside its own document.
func TestRoutesAndConnectionsInsideAHubHaveAWarning(t *testing.T) {
	for _, tt := range []struct{ name, properties, field string }{
		{"no route and no table", `"routeTable": {"routes": []}, "virtualHubRouteTableV2s": [], "virtualNetworkConnections": [], "sku": "Standard"`, ""},
		{"routes", `"routeTable": {"routes": [{"addressPrefixes": ["10.9.0.0/16"], "nextHopIpAddress": "10.1.0.4"}]}`, "routeTable"},
		{"tables of version 2", `"virtualHubRouteTableV2s": [{"name": "v2"}]`, "virtualHubRouteTableV2s"},
		{"connections", `"virtualNetworkConnections": [{"name": "a", "properties": {"remoteVirtualNetwork": {"id": "a"}}}]`, "virtualNetworkConnections"},
		{"a connection that is a document too", `"virtualNetworkConnections": [{"id": "ID/virtualHubs/h/hubVirtualNetworkConnections/a"}]`, ""},
		{"SKU Basic", `"sku": "Basic"`, "sku"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(strings.ReplaceAll(`[{"id": "ID/virtualNetworks/a", "properties": {"addressSpace": {"addressPrefixes": ["10.1.0.0/16"]}, "subnets": []}},
				{"id": "ID/virtualHubs/h/hubVirtualNetworkConnections/a", "properties": {"remoteVirtualNetwork": {"id": "ID/virtualNetworks/a"}}},
				{"id": "ID/virtualHubs/h", "properties": {`+tt.properties+`}}]`, "ID/", "/subscriptions/s/resourceGroups/r/providers/Microsoft.Network/")))
			got := ""
			for i := range d.Warnings {
				got += d.Warnings[i].Field
			}
			if len(d.Faults)+len(d.Unresolved) > 0 || got != tt.field {
				t.Errorf("faults %v, unresolved %v, warnings %v", d.Faults, d.Unresolved, d.Warnings)
			}
		})
	}
}

// Terraform's resources of Virtual WAN were skipped without a word.
func TestVirtualHubsOfTerraform(t *testing.T) {
	const id = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Network/"
	resource := func(kind, name, values string) string {
		return `{"address": "azurerm_` + kind + "." + name + `", "mode": "managed", "type": "azurerm_` + kind + `", "name": "` + name + `", "values": {"name": "` + name + `", "resource_group_name": "r", ` + values + `}}`
	}
	network := func(name, space string) string {
		return resource("virtual_network", name, `"id": "ID/virtualNetworks/`+name+`", "address_space": ["`+space+`"]`)
	}
	connect := func(name, more string) string {
		return resource("virtual_hub_connection", name, `"virtual_hub_id": "ID/virtualHubs/h", "remote_virtual_network_id": "ID/virtualNetworks/`+name+`"`+more)
	}
	d := Parse("state.json", []byte(strings.ReplaceAll(`{"format_version": "1.0", "terraform_version": "1.9.0", "values": {"root_module": {"resources": [`+strings.Join([]string{
		network("a", "10.1.0.0/16"), network("b", "10.2.0.0/16"),
		resource("virtual_wan", "w", `"id": "ID/virtualWans/w", "type": "Basic"`),
		resource("virtual_hub", "h", `"id": "ID/virtualHubs/h", "virtual_wan_id": "ID/virtualWans/w", "sku": "Standard", "route": [{"address_prefixes": ["10.9.0.0/16"], "next_hop_ip_address": "10.1.0.4"}]`),
		resource("virtual_hub_route_table", "red", `"id": "ID/virtualHubs/h/hubRouteTables/red", "virtual_hub_id": "ID/virtualHubs/h", "labels": ["red"],
			"route": [{"name": "one", "destinations": ["10.8.0.0/16"], "destinations_type": "CIDR", "next_hop": "ID/azureFirewalls/f", "next_hop_type": "ResourceId"}]`),
		resource("virtual_hub_route_table_route", "two", `"route_table_id": "ID/virtualHubs/h/hubRouteTables/red", "destinations": ["10.7.0.0/16"], "destinations_type": "CIDR", "next_hop": "ID/azureFirewalls/f"`),
		resource("virtual_hub_routing_intent", "i", `"virtual_hub_id": "ID/virtualHubs/h", "routing_policy": [{"name": "p", "destinations": ["Internet"], "next_hop": "ID/azureFirewalls/f"}]`),
		connect("a", `, "internet_security_enabled": true, "routing": [{"associated_route_table_id": "ID/virtualHubs/h/hubRouteTables/red", "propagated_route_table": [{"labels": ["default"], "route_table_ids": []}], "static_vnet_route": []}]`),
		connect("b", `, "internet_security_enabled": false, "routing": [{"associated_route_table_id": "ID/virtualHubs/h/hubRouteTables/defaultRouteTable", "propagated_route_table": [{"labels": [], "route_table_ids": ["ID/virtualHubs/h/hubRouteTables/red"]}]}]`),
	}, ",")+`]}}}`, "ID/", id)))
	var warnings, routes []string
	for i := range d.Warnings {
		warnings = append(warnings, d.Warnings[i].Field)
	}
	for _, v := range d.Set.VirtualNetworks {
		for _, r := range v.HubTable.Routes {
			routes = append(routes, v.Name+" "+r.Prefix.String())
		}
	}
	if len(d.Faults)+len(d.Unresolved) > 0 || !slices.Equal(warnings, []string{"properties.type", "routeTable"}) {
		t.Errorf("faults %v, unresolved %v, warnings %v", d.Faults, d.Unresolved, d.Warnings)
	}
	if want := []string{"a 10.8.0.0/16", "a 10.7.0.0/16", "a 0.0.0.0/0", "a 10.2.0.0/16", "b 10.1.0.0/16"}; !slices.Equal(routes, want) {
		t.Errorf("routes %q, want %q", routes, want)
	}
}

// They were read as if the condition held.
func TestWhatMayExistAtAHubHasAWarning(t *testing.T) {
	const network = `{"type": "Microsoft.Network/virtualNetworks", "name": "%[1]s", "properties": {"addressSpace": {"addressPrefixes": ["%[2]s"]}, "subnets": []}}`
	for _, tt := range []struct{ name, more, connection, field string }{
		{"all is known", "", "", ""},
		{"a connection with an open condition", "", `"condition": "[parameters('x')]", `, "condition"},
		{"a route table with an open condition", `{"type": "Microsoft.Network/virtualHubs/hubRouteTables", "name": "h/t", "condition": "[parameters('x')]", "properties": {"routes": []}},`, "", "condition"},
		{"a routing intent with an open condition", `{"type": "Microsoft.Network/virtualHubs/routingIntent", "name": "h/i", "condition": "[parameters('x')]", "properties": {"routingPolicies": []}},`, "", "condition"},
		{"a misspelled property of a table", `{"type": "Microsoft.Network/virtualHubs/hubRouteTables", "name": "h/t", "properties": {"routess": []}},`, "", "routess"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(`{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "parameters": {"x": {"type": "bool"}}, "resources": [`+
				fmt.Sprintf(network, "a", "10.1.0.0/16")+","+fmt.Sprintf(network, "b", "10.2.0.0/16")+`, {"type": "Microsoft.Network/virtualHubs", "name": "h", "properties": {}},`+tt.more+`
				{"type": "Microsoft.Network/virtualHubs/hubVirtualNetworkConnections", "name": "h/a", "properties": {"remoteVirtualNetwork": {"id": "[resourceId('Microsoft.Network/virtualNetworks', 'a')]"}}},
				{"type": "Microsoft.Network/virtualHubs/hubVirtualNetworkConnections", "name": "h/b", `+tt.connection+`"properties": {"remoteVirtualNetwork": {"id": "[resourceId('Microsoft.Network/virtualNetworks', 'b')]"}}}]}`))
			got := ""
			for i := range d.Warnings {
				got += d.Warnings[i].Field
			}
			if got != tt.field || len(d.Faults)+len(d.Unresolved) > 0 || (d.Set.VirtualNetworks[1].HubTable != nil) != (tt.connection == "") {
				t.Errorf("faults %v, unresolved %v, warnings %v, network b has %v", d.Faults, d.Unresolved, d.Warnings, d.Set.VirtualNetworks[1].HubTable)
			}
		})
	}
}
