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

// SecurityRuleAssociations are the rules that hold for a NIC, as they are written where
// they are associated and as they hold. A place without an NSG is left out.
type SecurityRuleAssociations struct {
	NetworkInterfaceAssociation *SecurityRuleAssociation `json:"networkInterfaceAssociation,omitempty"`
	SubnetAssociation           *SecurityRuleAssociation `json:"subnetAssociation,omitempty"`
	DefaultSecurityRules        []SecurityRuleResource   `json:"defaultSecurityRules"`
	// EffectiveSecurityRules are those for outbound traffic and then those for inbound.
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

// SecurityRuleProperties are a rule's fields. A side has the singular field for one value
// and the plural one for several; the plural ones are never null.
type SecurityRuleProperties struct {
	ProvisioningState                    string        `json:"provisioningState"`
	Description                          string        `json:"description,omitempty"`
	Protocol                             string        `json:"protocol"`
	SourcePortRange                      string        `json:"sourcePortRange,omitempty"`
	DestinationPortRange                 string        `json:"destinationPortRange,omitempty"`
	SourceAddressPrefix                  string        `json:"sourceAddressPrefix,omitempty"`
	DestinationAddressPrefix             string        `json:"destinationAddressPrefix,omitempty"`
	Access                               string        `json:"access"`
	Priority                             int           `json:"priority"`
	Direction                            string        `json:"direction"`
	SourcePortRanges                     []string      `json:"sourcePortRanges"`
	DestinationPortRanges                []string      `json:"destinationPortRanges"`
	SourceAddressPrefixes                []string      `json:"sourceAddressPrefixes"`
	DestinationAddressPrefixes           []string      `json:"destinationAddressPrefixes"`
	SourceApplicationSecurityGroups      []SubResource `json:"sourceApplicationSecurityGroups,omitempty"`
	DestinationApplicationSecurityGroups []SubResource `json:"destinationApplicationSecurityGroups,omitempty"`
}

// ViewedSecurityRule is a rule as it holds. As in Azure, "*" is "0.0.0.0/0" twice in the
// lists, once for each address family.
type ViewedSecurityRule struct {
	Name                       string   `json:"name"` // UserRule_NAME, DefaultRule_NAME, see ViewEffective
	Protocol                   string   `json:"protocol"`
	SourcePortRange            string   `json:"sourcePortRange,omitempty"`
	DestinationPortRange       string   `json:"destinationPortRange,omitempty"`
	SourcePortRanges           []string `json:"sourcePortRanges"`
	DestinationPortRanges      []string `json:"destinationPortRanges"`
	SourceAddressPrefix        string   `json:"sourceAddressPrefix,omitempty"`
	DestinationAddressPrefix   string   `json:"destinationAddressPrefix,omitempty"`
	SourceAddressPrefixes      []string `json:"sourceAddressPrefixes"`
	DestinationAddressPrefixes []string `json:"destinationAddressPrefixes"`
	// The application security groups are our addition, as in EffectiveSecurityRule.
	SourceApplicationSecurityGroups      []SubResource `json:"sourceApplicationSecurityGroups,omitempty"`
	DestinationApplicationSecurityGroups []SubResource `json:"destinationApplicationSecurityGroups,omitempty"`
	Access                               string        `json:"access"`
	Priority                             int           `json:"priority"`
	Direction                            string        `json:"direction"`
}

const (
	ruleType = "Microsoft.Network/networkSecurityGroups/securityRules"
	// defaultRuleIDs is what the ids of the default rules begin with: Azure's name no NSG.
	defaultRuleIDs  = "/subscriptions//resourceGroups//providers/Microsoft.Network/networkSecurityGroups//defaultSecurityRules/"
	defaultRuleType = "Microsoft.Network/networkSecurityGroups/defaultSecurityRules"
)

// ViewAssociation shows the user rules of an NSG in the order of its document.
func ViewAssociation(id string, nsg *ruleset.NSG) *SecurityRuleAssociation {
	a := &SecurityRuleAssociation{ID: id, SecurityRules: []SecurityRuleResource{}}
	for i := range nsg.Rules {
		r := ruleResource(&nsg.Rules[i])
		if r.ID == "" {
			r.ID = nsg.ID + "/securityRules/" + r.Name
		}
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

func ruleResource(r *ruleset.Rule) SecurityRuleResource {
	p := SecurityRuleProperties{
		ProvisioningState: "Succeeded", Description: r.Description, Protocol: r.Protocol.String(), Access: r.Access.String(),
		Priority: r.Priority, Direction: r.Direction.String(),
		SourceApplicationSecurityGroups:      subResources(r.Source.ApplicationSecurityGroups),
		DestinationApplicationSecurityGroups: subResources(r.Destination.ApplicationSecurityGroups),
	}
	p.SourcePortRange, p.SourcePortRanges = oneOrSeveral(writtenPorts(r.SourcePorts))
	p.DestinationPortRange, p.DestinationPortRanges = oneOrSeveral(writtenPorts(r.DestinationPorts))
	p.SourceAddressPrefix, p.SourceAddressPrefixes = oneOrSeveral(writtenPeer(&r.Source))
	p.DestinationAddressPrefix, p.DestinationAddressPrefixes = oneOrSeveral(writtenPeer(&r.Destination))
	return SecurityRuleResource{Name: r.Name, ID: r.ID, Type: ruleType, Properties: p}
}

// writtenPorts are ports as a document has them.
func writtenPorts(ranges []ruleset.PortRange) []string {
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		texts[i] = r.String()
	}
	return texts
}

func writtenPeer(p *ruleset.Peer) []string {
	if p.Any {
		return []string{"*"}
	}
	return peerTexts(p)
}

func oneOrSeveral(texts []string) (one string, several []string) {
	if len(texts) == 1 {
		return texts[0], []string{}
	}
	return "", texts
}

// ViewEffective shows the rules of one direction of NSGs, in the order of evaluation, as
// Azure does: before them stands a denial of everything that belongs to no NSG. How Azure
// mixes the rules of two NSGs is not recorded; here one's stand behind the other's.
func ViewEffective(d ruleset.Direction, nsgs ...*ruleset.NSG) []ViewedSecurityRule {
	all, every := []string{"*"}, []string{"0-65535"}
	list := []ViewedSecurityRule{{
		Name: "Default" + d.String() + "DenyAll", Protocol: "All", SourcePortRange: every[0], DestinationPortRange: every[0],
		SourcePortRanges: every, DestinationPortRanges: every, SourceAddressPrefix: all[0], DestinationAddressPrefix: all[0],
		SourceAddressPrefixes: all, DestinationAddressPrefixes: all, Access: ruleset.Deny.String(), Priority: 65500, Direction: d.String(),
	}}
	for _, nsg := range nsgs {
		rules := nsg.Ordered(d)
		for i := range rules {
			list = append(list, viewedRule(&rules[i]))
		}
	}
	return list
}

func viewedRule(r *ruleset.Rule) ViewedSecurityRule {
	v := ViewedSecurityRule{
		Name: r.PrefixedName(), Protocol: r.Protocol.String(), Access: r.Access.String(), Priority: r.Priority, Direction: r.Direction.String(),
		SourcePortRanges: portTexts(r.SourcePorts), DestinationPortRanges: portTexts(r.DestinationPorts),
		SourceApplicationSecurityGroups:      subResources(r.Source.ApplicationSecurityGroups),
		DestinationApplicationSecurityGroups: subResources(r.Destination.ApplicationSecurityGroups),
	}
	if r.Protocol == ruleset.AnyProtocol {
		v.Protocol = "All"
	}
	v.SourcePortRange, _ = oneOrSeveral(v.SourcePortRanges)
	v.DestinationPortRange, _ = oneOrSeveral(v.DestinationPortRanges)
	v.SourceAddressPrefix, v.SourceAddressPrefixes = viewedPeer(&r.Source)
	v.DestinationAddressPrefix, v.DestinationAddressPrefixes = viewedPeer(&r.Destination)
	return v
}

func viewedPeer(p *ruleset.Peer) (one string, several []string) {
	single, several := effectivePeer(p)
	if single != nil {
		one = *single
	}
	return one, several
}
