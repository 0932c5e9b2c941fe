package azure

import (
	"net/netip"
	"strconv"

	"github.com/nsgd/nsgd/ruleset"
)

// EffectiveSecurityRule is a rule with its tags expanded, spelled as Azure does. "*" is
// "0.0.0.0/0" for addresses of both families, and the lists have it twice. Ports are
// always ranges, so "*" is "0-65535". Every protocol is "All"; ICMP, ESP and AH, which
// Azure's enumeration lacks, keep their ARM names. The singular fields are null when
// there are several values.
type EffectiveSecurityRule struct {
	// Name is ruleset.Rule.QualifiedName.
	Name                       string   `json:"name"`
	Protocol                   string   `json:"protocol"`
	SourcePortRange            *string  `json:"sourcePortRange"`
	DestinationPortRange       *string  `json:"destinationPortRange"`
	SourcePortRanges           []string `json:"sourcePortRanges"`
	DestinationPortRanges      []string `json:"destinationPortRanges"`
	SourceAddressPrefix        *string  `json:"sourceAddressPrefix"`
	DestinationAddressPrefix   *string  `json:"destinationAddressPrefix"`
	SourceAddressPrefixes      []string `json:"sourceAddressPrefixes"`
	DestinationAddressPrefixes []string `json:"destinationAddressPrefixes"`
	// The expansions are null on a side that names no tag.
	ExpandedSourceAddressPrefix      []string `json:"expandedSourceAddressPrefix"`
	ExpandedDestinationAddressPrefix []string `json:"expandedDestinationAddressPrefix"`
	// The application security groups are our addition: Azure's form has no field for them.
	// Left out when there are none.
	SourceApplicationSecurityGroups      []SubResource `json:"sourceApplicationSecurityGroups,omitempty"`
	DestinationApplicationSecurityGroups []SubResource `json:"destinationApplicationSecurityGroups,omitempty"`
	Access                               string        `json:"access"`
	Priority                             int           `json:"priority"`
	Direction                            string        `json:"direction"`
}

func (e *EffectiveNetworkSecurityGroup) effectiveRule(r *ruleset.Rule, expand func(tag string) []netip.Prefix) EffectiveSecurityRule {
	shown := EffectiveSecurityRule{
		Name: r.QualifiedName(), Protocol: r.Protocol.String(), Access: r.Access.String(), Priority: r.Priority,
		Direction:                            r.Direction.String(),
		SourcePortRanges:                     portTexts(r.SourcePorts),
		DestinationPortRanges:                portTexts(r.DestinationPorts),
		ExpandedSourceAddressPrefix:          e.expandTags(&r.Source, expand),
		ExpandedDestinationAddressPrefix:     e.expandTags(&r.Destination, expand),
		SourceApplicationSecurityGroups:      subResources(r.Source.ApplicationSecurityGroups),
		DestinationApplicationSecurityGroups: subResources(r.Destination.ApplicationSecurityGroups),
	}
	if r.Protocol == ruleset.AnyProtocol {
		shown.Protocol = "All"
	}
	shown.SourcePortRange, shown.DestinationPortRange = single(shown.SourcePortRanges), single(shown.DestinationPortRanges)
	shown.SourceAddressPrefix, shown.SourceAddressPrefixes = effectivePeer(&r.Source)
	shown.DestinationAddressPrefix, shown.DestinationAddressPrefixes = effectivePeer(&r.Destination)
	return shown
}

// effectivePeer lists "*" twice, once for each address family, as Azure does.
func effectivePeer(p *ruleset.Peer) (one *string, several []string) {
	several = peerTexts(p)
	one = single(several)
	if p.Any {
		several = append(several, several[0])
	}
	return one, several
}

func single(texts []string) *string {
	if len(texts) != 1 {
		return nil
	}
	return &texts[0]
}

func portTexts(ranges []ruleset.PortRange) []string {
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		texts[i] = strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
	}
	return texts
}

func peerTexts(p *ruleset.Peer) []string {
	switch {
	case p.AnyOf != nil:
		var all []string
		p.Each(func(one *ruleset.Peer) { all = append(all, peerTexts(one)...) })
		return all
	case p.NetworkGroup != "":
		return []string{p.NetworkGroup}
	case p.Any:
		return []string{"0.0.0.0/0"}
	case p.Tag != "":
		return []string{p.Tag}
	}
	return prefixTexts(p.Prefixes)
}

func prefixTexts(prefixes []netip.Prefix) []string {
	texts := make([]string, len(prefixes))
	for i, p := range prefixes {
		texts[i] = p.String()
	}
	return texts
}

func subResources(ids []string) []SubResource {
	var list []SubResource
	for _, id := range ids {
		list = append(list, SubResource{id})
	}
	return list
}

// SecurityRuleProperties are a rule's fields. One value is in the singular field, several
// are in the plural one, which is never null.
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

// ViewedSecurityRule is a rule as it holds, with the spelling of EffectiveSecurityRule.
type ViewedSecurityRule struct {
	Name                       string   `json:"name"` // UserRule_NAME or DefaultRule_NAME
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

// echo spells the fields as the document has them, as Azure gives back what it was given.
func (p *SecurityRuleProperties) echo(written *ruleset.SecurityRule) {
	if written == nil {
		return
	}
	for _, f := range []struct {
		field *string
		text  string
	}{
		{&p.Protocol, written.Protocol}, {&p.Access, written.Access}, {&p.Direction, written.Direction},
		{&p.SourceAddressPrefix, written.Source.AddressPrefix}, {&p.DestinationAddressPrefix, written.Destination.AddressPrefix},
		{&p.SourcePortRange, written.Source.PortRange}, {&p.DestinationPortRange, written.Destination.PortRange},
	} {
		if f.text != "" {
			*f.field = f.text
		}
	}
	for _, f := range []struct {
		field *[]string
		one   *string
		list  []string
	}{
		{&p.SourceAddressPrefixes, &p.SourceAddressPrefix, written.Source.AddressPrefixes},
		{&p.DestinationAddressPrefixes, &p.DestinationAddressPrefix, written.Destination.AddressPrefixes},
		{&p.SourcePortRanges, &p.SourcePortRange, written.Source.PortRanges},
		{&p.DestinationPortRanges, &p.DestinationPortRange, written.Destination.PortRanges},
	} {
		if len(f.list) > 0 {
			*f.field, *f.one = f.list, ""
		}
	}
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
