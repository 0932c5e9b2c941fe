package ruleset

import (
	"net/netip"
	"strconv"
)

// Direction says which way a rule looks, from the virtual machine's side.
type Direction uint8

const (
	Inbound Direction = iota
	Outbound
)

// String is the ARM spelling.
func (d Direction) String() string {
	if d == Outbound {
		return "Outbound"
	}
	return "Inbound"
}

// Access is what a matching rule does.
type Access uint8

const (
	Deny        Access = iota // the zero value denies: fail closed
	Allow                     // of an admin rule: the NSGs decide
	AlwaysAllow               // admin rules only: no NSG is asked
)

// String is the ARM spelling.
func (a Access) String() string {
	switch a {
	case Allow:
		return "Allow"
	case AlwaysAllow:
		return "AlwaysAllow"
	}
	return "Deny"
}

// Protocol is a rule's protocol.
type Protocol uint8

const (
	AnyProtocol Protocol = iota // "*": every IP protocol
	TCP
	UDP
	ICMP // ICMP for IPv4 and ICMPv6 for IPv6
	ESP
	AH
)

var protocolNames = [...]string{"*", "Tcp", "Udp", "Icmp", "Esp", "Ah"}

// String is the ARM spelling.
func (p Protocol) String() string { return protocolNames[p] }

// PortRange is an inclusive range of ports, First <= Last.
type PortRange struct{ First, Last uint16 }

// String is the spelling of documents: "*", "80" or "80-90".
func (r PortRange) String() string {
	switch {
	case r == AllPorts:
		return "*"
	case r.First == r.Last:
		return strconv.Itoa(int(r.First))
	}
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

// AllPorts is what "*" means.
var AllPorts = PortRange{0, 65535}

// Peer is one side of a rule: exactly one of its fields is set.
type Peer struct {
	Any      bool           // "*": every address of both families
	Tag      string         // service tag in canonical spelling, such as "VirtualNetwork"
	Prefixes []netip.Prefix // masked; "0.0.0.0/0" is every IPv4 address
	// ApplicationSecurityGroups are resource ids as written; compare with SameID.
	ApplicationSecurityGroups []string
	// NetworkGroup is the id of a network manager's group of virtual networks, and AnyOf
	// several peers; in admin rules only.
	NetworkGroup string
	AnyOf        []Peer
}

// Each calls f for the peer, or for each of AnyOf.
func (p *Peer) Each(f func(*Peer)) {
	if p.AnyOf == nil {
		f(p)
		return
	}
	for i := range p.AnyOf {
		f(&p.AnyOf[i])
	}
}

// Rule is one validated security rule.
type Rule struct {
	Name        string
	ID          string // resource id, empty when the document has none
	Description string
	Priority    int // 100..4096, admin rules from 1, default rules 65000..65500
	Direction   Direction
	Access      Access
	Protocol    Protocol
	Source      Peer
	Destination Peer
	// SourcePorts and DestinationPorts are never empty; "*" is {AllPorts}.
	SourcePorts, DestinationPorts []PortRange
	// Default marks one of Azure's six default rules.
	Default bool
	// Admin marks a security admin rule of a network manager.
	Admin bool
}

// QualifiedName is the rule's name in answers of IP flow verify and effective
// rules: "securityRules/NAME", "defaultSecurityRules/NAME" or, for which Azure's form is
// not known, "securityAdminRules/NAME".
func (r *Rule) QualifiedName() string {
	switch {
	case r.Default:
		return "defaultSecurityRules/" + r.Name
	case r.Admin:
		return "securityAdminRules/" + r.Name
	}
	return "securityRules/" + r.Name
}

// PrefixedName is the rule's name in NSG diagnostics and security group views:
// "UserRule_NAME", "DefaultRule_NAME" or, for which Azure's form is not known, "AdminRule_NAME".
func (r *Rule) PrefixedName() string {
	switch {
	case r.Default:
		return "DefaultRule_" + r.Name
	case r.Admin:
		return "AdminRule_" + r.Name
	}
	return "UserRule_" + r.Name
}

// NSG is one validated network security group, or a rule collection of security admin
// rules: that has no default rules.
type NSG struct {
	Admin           bool // a rule collection
	Name            string
	ID              string // resource id; made up from the name when the document has none
	ResourceGUID    string // resourceGuid, empty when the document has none
	Location        string
	FlushConnection bool
	Rules           []Rule // user rules only, in the order of the document
}

// The tags that need no tag file.
const (
	TagVirtualNetwork    = "VirtualNetwork"
	TagInternet          = "Internet"
	TagAzureLoadBalancer = "AzureLoadBalancer"
	TagPlatformDNS       = "AzurePlatformDNS"
	TagPlatformIMDS      = "AzurePlatformIMDS"
	TagPlatformLKM       = "AzurePlatformLKM"
)
