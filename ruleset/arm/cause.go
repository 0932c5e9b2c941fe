package arm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// cause is a fault, note or warning that explains why resources were not read.
type cause struct {
	list *ruleset.Faults
	at   int
	// dependents are the places of resources that depend on it, in their order; known has
	// each of them.
	dependents []string
	known      map[string]bool
}

// told lists a fault that may become the cause of others.
func told(list *ruleset.Faults, f ruleset.Fault) *cause {
	*list = append(*list, f)
	return &cause{list: list, at: len(*list) - 1}
}

// missingKey is a resource that no document has.
type missingKey struct {
	kind        kind
	scope       scope
	name        string
	translating bool
}

// missing records that a resource exists elsewhere. It is listed once; what else depends on
// it is counted.
func (f *fields) missing(k kind, field, reference, problem string) {
	name := referredName(k, reference)
	if name == "" {
		name = reference
	}
	key := missingKey{k, scopeOf(reference), strings.ToLower(name), f.translating}
	if key.scope == (scope{}) {
		key.scope.group = ownGroup
	}
	c := f.l.absent[key]
	if c == nil && key.scope == f.l.values.scope() { // what the template lacks may be in one that it links
		c = f.l.unread[f.file]
	}
	if c != nil {
		f.dependOn(c, field)
		return
	}
	code, needed := CodeInvalidResourceReference, "; if it exists elsewhere, lay what Azure shows of it beside, or give it with --runtime"
	switch {
	case f.translating:
		code, needed = CodeNotTranslated, ": nothing is translated by it"
	case field == "name":
		code = CodeParentNotFound
	}
	f.markOpenBecause(code, field, reference, problem+needed)
	f.l.absent[key] = f.cause
}

// dependOn records that a field depends on a resource that was not read.
func (f *fields) dependOn(c *cause, field string) {
	if c == nil { // only a resource without a name of its own has no cause
		f.markOpenBecause(CodeTemplateExpression, field, "", "the resource named here was not read")
		return
	}
	f.open[field] = true
	f.because(c)
	f.l.depending[f.file] = true
	if c.known == nil {
		c.known = map[string]bool{}
		f.l.causes = append(f.l.causes, c)
	}
	place, _, _ := strings.Cut(f.place, "/"+kindPaths[configurationKind]+"/")
	if f.rule != "" {
		place += "/" + kindPaths[ruleKind] + "/" + f.rule
	}
	if !c.known[place] {
		c.known[place] = true
		c.dependents = append(c.dependents, place)
	}
}

// inherit makes what keeps a part from being read keep the whole from it.
func (f *fields) inherit(part *fields, field string) {
	f.open[field] = true
	f.because(part.cause)
}

// countDependents says of each cause what depends on it.
func (l *loader) countDependents() {
	for _, c := range l.causes {
		n, what := len(c.dependents), "resource that depends on it was"
		if n > 1 {
			what = "resources that depend on it were"
		}
		(*c.list)[c.at].Message += fmt.Sprintf("; %d %s not read: %s", n, what, ruleset.Listed(c.dependents))
	}
}

// azureCodes are the codes that Azure is known to answer with, from recordings and public reports.
var azureCodes = []string{
	ruleset.CodeConflict, ruleset.CodeInvalidPriority, ruleset.CodeInvalidPortRange, ruleset.CodeInvalidAddressPrefix,
	ruleset.CodeUnsupportedValue, ruleset.CodeOverlappingSubnets, ruleset.CodeMixedAddressFamilies, ruleset.CodeDescriptionTooLong,
	ruleset.CodeASGsOfSeveralNetworks, ruleset.CodeTooManyASGs, ruleset.CodeInvalidProtocol, ruleset.CodeParametersMissing,
	ruleset.CodeTooManyRules, ruleset.CodeTooManyAddresses, ruleset.CodeInvalidName, ruleset.CodeInvalidRequest,
	CodeInvalidJSON, CodeInvalidResourceType, CodeInvalidResourceReference, CodeParentNotFound, CodeInvalidTemplate,
	CodeInvalidIPAddress, CodeInvalidRoutePrefix, CodeMissingNextHop,
	CodeInvalidAddressPrefix, CodeInvalidCIDR, CodeInvalidSubnet, CodeSubnetsOverlap,
	CodePeerSpaceOverlap, CodePeerSpacesOverlap, CodePeeringTwice,
	CodeAddressReserved, CodeAddressNotInSubnet, CodeAddressInUse, CodeSubnetFull, CodePublicAddressInUse, CodeSubnetDelegated, CodePrivateMissing, CodeNoPrimary, CodeStandardDynamic, CodePublicIdle, CodeInvalidDomainLabel, CodeGlobalBasic, CodeGatewayAndBasic,
	CodeBalancerSKU, CodeFrontendBoth, CodeFrontendNeither, CodePrivateFormat, CodePortRange, CodeProbeInterval, CodeProbeNumber, CodeProbePath,
	CodeRuleIdle, CodeSameFrontendPort, CodeSameBackendPort, CodeMustDisableSNAT, CodeSameOutboundFrontend,
	CodeInvalidDNSServer, CodeEncryptionIncomplete, CodeGroupAtGatewaySubnet, CodeGroupAtBastionSubnet, CodeTableAtBastionSubnet, CodeInBastionSubnet,
}

// OwnCode reports that a fault's code is ours: Azure's is not known, or Azure has none.
func OwnCode(code string) bool { return !slices.Contains(azureCodes, code) }
