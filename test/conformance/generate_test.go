package conformance

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/test/conformance/reference"
)

// generated is a random policy with the material for questions about it.
type generated struct {
	r         *rand.Rand
	resources []map[string]any
	tags      map[string][]string
	flat      bool // az's form for the resource that is being made
	size      size

	networks []*generatedNetwork
	nics     []generatedNIC
	asgs     []string       // names
	members  map[string]int // the network of each ASG's members
	prefixes []netip.Prefix // that the policy names somewhere
	ports    []int          // that rules begin or end at
}

// size is the most of each that a policy has. Rules are those of a group in one direction.
type size struct{ networks, asgs, groups, nics, rules int }

// large policies have much of everything. Small ones have two of everything, so that names can be confused.
var (
	large = size{networks: 3, asgs: 5, groups: 5, nics: 7, rules: 23}
	small = size{networks: 2, asgs: 2, groups: 2, nics: 3, rules: 4}
)

type generatedNetwork struct {
	id      string
	space   [2]netip.Prefix // IPv4, IPv6
	subnets []generatedSubnet
}

type generatedSubnet struct {
	id     string
	prefix [2]netip.Prefix
}

type generatedNIC struct {
	name      string
	addresses []netip.Addr
}

// generate makes a policy: up to three virtual networks, NSGs at subnets and NICs, ASGs,
// service tags, NICs with several IP configurations.
func generate(r *rand.Rand, most size) *generated {
	g := &generated{r: r, size: most, tags: map[string][]string{}, members: map[string]int{}}
	g.serviceTags()
	networks := 1 + r.IntN(most.networks)
	for i := range networks {
		g.network(i)
	}
	for i := range r.IntN(most.asgs + 1) {
		name := fmt.Sprintf("asg%d", i)
		g.asgs = append(g.asgs, name)
		g.members[name] = r.IntN(networks)
		g.add("applicationSecurityGroups", name, map[string]any{})
	}
	groups := 1 + r.IntN(most.groups)
	g.networkDocuments(groups)
	for i := range 2 + r.IntN(most.nics-1) {
		g.nic(i, groups)
	}
	for i := range groups {
		g.group(fmt.Sprintf("nsg%d", i))
	}
	r.Shuffle(len(g.resources), func(i, j int) { g.resources[i], g.resources[j] = g.resources[j], g.resources[i] })
	return g
}

func (g *generated) document() []byte { return mustJSON(g.resources) }

func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // all its values can be written
	}
	return text
}

func (g *generated) tagFile() string {
	p := Policy{ServiceTags: g.tags}
	return p.TagFileText()
}

// add adds a resource, at random in ARM's form or in az's.
func (g *generated) add(kind, name string, properties map[string]any) {
	g.resources = append(g.resources, g.wrap(map[string]any{"type": "Microsoft.Network/" + kind, "name": name, "id": ID(kind, name)}, properties))
}

func (g *generated) wrap(o, properties map[string]any) map[string]any {
	if !g.flat {
		o["properties"] = properties
		return o
	}
	for k, v := range properties {
		o[k] = v
	}
	return o
}

var tagNames = []string{"Storage", "Storage.WestEurope", "Sql", "AzureCloud.westeurope"}

func (g *generated) serviceTags() {
	for _, name := range tagNames {
		for range 1 + g.r.IntN(4) {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + g.r.IntN(3)), byte(g.r.IntN(4)), byte(g.r.IntN(256)), 0}), 12+g.r.IntN(13)).Masked()
			if g.r.IntN(4) == 0 {
				p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x26, 0x03, 0x10, byte(g.r.IntN(4))}), 28+g.r.IntN(20)).Masked()
			}
			if !slices.Contains(g.tags[name], p.String()) {
				g.tags[name] = append(g.tags[name], p.String())
				g.prefixes = append(g.prefixes, p)
			}
		}
	}
}

// network places a virtual network, private or public.
func (g *generated) network(i int) {
	v := &generatedNetwork{id: ID("virtualNetworks", fmt.Sprintf("vnet%d", i))}
	v.space[0] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(pick(g.r, 10, 20, 172)), byte(16 + i), 0, 0}), 16)
	v.space[1] = netip.PrefixFrom(netip.AddrFrom16([16]byte{byte(pick(g.r, 0xfd, 0x2a)), byte(i)}), 48)
	for j := range 1 + g.r.IntN(3) {
		s := generatedSubnet{id: fmt.Sprintf("%s/subnets/s%d", v.id, j)}
		b := v.space[0].Addr().As4()
		b[2] = byte(j)
		s.prefix[0] = netip.PrefixFrom(netip.AddrFrom4(b), 24)
		c := v.space[1].Addr().As16()
		c[7] = byte(j)
		s.prefix[1] = netip.PrefixFrom(netip.AddrFrom16(c), 64)
		v.subnets = append(v.subnets, s)
		g.prefixes = append(g.prefixes, s.prefix[:]...)
	}
	g.prefixes = append(g.prefixes, v.space[:]...)
	g.networks = append(g.networks, v)
}

func (g *generated) networkDocuments(groups int) {
	for i, v := range g.networks {
		g.flat = g.r.IntN(2) == 0
		var subnets []any
		for j, s := range v.subnets {
			properties := map[string]any{"addressPrefixes": []string{s.prefix[0].String(), s.prefix[1].String()}}
			g.associate(properties, groups)
			subnets = append(subnets, g.wrap(map[string]any{"name": fmt.Sprintf("s%d", j), "id": s.id}, properties))
		}
		g.add("virtualNetworks", fmt.Sprintf("vnet%d", i), map[string]any{"subnets": subnets,
			"addressSpace": map[string]any{"addressPrefixes": []string{v.space[0].String(), v.space[1].String()}}})
	}
}

// associate usually gives a subnet or NIC an NSG.
func (g *generated) associate(properties map[string]any, groups int) {
	if g.r.IntN(4) > 0 {
		properties["networkSecurityGroup"] = map[string]any{"id": g.anyCase(ID("networkSecurityGroups", fmt.Sprintf("nsg%d", g.r.IntN(groups))))}
	}
}

// anyCase writes ids and tags in the case of various tools.
func (g *generated) anyCase(text string) string {
	switch g.r.IntN(6) {
	case 0:
		return strings.ToUpper(text)
	case 1:
		return strings.ToLower(text)
	}
	return text
}

func (g *generated) nic(i, groups int) {
	g.flat = g.r.IntN(2) == 0
	network := g.r.IntN(len(g.networks))
	v := g.networks[network]
	n := generatedNIC{name: fmt.Sprintf("nic%d", i)}
	var configurations []any
	for j := range 1 + g.r.IntN(4) {
		s := v.subnets[g.r.IntN(len(v.subnets))]
		a := s.prefix[min(j%3, 1)].Addr()
		for range 4 + 5*i + j {
			a = a.Next()
		}
		n.addresses = append(n.addresses, a)
		g.prefixes = append(g.prefixes, netip.PrefixFrom(a, a.BitLen()))
		properties := map[string]any{"privateIPAddress": a.String(), "primary": j == 0, "subnet": map[string]any{"id": s.id}}
		var member []any
		for _, name := range g.asgs {
			if g.members[name] == network && g.r.IntN(2) == 0 {
				member = append(member, map[string]any{"id": ID("applicationSecurityGroups", name)})
			}
		}
		if member != nil {
			properties["applicationSecurityGroups"] = member
		}
		configurations = append(configurations, g.wrap(map[string]any{"name": fmt.Sprintf("c%d", j)}, properties))
	}
	properties := map[string]any{"ipConfigurations": configurations}
	g.associate(properties, groups)
	g.add("networkInterfaces", n.name, properties)
	g.nics = append(g.nics, n)
}

func (g *generated) group(name string) {
	g.flat = g.r.IntN(2) == 0
	rules := []any{}
	for _, direction := range []string{"Inbound", "Outbound"} {
		priorities := map[int]bool{}
		for i := range g.r.IntN(g.size.rules + 1) {
			priority := 100 + g.r.IntN(60)*g.r.IntN(60)
			if priorities[priority] {
				continue
			}
			priorities[priority] = true
			rules = append(rules, g.wrap(map[string]any{"name": fmt.Sprintf("%s%d", direction[:2], i)}, g.rule(direction, priority)))
		}
	}
	g.r.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
	g.add("networkSecurityGroups", name, map[string]any{"securityRules": rules, "defaultSecurityRules": []any{}})
}

func (g *generated) rule(direction string, priority int) map[string]any {
	properties := map[string]any{
		"priority": priority, "direction": g.anyCase(direction), "access": pick(g.r, "Allow", "Deny", "allow", "DENY"),
		"protocol": pick(g.r, "Tcp", "TCP", "Udp", "udp", "Icmp", "Esp", "Ah", "*", "*", "*", "*", "*"),
	}
	family, network := g.r.IntN(3)/2, g.r.IntN(len(g.networks))
	g.side(properties, "source", family, network)
	g.side(properties, "destination", family, network)
	g.portRanges(properties, "source", 8)
	g.portRanges(properties, "destination", 2)
	return properties
}

// side writes one side's addresses: prefixes of one family, ASGs of one virtual network.
func (g *generated) side(properties map[string]any, end string, family, network int) {
	var asgs []any
	for _, name := range g.asgs {
		if g.members[name] == network && g.r.IntN(3) > 0 {
			asgs = append(asgs, map[string]any{"id": g.anyCase(ID("applicationSecurityGroups", name))})
		}
	}
	one, many := end+"AddressPrefix", end+"AddressPrefixes"
	switch n := g.r.IntN(12); {
	case n < 4:
		properties[one] = "*"
	case n < 7:
		properties[one] = g.anyCase(pick(g.r, "VirtualNetwork", "Internet", "AzureLoadBalancer", "VIRTUAL_NETWORK"))
	case n < 8:
		properties[one] = g.anyCase(tagNames[g.r.IntN(len(tagNames))])
	case n < 9 && asgs != nil:
		properties[end+"ApplicationSecurityGroups"] = asgs
	default:
		list := g.disjoint(family)
		if len(list) == 1 {
			properties[one] = list[0]
			properties[many] = []string{}
		} else {
			properties[many] = list
		}
	}
}

// disjoint are prefixes of a family that do not overlap, as lists require.
func (g *generated) disjoint(family int) []string {
	var chosen []netip.Prefix
	for range 1 + g.r.IntN(3) {
		p := g.prefixes[g.r.IntN(len(g.prefixes))]
		if g.r.IntN(3) == 0 {
			p = netip.PrefixFrom(p.Addr(), max(1, p.Bits()-g.r.IntN(8))).Masked()
		}
		if p.Addr().Is6() != (family == 1) || slices.ContainsFunc(chosen, p.Overlaps) {
			continue
		}
		chosen = append(chosen, p)
	}
	if chosen == nil {
		return []string{[]string{"0.0.0.0/0", "::/0"}[family]}
	}
	var list []string
	for _, p := range chosen {
		g.prefixes = append(g.prefixes, p)
		if p.IsSingleIP() && g.r.IntN(2) == 0 {
			list = append(list, p.Addr().String())
			continue
		}
		list = append(list, p.String())
	}
	return list
}

// portRanges writes one side's ports; in one of "any" times it restricts them.
func (g *generated) portRanges(properties map[string]any, end string, any int) {
	one, many := end+"PortRange", end+"PortRanges"
	if g.r.IntN(any) > 0 {
		properties[one] = "*"
		return
	}
	var list []string
	for range 1 + g.r.IntN(3) {
		first := pick(g.r, 0, 8, 22, 80, 128, 443, 1024, 8080, 65535)
		last := min(65535, first+pick(g.r, 0, 0, 0, 1, 10, 1000, 65535))
		g.ports = append(g.ports, first, last)
		if first == last {
			list = append(list, fmt.Sprint(first))
		} else {
			list = append(list, fmt.Sprintf("%d-%d", first, last))
		}
	}
	if len(list) == 1 {
		properties[one] = list[0]
		return
	}
	properties[many] = list
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// question is a random question, close to the policy's prefixes and ports.
func (g *generated) question() reference.Question {
	n := g.nics[g.r.IntN(len(g.nics))]
	local := n.addresses[g.r.IntN(len(n.addresses))]
	q := reference.Question{
		NIC: n.name, Direction: pick(g.r, "Inbound", "Outbound"), Protocol: pick(g.r, "TCP", "TCP", "TCP", "UDP", "UDP", "ICMP", "ESP", "AH", "47", "132"),
		LocalAddress: local.String(), LocalPort: g.port(), RemoteAddress: g.remote(local.Is6()).String(), RemotePort: g.port(),
	}
	if g.r.IntN(20) == 0 {
		if q.Direction == "Inbound" {
			q.RemotePort = "*"
		} else {
			q.LocalPort = "*"
		}
	}
	return q
}

func (g *generated) port() string {
	if len(g.ports) == 0 || g.r.IntN(3) == 0 {
		return fmt.Sprint(g.r.IntN(65536))
	}
	return fmt.Sprint(max(0, min(65535, g.ports[g.r.IntN(len(g.ports))]+g.r.IntN(3)-1)))
}

// remote is an address of a family: in or at the edges of a prefix of the policy, or anywhere.
func (g *generated) remote(six bool) netip.Addr {
	for range 20 {
		p := g.prefixes[g.r.IntN(len(g.prefixes))]
		if p.Addr().Is6() != six {
			continue
		}
		a := p.Addr()
		switch g.r.IntN(4) {
		case 0:
			a = g.within(p)
		case 1:
			if a.Prev().IsValid() {
				a = a.Prev()
			}
		case 2:
			a = last(p)
		case 3:
			if n := last(p).Next(); n.IsValid() {
				a = n
			}
		}
		return a
	}
	if six {
		return netip.AddrFrom16([16]byte{byte(g.r.IntN(256)), byte(g.r.IntN(256)), 15: 1})
	}
	return netip.AddrFrom4([4]byte{byte(g.r.IntN(256)), byte(g.r.IntN(256)), byte(g.r.IntN(256)), byte(g.r.IntN(256))})
}

func (g *generated) within(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		if g.r.IntN(2) == 0 {
			b[bit/8] |= 0x80 >> (bit % 8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
