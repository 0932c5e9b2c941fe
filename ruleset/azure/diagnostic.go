package azure

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// NetworkConfigurationDiagnosticParameters is a question of Azure's NSG diagnostics in its
// own names.
type NetworkConfigurationDiagnosticParameters struct {
	// TargetResourceID is a virtual machine or a NIC, by id or name.
	TargetResourceID string `json:"targetResourceId"`
	// VerbosityLevel is Normal, which an empty one is too, Minimum or Full. What Azure
	// means by them is not documented. Here Minimum leaves out the fields of rules, and
	// Full shows those of the rules behind the match too.
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
	// EvaluatedNetworkSecurityGroups are in the order of evaluation, none behind one that
	// denied; not nil.
	EvaluatedNetworkSecurityGroups []EvaluatedNetworkSecurityGroup `json:"evaluatedNetworkSecurityGroups"`
	// Reason and PartlyMatchedBefore are our additions. Reason is verify's where it is no rule that
	// decides: the platform lets its services pass, and may block TCP port 25. PartlyMatchedBefore
	// is as PartlyMatchedRules: services of the platform, and admin rules of collections that are not evaluated.
	Reason              string   `json:"reason,omitempty"`
	PartlyMatchedBefore []string `json:"partlyMatchedBefore,omitempty"`
}

// EvaluatedNetworkSecurityGroup is the part of one NSG in a verdict.
type EvaluatedNetworkSecurityGroup struct {
	NetworkSecurityGroupID string      `json:"networkSecurityGroupId"`
	AppliedTo              string      `json:"appliedTo"` // id of the subnet or NIC
	MatchedRule            MatchedRule `json:"matchedRule"`
	// RulesEvaluationResult are the rules in priority order up to the match, see
	// VerbosityLevel; not nil.
	RulesEvaluationResult []NetworkSecurityRuleEvaluation `json:"rulesEvaluationResult"`
	// PartlyMatchedRules is our addition: rules before the match that meet a part of what
	// the profile's prefixes, tags and * stand for, and decide that part otherwise.
	PartlyMatchedRules []string `json:"partlyMatchedRules,omitempty"`
}

// MatchedRule is the rule that decided for an NSG.
type MatchedRule struct {
	RuleName string `json:"ruleName"` // UserRule_NAME or DefaultRule_NAME
	Action   string `json:"action"`
}

// NetworkSecurityRuleEvaluation says which fields of a rule hold for all that a profile
// stands for.
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

// Verbosity is the level in its own spelling.
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

// Protocol is the IANA number, when AnyProtocol is false; that of ICMP depends on the family.
func (t *Traffic) Protocol(ipv6 bool) uint8 {
	n, _ := flowProtocol(t.protocol, ipv6) // checked by Traffic
	return n
}

// Traffic checks a profile; enumerations are taken in any case.
func (p *NetworkConfigurationDiagnosticProfile) Traffic() (*Traffic, error) {
	t := &Traffic{protocol: p.Protocol}
	switch strings.ToLower(p.Direction) {
	case "inbound":
		t.Direction = ruleset.Inbound
	case "outbound":
		t.Direction = ruleset.Outbound
	default:
		return nil, fmt.Errorf("direction %q: allowed are Inbound and Outbound", p.Direction)
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
