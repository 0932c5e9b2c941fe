package worlds

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

type object = map[string]any

func named(kind, name string, properties object) object {
	return object{"type": "Microsoft.Network/" + kind, "name": name, "properties": properties}
}

func child(name string, properties object) object {
	return object{"name": name, "properties": properties}
}

func reference(id string) object { return object{"id": id} }

// generator makes one world.
type generator struct {
	*rand.Rand
	w        *world
	networks []*network
	nics     []*nic
	groups   []string // names of NSGs
	hub      *nic     // the appliance that most routes lead to; nil in some worlds
	publics  int
	hops     []object // routes to appliances
	prefixes []string // that rules and routes like to name
	peered   bool
}

type network struct {
	name, space string
	octet       int
	subnets     []*subnet
	gateway     bool
	body        object
}

type subnet struct {
	*network
	name    string
	third   int // octet
	nat     bool
	next    int // host
	body    object
	members []*nic
}

type nic struct {
	*subnet
	name      string
	addresses []string
	forwards  bool
	body      object
	configs   []object
}

// generate makes a world of two or three virtual networks.
func generate(r *rand.Rand) *world {
	g := &generator{Rand: r, w: &world{Seed: r.Uint64() | 1, BlockSMTP: r.IntN(2) == 0}}
	if g.one(2) {
		g.w.DefaultOutbound = "203.0.113.250"
	}
	g.w.ReachPrivate = g.one(2)
	if g.one(3) {
		g.w.Outside = []string{pick(g, "172.16.0.0/12", "10.0.0.0/8", "198.18.0.0/15")}
	}
	g.addNetworks()
	g.addInterfaces()
	g.addPeerings()
	g.addPublicAddresses()
	g.addGateways()
	g.addGroups()
	g.addRouteTables()
	for i := range g.IntN(4) {
		g.addBalancer(i)
	}
	g.addManager()
	g.attach()
	return g.w
}

// one is true once in n times.
func (g *generator) one(n int) bool { return g.IntN(n) == 0 }

func pick[T any](g *generator, list ...T) T { return list[g.IntN(len(list))] }

func (g *generator) add(resource object) {
	g.w.Resources = append(g.w.Resources, resource)
}

func (g *generator) addNetworks() {
	octets := []int{0, 1}
	g.peered = !g.one(4)
	if !g.peered && g.one(2) {
		octets[1] = 0
	} else if g.one(4) { // a stranger in the first one's address space
		octets = append(octets, 0)
	}
	for i, octet := range octets {
		n := &network{name: fmt.Sprint("v", i), octet: octet, space: fmt.Sprintf("10.%d.0.0/16", octet)}
		var subnets []any
		for j := range 2 + g.IntN(2) {
			s := &subnet{network: n, name: fmt.Sprintf("v%ds%d", i, j), third: j, next: 4}
			s.body = object{"addressPrefix": fmt.Sprintf("10.%d.%d.0/24", octet, j)}
			if g.one(4) {
				s.body["defaultOutboundAccess"] = false
			}
			subnets = append(subnets, child(s.name, s.body))
			n.subnets = append(n.subnets, s)
			g.prefixes = append(g.prefixes, fmt.Sprintf("10.%d.%d.0/24", octet, j))
		}
		if n.gateway = g.one(4); n.gateway {
			subnets = append(subnets, child("GatewaySubnet", object{"addressPrefix": fmt.Sprintf("10.%d.255.0/27", octet)}))
		}
		n.body = object{"addressSpace": object{"addressPrefixes": []any{n.space}}, "subnets": subnets}
		if g.one(4) {
			n.body["flowTimeoutInMinutes"] = 10
		}
		g.add(named("virtualNetworks", n.name, n.body))
		g.networks = append(g.networks, n)
		g.prefixes = append(g.prefixes, n.space)
	}
}

// subnetOf is a random subnet of a random network.
func (g *generator) subnetOf() *subnet {
	n := pick(g, g.networks...)
	return pick(g, n.subnets...)
}

func (s *subnet) id() string { return s.network.name + "/" + s.name }

// free is an address of the subnet that nobody has yet.
func (s *subnet) free() string {
	a := fmt.Sprintf("10.%d.%d.%d", s.octet, s.third, s.next)
	s.next++
	return a
}

func (g *generator) addInterfaces() {
	for range 4 + g.IntN(5) {
		s := g.subnetOf()
		n := &nic{subnet: s, name: fmt.Sprint("nic", len(g.nics)), forwards: g.one(2)}
		var configs []any
		for i := range 1 + g.IntN(6)/5 {
			a := s.free()
			c := object{"privateIPAddress": a, "subnet": reference(s.id())}
			if i == 0 {
				c["primary"] = true
			}
			n.addresses = append(n.addresses, a)
			n.configs = append(n.configs, c)
			configs = append(configs, child(fmt.Sprint("c", i), c))
			g.prefixes = append(g.prefixes, a+"/32")
		}
		n.body = object{"ipConfigurations": configs}
		if n.forwards {
			n.body["enableIPForwarding"] = true
		}
		if g.one(12) {
			n.body["disableTcpStateTracking"] = true
		}
		g.add(named("networkInterfaces", n.name, n.body))
		g.nics = append(g.nics, n)
		s.members = append(s.members, n)
		if n.forwards && g.hub == nil && !g.one(4) {
			g.hub = n
		}
	}
}

func (g *generator) addPeerings() {
	if !g.peered {
		return
	}
	transit := g.networks[0].gateway && !g.networks[1].gateway && g.one(2)
	some := [2][]any{g.some(g.networks[0]), g.some(g.networks[1])} // that are peered instead of the whole
	ofSubnets := g.one(4)
	for i := range 2 {
		if g.one(12) { // one side only
			continue
		}
		p := object{"remoteVirtualNetwork": reference(g.networks[1-i].name), "allowForwardedTraffic": g.one(2)}
		if g.one(12) {
			p["allowVirtualNetworkAccess"] = false
		}
		if g.one(12) {
			p["peeringState"] = pick(g, "Initiated", "Disconnected")
		}
		if ofSubnets && !g.one(12) {
			p["peerCompleteVnets"], p["localSubnetNames"], p["remoteSubnetNames"] = false, some[i], some[1-i]
			if g.one(6) { // another one than the other side says
				p["remoteSubnetNames"] = g.some(g.networks[1-i])
			}
		}
		if transit && i == 0 {
			p["allowGatewayTransit"] = true
		}
		if transit && i == 1 {
			p["useRemoteGateways"] = true
		}
		g.networks[i].body["virtualNetworkPeerings"] = []any{child("peering", p)}
	}
	if g.one(4) { // a peer that the documents lack
		p := object{"remoteVirtualNetwork": reference("away"), "peeringState": "Connected", "remoteAddressSpace": object{"addressPrefixes": []any{"10.77.0.0/16", "20.77.0.0/16"}}}
		body := pick(g, g.networks...).body
		list, _ := body["virtualNetworkPeerings"].([]any)
		body["virtualNetworkPeerings"] = append(list, child("away", p))
	}
}

// some are the names of some of a network's subnets.
func (g *generator) some(n *network) (names []any) {
	for _, s := range n.subnets {
		if g.one(2) {
			names = append(names, s.name)
		}
	}
	if names == nil {
		names = []any{n.subnets[0].name}
	}
	return names
}

// public makes a public address and returns its name.
func (g *generator) public(sku string) string {
	name, properties := fmt.Sprint("pip", g.publics), object{}
	if !g.one(12) {
		properties["ipAddress"] = fmt.Sprintf("203.0.113.%d", 10+g.publics)
		g.prefixes = append(g.prefixes, fmt.Sprintf("203.0.113.%d/32", 10+g.publics))
	}
	g.publics++
	p := named("publicIPAddresses", name, properties)
	p["sku"] = object{"name": sku}
	g.add(p)
	return name
}

func (g *generator) sku() string { return pick(g, "Basic", "Standard") }

func (g *generator) addPublicAddresses() {
	for _, n := range g.networks {
		for _, s := range n.subnets {
			s.nat = g.one(4)
		}
	}
	for _, n := range g.nics {
		for _, c := range n.configs {
			if g.one(3) {
				sku := g.sku()
				if n.nat {
					sku = "Standard"
				}
				c["publicIPAddress"] = reference(g.public(sku))
			}
		}
	}
	if g.one(4) {
		g.public(g.sku()) // nobody's
	}
}

// addGateways makes NAT gateways.
func (g *generator) addGateways() {
	for _, n := range g.networks {
		for _, s := range n.subnets {
			if !s.nat {
				continue
			}
			properties := object{}
			name := "nat-" + s.name
			if !g.one(3) {
				addresses := []any{reference(g.public("Standard"))}
				if g.one(3) {
					addresses = append(addresses, reference(g.public("Standard")))
				}
				properties["publicIpAddresses"] = addresses
			}
			if g.one(4) {
				prefix := named("publicIPPrefixes", "prefix-"+s.name, object{"ipPrefix": fmt.Sprintf("203.0.113.%d/30", 128+4*len(g.w.Resources)%100)})
				prefix["sku"] = object{"name": "Standard"}
				g.add(prefix)
				properties["publicIpPrefixes"] = []any{reference("prefix-" + s.name)}
			}
			gateway := named("natGateways", name, properties)
			gateway["sku"] = object{"name": "Standard"}
			g.add(gateway)
			s.body["natGateway"] = reference(name)
		}
	}
}

// addManager gives some networks admin rules.
func (g *generator) addManager() {
	if !g.one(4) {
		return
	}
	g.add(named("networkManagers/networkGroups", "nm/prod", object{}))
	for i, n := range g.networks {
		if !g.one(3) {
			g.add(named("networkManagers/networkGroups/staticMembers", fmt.Sprint("nm/prod/m", i), object{"resourceId": n.name}))
		}
	}
	g.add(named("networkManagers/securityAdminConfigurations", "nm/c", object{}))
	for i := range 1 + g.IntN(2) {
		var rules []any
		for j := range 1 + g.IntN(3) {
			rules = append(rules, object{"type": "rules", "name": fmt.Sprintf("admin%d-%d", i, j), "kind": "Custom", "properties": object{
				"priority": 10*j + g.IntN(10) + 1, "direction": pick(g, "Inbound", "Outbound"), "access": pick(g, "Allow", "AlwaysAllow", "Deny"),
				"protocol": pick(g, "Any", "Tcp", "Udp", "Icmp"), "sources": g.adminPeers(), "destinations": g.adminPeers(),
				"destinationPortRanges": g.adminPorts(), "sourcePortRanges": []any{"0-65535"},
			}})
		}
		collection := named("networkManagers/securityAdminConfigurations/ruleCollections", fmt.Sprint("nm/c/rc", i),
			object{"appliesToGroups": []any{object{"networkGroupId": "nm/prod"}}})
		collection["resources"] = rules
		g.add(collection)
	}
}

func (g *generator) adminPeers() []any {
	if g.one(2) {
		return []any{object{"addressPrefixType": "IPPrefix", "addressPrefix": "*"}}
	}
	return []any{object{"addressPrefixType": "IPPrefix", "addressPrefix": pick(g, g.prefixes...)}}
}

func (g *generator) adminPorts() []any {
	if g.one(2) {
		return []any{"0-65535"}
	}
	return []any{pick(g, rulePorts[1:]...)}
}

// attach leaves some of the world without an attachment.
func (g *generator) attach() {
	list := &g.w.Attachments
	for _, n := range g.nics {
		if n == g.hub || !g.one(10) {
			*list = append(*list, attachment{NetworkInterface: n.name})
		}
	}
	for _, n := range g.networks {
		for _, s := range n.subnets {
			if !g.one(5) {
				*list = append(*list, attachment{Subnet: s.id()})
			}
		}
		if n.gateway {
			*list = append(*list, attachment{Gateway: n.name, Prefixes: []string{pick(g, onPremises, onPremises, onPremises, "0.0.0.0/0")}})
		}
	}
	if !g.one(12) {
		*list = append(*list, attachment{Internet: true})
	}
	if !g.one(6) {
		*list = append(*list, attachment{Platform: true})
	}
	if len(*list) == 0 {
		*list = append(*list, attachment{Internet: true})
	}
	g.Shuffle(len(*list), func(i, j int) { (*list)[i], (*list)[j] = (*list)[j], (*list)[i] })
}

// addRouteTables makes route tables for some subnets.
func (g *generator) addRouteTables() {
	for _, n := range g.networks {
		tables := g.IntN(3)
		for i := range tables {
			properties := object{"routes": g.routes(n)}
			if g.one(6) {
				properties["disableBgpRoutePropagation"] = true
			}
			g.add(named("routeTables", fmt.Sprintf("rt-%s-%d", n.name, i), properties))
		}
		if tables == 0 {
			continue
		}
		some := func() object { return reference(fmt.Sprintf("rt-%s-%d", n.name, g.IntN(tables))) }
		for _, s := range n.subnets {
			if !g.one(3) && (g.hub == nil || g.hub.subnet != s || g.one(4)) { // what the hub sends goes straight on
				s.body["routeTable"] = some()
			}
		}
		if n.gateway && g.one(3) {
			subnets := n.body["subnets"].([]any)
			subnets[len(subnets)-1].(object)["properties"].(object)["routeTable"] = some()
		}
	}
}

// routes are those of a network's route table.
func (g *generator) routes(n *network) (routes []any) {
	var taken []string
	for i := range 1 + g.IntN(4) {
		prefix := pick(g, "0.0.0.0/0", "0.0.0.0/0", n.space, pick(g, g.networks...).space, pick(g, g.prefixes...), onPremises, "198.51.100.0/24", "203.0.113.0/24", "10.0.0.0/8", "168.63.129.16/32", "8.8.8.0/24")
		if slices.Contains(taken, prefix) {
			continue
		}
		taken = append(taken, prefix)
		r := object{"addressPrefix": prefix}
		switch g.IntN(16) {
		case 0:
			r["nextHopType"] = "None"
		case 1, 2:
			r["nextHopType"] = "Internet"
		case 3:
			r["nextHopType"] = "VnetLocal"
		case 4:
			r["nextHopType"] = "VirtualNetworkGateway"
		default:
			r["nextHopType"], r["nextHopIpAddress"] = "VirtualAppliance", g.appliance(n)
			g.hops = append(g.hops, r)
		}
		routes = append(routes, child(fmt.Sprint("r", i), r))
	}
	return routes
}

// appliance is a next hop of a network: mostly a NIC there, or with the peer, that forwards.
func (g *generator) appliance(n *network) string {
	if g.hub != nil && (g.peered || g.hub.network == n) && !g.one(4) {
		return pick(g, g.hub.addresses...)
	}
	for range 8 {
		if other := pick(g, g.nics...); other.forwards && (g.peered || other.network == n) {
			return pick(g, other.addresses...)
		}
	}
	if g.one(2) {
		return pick(g, g.nics...).addresses[0]
	}
	return "10.0.0.99"
}
