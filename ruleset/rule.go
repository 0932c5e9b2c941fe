// Package ruleset holds network security groups as data: rules, the six default
// rules, tags, application security groups, limits, and validation with Azure's
// error codes. It knows nothing of files, packets, TUN devices or workers and
// can be used as a library. Package arm reads its JSON forms, package azure writes
// Azure's answers, package classifier compiles its rules.
package ruleset

import (
	"net/netip"
	"slices"
	"strconv"
)

// Direction is the direction of a rule's traffic, seen from the virtual machine.
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
	Allow                     // in an admin rule: the NSGs decide
	AlwaysAllow               // in admin rules only: no NSG is asked
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
	ICMP   // ICMP for IPv4 and ICMPv6 for IPv6
	ICMPv6 // ICMPv6 alone
	ESP
	AH
)

var protocolNames = [...]string{"*", "Tcp", "Udp", "Icmp", "Icmpv6", "Esp", "Ah"}

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
	// ApplicationSecurityGroups are resource ids as written: compare them without case.
	ApplicationSecurityGroups []string
	// In admin rules only: NetworkGroup is the id of a network manager's group of virtual
	// networks, AnyOf is several peers.
	NetworkGroup string
	AnyOf        []Peer
}

// Texts are what a peer names, as a document has it: *, a tag, ids of application security groups or of a
// network group, or addresses and prefixes.
func (p *Peer) Texts() []string {
	switch {
	case p.AnyOf != nil:
		var all []string
		p.Each(func(one *Peer) { all = append(all, one.Texts()...) })
		return all
	case p.Any:
		return []string{"*"}
	case p.Tag != "":
		return []string{p.Tag}
	case len(p.ApplicationSecurityGroups) > 0:
		return p.ApplicationSecurityGroups
	case p.NetworkGroup != "":
		return []string{p.NetworkGroup}
	}
	prefixes := make([]string, len(p.Prefixes))
	for i, prefix := range p.Prefixes {
		prefixes[i] = prefix.String()
		if prefix.IsSingleIP() {
			prefixes[i] = prefix.Addr().String()
		}
	}
	return prefixes
}

// Each calls f for each of AnyOf, or for the peer itself when that is empty.
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
	// Written is the rule as its document has it; nil for default and admin rules.
	Written *SecurityRule
}

// AppliesTo reports that a rule is for every source port and a destination port of a protocol.
func (r *Rule) AppliesTo(p Protocol, port uint16) bool {
	covers := func(ranges []PortRange, first, last uint16) bool {
		return slices.ContainsFunc(ranges, func(r PortRange) bool { return r.First <= first && last <= r.Last })
	}
	return (r.Protocol == AnyProtocol || r.Protocol == p) && covers(r.SourcePorts, AllPorts.First, AllPorts.Last) && covers(r.DestinationPorts, port, port)
}

// QualifiedName is the rule's name in IP flow verify and effective rules:
// "securityRules/NAME" or "defaultSecurityRules/NAME". Admin rules are
// "securityAdminRules/NAME"; how Azure names them is not known.
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
// "UserRule_NAME" or "DefaultRule_NAME". Admin rules are "AdminRule_NAME"; how Azure
// names them is not known.
func (r *Rule) PrefixedName() string {
	switch {
	case r.Default:
		return "DefaultRule_" + r.Name
	case r.Admin:
		return "AdminRule_" + r.Name
	}
	return "UserRule_" + r.Name
}

// SecurityRule is a rule as a document has it, before validation: every field is text in
// ARM's spelling. Empty strings and lists are fields that the document does not have.
type SecurityRule struct {
	Name        string
	ID          string
	Description string
	Protocol    string
	Access      string
	Direction   string
	Priority    string // a decimal number

	Source, Destination Side

	// Unknown holds the names of fields whose value the document doesn't give, such as
	// a template's expressions. They are not checked. A rule is returned only when all
	// of them are "name" or Literal fields.
	Unknown map[string]bool
}

// Side is what a rule says of one end of a flow.
type Side struct {
	PortRange     string
	PortRanges    []string
	AddressPrefix string
	// AddressPrefixes holds addresses and CIDRs only, never a tag or "*".
	AddressPrefixes           []string
	ApplicationSecurityGroups []string // resource ids
}

// Field is a field of a rule R as documents have it: one value under Name, or several
// under Plural. The readers of all formats work through the table of a rule's fields.
type Field[R any] struct {
	Name, Plural string             // ARM's names; empty for a form that does not exist
	Text         func(*R) *string   // the value under Name; nil without Name
	List         func(*R) *[]string // the values under Plural; nil without Plural
	Literal      bool               // no verdict depends on it
	References   bool               // the values are resource ids
}

// Names are the field's names in documents.
func (f *Field[R]) Names() []string {
	return slices.DeleteFunc([]string{f.Name, f.Plural}, func(name string) bool { return name == "" })
}

// SecurityRuleFields are the fields of a SecurityRule except its name and id.
var SecurityRuleFields = slices.Concat([]Field[SecurityRule]{
	{Name: "description", Text: func(r *SecurityRule) *string { return &r.Description }, Literal: true},
	{Name: "protocol", Text: func(r *SecurityRule) *string { return &r.Protocol }},
	{Name: "access", Text: func(r *SecurityRule) *string { return &r.Access }},
	{Name: "direction", Text: func(r *SecurityRule) *string { return &r.Direction }},
	{Name: "priority", Text: func(r *SecurityRule) *string { return &r.Priority }},
},
	sourceFields.table(func(r *SecurityRule) *Side { return &r.Source }),
	destinationFields.table(func(r *SecurityRule) *Side { return &r.Destination }),
)

// sideFields are the ARM names of the fields of one side.
type sideFields struct{ portRange, portRanges, prefix, prefixes, groups string }

var (
	sourceFields = sideFields{"sourcePortRange", "sourcePortRanges",
		"sourceAddressPrefix", "sourceAddressPrefixes", "sourceApplicationSecurityGroups"}
	destinationFields = sideFields{"destinationPortRange", "destinationPortRanges",
		"destinationAddressPrefix", "destinationAddressPrefixes", "destinationApplicationSecurityGroups"}
)

func (f *sideFields) table(side func(*SecurityRule) *Side) []Field[SecurityRule] {
	return []Field[SecurityRule]{
		{Name: f.portRange, Plural: f.portRanges,
			Text: func(r *SecurityRule) *string { return &side(r).PortRange },
			List: func(r *SecurityRule) *[]string { return &side(r).PortRanges }},
		{Name: f.prefix, Plural: f.prefixes,
			Text: func(r *SecurityRule) *string { return &side(r).AddressPrefix },
			List: func(r *SecurityRule) *[]string { return &side(r).AddressPrefixes }},
		{Plural: f.groups, References: true,
			List: func(r *SecurityRule) *[]string { return &side(r).ApplicationSecurityGroups }},
	}
}

// title is a field's name as Azure's messages spell it.
func title(field string) string { return string(field[0]-'a'+'A') + field[1:] }
