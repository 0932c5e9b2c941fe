package azure

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// NetworkConfigurationDiagnosticParameters is a question to NSG diagnostics as Azure names
// its fields.
type NetworkConfigurationDiagnosticParameters struct {
	// TargetResourceID is a virtual machine or a NIC, by id or name.
	TargetResourceID string `json:"targetResourceId"`
	// VerbosityLevel is Normal, Minimum or Full; empty means Normal. Azure does not document
	// the levels. Here Minimum leaves out the fields of rules, and Full adds the rules behind
	// the match.
	VerbosityLevel string                                  `json:"verbosityLevel,omitempty"`
	Profiles       []NetworkConfigurationDiagnosticProfile `json:"profiles"`
}

// NetworkConfigurationDiagnosticProfile is the traffic that a question is about.
type NetworkConfigurationDiagnosticProfile struct {
	Direction string `json:"direction"` // Inbound or Outbound
	Protocol  string `json:"protocol"`  // TCP, UDP, ICMP, ESP, AH, a number or *
	// Source and Destination are an address, a CIDR, a service tag or *.
	Source          string `json:"source"`
	Destination     string `json:"destination"`
	DestinationPort string `json:"destinationPort"` // a port or *
}

// NetworkConfigurationDiagnosticResponse answers profile by profile.
type NetworkConfigurationDiagnosticResponse struct {
	Results []NetworkConfigurationDiagnosticResult `json:"results"`
}

// NetworkConfigurationDiagnosticResult is the answer to one profile.
type NetworkConfigurationDiagnosticResult struct {
	Profile                    NetworkConfigurationDiagnosticProfile `json:"profile"`
	NetworkSecurityGroupResult NetworkSecurityGroupResult            `json:"networkSecurityGroupResult"`
}

// NetworkSecurityGroupResult is a verdict and the NSGs that made it.
type NetworkSecurityGroupResult struct {
	SecurityRuleAccessResult string `json:"securityRuleAccessResult"` // Allow or Deny
	// EvaluatedNetworkSecurityGroups are in the order of evaluation, which ends with the
	// first that denies. Not nil.
	EvaluatedNetworkSecurityGroups []EvaluatedNetworkSecurityGroup `json:"evaluatedNetworkSecurityGroups"`
	// Reason and PartlyMatchedBefore are our additions. Reason is verify's reason when no rule
	// decides: the platform passes its own services, and may block TCP port 25.
	// PartlyMatchedBefore lists, like PartlyMatchedRules, what comes before the NSGs:
	// services of the platform and admin rules.
	Reason              string   `json:"reason,omitempty"`
	PartlyMatchedBefore []string `json:"partlyMatchedBefore,omitempty"`
	// PartlyOtherwise is our addition: a part of the traffic has the other access.
	PartlyOtherwise bool `json:"partlyOtherwise,omitempty"`
}

// EvaluatedNetworkSecurityGroup is the part of one NSG in a verdict.
type EvaluatedNetworkSecurityGroup struct {
	NetworkSecurityGroupID string      `json:"networkSecurityGroupId"`
	AppliedTo              string      `json:"appliedTo"` // id of the subnet or NIC
	MatchedRule            MatchedRule `json:"matchedRule"`
	// RulesEvaluationResult are the rules in priority order up to the match. Not nil. See
	// VerbosityLevel.
	RulesEvaluationResult []NetworkSecurityRuleEvaluation `json:"rulesEvaluationResult"`
	// PartlyMatchedRules is our addition: the rules before the match that match only a part
	// of the profile's traffic and decide that part otherwise.
	PartlyMatchedRules []string `json:"partlyMatchedRules,omitempty"`
}

// MatchedRule is the rule that decided for an NSG.
type MatchedRule struct {
	RuleName string `json:"ruleName"` // UserRule_NAME or DefaultRule_NAME
	Action   string `json:"action"`
}

// NetworkSecurityRuleEvaluation says which fields of a rule match all traffic of a profile.
type NetworkSecurityRuleEvaluation struct {
	Name                   string `json:"name"`
	ProtocolMatched        bool   `json:"protocolMatched"`
	SourceMatched          bool   `json:"sourceMatched"`
	SourcePortMatched      bool   `json:"sourcePortMatched"`
	DestinationMatched     bool   `json:"destinationMatched"`
	DestinationPortMatched bool   `json:"destinationPortMatched"`
}

// The levels of NetworkConfigurationDiagnosticParameters.VerbosityLevel.
const (
	VerbosityNormal  = "Normal"
	VerbosityMinimum = "Minimum"
	VerbosityFull    = "Full"
)

// Verbosity is VerbosityLevel as one of the constants.
func (p *NetworkConfigurationDiagnosticParameters) Verbosity() (string, error) {
	for _, level := range []string{VerbosityNormal, VerbosityMinimum, VerbosityFull} {
		if strings.EqualFold(p.VerbosityLevel, level) {
			return level, nil
		}
	}
	if p.VerbosityLevel != "" {
		return "", fmt.Errorf("verbosityLevel %q: allowed are Normal, Minimum and Full", p.VerbosityLevel)
	}
	return VerbosityNormal, nil
}

// Traffic is a checked profile.
type Traffic struct {
	Direction           ruleset.Direction
	Source, Destination TrafficEnd
	AnyProtocol         bool
	AnyPort             bool
	Port                uint16 // when AnyPort is false
	protocol            string
}

// TrafficEnd is one side of a profile: all addresses, those of a tag, or a prefix.
type TrafficEnd struct {
	Any    bool
	Tag    string // as written
	Prefix netip.Prefix
}

// Protocol is the IANA number, if AnyProtocol is false. That of ICMP depends on the family.
func (t *Traffic) Protocol(ipv6 bool) uint8 {
	n, _ := flowProtocol(t.protocol, ipv6) // Traffic has checked it
	return n
}

// Traffic checks a profile; enumerations are taken in any case.
func (p *NetworkConfigurationDiagnosticProfile) Traffic() (*Traffic, error) {
	t := &Traffic{protocol: p.Protocol}
	var err error
	if t.Direction, err = direction(p.Direction); err != nil {
		return nil, err
	}
	protocol, err := flowProtocol(p.Protocol, false)
	switch {
	case p.Protocol == "*", strings.EqualFold(p.Protocol, "Any"), strings.EqualFold(p.Protocol, "All"):
		t.AnyProtocol = true
	case err != nil:
		return nil, fmt.Errorf("%w, and *", err)
	}
	if t.Source, err = trafficEnd("source", p.Source); err != nil {
		return nil, err
	}
	if t.Destination, err = trafficEnd("destination", p.Destination); err != nil {
		return nil, err
	}
	if a, b := t.Source.Prefix, t.Destination.Prefix; a.IsValid() && b.IsValid() && a.Addr().Is4() != b.Addr().Is4() {
		return nil, fmt.Errorf("destination %q: not of the same address family as source %q", p.Destination, p.Source)
	}
	needed := t.AnyProtocol || protocol == protocolTCP || protocol == protocolUDP
	n, err := strconv.ParseUint(p.DestinationPort, 10, 16)
	switch {
	case p.DestinationPort == "*", p.DestinationPort == "" && !needed:
		t.AnyPort = true
	case err != nil:
		return nil, fmt.Errorf("destinationPort %q: allowed are 0 to 65535 and *", p.DestinationPort)
	}
	t.Port = uint16(n)
	return t, nil
}

func trafficEnd(field, text string) (TrafficEnd, error) {
	switch {
	case text == "":
		return TrafficEnd{}, errors.New(field + " is missing: allowed are an address, a CIDR, a service tag and *")
	case text == "*", strings.EqualFold(text, "Any"):
		return TrafficEnd{Any: true}, nil
	case ruleset.LooksLikeTag(text):
		return TrafficEnd{Tag: text}, nil
	}
	if tag, ok := ruleset.CanonicalBuiltInTag(text); ok {
		return TrafficEnd{Tag: tag}, nil
	}
	prefix, problem := ruleset.ParsePrefix(text)
	if problem != "" {
		return TrafficEnd{}, fmt.Errorf("%s %q: %s; allowed are an address, a CIDR, a service tag and *", field, text, problem)
	}
	return TrafficEnd{Prefix: prefix}, nil
}
