package ruleset

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Our own codes for security admin rules: no recording of Azure's codes was found.
const (
	CodeAdminInvalidName      = "SecurityAdminRuleInvalidName"
	CodeAdminDuplicateName    = "SecurityAdminRuleInvalidDuplicateName"
	CodeAdminInvalidKind      = "SecurityAdminRuleInvalidKind"
	CodeAdminConflict         = "SecurityAdminRuleConflict"
	CodeAdminInvalidPriority  = "SecurityAdminRuleInvalidPriority"
	CodeAdminInvalidProtocol  = "SecurityAdminRuleInvalidProtocol"
	CodeAdminInvalidAccess    = "SecurityAdminRuleInvalidAccess"
	CodeAdminInvalidDirection = "SecurityAdminRuleInvalidDirection"
	CodeAdminInvalidPorts     = "SecurityAdminRuleInvalidPortRange"
	CodeAdminInvalidAddress   = "SecurityAdminRuleInvalidAddressPrefix"
	CodeAdminMixedFamilies    = "SecurityAdminRuleMixedAddressFamilies"
)

// Priorities of security admin rules.
const (
	MinAdminPriority = 1
	MaxAdminPriority = 4096
)

// SecurityAdminCollection is a rule collection of security admin rules as a document has
// it, before validation.
type SecurityAdminCollection struct {
	File     string // for faults
	Resource string // for faults
	Name     string // MANAGER/CONFIGURATION/COLLECTION
	ID       string
	Rules    []SecurityAdminRule
}

// SecurityAdminRule is a security admin rule as a document has it: every field is text.
type SecurityAdminRule struct {
	Name, ID, Description string
	Kind                  string // Custom or empty
	Protocol              string
	Access                string
	Direction             string
	Priority              string
	Sources, Destinations []AdminPeer // empty: every address
	// Empty lists of ports mean every port.
	SourcePortRanges, DestinationPortRanges []string
}

// AdminRuleFields are the fields of a SecurityAdminRule except its name, id, kind and
// addresses.
var AdminRuleFields = []Field[SecurityAdminRule]{
	{Name: "description", Text: func(r *SecurityAdminRule) *string { return &r.Description }, Literal: true},
	{Name: "protocol", Text: func(r *SecurityAdminRule) *string { return &r.Protocol }},
	{Name: "access", Text: func(r *SecurityAdminRule) *string { return &r.Access }},
	{Name: "direction", Text: func(r *SecurityAdminRule) *string { return &r.Direction }},
	{Name: "priority", Text: func(r *SecurityAdminRule) *string { return &r.Priority }},
	{Plural: "sourcePortRanges", List: func(r *SecurityAdminRule) *[]string { return &r.SourcePortRanges }},
	{Plural: "destinationPortRanges", List: func(r *SecurityAdminRule) *[]string { return &r.DestinationPortRanges }},
}

// AdminPeer is an element of sources or destinations.
type AdminPeer struct {
	AddressPrefix     string
	AddressPrefixType string // IPPrefix, ServiceTag or NetworkGroup
}

// Validate checks a rule collection and returns every fault. The NSG holds the rules
// that have no fault.
func (c *SecurityAdminCollection) Validate(known KnownTags) (*NSG, Faults) {
	v := &adminValidator{collection: c, known: known}
	nsg := &NSG{Name: c.Name, ID: c.ID, Admin: true}
	names, priorities := map[string]bool{}, map[int]string{}
	for i := range c.Rules {
		raw := &c.Rules[i]
		before := len(v.faults)
		r := v.rule(raw)
		if name := strings.ToLower(raw.Name); names[name] {
			v.fail(raw, CodeAdminDuplicateName, "name", raw.Name, "Rule names are unique in a rule collection, whatever their case.")
		} else {
			names[name] = true
		}
		if other, taken := priorities[r.Priority]; taken && r.Priority != 0 {
			v.fail(raw, CodeAdminConflict, "priority", raw.Priority,
				"Security admin rule "+raw.Name+" conflicts with rule "+other+". Priorities are unique in a rule collection, in both directions together.")
		} else {
			priorities[r.Priority] = raw.Name
		}
		if len(v.faults) == before {
			nsg.Rules = append(nsg.Rules, r)
		}
	}
	return nsg, v.faults
}

type adminValidator struct {
	collection *SecurityAdminCollection
	known      KnownTags
	faults     Faults
}

func (v *adminValidator) fail(r *SecurityAdminRule, code, field, value, message string) {
	v.faults = append(v.faults, Fault{
		Code: code, File: v.collection.File, Resource: v.collection.Resource, Rule: r.Name,
		Field: field, Value: Clip(value), Message: message,
	})
}

var (
	adminProtocols = map[string]Protocol{"any": AnyProtocol, "tcp": TCP, "udp": UDP, "icmp": ICMP, "esp": ESP, "ah": AH}
	adminAccesses  = map[string]Access{"allow": Allow, "alwaysallow": AlwaysAllow, "deny": Deny}
)

func (v *adminValidator) rule(raw *SecurityAdminRule) Rule {
	r := Rule{Name: raw.Name, ID: raw.ID, Description: raw.Description, Admin: true}
	if !validName(raw.Name) {
		v.fail(raw, CodeAdminInvalidName, "name", raw.Name, nameRule)
	}
	if raw.Kind != "" && !strings.EqualFold(raw.Kind, "Custom") {
		v.fail(raw, CodeAdminInvalidKind, "kind", raw.Kind, "Supported is Custom: what a Default rule stands for is Azure's own.")
	}
	var ok bool
	if r.Protocol, ok = adminProtocols[strings.ToLower(raw.Protocol)]; !ok {
		v.fail(raw, CodeAdminInvalidProtocol, "protocol", raw.Protocol, "Allowed are Tcp, Udp, Icmp, Esp, Ah and Any.")
	}
	if r.Access, ok = adminAccesses[strings.ToLower(raw.Access)]; !ok {
		v.fail(raw, CodeAdminInvalidAccess, "access", raw.Access, "Allowed are Allow, AlwaysAllow and Deny.")
	}
	if r.Direction, ok = directions[strings.ToLower(raw.Direction)]; !ok {
		v.fail(raw, CodeAdminInvalidDirection, "direction", raw.Direction, "Allowed are Inbound and Outbound.")
	}
	priority, err := strconv.Atoi(raw.Priority)
	if err != nil || priority < MinAdminPriority || priority > MaxAdminPriority {
		v.fail(raw, CodeAdminInvalidPriority, "priority", raw.Priority, "Allowed are 1 to 4096.")
		priority = 0
	}
	r.Priority = priority
	r.SourcePorts = v.ports(raw, "sourcePortRanges", raw.SourcePortRanges)
	r.DestinationPorts = v.ports(raw, "destinationPortRanges", raw.DestinationPortRanges)
	r.Source = v.peers(raw, "sources", raw.Sources)
	r.Destination = v.peers(raw, "destinations", raw.Destinations)
	v.families(raw, &r)
	return r
}

func (v *adminValidator) ports(raw *SecurityAdminRule, field string, texts []string) []PortRange {
	if len(texts) == 0 {
		return []PortRange{AllPorts}
	}
	var ranges []PortRange
	for _, text := range texts {
		p, ok := parsePortRange(text)
		if !ok {
			v.fail(raw, CodeAdminInvalidPorts, field, text, "Allowed are a port, a range such as 80-90 and *, of 0 to 65535.")
			continue
		}
		ranges = append(ranges, p)
	}
	return ranges
}

func (v *adminValidator) peers(raw *SecurityAdminRule, field string, list []AdminPeer) Peer {
	var all []Peer
	for _, element := range list {
		p, problem := v.peer(element)
		if problem != "" {
			v.fail(raw, CodeAdminInvalidAddress, field, element.AddressPrefix, problem)
			continue
		}
		if p.Any { // the other elements add nothing
			return p
		}
		all = append(all, p)
	}
	switch len(all) {
	case 0:
		return Peer{Any: true}
	case 1:
		return all[0]
	}
	return Peer{AnyOf: all}
}

func (v *adminValidator) peer(element AdminPeer) (p Peer, problem string) {
	text := element.AddressPrefix
	switch strings.ToLower(element.AddressPrefixType) {
	case "ipprefix":
		if text == "*" {
			return Peer{Any: true}, ""
		}
		prefix, problem := ParsePrefix(text)
		if problem != "" {
			return p, "Allowed is an address, a CIDR without host bits or * (" + problem + ")."
		}
		return Peer{Prefixes: []netip.Prefix{prefix}}, ""
	case "servicetag":
		tag, problem := canonicalTag(text, v.known)
		if problem == "" && PlatformServiceOf(tag) != nil {
			problem = "the platform's services pass before admin rules are asked; a rule of a network security group can deny them"
		}
		if problem != "" {
			return p, "Allowed is a service tag (" + problem + ")."
		}
		return Peer{Tag: tag}, ""
	case "networkgroup":
		if text == "" { // a Deny rule would match nothing
			return p, "A network group is named by its id, which is missing."
		}
		return Peer{NetworkGroup: text}, ""
	}
	return p, "addressPrefixType " + strconv.Quote(Clip(element.AddressPrefixType)) + ": allowed are IPPrefix, ServiceTag and NetworkGroup."
}

// families checks that a rule's prefixes are all IPv4 or all IPv6, as in security rules.
func (v *adminValidator) families(raw *SecurityAdminRule, r *Rule) {
	var all []netip.Prefix
	for _, side := range []*Peer{&r.Source, &r.Destination} {
		side.Each(func(p *Peer) { all = append(all, p.Prefixes...) })
	}
	i := slices.IndexFunc(all, func(p netip.Prefix) bool { return p.Addr().Is4() != all[0].Addr().Is4() })
	if i > 0 {
		v.fail(raw, CodeAdminMixedFamilies, "sources, destinations", all[i].String(),
			"A rule's addresses are all IPv4 or all IPv6, and "+all[i].String()+" is not of the family of "+all[0].String()+".")
	}
}
