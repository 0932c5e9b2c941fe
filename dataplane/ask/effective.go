package ask

import (
	"strings"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Effective lists the NSGs and rules that hold for a NIC, by name or id, as Azure's list of
// effective security rules does. Each place where an NSG stands comes once: rule collections of
// network managers first, then the subnet's NSG, then the NIC's.
func Effective(s *topology.Snapshot, networkInterface string) (*azure.EffectiveNetworkSecurityGroupListResult, error) {
	nic, err := s.Policy.NetworkInterface(networkInterface)
	if err != nil {
		return nil, err
	}
	result := &azure.EffectiveNetworkSecurityGroupListResult{Value: []azure.EffectiveNetworkSecurityGroup{}}
	type standing struct {
		group  *topology.Group
		subnet *policy.Subnet // nil: the NIC
	}
	seen := map[standing]bool{}
	for i := range nic.IPConfigurations {
		e := s.Endpoint(nic, nic.IPConfigurations[i].Address)
		if e == nil {
			continue
		}
		for _, stage := range groupsOf(e) {
			at := standing{group: stage.Group}
			if stage.Association == topology.SubnetAssociation {
				at.subnet = e.Subnet
			}
			if seen[at] {
				continue
			}
			seen[at] = true
			result.Value = append(result.Value, azure.Effective(stage.Group.NSG, associationOf(e, stage), stage.Group.Expand))
		}
	}
	return result, nil
}

// groupsOf are the stages at which an endpoint's groups stand, each group once: the inbound
// stages name all of them.
func groupsOf(e *topology.Endpoint) (list []*topology.Stage) {
	for _, inbound := range [][]topology.Stage{e.AdminInbound, e.Inbound} {
		for i := range inbound {
			list = append(list, &inbound[i])
		}
	}
	return list
}

func associationOf(e *topology.Endpoint, stage *topology.Stage) azure.EffectiveAssociation {
	if stage.Association == topology.NetworkManagerAssociation {
		manager, _, _ := strings.Cut(stage.Group.NSG.ID, "/securityAdminConfigurations/")
		return azure.EffectiveAssociation{NetworkManager: &azure.SubResource{ID: manager}}
	}
	if stage.Association == topology.NetworkInterfaceAssociation {
		return azure.EffectiveAssociation{NetworkInterface: &azure.SubResource{ID: e.NetworkInterface.ID}}
	}
	return azure.EffectiveAssociation{Subnet: &azure.SubResource{ID: e.Subnet.ID}}
}
