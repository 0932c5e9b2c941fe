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
			ID: nic.ID, SecurityRuleAssociations: viewAssociations(nic, s.Endpoint(nic, Primary(nic).Address)),
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

func viewAssociations(nic *policy.NetworkInterface, e *topology.Endpoint) azure.SecurityRuleAssociations {
	v := azure.SecurityRuleAssociations{DefaultSecurityRules: azure.ViewDefaults(), EffectiveSecurityRules: []azure.ViewedSecurityRule{}}
	for _, stage := range e.Inbound {
		if stage.Association == topology.SubnetAssociation {
			v.SubnetAssociation = azure.ViewAssociation(e.Subnet.ID, stage.Group.NSG)
		} else {
			v.NetworkInterfaceAssociation = azure.ViewAssociation(nic.ID, stage.Group.NSG)
		}
	}
	if len(e.Inbound) > 0 {
		v.EffectiveSecurityRules = append(azure.ViewEffective(ruleset.Outbound, groupsAt(e.Outbound)...), azure.ViewEffective(ruleset.Inbound, groupsAt(e.Inbound)...)...)
	}
	return v
}

// groupsAt are the NSGs of stages in their order.
func groupsAt(stages []topology.Stage) []*ruleset.NSG {
	list := make([]*ruleset.NSG, len(stages))
	for i := range stages {
		list[i] = stages[i].Group.NSG
	}
	return list
}
