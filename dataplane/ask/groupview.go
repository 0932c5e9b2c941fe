package ask

import (
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// SecurityGroupView shows the rules of a target's NICs as Azure's security group view does. The
// target is a NIC or a virtual machine, by name or id. Of a NIC in several subnets it shows the
// primary ipConfiguration.
func SecurityGroupView(s *topology.Snapshot, target string) (*azure.SecurityGroupViewResult, error) {
	nics, err := s.Policy.Target(target)
	if err != nil {
		return nil, err
	}
	result := &azure.SecurityGroupViewResult{}
	for _, nic := range nics {
		result.NetworkInterfaces = append(result.NetworkInterfaces, azure.SecurityGroupNetworkInterface{
			ID: nic.ID, SecurityRuleAssociations: viewAssociations(nic, Primary(nic)),
		})
	}
	return result, nil
}

// Primary is a NIC's primary ipConfiguration, or the first where none is marked.
func Primary(nic *policy.NetworkInterface) *policy.IPConfiguration {
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
