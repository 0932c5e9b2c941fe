package enginetest

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// The attachments of the oracle's world: three NICs of their own, a subnet with
// everything in it, and both kinds of outside.
const (
	AtVM1 = iota
	AtVM2
	AtVM3
	AtSubnet3
	AtInternet
	AtPlatform
	NumPlaces
)

var Specs = []topology.Spec{
	{Kind: topology.NetworkInterface, Reference: "vm1-nic"},
	{Kind: topology.NetworkInterface, Reference: "vm2-nic"},
	{Kind: topology.NetworkInterface, Reference: "vm3-nic"},
	{Kind: topology.Subnet, Reference: "vnet1/Subnet3"},
	{Kind: topology.Internet},
	{Kind: topology.Platform},
}

// host is somebody who sends and receives: an address of each family and the
// attachment behind which it is found.
type Host struct {
	At     int
	V4, V6 string
}

// Hosts are who packets come from and go to. A policy may have moved the
// second; the last ones nobody can be.
var Hosts = []Host{
	{AtVM1, "10.0.1.4", "fd00:0:0:1::4"},
	{AtVM2, "10.0.1.5", "fd00:0:0:1::5"},
	{AtVM3, "10.0.2.4", "fd00:0:0:2::4"},
	{AtSubnet3, "10.0.3.4", "fd00:0:0:3::4"}, // a NIC of its own behind the subnet's attachment
	{AtSubnet3, "10.0.3.77", "fd00:0:0:3::77"},
	{AtInternet, "203.0.113.10", "2001:db8::10"},
	{AtInternet, "198.51.100.1", "2606::1"},
	{AtPlatform, "168.63.129.16", "fe80::1"},
	{AtVM2, "10.0.1.6", "fd00:0:0:1::6"},
	{AtVM1, "10.0.1.77", "fd00:0:0:1::77"},
	{AtInternet, "192.168.1.1", "fc00::1"},
	{AtVM1, "10.0.1.255", "fd00:1::1"},
	{AtVM1, "255.255.255.255", "::"},
	{AtVM1, "224.0.0.251", "ff02::fb"},
	{AtVM1, "239.1.1.1", "ff05::1"},
	{AtInternet, "127.0.0.1", "::1"},
	{AtInternet, "0.0.0.0", "::ffff:10.0.1.4"},
	{AtPlatform, "169.254.169.254", "fe80::2"},
	{AtInternet, "23.102.135.246", "2001:db8::17"},
}

// Address is the IPv4 address for family 0, the IPv6 address for family 1.
func (h Host) Address(family int) string { return [...]string{h.V4, h.V6}[family] }

// PolicyFrom reads a policy: which NSGs stand where and what their rules are.
// No bytes give one without NSGs, which allows everything.
func PolicyFrom(c *packettest.Choices) *policy.Set {
	vnet := &policy.VirtualNetwork{Name: "vnet1", ID: "/vnet/vnet1",
		AddressSpace: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("fd00::/48")}}
	set := &policy.Set{VirtualNetworks: []*policy.VirtualNetwork{vnet}}
	for i := range c.Next(5) {
		name := fmt.Sprintf("NSG%d", i+1)
		g := &ruleset.NSG{Name: name, ID: "/nsg/" + name, FlushConnection: c.Next(3) > 0}
		for n := range c.Next(6) {
			g.Rules = append(g.Rules, ruleFrom(c, n))
		}
		set.NetworkSecurityGroups = append(set.NetworkSecurityGroups, g)
	}
	group := func() *ruleset.NSG {
		if i := c.Next(len(set.NetworkSecurityGroups) + 2); i < len(set.NetworkSecurityGroups) {
			return set.NetworkSecurityGroups[i]
		}
		return nil
	}
	for i := 1; i <= 3; i++ {
		vnet.Subnets = append(vnet.Subnets, &policy.Subnet{
			Name: fmt.Sprintf("Subnet%d", i), ID: fmt.Sprintf("/vnet/vnet1/Subnet%d", i), VirtualNetwork: vnet, NetworkSecurityGroup: group(),
			Prefixes: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i)), netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%d::/64", i))}})
	}
	for i, subnet := range []int{1, 1, 2, 3} {
		host := Hosts[i]
		if i == 1 && c.Next(8) == 7 {
			host = Hosts[8] // VM2 has moved
		}
		name := fmt.Sprintf("vm%d-nic", i+1)
		nic := &policy.NetworkInterface{Name: name, ID: "/nic/" + name, NetworkSecurityGroup: group()}
		var groups []string
		if i == 0 || i == 3 {
			groups = []string{"/asg/web"}
		}
		for family, address := range []string{host.V4, host.V6} {
			nic.IPConfigurations = append(nic.IPConfigurations, policy.IPConfiguration{Name: fmt.Sprint("ipconfig", family),
				Address: netip.MustParseAddr(address), Subnet: vnet.Subnets[subnet-1], Primary: family == 0, ApplicationSecurityGroups: groups})
		}
		set.NetworkInterfaces = append(set.NetworkInterfaces, nic)
	}
	set.NetworkInterfaces[2].EnableIPForwarding = c.Next(4) == 3
	set.NetworkInterfaces[0].DisableTCPStateTracking = c.Next(4) == 3
	vnet.FlowTimeout = packettest.Pick(c, 0, 10*time.Minute)
	adminFrom(c, set)
	return set
}

// ruleFrom reads one user rule. Its name is unique among the first n+1.
func ruleFrom(c *packettest.Choices, n int) ruleset.Rule {
	r := ruleset.Rule{
		Name:      fmt.Sprintf("rule%d", n),
		Priority:  100 + 8*c.Next(256) + n, // unique, and not in the order of the document
		Direction: packettest.Pick(c, ruleset.Inbound, ruleset.Outbound),
		Access:    packettest.Pick(c, ruleset.Allow, ruleset.Deny),
		Protocol:  packettest.Pick(c, ruleset.AnyProtocol, ruleset.TCP, ruleset.UDP, ruleset.ICMP, ruleset.ICMPv6, ruleset.ESP, ruleset.AH),
	}
	if n == 0 && c.Next(16) == 15 {
		r.Name = packettest.Pick(c, "DenyAllInBound", "AllowVnetOutBound") // which a default rule has too
	}
	r.Source, r.Destination = peerFrom(c), peerFrom(c)
	r.SourcePorts, r.DestinationPorts = []ruleset.PortRange{ruleset.AllPorts}, portsFrom(c)
	if c.Next(8) == 7 {
		r.SourcePorts = portsFrom(c)
	}
	return r
}

var Prefixes = func() (list []netip.Prefix) {
	for _, p := range []string{"0.0.0.0/0", "::/0", "10.0.0.0/16", "fd00::/48", "10.0.1.0/24", "fd00:0:0:1::/64", "10.0.1.4/32",
		"fd00:0:0:1::4/128", "10.0.2.0/23", "fd00:0:0:2::/63", "203.0.113.0/24", "2001:db8::/32", "203.0.113.10/32", "2001:db8::10/128"} {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}()

func peerFrom(c *packettest.Choices) ruleset.Peer {
	switch c.Next(12) {
	case 0, 1:
		return ruleset.Peer{Any: true}
	case 6:
		return ruleset.Peer{Tag: packettest.Pick(c, ruleset.TagPlatformDNS, ruleset.TagPlatformIMDS, ruleset.TagPlatformLKM)}
	case 2:
		return ruleset.Peer{Tag: ruleset.TagVirtualNetwork}
	case 3:
		return ruleset.Peer{Tag: ruleset.TagInternet}
	case 4:
		return ruleset.Peer{Tag: ruleset.TagAzureLoadBalancer}
	case 5:
		return ruleset.Peer{ApplicationSecurityGroups: []string{"/ASG/web"}} // ids have no case
	}
	var p ruleset.Peer
	for range 1 + c.Next(3) {
		p.Prefixes = append(p.Prefixes, packettest.Pick(c, Prefixes...))
	}
	return p
}

func portsFrom(c *packettest.Choices) []ruleset.PortRange {
	one := func(first, last uint16) []ruleset.PortRange { return []ruleset.PortRange{{First: first, Last: last}} }
	return packettest.Pick(c, one(0, 65535), one(80, 80), one(0, 79), one(1024, 65535), one(8, 8), one(128, 128), one(81, 81),
		[]ruleset.PortRange{{First: 82, Last: 65535}, {First: 0, Last: 80}},
		[]ruleset.PortRange{{First: 80, Last: 65535}, {First: 0, Last: 80}})
}

// adminFrom reads rule collections for the virtual network.
func adminFrom(c *packettest.Choices, set *policy.Set) {
	set.NetworkGroups = []*policy.NetworkGroup{{Name: "all", ID: "/group/all", Members: set.VirtualNetworks}}
	for i := range c.Next(3) {
		name := []string{"nm/config/a", "nm/config/b"}[i]
		rules := &ruleset.NSG{Name: name, ID: "/" + name, Admin: true}
		for n := range c.Next(4) {
			r := ruleFrom(c, n)
			r.Admin, r.Name, r.Priority = true, "admin"+r.Name, 1+4*c.Next(8)+n // perhaps that of another collection
			r.Access = packettest.Pick(c, ruleset.Allow, ruleset.AlwaysAllow, ruleset.Deny)
			for _, side := range []*ruleset.Peer{&r.Source, &r.Destination} {
				if side.ApplicationSecurityGroups != nil || ruleset.PlatformServiceOf(side.Tag) != nil {
					*side = packettest.Pick(c, ruleset.Peer{NetworkGroup: "/Group/ALL"},
						ruleset.Peer{AnyOf: []ruleset.Peer{{Tag: ruleset.TagInternet}, {Prefixes: Prefixes[8:10]}}})
				}
			}
			rules.Rules = append(rules.Rules, r)
		}
		collection := &policy.AdminCollection{Rules: rules}
		if c.Next(4) > 0 {
			collection.Networks = set.VirtualNetworks
		}
		set.AdminCollections = append(set.AdminCollections, collection)
	}
}
