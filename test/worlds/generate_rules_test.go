package worlds

import "fmt"

// onPremises is what most gateways lead to.
const onPremises = "192.168.0.0/16"

// rulePorts are what rules say of ports; tuples have the ports at their edges.
var rulePorts = []string{"*", "80", "22", "25", "443", "1000-1010", "2000-2009", "8080", "53", "0-65535"}

// addGroups makes NSGs and application security groups, and puts them where they judge.
func (g *generator) addGroups() {
	for _, n := range g.networks {
		name := "asg-" + n.name
		g.add(named("applicationSecurityGroups", name, object{}))
		for _, nic := range g.nics {
			for _, c := range nic.configs {
				if nic.network == n && g.one(3) {
					c["applicationSecurityGroups"] = []any{reference(name)}
				}
			}
		}
	}
	for i := range 1 + g.IntN(3) {
		name := fmt.Sprint("nsg", i)
		var rules []any
		for j := range 1 + g.IntN(5) {
			rules = append(rules, child(fmt.Sprintf("rule%d-%d", i, j), g.rule(100+10*j)))
		}
		// Most packets are to come farther than the first NSG.
		for j, direction := range []string{"Inbound", "Outbound"} {
			if !g.one(3) {
				rules = append(rules, child(fmt.Sprintf("open%d-%d", i, j), object{"priority": 4000, "direction": direction, "access": "Allow", "protocol": "*",
					"sourceAddressPrefix": "*", "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "*"}))
			}
		}
		g.add(named("networkSecurityGroups", name, object{"securityRules": rules}))
		g.groups = append(g.groups, name)
	}
	for _, n := range g.networks {
		for _, s := range n.subnets {
			if g.one(2) {
				s.body["networkSecurityGroup"] = reference(pick(g, g.groups...))
			}
		}
	}
	for _, n := range g.nics {
		if g.one(3) {
			n.body["networkSecurityGroup"] = reference(pick(g, g.groups...))
		}
	}
}

func (g *generator) rule(priority int) object {
	r := object{"priority": priority, "direction": pick(g, "Inbound", "Outbound"), "access": pick(g, "Allow", "Deny"),
		"protocol": pick(g, "*", "Tcp", "Tcp", "Udp", "Icmp", "Esp"), "sourcePortRange": "*", "destinationPortRange": pick(g, rulePorts...)}
	if g.one(8) {
		r["sourcePortRange"] = pick(g, rulePorts...)
	}
	asg := "asg-" + pick(g, g.networks...).name // both sides are of one network
	for _, side := range []string{"source", "destination"} {
		switch g.IntN(7) {
		case 0:
			r[side+"ApplicationSecurityGroups"] = []any{reference(asg)}
		case 1:
			r[side+"AddressPrefix"] = pick(g, "VirtualNetwork", "Internet", "AzureLoadBalancer")
			if side == "destination" && g.one(4) {
				r[side+"AddressPrefix"] = pick(g, "AzurePlatformDNS", "AzurePlatformIMDS", "AzurePlatformLKM")
			}
		case 2, 3:
			r[side+"AddressPrefix"] = pick(g, g.prefixes...)
		case 4:
			r[side+"AddressPrefix"] = pick(g, onPremises, "198.51.100.0/24", "203.0.113.0/24", "168.63.129.16", "10.0.0.0/8")
		default:
			r[side+"AddressPrefix"] = "*"
		}
	}
	return r
}

// addBalancer makes a load balancer, public or internal.
func (g *generator) addBalancer(i int) {
	name, sku := fmt.Sprint("lb", i), g.sku()
	internal := g.one(2)
	b := &balancer{generator: g, name: name, sku: sku, internal: internal}
	properties := object{"frontendIPConfigurations": b.frontends(), "backendAddressPools": b.pools(), "loadBalancingRules": b.rules(), "inboundNatRules": b.natRules()}
	if !internal && sku == "Standard" && g.one(2) {
		properties["outboundRules"] = b.outboundRules()
	}
	lb := named("loadBalancers", name, properties)
	lb["sku"] = object{"name": sku}
	g.add(lb)
}

type balancer struct {
	*generator
	name, sku string
	internal  bool
	network   *network // of its pools
	fronts    int
	outbound  bool
}

func (b *balancer) id(part string, i int) object { return reference(fmt.Sprint(b.name, "/", part, i)) }

func (b *balancer) frontends() (list []any) {
	b.network = pick(b.generator, b.networks...)
	for i := range 1 + b.IntN(2) {
		f := object{}
		if b.internal {
			s := pick(b.generator, b.network.subnets...)
			f["subnet"] = reference(s.id())
			f["privateIPAddress"] = s.free()
			if i == 0 && b.hops != nil && !b.one(3) {
				pick(b.generator, b.hops...)["nextHopIpAddress"] = f["privateIPAddress"]
			}
		} else {
			f["publicIPAddress"] = reference(b.public(b.sku))
		}
		list = append(list, child(fmt.Sprint("f", i), f))
		b.fronts++
	}
	return list
}

func (b *balancer) pools() (list []any) {
	for i := range 2 {
		var members, addresses []any
		for _, n := range b.nics {
			if n.network != b.network || !b.one(2) {
				continue
			}
			if b.one(4) {
				addresses = append(addresses, child(fmt.Sprint("a", len(addresses)), object{"ipAddress": n.addresses[0], "virtualNetwork": reference(b.network.name)}))
			} else {
				members = append(members, reference("networkInterfaces/"+n.name+"/ipConfigurations/c0"))
			}
		}
		pool := object{}
		if members != nil {
			pool["backendIPConfigurations"] = members
		}
		if addresses != nil {
			pool["loadBalancerBackendAddresses"] = addresses
		}
		list = append(list, child(fmt.Sprint("p", i), pool))
	}
	return list
}

func (b *balancer) rules() (list []any) {
	b.outbound = b.one(2)
	for f := range b.fronts {
		for i, protocol := range []string{"Tcp", "Udp", "All"} {
			if b.one(2) || protocol == "All" && (f > 0 || !b.internal || b.sku == "Basic") {
				continue
			}
			port := pick(b.generator, 80, 1001, 443)
			r := object{"frontendIPConfiguration": b.id("f", f), "backendAddressPool": b.id("p", b.IntN(2)), "protocol": protocol,
				"frontendPort": port, "backendPort": port, "loadDistribution": pick(b.generator, "Default", "SourceIP", "SourceIPProtocol"),
				"disableOutboundSnat": b.outbound, "enableTcpReset": b.one(2)}
			switch {
			case b.one(4):
				r["enableFloatingIP"] = true
			case b.one(2):
				r["backendPort"] = 8080 + f
			}
			if protocol == "All" {
				r["frontendPort"], r["backendPort"] = 0, 0
			}
			list = append(list, child(fmt.Sprintf("rule%d-%d", f, i), r))
		}
	}
	return list
}

func (b *balancer) natRules() (list []any) {
	for f := range b.fronts {
		switch b.IntN(3) {
		case 0:
			list = append(list, child(fmt.Sprint("n", f), object{"frontendIPConfiguration": b.id("f", f), "protocol": "Tcp",
				"frontendPortRangeStart": 2000, "frontendPortRangeEnd": 2009, "backendPort": 22, "backendAddressPool": b.id("p", b.IntN(2))}))
		case 1:
			r := object{"frontendIPConfiguration": b.id("f", f), "protocol": "Udp", "frontendPort": 53, "backendPort": 53}
			for _, n := range b.nics {
				if n.network == b.network && b.one(2) {
					r["backendIPConfiguration"] = reference("networkInterfaces/" + n.name + "/ipConfigurations/c0")
				}
			}
			list = append(list, child(fmt.Sprint("n", f), r))
		}
	}
	return list
}

func (b *balancer) outboundRules() []any {
	if !b.outbound {
		return nil
	}
	frontends := []any{b.id("f", 0)}
	if b.fronts > 1 && b.one(2) {
		frontends = append(frontends, b.id("f", 1))
	}
	return []any{child("out", object{"frontendIPConfigurations": frontends, "backendAddressPool": b.id("p", b.IntN(2)),
		"protocol": pick(b.generator, "Tcp", "Udp", "All"), "allocatedOutboundPorts": pick(b.generator, 0, 1000, 8000)})}
}
