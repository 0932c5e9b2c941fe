package terraform

import (
	"cmp"
	"maps"
	"strings"
	"unicode"

	"github.com/nsgd/nsgd/ruleset"
)

// conversion turns a resource of one type of the azurerm provider into one of ARM.
type conversion struct {
	convert func(*converter, *resource)
	// kind is ARM's, without its provider; empty for associations.
	kind string
	// provider is Microsoft.Network if it is empty.
	provider string
	// parent is the field with the parent's name, and parentKind ARM's kind of the parent.
	parent, parentKind string
	// within is the field with the id of the resource that has this one as a part.
	within string
	// data means that data sources of the type have all that resources have.
	data bool
	// last means that the resource changes others, which must be converted before.
	last bool
}

// kinds are the types that are read. init fills the map, because conversions look types up.
var kinds map[string]conversion

func init() {
	kinds = map[string]conversion{
		"azurerm_network_security_group":     {convert: group, kind: "networkSecurityGroups", data: true},
		"azurerm_application_security_group": {convert: plain(nil), kind: "applicationSecurityGroups", data: true},
		"azurerm_virtual_network":            {convert: network, kind: "virtualNetworks", data: true},
		"azurerm_route_table":                {convert: routeTable, kind: "routeTables", data: true},
		"azurerm_network_interface":          {convert: networkInterface, kind: "networkInterfaces", data: true},
		"azurerm_private_endpoint":           {convert: privateEndpoint, kind: "privateEndpoints"},
		"azurerm_subnet": {
			convert: child(subnet), kind: "subnets", parent: "virtual_network_name", parentKind: "virtualNetworks", data: true,
		},
		"azurerm_network_security_rule": {
			convert: child(rule), kind: "securityRules", parent: "network_security_group_name", parentKind: "networkSecurityGroups",
		},
		"azurerm_route": {
			convert: child(route), kind: "routes", parent: "route_table_name", parentKind: "routeTables",
		},
		"azurerm_virtual_network_peering": {
			convert: child(fields(peeringFields)), kind: "virtualNetworkPeerings", parent: "virtual_network_name", parentKind: "virtualNetworks",
		},
		"azurerm_subnet_network_security_group_association": {
			convert: association("subnet_id", "network_security_group_id", "networkSecurityGroup"), last: true,
		},
		"azurerm_subnet_route_table_association": {
			convert: association("subnet_id", "route_table_id", "routeTable"), last: true,
		},
		"azurerm_network_interface_security_group_association": {
			convert: association("network_interface_id", "network_security_group_id", "networkSecurityGroup"), last: true,
		},
		"azurerm_network_interface_application_security_group_association": {convert: membership, last: true},
	}
	maps.Copy(kinds, translating)
	maps.Copy(kinds, hubs)
	for _, name := range []string{"linux", "windows", "orchestrated"} {
		kinds["azurerm_"+name+"_virtual_machine_scale_set"] = conversion{convert: scaleSet, kind: "virtualMachineScaleSets", provider: "Microsoft.Compute"}
	}
}

// Fields of Terraform, and of ARM.
var (
	peeringFields = map[string]string{
		"allow_virtual_network_access": "allowVirtualNetworkAccess", "allow_forwarded_traffic": "allowForwardedTraffic",
		"allow_gateway_transit": "allowGatewayTransit", "use_remote_gateways": "useRemoteGateways",
		"remote_virtual_network_id": "remoteVirtualNetwork", "peer_complete_virtual_networks_enabled": "peerCompleteVnets",
		"local_subnet_names": "localSubnetNames", "remote_subnet_names": "remoteSubnetNames", "only_ipv6_peering_enabled": "enableOnlyIPv6Peering",
	}
	routeFields = map[string]string{
		"address_prefix": "addressPrefix", "next_hop_type": "nextHopType", "next_hop_in_ip_address": "nextHopIpAddress",
	}
	publicFields = map[string]string{
		"ip_address": "ipAddress", "allocation_method": "publicIPAllocationMethod", "ip_version": "publicIPAddressVersion",
		"idle_timeout_in_minutes": "idleTimeoutInMinutes", "version": "publicIPAddressVersion",
	}
	configurationFields = map[string]string{
		"private_ip_address": "privateIPAddress", "private_ip_address_allocation": "privateIPAllocationMethod",
		"private_ip_address_version": "privateIPAddressVersion", "primary": "primary",
		"subnet_id": "subnet", "public_ip_address_id": "publicIPAddress", "version": "privateIPAddressVersion",
	}
	memberFields = map[string]string{
		"application_security_group_ids": "applicationSecurityGroups", "load_balancer_backend_address_pool_ids": "loadBalancerBackendAddressPools",
		"load_balancer_inbound_nat_rules_ids": "loadBalancerInboundNatPools",
	}
)

// id is the resource's id, made of its group and name if Terraform has none yet.
func (r *resource) id() string {
	if id := text(r.values, "id"); id != "" {
		return id
	}
	k := kinds[r.kind]
	if k.within != "" && text(r.values, k.within) != "" {
		return text(r.values, k.within) + "/" + k.kind + "/" + text(r.values, "name")
	}
	base := "/subscriptions/" + cmp.Or(r.subscription, noSubscription) + "/resourceGroups/" + text(r.values, "resource_group_name") + "/providers/" + k.of() + "/"
	if k.parent != "" {
		base += k.parentKind + "/" + text(r.values, k.parent) + "/"
	}
	return base + k.kind + "/" + text(r.values, "name")
}

// of is the provider of ARM's kind.
func (k *conversion) of() string { return cmp.Or(k.provider, "Microsoft.Network") }

// convert converts the resources, then those that change others.
func (c *converter) convert() {
	for _, last := range []bool{false, true} {
		for _, data := range []bool{false, true} {
			for _, r := range c.resources {
				if k := kinds[r.kind]; k.last == last && r.data == data {
					k.convert(c, r)
				}
			}
		}
	}
}

// add adds a resource of ARM. A data source is left out if a resource has its id.
func (c *converter) add(r *resource, properties map[string]any) {
	id := strings.ToLower(r.id())
	if c.made[id] != nil && r.data {
		return
	}
	k := kinds[r.kind]
	kind, name := k.of()+"/"+k.kind, text(r.values, "name")
	if k.parent != "" {
		kind, name = k.of()+"/"+k.parentKind+"/"+k.kind, parentName(r)+"/"+name
	}
	out := map[string]any{"type": kind, "name": name, "id": r.id(), "properties": properties}
	if location := text(r.values, "location"); location != "" {
		out["location"] = location
	}
	c.made[id] = out
	c.order = append(c.order, out)
}

// parentName is the name of a child's parent, from its field or else from the child's id.
func parentName(r *resource) string {
	k := kinds[r.kind]
	if name := text(r.values, k.parent); name != "" {
		return lastSegment(name)
	}
	segments := strings.Split(text(r.values, "id"), "/")
	for i := range segments[:max(0, len(segments)-1)] {
		if strings.EqualFold(segments[i], k.parentKind) {
			return segments[i+1]
		}
	}
	return ""
}

func lastSegment(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

// translate renames the fields that have a value. Fields of ids become references.
func translate(values map[string]any, names map[string]string) map[string]any {
	out := map[string]any{}
	for from, to := range names {
		v := values[from]
		if empty(v) {
			continue
		}
		if strings.HasSuffix(from, "_id") {
			v = map[string]any{"id": v}
		}
		out[to] = v
	}
	return out
}

// empty reports whether v is what Terraform writes for a field without a value.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	}
	return false
}

func fields(names map[string]string) func(map[string]any) map[string]any {
	return func(values map[string]any) map[string]any { return translate(values, names) }
}

func plain(names map[string]string) func(*converter, *resource) {
	return func(c *converter, r *resource) { c.add(r, translate(r.values, names)) }
}

func references(v any) []any {
	ids, ok := v.([]any)
	if !ok && !empty(v) {
		ids = []any{v}
	}
	var out []any
	for _, id := range ids {
		out = append(out, map[string]any{"id": id})
	}
	return out
}

// rule converts the fields of a rule, whose names are ARM's in another spelling.
func rule(values map[string]any) map[string]any {
	names, out := map[string]string{}, map[string]any{}
	for _, field := range ruleset.SecurityRuleFields {
		for _, name := range field.Names() {
			if !field.References {
				names[snake(name)] = name
			} else if ids := references(values[strings.TrimSuffix(snake(name), "s")+"_ids"]); ids != nil {
				out[name] = ids
			}
		}
	}
	maps.Copy(out, translate(values, names))
	return out
}

// snake spells a name of ARM as Terraform does: source_port_range for sourcePortRange.
func snake(name string) string {
	var b strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func route(values map[string]any) map[string]any { return translate(values, routeFields) }

func subnet(values map[string]any) map[string]any {
	out := translate(values, map[string]string{"network_security_group_id": "networkSecurityGroup", "route_table_id": "routeTable", "default_outbound_access_enabled": "defaultOutboundAccess"})
	prefixes := values["address_prefixes"]
	if empty(prefixes) {
		prefixes = values["address_prefix"]
	}
	if !empty(prefixes) {
		out["addressPrefixes"] = prefixes
	}
	if id := values["security_group"]; !empty(id) {
		out["networkSecurityGroup"] = map[string]any{"id": id}
	}
	// Before version 4 of the provider these were flags, the oldest one with the opposite meaning.
	switch {
	case !empty(values["private_endpoint_network_policies"]):
		out["privateEndpointNetworkPolicies"] = values["private_endpoint_network_policies"]
	case values["private_endpoint_network_policies_enabled"] == true, values["enforce_private_link_endpoint_network_policies"] == false:
		out["privateEndpointNetworkPolicies"] = "Enabled"
	}
	return out
}

// privateEndpoint has the addresses that it asks for, or else the one that it has got.
func privateEndpoint(c *converter, r *resource) {
	out := translate(r.values, map[string]string{"subnet_id": "subnet", "custom_network_interface_name": "customNetworkInterfaceName"})
	addresses := r.values["ip_configuration"]
	if empty(addresses) {
		addresses = r.values["private_service_connection"]
	}
	list, _ := addresses.([]any)
	configurations := []any{}
	for _, v := range list {
		if block, _ := v.(map[string]any); !empty(block["private_ip_address"]) {
			configurations = append(configurations, map[string]any{"name": text(block, "name"), "properties": translate(block, configurationFields)})
		}
	}
	out["ipConfigurations"] = configurations
	c.add(r, out)
}

// blocks turns a list of blocks into ARM's list of children. A text that stands for an
// unknown value stays as it is.
func blocks(v any, convert func(map[string]any) map[string]any) any {
	list, ok := v.([]any)
	if !ok {
		return v
	}
	out := []any{}
	for _, e := range list {
		if block, ok := e.(map[string]any); ok {
			child := map[string]any{"name": text(block, "name"), "properties": convert(block)}
			if id := text(block, "id"); id != "" {
				child["id"] = id
			}
			out = append(out, child)
		} else if e != nil {
			out = append(out, e)
		}
	}
	return out
}

func group(c *converter, r *resource) {
	properties := map[string]any{}
	if rules := blocks(r.values["security_rule"], rule); rules != nil {
		properties["securityRules"] = rules
	}
	c.add(r, properties)
}

func routeTable(c *converter, r *resource) {
	properties := map[string]any{}
	if routes := blocks(r.values["route"], route); routes != nil {
		properties["routes"] = routes
	}
	switch propagation := r.values["bgp_route_propagation_enabled"].(type) {
	case bool:
		properties["disableBgpRoutePropagation"] = !propagation
	default:
		if v := r.values["disable_bgp_route_propagation"]; !empty(v) {
			properties["disableBgpRoutePropagation"] = v
		}
	}
	c.add(r, properties)
}

func network(c *converter, r *resource) {
	properties := translate(r.values, map[string]string{"flow_timeout_in_minutes": "flowTimeoutInMinutes"})
	if v := r.values["address_space"]; !empty(v) {
		properties["addressSpace"] = map[string]any{"addressPrefixes": v}
	}
	if v := r.values["dns_servers"]; !empty(v) {
		properties["dhcpOptions"] = map[string]any{"dnsServers": v}
	}
	if subnets := blocks(r.values["subnet"], subnet); subnets != nil {
		properties["subnets"] = subnets
	}
	c.add(r, properties)
}

func networkInterface(c *converter, r *resource) { c.add(r, interfaceOf(r.values)) }

// interfaceOf converts a network interface, or the configuration of those of a scale set.
func interfaceOf(values map[string]any) map[string]any {
	properties := translate(values, map[string]string{
		"enable_ip_forwarding": "enableIPForwarding", "ip_forwarding_enabled": "enableIPForwarding",
		"mac_address": "macAddress", "network_security_group_id": "networkSecurityGroup", "primary": "primary",
	})
	if v := values["dns_servers"]; !empty(v) {
		properties["dnsSettings"] = map[string]any{"dnsServers": v}
	}
	configurations := blocks(values["ip_configuration"], func(block map[string]any) map[string]any {
		out := translate(block, configurationFields)
		for from, to := range memberFields {
			if ids := references(block[from]); ids != nil {
				out[to] = ids
			}
		}
		if public, ok := blocks(block["public_ip_address"], fields(publicFields)).([]any); ok && len(public) > 0 {
			out["publicIPAddressConfiguration"] = public[0]
		}
		return out
	})
	if configurations != nil {
		properties["ipConfigurations"] = configurations
	}
	return properties
}

func scaleSet(c *converter, r *resource) {
	network := map[string]any{}
	if configurations := blocks(r.values["network_interface"], interfaceOf); configurations != nil {
		network["networkInterfaceConfigurations"] = configurations
	}
	c.add(r, map[string]any{"virtualMachineProfile": map[string]any{"networkProfile": network}})
	c.made[strings.ToLower(r.id())]["sku"] = map[string]any{"capacity": r.values["instances"]}
}

// child adds a resource that has a parent. It replaces the block of the same name in the
// parent's list.
func child(convert func(map[string]any) map[string]any) func(*converter, *resource) {
	return func(c *converter, r *resource) {
		k := kinds[r.kind]
		id := r.id()
		if end := "/" + k.kind + "/" + lastSegment(id); len(id) > len(end) && strings.EqualFold(id[len(id)-len(end):], end) {
			if parent := c.made[strings.ToLower(id[:len(id)-len(end)])]; parent != nil {
				dropBlock(parent, k.kind, text(r.values, "name"))
			}
		}
		c.add(r, convert(r.values))
	}
}

func dropBlock(parent map[string]any, list, name string) {
	properties := object(parent, "properties")
	have, _ := properties[list].([]any)
	kept := []any{}
	for _, e := range have {
		if block, _ := e.(map[string]any); !strings.EqualFold(text(block, "name"), name) {
			kept = append(kept, e)
		}
	}
	if have != nil {
		properties[list] = kept
	}
}

// association puts a reference into the properties of the resource that one field
// names.
func association(of, to, field string) func(*converter, *resource) {
	return func(c *converter, r *resource) {
		if properties := c.target(r, of); properties != nil {
			properties[field] = map[string]any{"id": r.values[to]}
		}
	}
}

// target returns the properties of the resource that a field of an association names; nil
// when the document lacks the resource.
func (c *converter) target(r *resource, field string) map[string]any {
	id := text(r.values, field)
	if made := c.made[strings.ToLower(id)]; made != nil {
		return object(made, "properties")
	}
	if block := c.block(id); block != nil {
		return block
	}
	message := "the document has no such resource: the association was not read"
	if reason, ok := c.result.Reasons[id]; ok {
		message = reason + ": the association was not read"
	}
	c.result.Left = append(c.result.Left, Left{Address: r.address, Field: field, Value: id, Message: message})
	return nil
}

// block finds a subnet that is a block of its network by its id.
func (c *converter) block(id string) map[string]any {
	at := strings.LastIndex(strings.ToLower(id), "/subnets/")
	if at < 0 {
		return nil
	}
	network := c.made[strings.ToLower(id[:at])]
	subnets, _ := object(network, "properties")["subnets"].([]any)
	for _, e := range subnets {
		if block, _ := e.(map[string]any); strings.EqualFold(text(block, "name"), lastSegment(id)) {
			return object(block, "properties")
		}
	}
	return nil
}

// membership puts all ipConfigurations of a network interface into a group, as the provider
// does.
func membership(c *converter, r *resource) {
	properties := c.target(r, "network_interface_id")
	configurations, _ := properties["ipConfigurations"].([]any)
	for i, e := range configurations {
		block, ok := e.(map[string]any)
		if !ok {
			continue
		}
		inner := maps.Clone(object(block, "properties"))
		groups, _ := inner["applicationSecurityGroups"].([]any)
		inner["applicationSecurityGroups"] = append(groups[:len(groups):len(groups)], map[string]any{"id": r.values["application_security_group_id"]})
		configurations[i] = map[string]any{"name": block["name"], "properties": inner}
	}
}
