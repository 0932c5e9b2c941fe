package ruleset

import (
	"fmt"
	"strings"
)

// Codes that Azure itself answers with.
const (
	CodeConflict              = "SecurityRuleConflict"
	CodeInvalidPriority       = "SecurityRuleInvalidPriority"
	CodeInvalidPortRange      = "SecurityRuleInvalidPortRange"
	CodeInvalidAddressPrefix  = "SecurityRuleInvalidAddressPrefix"
	CodeUnsupportedValue      = "SecurityRuleParameterContainsUnsupportedValue"
	CodeOverlappingSubnets    = "OverlappingSubnetsNotPermittedInSecurityRule"
	CodeMixedAddressFamilies  = "ResourceCannotContainAddressPrefixesFromDifferentAddressFamilies"
	CodeDescriptionTooLong    = "SecurityRuleDescriptionTooLong"
	CodeASGsOfSeveralNetworks = "AllApplicationSecurityGroupsInSecurityRuleMustBeFromSameVnet"
	CodeTooManyASGs           = "NumberOfApplicationSecurityGroupsReferencedInSecurityRuleLimitReached"
	CodeInvalidProtocol       = "SecurityRuleInvalidProtocol"
	CodeParametersMissing     = "SecurityRuleParametersMissing"
	CodeTooManyRules          = "SecurityRuleCountLimitReached"
	CodeTooManyAddresses      = "SecurityRuleAddressesOrPortsPerSecurityGroupLimitReached" // or ports
	CodeInvalidName           = "InvalidResourceName"                                      // of an NSG or a rule
	// CodeInvalidRequest is Azure's for much; of a rule's name given twice its details say DuplicateResourceName.
	CodeInvalidRequest = "InvalidRequestFormat"
)

// Our own codes in Azure's style. Azure refuses these too, but no recording of its code
// was found.
const (
	CodeInvalidAccess      = "SecurityRuleInvalidAccess"
	CodeInvalidDirection   = "SecurityRuleInvalidDirection"
	CodeInvalidCombination = "SecurityRuleInvalidParameterCombination"
	CodeInvalidASG         = "SecurityRuleInvalidApplicationSecurityGroup"
	CodeTooManyASGsOfGroup = "NetworkSecurityGroupInvalidNumberOfApplicationSecurityGroups"
)

// Fault is one thing wrong with a document. Fields that don't apply are empty.
type Fault struct {
	Code string
	// File is the path as it was given to the reader.
	File string
	// Line and Column are where Field, or else the object, stands in the file, from 1; 0: not known.
	Line, Column int
	// Resource is kind and name, such as "networkSecurityGroups/NSG1".
	Resource string
	Rule     string
	// Field is spelled as in documents, such as "destinationPortRange".
	Field string
	// Value is the faulty value as text, shortened when it is very long.
	Value string
	// Message says what is wrong and what is allowed.
	Message string
}

// maxFaultValue bounds Fault.Value, so that a fault stays readable.
const maxFaultValue = 200

// Clip shortens a document's value for Fault.Value.
func Clip(value string) string {
	if len(value) <= maxFaultValue {
		return value
	}
	return strings.ToValidUTF8(value[:maxFaultValue], "") + "..."
}

// Place is FILE:LINE:COLUMN, or the file alone.
func (f Fault) Place() string {
	if f.Line == 0 {
		return f.File
	}
	return fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
}

// Error is the fault in one line: the place first, the message last.
func (f Fault) Error() string {
	var b strings.Builder
	for _, place := range []string{f.Place(), f.Resource} {
		if place != "" {
			b.WriteString(place + ": ")
		}
	}
	if f.Rule != "" {
		fmt.Fprintf(&b, "rule %q: ", f.Rule)
	}
	switch {
	case f.Field != "" && f.Value != "":
		fmt.Fprintf(&b, "%s %q: ", f.Field, f.Value)
	case f.Field != "":
		b.WriteString(f.Field + ": ")
	case f.Value != "":
		fmt.Fprintf(&b, "%q: ", f.Value)
	}
	b.WriteString(f.Code)
	if f.Message != "" {
		b.WriteString(": " + f.Message)
	}
	return b.String()
}

// Faults are all faults of a set of documents, in the order of the documents.
type Faults []Fault

// Error lists the faults, one a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Err is f as an error, nil when there are no faults.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// MaxListed is how many names Listed gives.
const MaxListed = 10

// Listed joins the first MaxListed texts with commas and counts the others.
func Listed(texts []string) string {
	if len(texts) <= MaxListed {
		return strings.Join(texts, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(texts[:MaxListed], ", "), len(texts)-MaxListed)
}
