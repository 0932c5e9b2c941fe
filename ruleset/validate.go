package ruleset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Azure's limits, see "Azure subscription limits: networking".
const (
	MinPriority = 100
	MaxPriority = 4096

	MaxNameLength        = 80
	MaxDescriptionLength = 140

	MaxRulesPerGroup = 1000
	// MaxAddressesPerGroup is for the addresses and ranges of all rules of an NSG, and for their
	// ports. Sources and destinations are counted separately. Azure's documents don't tell whether
	// addresses and ports are counted together; its name for the limit has both.
	MaxAddressesPerGroup = 4000
	MaxASGsPerSide       = 10
	// MaxASGsPerGroup counts different ASGs in all rules of an NSG.
	MaxASGsPerGroup = 100
)

// Validate checks an NSG as Azure does and returns every fault, not only the first. The
// NSG holds the rules that have no fault, in the document's order and in canonical
// spelling. It is fit for use only when there are no faults.
//
// Enumerations, tags and the classic names of tags may have any case. A prefix with host
// bits is a fault, as in Azure's API. With known nil every text that looks like a tag is
// taken for one.
func (g *NetworkSecurityGroup) Validate(known KnownTags) (*NSG, Faults) {
	v := &validator{group: g, known: known, nsg: &NSG{
		Name: g.Name, ID: g.ID, ResourceGUID: g.ResourceGUID, Location: g.Location, FlushConnection: g.FlushConnection,
	}}
	if !g.UnknownName && !validName(g.Name) {
		v.fail(nil, CodeInvalidName, "name", g.Name, "%s", nameRule)
	}
	v.nsg.Rules = slices.Grow(v.nsg.Rules, len(g.SecurityRules))
	for i := range g.SecurityRules {
		v.rule(&g.SecurityRules[i])
	}
	v.uniqueNames()
	v.conflicts()
	v.groupLimits()
	return v.nsg, v.faults
}

type validator struct {
	group  *NetworkSecurityGroup
	known  KnownTags
	nsg    *NSG
	faults Faults

	// Sums over the NSG's rules, whether they are valid or not.
	sourceAddresses, destinationAddresses int
	sourcePorts, destinationPorts         int
	asgs                                  map[string]bool // in lower case
}

// fail records a fault of a rule, or of the NSG when r is nil.
func (v *validator) fail(r *SecurityRule, code, field, value, format string, args ...any) {
	f := Fault{
		Code: code, File: v.group.File, Resource: "networkSecurityGroups/" + v.group.Name,
		Field: field, Value: Clip(value), Message: fmt.Sprintf(format, args...),
	}
	if r != nil {
		f.Rule = r.Name
	}
	v.faults = append(v.faults, f)
}

// identity is how Azure's messages name a rule.
func (r *SecurityRule) identity() string {
	if r.ID != "" {
		return r.ID
	}
	return r.Name
}

// rule checks one rule and keeps it when it has no fault.
func (v *validator) rule(raw *SecurityRule) {
	before := len(v.faults)
	r := Rule{Name: raw.Name, ID: raw.ID, Description: raw.Description}
	if !raw.Unknown["name"] && !validName(raw.Name) {
		v.fail(raw, CodeInvalidName, "name", raw.Name, "%s", nameRule)
	}
	if n := len([]rune(raw.Description)); n > MaxDescriptionLength && !raw.Unknown["description"] {
		v.fail(raw, CodeDescriptionTooLong, "description", raw.Description,
			"Security rule description cannot exceed %d chars; this one has %d.", MaxDescriptionLength, n)
	}
	v.enumerations(raw, &r)
	if !raw.Unknown["priority"] {
		var ok bool
		if r.Priority, ok = priority(raw); !ok {
			v.fail(raw, CodeInvalidPriority, "priority", raw.Priority,
				"Security rule has invalid Priority. Value provided: %s Allowed range %d-%d.",
				Clip(raw.Priority), MinPriority, MaxPriority)
		}
	}
	r.SourcePorts = v.ports(raw, &sourceFields, &raw.Source)
	r.DestinationPorts = v.ports(raw, &destinationFields, &raw.Destination)
	r.Source = v.peer(raw, &sourceFields, &raw.Source)
	r.Destination = v.peer(raw, &destinationFields, &raw.Destination)
	v.families(raw, &r)
	v.sourceAddresses += len(r.Source.Prefixes)
	v.destinationAddresses += len(r.Destination.Prefixes)
	v.sourcePorts += len(r.SourcePorts)
	v.destinationPorts += len(r.DestinationPorts)
	if len(v.faults) == before && raw.decided() {
		r.Written = raw
		v.nsg.Rules = append(v.nsg.Rules, r)
	}
}

// decided reports whether all fields that decide a verdict are known.
func (r *SecurityRule) decided() bool {
	for name, unknown := range r.Unknown {
		literal := func(f Field[SecurityRule]) bool { return f.Literal && f.Name == name }
		if unknown && !slices.ContainsFunc(SecurityRuleFields, literal) {
			return false
		}
	}
	return true
}

func priority(r *SecurityRule) (int, bool) {
	n, err := strconv.Atoi(r.Priority)
	return n, err == nil && n >= MinPriority && n <= MaxPriority
}

var (
	protocols  = map[string]Protocol{"*": AnyProtocol, "tcp": TCP, "udp": UDP, "icmp": ICMP, "icmpv6": ICMPv6, "esp": ESP, "ah": AH}
	accesses   = map[string]Access{"allow": Allow, "deny": Deny}
	directions = map[string]Direction{"inbound": Inbound, "outbound": Outbound}
)

func (v *validator) enumerations(raw *SecurityRule, r *Rule) {
	check := func(field, code, value, allowed string, ok bool) {
		if !ok && !raw.Unknown[field] {
			v.fail(raw, code, field, value, "Security rule has invalid %s. Allowed are %s.", title(field), allowed)
		}
	}
	var ok bool
	r.Protocol, ok = protocols[strings.ToLower(raw.Protocol)]
	check("protocol", CodeInvalidProtocol, raw.Protocol, "Tcp, Udp, Icmp, Icmpv6, Esp, Ah and *", ok)
	r.Access, ok = accesses[strings.ToLower(raw.Access)]
	check("access", CodeInvalidAccess, raw.Access, "Allow and Deny", ok)
	r.Direction, ok = directions[strings.ToLower(raw.Direction)]
	check("direction", CodeInvalidDirection, raw.Direction, "Inbound and Outbound", ok)
}

// nameRule is what validName allows.
const nameRule = "A name has 1 to 80 letters, digits, underscores, dots and hyphens, begins with a letter or digit " +
	"and ends with a letter, digit or underscore."

func validName(name string) bool {
	if name == "" || len(name) > MaxNameLength {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case isLetter(c), isDigit(c):
		case c == '_' && i > 0:
		case (c == '.' || c == '-') && i > 0 && i < len(name)-1:
		default:
			return false
		}
	}
	return true
}

// uniqueNames compares names without case, since they are parts of resource ids.
func (v *validator) uniqueNames() {
	seen := map[string]bool{}
	for i := range v.group.SecurityRules {
		r := &v.group.SecurityRules[i]
		name := strings.ToLower(r.Name)
		if r.Unknown["name"] || name == "" {
			continue
		}
		if seen[name] {
			v.fail(r, CodeInvalidRequest, "name", r.Name, "DuplicateResourceName: rule names are unique in a network security group, whatever their case.")
		}
		seen[name] = true
	}
}

// conflicts finds rules of one direction that share a priority. Faulty rules take their
// priority too.
func (v *validator) conflicts() {
	type slot struct {
		direction Direction
		priority  int
	}
	first := map[slot]*SecurityRule{}
	for i := range v.group.SecurityRules {
		r := &v.group.SecurityRules[i]
		d, okDirection := directions[strings.ToLower(r.Direction)]
		p, okPriority := priority(r)
		if !okDirection || !okPriority || r.Unknown["direction"] || r.Unknown["priority"] {
			continue
		}
		s := slot{d, p}
		if other := first[s]; other != nil {
			v.fail(r, CodeConflict, "priority", r.Priority,
				"Security rule %s conflicts with rule %s. Rules cannot have the same Priority and Direction.", r.Name, other.Name)
			continue
		}
		first[s] = r
	}
}

func (v *validator) groupLimits() {
	limit := func(code, field string, n, most int, what string) {
		if n > most {
			v.fail(nil, code, field, strconv.Itoa(n), "A network security group has at most %d %s.", most, what)
		}
	}
	limit(CodeTooManyRules, "securityRules", len(v.group.SecurityRules), MaxRulesPerGroup, "rules")
	limit(CodeTooManyAddresses, sourceFields.prefixes, v.sourceAddresses, MaxAddressesPerGroup,
		"source addresses and ranges in all its rules")
	limit(CodeTooManyAddresses, destinationFields.prefixes, v.destinationAddresses, MaxAddressesPerGroup,
		"destination addresses and ranges in all its rules")
	limit(CodeTooManyAddresses, sourceFields.portRanges, v.sourcePorts, MaxAddressesPerGroup, "source ports and ranges in all its rules")
	limit(CodeTooManyAddresses, destinationFields.portRanges, v.destinationPorts, MaxAddressesPerGroup,
		"destination ports and ranges in all its rules")
	limit(CodeTooManyASGsOfGroup, "applicationSecurityGroups", len(v.asgs), MaxASGsPerGroup,
		"application security groups in all its rules")
}

// anyUnknown reports whether one of the fields is unknown.
func (r *SecurityRule) anyUnknown(fields ...string) bool {
	return slices.ContainsFunc(fields, func(f string) bool { return r.Unknown[f] })
}
