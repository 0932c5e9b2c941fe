// Package enginetest holds the policies that the tests of the engine, of the questions and of
// the verdict share.
package enginetest

import (
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// The attachments of the figure, by index.
const (
	VM1 = iota
	VM2
	VM3
	VM4
	Internet
	NumAttachments
)

const (
	Addr1 = "10.0.1.4"
	Addr2 = "10.0.1.5"
	Addr3 = "10.0.2.4"
	Addr4 = "10.0.3.4"
	World = "203.0.113.10"
)

var FigureSpecs = []topology.Spec{
	{Kind: topology.NetworkInterface, Reference: "vm1-nic"},
	{Kind: topology.NetworkInterface, Reference: "vm2-nic"},
	{Kind: topology.NetworkInterface, Reference: "vm3-nic"},
	{Kind: topology.NetworkInterface, Reference: "vm4-nic"},
	{Kind: topology.Internet},
}

// AllowHTTP is the rule of the figure.
func AllowHTTP() ruleset.Rule {
	return ruleset.Rule{Name: "AllowHttpInBound", Priority: 100, Direction: ruleset.Inbound, Access: ruleset.Allow,
		Protocol: ruleset.TCP, Source: ruleset.Peer{Tag: ruleset.TagInternet}, Destination: ruleset.Peer{Any: true},
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{{First: 80, Last: 80}}}
}

// AnyRule is a rule for everything.
func AnyRule(name string, priority int, d ruleset.Direction, a ruleset.Access) ruleset.Rule {
	return ruleset.Rule{Name: name, Priority: priority, Direction: d, Access: a,
		Source: ruleset.Peer{Any: true}, Destination: ruleset.Peer{Any: true},
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{ruleset.AllPorts}}
}

// Figure is the seed's figure with the given rules in NSG1 and NSG2.
func Figure(rules1, rules2 []ruleset.Rule) *policy.Set {
	nsg1 := &ruleset.NSG{Name: "NSG1", ID: "/nsg/NSG1", Rules: rules1}
	nsg2 := &ruleset.NSG{Name: "NSG2", ID: "/nsg/NSG2", Rules: rules2}
	vnet := &policy.VirtualNetwork{Name: "vnet1", ID: "/vnet/vnet1", AddressSpace: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	subnet := func(name, prefix string, g *ruleset.NSG) *policy.Subnet {
		s := &policy.Subnet{Name: name, ID: vnet.ID + "/" + name, VirtualNetwork: vnet, NetworkSecurityGroup: g,
			Prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)}}
		vnet.Subnets = append(vnet.Subnets, s)
		return s
	}
	s1 := subnet("Subnet1", "10.0.1.0/24", nsg1)
	s2 := subnet("Subnet2", "10.0.2.0/24", nil)
	s3 := subnet("Subnet3", "10.0.3.0/24", nil)
	nic := func(name, addr string, s *policy.Subnet, g *ruleset.NSG) *policy.NetworkInterface {
		return &policy.NetworkInterface{Name: name, ID: "/nic/" + name, NetworkSecurityGroup: g,
			IPConfigurations: []policy.IPConfiguration{{Name: "ipconfig1", Address: netip.MustParseAddr(addr), Subnet: s, Primary: true}}}
	}
	return &policy.Set{
		NetworkSecurityGroups: []*ruleset.NSG{nsg1, nsg2},
		VirtualNetworks:       []*policy.VirtualNetwork{vnet},
		NetworkInterfaces: []*policy.NetworkInterface{
			nic("vm1-nic", Addr1, s1, nsg2), nic("vm2-nic", Addr2, s1, nil),
			nic("vm3-nic", Addr3, s2, nsg2), nic("vm4-nic", Addr4, s3, nil),
		},
	}
}

func FigureOfTheSeed() *policy.Set {
	return Figure([]ruleset.Rule{AllowHTTP()}, []ruleset.Rule{AllowHTTP()})
}
