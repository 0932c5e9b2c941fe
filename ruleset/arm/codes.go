package arm

import (
	"slices"

	"github.com/nsgd/nsgd/ruleset"
)

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
