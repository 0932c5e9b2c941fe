package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
)

// The figure that the comparison runs on: VM1 and VM2 in one subnet, VM3 and VM4 in
// one each, and the internet.
const (
	figureVMs      = 4
	figureSubnets  = 3
	figureHosts    = figureVMs + 1
	figureInternet = figureVMs // index of the internet among the hosts
)

// subnetOf is the subnet of each VM.
var subnetOf = [figureVMs]int{0, 0, 1, 2}

// figureSpace is the virtual network. Part of it is public, which the Internet tag has to
// leave out. The subnets are large, because every policy has VMs at addresses of its own.
var (
	figureSpace = []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("20.7.0.0/16"),
		netip.MustParsePrefix("fd00:1::/48"), netip.MustParsePrefix("2a01:7::/48"),
	}
	figureSubnet = [figureSubnets][2]netip.Prefix{
		{netip.MustParsePrefix("10.0.16.0/20"), netip.MustParsePrefix("fd00:1:0:1::/64")},
		{netip.MustParsePrefix("10.0.32.0/20"), netip.MustParsePrefix("fd00:1:0:2::/64")},
		{netip.MustParsePrefix("20.7.48.0/20"), netip.MustParsePrefix("2a01:7:0:3::/64")},
	}
	// outside are the addresses that the internet's host speaks for.
	outside = [2][]netip.Addr{
		{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.77"), netip.MustParseAddr("198.51.100.5")},
		{netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("2001:db8::77"), netip.MustParseAddr("2001:db8:5::5")},
	}
)

// scenario is one random policy: groups of rules, where they stand, and the VMs' addresses.
type scenario struct {
	groups      [][]scenarioRule
	subnetGroup [figureSubnets]int // index into groups, or noGroup
	nicGroup    [figureVMs]int
	address     [figureVMs][2]netip.Addr // by family: IPv4, IPv6
}

const noGroup = -1

// scenarioRule is a user rule in the words of ARM: a list of one is written in the
// singular field.
type scenarioRule struct {
	name                          string
	priority                      int
	direction, access, protocol   string
	source, destination           []string
	sourcePorts, destinationPorts []string
}

// maxScenarios is how many policies there are addresses for in the subnets.
const maxScenarios = 1000

// newScenario makes the n-th policy. No address of an earlier one is in it, so that the
// flows of earlier policies mean nothing to it, whatever nsgd does with them.
func newScenario(r *rand.Rand, n int) *scenario {
	s := &scenario{}
	s.place(n)
	for range 2 + r.IntN(3) {
		s.groups = append(s.groups, s.rules(r))
	}
	group := func() int {
		if r.IntN(3) == 0 {
			return noGroup
		}
		return r.IntN(len(s.groups))
	}
	for i := range s.subnetGroup {
		s.subnetGroup[i] = group()
	}
	for i := range s.nicGroup {
		s.nicGroup[i] = group()
	}
	return s
}

// place gives the VMs the addresses of the n-th policy.
func (s *scenario) place(n int) {
	for vm := range s.address {
		for family, prefix := range figureSubnet[subnetOf[vm]] {
			a := prefix.Addr()
			for range 8 + 4*(n%maxScenarios) + vm {
				a = a.Next()
			}
			s.address[vm][family] = a
		}
	}
}

// markerPort is that of the datagrams that follow every packet; every group lets them pass.
const markerPort = 65001

func (s *scenario) rules(r *rand.Rand) []scenarioRule {
	all := []string{"*"}
	var rules []scenarioRule
	for _, direction := range []string{"Inbound", "Outbound"} {
		rules = append(rules, scenarioRule{name: "AllowMarkers" + direction, priority: 100, direction: direction, access: "Allow",
			protocol: "Udp", source: all, destination: all, sourcePorts: all, destinationPorts: []string{fmt.Sprint(markerPort)}})
		priority := 100
		for i := range r.IntN(8) {
			priority += 1 + r.IntN(300)
			rule := scenarioRule{name: fmt.Sprintf("%s%d", direction, i), priority: priority, direction: direction,
				access: pick(r, "Allow", "Allow", "Allow", "Deny", "Deny"), protocol: pick(r, "Tcp", "Tcp", "Udp", "Icmp", "Esp", "Ah", "*", "*", "*")}
			family := r.IntN(2)
			rule.source, rule.destination = s.peer(r, family), s.peer(r, family)
			rule.sourcePorts, rule.destinationPorts = all, destinationPorts(r)
			if r.IntN(8) == 0 {
				rule.sourcePorts = pick(r, []string{"1024-65535"}, []string{"40000-40100", "40200-65535"}, []string{"0-39999"}, []string{"0-40050", "40051-65535"})
			}
			rules = append(rules, rule)
		}
	}
	return rules
}

// peer is one side's addresses; a rule's prefixes are of one family.
func (s *scenario) peer(r *rand.Rand, family int) []string {
	host := func() string { return s.address[r.IntN(figureVMs)][family].String() }
	switch r.IntN(10) {
	case 0, 1, 2:
		return []string{"*"}
	case 3:
		return []string{"VirtualNetwork"}
	case 4:
		return []string{"Internet"}
	case 5:
		return []string{pick(r, "AzureLoadBalancer", "VirtualNetwork", "Internet")}
	case 6:
		return []string{host()}
	case 7:
		return []string{figureSubnet[r.IntN(figureSubnets)][family].String()}
	case 8:
		return []string{pick(r, figureSpace[2*family+r.IntN(2)].String(), [2]string{"0.0.0.0/0", "::/0"}[family],
			[2]string{"203.0.113.0/24", "2001:db8::/64"}[family], outside[family][r.IntN(3)].String())}
	}
	return []string{host(), [2]string{"203.0.113.64/26", "2001:db8::40/122"}[family]}
}

// servicePorts are the ports that packets and rules meet at.
var servicePorts = []uint16{22, 53, 80, 443, 3000, 8080}

func destinationPorts(r *rand.Rand) []string {
	port := func() string { return fmt.Sprint(servicePorts[r.IntN(len(servicePorts))]) }
	switch r.IntN(8) {
	case 0, 1, 2:
		return []string{"*"}
	case 3:
		return []string{port()}
	case 4:
		// ICMP types too: echo of both families and unreachable among them.
		return []string{pick(r, "0-79", "8", "128-129", "3", "1-128", "443-8080")}
	case 5:
		return []string{"22", "80-443"}
	case 6:
		return []string{"0-1023", "8080", "3000-3001"}
	}
	return []string{port(), "8", "128", "13"}
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// document is the policy as ARM JSON, one list of resources.
func (s *scenario) document() string {
	const base = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/kernel/providers/Microsoft.Network/"
	type object = map[string]any
	reference := func(properties object, group int) object {
		if group != noGroup {
			properties["networkSecurityGroup"] = object{"id": fmt.Sprintf("%snetworkSecurityGroups/G%d", base, group)}
		}
		return properties
	}
	resource := func(kind, name string, properties object) object {
		return object{"type": "Microsoft.Network/" + kind, "name": name, "id": base + kind + "/" + name, "properties": properties}
	}
	var list, subnets []any
	for i, rules := range s.groups {
		documents := []any{}
		for _, r := range rules {
			documents = append(documents, object{"name": r.name, "properties": r.properties()})
		}
		list = append(list, resource("networkSecurityGroups", fmt.Sprintf("G%d", i), object{"securityRules": documents}))
	}
	for i, group := range s.subnetGroup {
		name := fmt.Sprintf("Subnet%d", i+1)
		subnets = append(subnets, object{"name": name, "id": base + "virtualNetworks/vnet1/subnets/" + name,
			"properties": reference(object{"addressPrefixes": figureSubnet[i]}, group)})
	}
	list = append(list, resource("virtualNetworks", "vnet1",
		object{"addressSpace": object{"addressPrefixes": figureSpace}, "subnets": subnets}))
	for vm, group := range s.nicGroup {
		var configurations []any
		for family, address := range s.address[vm] {
			configurations = append(configurations, object{"name": fmt.Sprintf("ipconfig%d", family), "properties": object{
				"privateIPAddress": address, "privateIPAddressVersion": [2]string{"IPv4", "IPv6"}[family],
				"privateIPAllocationMethod": "Static", "primary": family == 0,
				"subnet": object{"id": fmt.Sprintf("%svirtualNetworks/vnet1/subnets/Subnet%d", base, subnetOf[vm]+1)},
			}})
		}
		list = append(list, resource("networkInterfaces", fmt.Sprintf("vm%d-nic", vm+1),
			reference(object{"ipConfigurations": configurations}, group)))
	}
	text, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		panic(err) // nothing in it can't be written
	}
	return string(text)
}

func (r *scenarioRule) properties() map[string]any {
	p := map[string]any{"priority": r.priority, "direction": r.direction, "access": r.access, "protocol": r.protocol}
	for field, values := range map[string][]string{
		"sourceAddressPrefix": r.source, "destinationAddressPrefix": r.destination,
		"sourcePortRange": r.sourcePorts, "destinationPortRange": r.destinationPorts,
	} {
		if len(values) == 1 {
			p[field] = values[0]
			continue
		}
		plural := field + "s"
		if strings.HasSuffix(field, "Prefix") {
			plural = field + "es"
		}
		p[plural] = values
	}
	return p
}
