package azure

import "github.com/nsgd/nsgd/ruleset"

// SecurityGroupViewResult is the answer of Azure's security group view.
type SecurityGroupViewResult struct {
	NetworkInterfaces []SecurityGroupNetworkInterface `json:"networkInterfaces"`
}

// SecurityGroupNetworkInterface is one NIC of the target.
type SecurityGroupNetworkInterface struct {
	ID                       string                   `json:"id"`
	SecurityRuleAssociations SecurityRuleAssociations `json:"securityRuleAssociations"`
}

// SecurityRuleAssociations are the rules of a NIC: as their NSGs have them, and as they
// hold. An association without an NSG is left out.
type SecurityRuleAssociations struct {
	NetworkInterfaceAssociation *SecurityRuleAssociation `json:"networkInterfaceAssociation,omitempty"`
	SubnetAssociation           *SecurityRuleAssociation `json:"subnetAssociation,omitempty"`
	DefaultSecurityRules        []SecurityRuleResource   `json:"defaultSecurityRules"`
	// EffectiveSecurityRules are the outbound rules, then the inbound ones.
	EffectiveSecurityRules []ViewedSecurityRule `json:"effectiveSecurityRules"`
}

// SecurityRuleAssociation are the user rules of the NSG of a NIC or subnet.
type SecurityRuleAssociation struct {
	ID            string                 `json:"id"` // of the NIC or subnet
	SecurityRules []SecurityRuleResource `json:"securityRules"`
}

// SecurityRuleResource is a rule in the form of the REST API.
type SecurityRuleResource struct {
	Name       string                 `json:"name"`
	ID         string                 `json:"id"`
	Type       string                 `json:"type"`
	Properties SecurityRuleProperties `json:"properties"`
}

const (
	ruleType = "Microsoft.Network/networkSecurityGroups/securityRules"
	// defaultRuleIDs begins the ids of default rules, which name no NSG in Azure either.
	defaultRuleIDs  = "/subscriptions//resourceGroups//providers/Microsoft.Network/networkSecurityGroups//defaultSecurityRules/"
	defaultRuleType = "Microsoft.Network/networkSecurityGroups/defaultSecurityRules"
)

// ViewAssociation shows the user rules of an NSG in the order of its document.
func ViewAssociation(id string, nsg *ruleset.NSG) *SecurityRuleAssociation {
	a := &SecurityRuleAssociation{ID: id, SecurityRules: []SecurityRuleResource{}}
	for i := range nsg.Rules {
		r := ruleResource(&nsg.Rules[i])
		r.ID = nsg.RuleID(&nsg.Rules[i])
		r.Properties.echo(nsg.Rules[i].Written)
		a.SecurityRules = append(a.SecurityRules, r)
	}
	return a
}

// ViewDefaults shows the six default rules.
func ViewDefaults() []SecurityRuleResource {
	var list []SecurityRuleResource
	defaults := ruleset.DefaultRules()
	for i := range defaults {
		r := ruleResource(&defaults[i])
		r.ID, r.Type = defaultRuleIDs+r.Name, defaultRuleType
		list = append(list, r)
	}
	return list
}

// ViewEffective shows the rules of one direction of NSGs in Azure's order, which is not that of
// evaluation: a denial of everything that belongs to no NSG, the default rules, the user's. No
// recording shows how Azure mixes the rules of two NSGs; here the second NSG's follow the first one's.
func ViewEffective(d ruleset.Direction, nsgs ...*ruleset.NSG) []ViewedSecurityRule {
	all, every := []string{"*"}, []string{"0-65535"}
	list := []ViewedSecurityRule{{
		Name: "Default" + d.String() + "DenyAll", Protocol: "All", SourcePortRange: every[0], DestinationPortRange: every[0],
		SourcePortRanges: every, DestinationPortRanges: every, SourceAddressPrefix: all[0], DestinationAddressPrefix: all[0],
		SourceAddressPrefixes: all, DestinationAddressPrefixes: all, Access: ruleset.Deny.String(), Priority: 65500, Direction: d.String(),
	}}
	for _, nsg := range nsgs {
		rules := nsg.Ordered(d)
		for _, defaults := range []bool{true, false} {
			for i := range rules {
				if rules[i].Default == defaults {
					list = append(list, viewedRule(&rules[i]))
				}
			}
		}
	}
	return list
}
