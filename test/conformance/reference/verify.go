package reference

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Question is a question of IP flow verify.
type Question struct {
	NIC, Direction, Protocol string
	LocalAddress, LocalPort  string
	RemoteAddress            string
	RemotePort               string
}

// Answer names the rule and the NSG that decided. Both are empty when no NSG stands there.
type Answer struct{ Access, RuleName, NetworkSecurityGroup string }

// Verify evaluates a NIC's own NSGs: inbound the subnet's and then the NIC's, outbound the NIC's
// and then the subnet's. Each must allow, and the first Deny ends it. The answer names the last
// NSG that was evaluated.
func (p *Policy) Verify(q Question) (Answer, error) {
	nic, subnetID, err := p.find(q.NIC, q.LocalAddress)
	if err != nil {
		return Answer{}, err
	}
	subnet := p.byID(subnetID)
	chain := []object{p.byID(reference(subnet, "networkSecurityGroup")), p.byID(reference(nic, "networkSecurityGroup"))}
	if q.Direction == "Outbound" {
		slices.Reverse(chain)
	}
	flow := p.flow(q)
	answer := Answer{Access: "Allow"}
	for _, nsg := range chain {
		if nsg == nil {
			continue
		}
		answer = p.firstMatch(nsg, q.Direction, flow, subnetID)
		if answer.Access == "Deny" {
			break
		}
	}
	return answer, nil
}

// find finds a NIC and the subnet of one of its addresses.
func (p *Policy) find(name, address string) (nic object, subnetID string, err error) {
	for _, n := range p.ofType("networkInterfaces") {
		if !strings.EqualFold(text(n, "name"), name) {
			continue
		}
		for _, c := range objects(n, "ipConfigurations") {
			if netip.MustParseAddr(text(c, "privateIPAddress")) == netip.MustParseAddr(address) {
				return n, reference(c, "subnet"), nil
			}
		}
	}
	return nil, "", fmt.Errorf("no NIC %s with address %s", name, address)
}

// flow is the fields that rules match: addresses, ports and protocol of a flow's first packet.
type flow struct {
	source, destination         netip.Addr
	sourcePort, destinationPort int    // noPort for a protocol without ports
	protocol                    string // Tcp, Udp, Icmp, Esp, Ah or another one's number
}

// noPort is the port of a protocol without ports. Only a rule for all ports matches it.
const noPort = -1

func (p *Policy) flow(q Question) flow {
	local, remote := netip.MustParseAddr(q.LocalAddress), netip.MustParseAddr(q.RemoteAddress)
	f := flow{source: local, destination: remote, protocol: q.Protocol, sourcePort: noPort, destinationPort: noPort}
	sourcePort, destinationPort := q.LocalPort, q.RemotePort
	if q.Direction == "Inbound" {
		f.source, f.destination = remote, local
		sourcePort, destinationPort = q.RemotePort, q.LocalPort
	}
	switch strings.ToUpper(q.Protocol) {
	case "TCP", "UDP":
		f.sourcePort, f.destinationPort = port(sourcePort), port(destinationPort)
	case "ICMP":
		// The question is about an echo request. Its type takes the destination port's place.
		f.destinationPort = 8
		if f.source.Is6() {
			f.destinationPort = 128
		}
	}
	return f
}

// port is the number of a port. "*" as a source port is asked as 0.
func port(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

// firstMatch is the first rule that matches, by ascending priority. The default rules come last,
// and one of them always matches.
func (p *Policy) firstMatch(nsg object, direction string, f flow, subnetID string) Answer {
	rules := slices.DeleteFunc(objects(nsg, "securityRules"), func(r object) bool { return !strings.EqualFold(text(r, "direction"), direction) })
	slices.SortFunc(rules, func(a, b object) int { return number(a, "priority") - number(b, "priority") })
	name := text(nsg, "name")
	for _, r := range rules {
		if p.matches(r, f, subnetID) {
			access := "Deny"
			if strings.EqualFold(text(r, "access"), "Allow") {
				access = "Allow"
			}
			return Answer{access, "securityRules/" + text(r, "name"), name}
		}
	}
	return p.defaultRule(direction, f, subnetID, name)
}

// defaultRule is the first matching rule of the three default rules of a direction.
func (p *Policy) defaultRule(direction string, f flow, subnetID, nsg string) Answer {
	within := p.inTag("VirtualNetwork", f.source, subnetID) && p.inTag("VirtualNetwork", f.destination, subnetID)
	switch {
	case direction == "Inbound" && within:
		return Answer{"Allow", "defaultSecurityRules/AllowVnetInBound", nsg}
	case direction == "Inbound" && p.inTag("AzureLoadBalancer", f.source, subnetID):
		return Answer{"Allow", "defaultSecurityRules/AllowAzureLoadBalancerInBound", nsg}
	case direction == "Inbound":
		return Answer{"Deny", "defaultSecurityRules/DenyAllInBound", nsg}
	case within:
		return Answer{"Allow", "defaultSecurityRules/AllowVnetOutBound", nsg}
	case p.inTag("Internet", f.destination, subnetID):
		return Answer{"Allow", "defaultSecurityRules/AllowInternetOutBound", nsg}
	}
	return Answer{"Deny", "defaultSecurityRules/DenyAllOutBound", nsg}
}

func (p *Policy) matches(r object, f flow, subnetID string) bool {
	protocol := text(r, "protocol")
	return (protocol == "*" || strings.EqualFold(protocol, f.protocol)) &&
		inRanges(oneOrMore(r, "sourcePortRange", "sourcePortRanges"), f.sourcePort) &&
		inRanges(oneOrMore(r, "destinationPortRange", "destinationPortRanges"), f.destinationPort) &&
		p.inSide(r, "source", f.source, subnetID) && p.inSide(r, "destination", f.destination, subnetID)
}

func inRanges(ranges []string, port int) bool {
	if port == noPort {
		return allPorts(ranges)
	}
	for _, text := range ranges {
		if text == "*" {
			return true
		}
		if first, last := bounds(text); first <= port && port <= last {
			return true
		}
	}
	return false
}

func bounds(text string) (first, last int) {
	low, high, isRange := strings.Cut(text, "-")
	if !isRange {
		high = low
	}
	first, _ = strconv.Atoi(low)
	last, _ = strconv.Atoi(high)
	return first, last
}

// allPorts reports that ranges leave no gap: neither at 0 nor behind any range.
func allPorts(ranges []string) bool {
	if !inRanges(ranges, 0) {
		return false
	}
	for _, text := range ranges {
		if text == "*" {
			return true
		}
		if _, last := bounds(text); last < 65535 && !inRanges(ranges, last+1) {
			return false
		}
	}
	return true
}

// inSide reports whether an address matches one side of a rule.
func (p *Policy) inSide(r object, side string, a netip.Addr, subnetID string) bool {
	for _, id := range references(r, side+"ApplicationSecurityGroups") {
		if p.isMember(id, a) {
			return true
		}
	}
	for _, text := range oneOrMore(r, side+"AddressPrefix", side+"AddressPrefixes") {
		if text == "*" || p.inPrefixOrTag(text, a, subnetID) {
			return true
		}
	}
	return false
}

// isMember reports whether an address belongs to an IP configuration that names the ASG.
func (p *Policy) isMember(asgID string, a netip.Addr) bool {
	for _, n := range p.ofType("networkInterfaces") {
		for _, c := range objects(n, "ipConfigurations") {
			if netip.MustParseAddr(text(c, "privateIPAddress")) == a && slices.Contains(references(c, "applicationSecurityGroups"), asgID) {
				return true
			}
		}
	}
	return false
}

func (p *Policy) inPrefixOrTag(text string, a netip.Addr, subnetID string) bool {
	if b, err := netip.ParseAddr(text); err == nil {
		return a == b
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return prefix.Contains(a)
	}
	return p.inTag(text, a, subnetID)
}
