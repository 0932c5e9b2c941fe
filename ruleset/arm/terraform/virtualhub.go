package terraform

// hubs are the types of resources of Virtual WAN that give networks routes.
var hubs = map[string]conversion{
	"azurerm_virtual_wan":                   {convert: plain(map[string]string{"type": "type"}), kind: "virtualWans", data: true},
	"azurerm_virtual_hub":                   {convert: virtualHub, kind: "virtualHubs", data: true},
	"azurerm_virtual_hub_connection":        hubChild("hubVirtualNetworkConnections", hubConnection),
	"azurerm_virtual_hub_route_table":       hubChild("hubRouteTables", hubTable),
	"azurerm_virtual_hub_routing_intent":    hubChild("routingIntent", routingIntent),
	"azurerm_virtual_hub_route_table_route": {convert: hubRoute, last: true},
	"azurerm_virtual_hub_bgp_connection":    hubChild("bgpConnections", fields(nil)),
	"azurerm_route_map":                     hubChild("routeMaps", fields(nil)),
	"azurerm_vpn_gateway":                   {convert: plain(nil), kind: "vpnGateways"},
	"azurerm_express_route_gateway":         {convert: plain(nil), kind: "expressRouteGateways"},
	"azurerm_point_to_site_vpn_gateway":     {convert: plain(nil), kind: "p2svpnGateways"},
}

// ofDefaultTable is the attribute of a virtual hub with the id of the route table that Azure gives it.
const ofDefaultTable = ".default_route_table_id"

// hubChild is the conversion of a part of a virtual hub. The field with the hub's id says its name too.
func hubChild(kind string, convert func(map[string]any) map[string]any) conversion {
	return conversion{convert: child(convert), kind: kind, within: "virtual_hub_id", parent: "virtual_hub_id", parentKind: "virtualHubs"}
}

// block is the one block that a field has; nil when there is none.
func block(values map[string]any, field string) map[string]any {
	if blocks := list(values, field); len(blocks) > 0 {
		one, _ := blocks[0].(map[string]any)
		return one
	}
	return nil
}

func virtualHub(c *converter, r *resource) {
	properties := translate(r.values, map[string]string{"virtual_wan_id": "virtualWan", "sku": "sku", "address_prefix": "addressPrefix"})
	if routes, ok := r.values["route"].([]any); ok {
		properties["routeTable"] = map[string]any{"routes": routes}
	}
	c.add(r, properties)
}

func hubConnection(values map[string]any) map[string]any {
	out := translate(values, map[string]string{"remote_virtual_network_id": "remoteVirtualNetwork", "internet_security_enabled": "enableInternetSecurity"})
	routing := block(values, "routing")
	if routing == nil {
		return out
	}
	configuration := translate(routing, map[string]string{
		"associated_route_table_id": "associatedRouteTable", "inbound_route_map_id": "inboundRouteMap", "outbound_route_map_id": "outboundRouteMap",
	})
	if propagated := block(routing, "propagated_route_table"); propagated != nil {
		tables := translate(propagated, map[string]string{"labels": "labels"})
		tables["ids"] = references(propagated["route_table_ids"])
		configuration["propagatedRouteTables"] = tables
	}
	if static := routing["static_vnet_route"]; !empty(static) {
		configuration["vnetRoutes"] = map[string]any{"staticRoutes": static}
	}
	out["routingConfiguration"] = configuration
	return out
}

func hubTable(values map[string]any) map[string]any {
	out := translate(values, map[string]string{"labels": "labels"})
	routes := []any{}
	for _, v := range list(values, "route") {
		route, _ := v.(map[string]any)
		routes = append(routes, hubRouteOf(route))
	}
	if out["routes"] = routes; len(routes) == 0 && !empty(values["route"]) {
		out["routes"] = values["route"]
	}
	return out
}

func hubRouteOf(values map[string]any) map[string]any {
	return translate(values, map[string]string{
		"name": "name", "destinations": "destinations", "destinations_type": "destinationType", "next_hop": "nextHop", "next_hop_type": "nextHopType",
	})
}

// hubRoute puts a route into its table, which the documents may not have, as the one that each hub has.
func hubRoute(c *converter, r *resource) {
	if properties := c.target(r, "route_table_id"); properties != nil {
		routes, _ := properties["routes"].([]any)
		properties["routes"] = append(routes, hubRouteOf(r.values))
	}
}

func routingIntent(values map[string]any) map[string]any {
	policies := []any{}
	for _, v := range list(values, "routing_policy") {
		policy, _ := v.(map[string]any)
		policies = append(policies, translate(policy, map[string]string{"name": "name", "destinations": "destinations", "next_hop": "nextHop"}))
	}
	return map[string]any{"routingPolicies": policies}
}
