package ruleset

// SecurityRule is a rule as a document has it, before validation: every field
// is text in ARM's form and spelling. An empty string and an empty list both
// mean that the document doesn't supply the field.
type SecurityRule struct {
	Name        string
	ID          string
	Description string
	Protocol    string
	Access      string
	Direction   string
	Priority    string // a decimal number

	Source, Destination Side

	// Unknown holds the names of fields whose value the document doesn't tell,
	// such as a template's expressions. They are not checked; a rule with any
	// but "name" and "description" among them is checked but not returned.
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

// NetworkSecurityGroup is an NSG as a document has it, before validation.
type NetworkSecurityGroup struct {
	File            string // for faults
	Name            string
	ID              string
	ResourceGUID    string
	Location        string
	FlushConnection bool
	SecurityRules   []SecurityRule
	// UnknownName says that Name stands for a name that the document doesn't tell.
	UnknownName bool
}

// The ARM names of the fields of one side.
type sideFields struct{ portRange, portRanges, prefix, prefixes, groups string }

var (
	sourceFields = sideFields{"sourcePortRange", "sourcePortRanges",
		"sourceAddressPrefix", "sourceAddressPrefixes", "sourceApplicationSecurityGroups"}
	destinationFields = sideFields{"destinationPortRange", "destinationPortRanges",
		"destinationAddressPrefix", "destinationAddressPrefixes", "destinationApplicationSecurityGroups"}
)

// title is a field's name as Azure's messages spell it.
func title(field string) string { return string(field[0]-'a'+'A') + field[1:] }
