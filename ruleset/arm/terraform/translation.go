package terraform

import (
	"maps"
	"strings"
)

// translating are the types of resources that translate addresses. Parts of load balancers
// go into the load balancer.
var translating = map[string]conversion{
	"azurerm_public_ip":        {convert: withSKU("sku", publicFields), kind: "publicIPAddresses", data: true},
	"azurerm_public_ip_prefix": {convert: withSKU("sku", map[string]string{"ip_prefix": "ipPrefix"}), kind: "publicIPPrefixes", data: true},
	"azurerm_nat_gateway":      {convert: withSKU("sku_name", map[string]string{"idle_timeout_in_minutes": "idleTimeoutInMinutes"}), kind: "natGateways", data: true},
	"azurerm_lb":               {convert: loadBalancer, kind: "loadBalancers", data: true},

	"azurerm_nat_gateway_public_ip_association":        {convert: listed("nat_gateway_id", "public_ip_address_id", "publicIpAddresses"), last: true},
	"azurerm_nat_gateway_public_ip_prefix_association": {convert: listed("nat_gateway_id", "public_ip_prefix_id", "publicIpPrefixes"), last: true},
	"azurerm_subnet_nat_gateway_association":           {convert: association("subnet_id", "nat_gateway_id", "natGateway"), last: true},

	"azurerm_lb_backend_address_pool":         {convert: part(map[string]string{"virtual_network_id": "virtualNetwork"}), kind: "backendAddressPools", within: "loadbalancer_id", last: true},
	"azurerm_lb_backend_address_pool_address": {convert: poolAddress, last: true},
	"azurerm_lb_probe":                        {convert: part(probeFields), kind: "probes", within: "loadbalancer_id", last: true},
	"azurerm_lb_rule":                         {convert: part(balancingFields), kind: "loadBalancingRules", within: "loadbalancer_id", last: true},
	"azurerm_lb_nat_rule":                     {convert: part(natFields), kind: "inboundNatRules", within: "loadbalancer_id", last: true},
	"azurerm_lb_nat_pool":                     {convert: part(natFields), kind: "inboundNatPools", within: "loadbalancer_id", last: true},
	"azurerm_lb_outbound_rule":                {convert: part(outboundFields), kind: "outboundRules", within: "loadbalancer_id", last: true},

	"azurerm_network_interface_backend_address_pool_association": {convert: configured("backend_address_pool_id", "loadBalancerBackendAddressPools"), last: true},
	"azurerm_network_interface_nat_rule_association":             {convert: configured("nat_rule_id", "loadBalancerInboundNatRules"), last: true},
}

// Fields of load balancers' parts. Versions of the provider differ in enable_ and _enabled.
var (
	ruleOfBalancer = map[string]string{
		"protocol": "protocol", "frontend_port": "frontendPort", "backend_port": "backendPort", "idle_timeout_in_minutes": "idleTimeoutInMinutes",
		"enable_floating_ip": "enableFloatingIP", "floating_ip_enabled": "enableFloatingIP",
		"enable_tcp_reset": "enableTcpReset", "tcp_reset_enabled": "enableTcpReset",
	}
	balancingFields = joinFields(ruleOfBalancer, map[string]string{"load_distribution": "loadDistribution", "disable_outbound_snat": "disableOutboundSnat", "probe_id": "probe"})
	natFields       = joinFields(ruleOfBalancer, map[string]string{
		"frontend_port_start": "frontendPortRangeStart", "frontend_port_end": "frontendPortRangeEnd", "backend_address_pool_id": "backendAddressPool",
	})
	outboundFields = joinFields(ruleOfBalancer, map[string]string{"allocated_outbound_ports": "allocatedOutboundPorts", "backend_address_pool_id": "backendAddressPool"})
	probeFields    = map[string]string{
		"protocol": "protocol", "port": "port", "request_path": "requestPath", "interval_in_seconds": "intervalInSeconds",
		"number_of_probes": "numberOfProbes", "probe_threshold": "probeThreshold",
	}
	frontendFields = map[string]string{
		"private_ip_address": "privateIPAddress", "private_ip_address_version": "privateIPAddressVersion", "subnet_id": "subnet",
		"public_ip_address_id": "publicIPAddress", "public_ip_prefix_id": "publicIPPrefix",
	}
)

func joinFields(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// withSKU is plain for resources that have their SKU beside their properties in ARM.
func withSKU(field string, names map[string]string) func(*converter, *resource) {
	return func(c *converter, r *resource) {
		c.add(r, translate(r.values, names))
		c.setSKU(r, field)
	}
}

func (c *converter) setSKU(r *resource, field string) {
	if made := c.made[strings.ToLower(r.id())]; made != nil && made["sku"] == nil && !empty(r.values[field]) {
		made["sku"] = map[string]any{"name": r.values[field]}
	}
}

func loadBalancer(c *converter, r *resource) {
	properties := map[string]any{}
	if frontends := blocks(r.values["frontend_ip_configuration"], fields(frontendFields)); frontends != nil {
		properties["frontendIPConfigurations"] = frontends
	}
	c.add(r, properties)
	c.setSKU(r, "sku")
}

// listed puts a reference into a list of the resource that one field names.
func listed(of, to, list string) func(*converter, *resource) {
	return func(c *converter, r *resource) {
		if properties := c.target(r, of); properties != nil {
			have, _ := properties[list].([]any)
			properties[list] = append(have, map[string]any{"id": r.values[to]})
		}
	}
}

// part puts a child into its load balancer.
func part(names map[string]string) func(*converter, *resource) {
	return func(c *converter, r *resource) {
		properties := c.target(r, "loadbalancer_id")
		if properties == nil {
			return
		}
		k := kinds[r.kind]
		out := translate(r.values, names)
		frontend := func(name any) any {
			s, _ := name.(string)
			return map[string]any{"id": text(r.values, "loadbalancer_id") + "/frontendIPConfigurations/" + s}
		}
		if name := r.values["frontend_ip_configuration_name"]; !empty(name) {
			out["frontendIPConfiguration"] = frontend(name)
		}
		if pools := references(r.values["backend_address_pool_ids"]); pools != nil {
			out["backendAddressPools"] = pools
		}
		if list, ok := r.values["frontend_ip_configuration"].([]any); ok { // only outbound rules have a list
			var frontends []any
			for _, e := range list {
				block, _ := e.(map[string]any)
				frontends = append(frontends, frontend(block["name"]))
			}
			out["frontendIPConfigurations"] = frontends
		}
		if out["backendAddressPool"] != nil && k.kind == "inboundNatRules" { // the provider shows 0 for the other form's port
			delete(out, "frontendPort")
		}
		have, _ := properties[k.kind].([]any)
		properties[k.kind] = append(have, map[string]any{"name": text(r.values, "name"), "id": r.id(), "properties": out})
	}
}

// poolAddress puts an address into its pool, which is inside a load balancer.
func poolAddress(c *converter, r *resource) {
	const field = "backend_address_pool_id"
	id := text(r.values, field)
	if at := strings.LastIndex(strings.ToLower(id), "/backendaddresspools/"); at >= 0 {
		properties := object(c.made[strings.ToLower(id[:at])], "properties")
		for _, e := range list(properties, "backendAddressPools") {
			pool, _ := e.(map[string]any)
			if inner := object(pool, "properties"); inner != nil && strings.EqualFold(text(pool, "name"), lastSegment(id)) {
				have, _ := inner["loadBalancerBackendAddresses"].([]any)
				out := translate(r.values, map[string]string{"ip_address": "ipAddress", "virtual_network_id": "virtualNetwork"})
				inner["loadBalancerBackendAddresses"] = append(have, map[string]any{"name": text(r.values, "name"), "properties": out})
				return
			}
		}
	}
	c.result.Left = append(c.result.Left, Left{Address: r.address, Field: field, Value: id, Message: "the document has no such pool: the address was not read"})
}

// configured puts a reference into a list of the ipConfiguration that two fields name.
func configured(to, list string) func(*converter, *resource) {
	return func(c *converter, r *resource) {
		properties := c.target(r, "network_interface_id")
		configurations, _ := properties["ipConfigurations"].([]any)
		for i, e := range configurations {
			block, ok := e.(map[string]any)
			if !ok || !strings.EqualFold(text(block, "name"), text(r.values, "ip_configuration_name")) {
				continue
			}
			inner := maps.Clone(object(block, "properties"))
			have, _ := inner[list].([]any)
			inner[list] = append(have[:len(have):len(have)], map[string]any{"id": r.values[to]})
			configurations[i] = map[string]any{"name": block["name"], "properties": inner}
		}
	}
}
