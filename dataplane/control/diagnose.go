package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// maxDiagnosticLen bounds the body of a question; a profile needs some hundred bytes.
const maxDiagnosticLen = 1 << 20

// Diagnose answers NSG diagnostics.
func Diagnose(s *topology.Snapshot, q *azure.NetworkConfigurationDiagnosticParameters) (*azure.NetworkConfigurationDiagnosticResponse, error) {
	response, err := ask.Diagnose(s, q)
	if err != nil {
		return nil, badRequest(err)
	}
	return response, nil
}

// decodeDiagnostic reads a question strictly.
func decodeDiagnostic(r io.Reader) (*azure.NetworkConfigurationDiagnosticParameters, error) {
	q := &azure.NetworkConfigurationDiagnosticParameters{}
	decoder := json.NewDecoder(io.LimitReader(r, maxDiagnosticLen))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(q); err != nil {
		return nil, fmt.Errorf("not a question of NSG diagnostics: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not a question of NSG diagnostics: more than one JSON value")
	}
	return q, nil
}

// SecurityGroupView shows the rules of a target's NICs as Azure's security group view does. Of
// a NIC in several subnets it is the view of the primary ipConfiguration.
func SecurityGroupView(s *topology.Snapshot, target string) (*azure.SecurityGroupViewResult, error) {
	nics, err := s.Policy.Target(target)
	if err != nil {
		return nil, asError(err, http.StatusNotFound)
	}
	result := &azure.SecurityGroupViewResult{}
	for _, nic := range nics {
		result.NetworkInterfaces = append(result.NetworkInterfaces, azure.SecurityGroupNetworkInterface{
			ID: nic.ID, SecurityRuleAssociations: viewAssociations(nic, primary(nic)),
		})
	}
	return result, nil
}

func primary(nic *policy.NetworkInterface) *policy.IPConfiguration {
	for i := range nic.IPConfigurations {
		if nic.IPConfigurations[i].Primary {
			return &nic.IPConfigurations[i]
		}
	}
	return &nic.IPConfigurations[0]
}

func viewAssociations(nic *policy.NetworkInterface, c *policy.IPConfiguration) azure.SecurityRuleAssociations {
	v := azure.SecurityRuleAssociations{DefaultSecurityRules: azure.ViewDefaults(), EffectiveSecurityRules: []azure.ViewedSecurityRule{}}
	var inbound, outbound []*ruleset.NSG
	if g := c.Subnet.NetworkSecurityGroup; g != nil {
		v.SubnetAssociation = azure.ViewAssociation(c.Subnet.ID, g)
		inbound, outbound = append(inbound, g), append(outbound, g)
	}
	if g := nic.NetworkSecurityGroup; g != nil {
		v.NetworkInterfaceAssociation = azure.ViewAssociation(nic.ID, g)
		inbound, outbound = append(inbound, g), append([]*ruleset.NSG{g}, outbound...)
	}
	if len(inbound) > 0 {
		v.EffectiveSecurityRules = append(azure.ViewEffective(ruleset.Outbound, outbound...), azure.ViewEffective(ruleset.Inbound, inbound...)...)
	}
	return v
}
