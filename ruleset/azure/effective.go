package azure

import (
	"net/netip"
	"strconv"

	"github.com/nsgd/nsgd/ruleset"
)

// EffectiveNetworkSecurityGroupListResult is the answer of Azure's list of
// effective network security groups of a NIC.
type EffectiveNetworkSecurityGroupListResult struct {
	Value    []EffectiveNetworkSecurityGroup `json:"value"`
	NextLink *string                         `json:"nextLink"` // always null: there is one page
}

// EffectiveNetworkSecurityGroup is one NSG that holds for a NIC, or one rule collection of a
// network manager's security admin rules.
type EffectiveNetworkSecurityGroup struct {
	NetworkSecurityGroup SubResource          `json:"networkSecurityGroup"`
	Association          EffectiveAssociation `json:"association"`
	TagMap               map[string][]string  `json:"tagMap"`
	// EffectiveSecurityRules are the inbound rules in the order in which they
	// are tried, then the outbound ones.
	EffectiveSecurityRules []EffectiveSecurityRule `json:"effectiveSecurityRules"`
}

// EffectiveAssociation says where an NSG is attached, or which network manager a rule collection is
// of: one of them is set.
type EffectiveAssociation struct {
	NetworkManager   *SubResource `json:"networkManager,omitempty"`
	Subnet           *SubResource `json:"subnet,omitempty"`
	NetworkInterface *SubResource `json:"networkInterface,omitempty"`
}

// EffectiveSecurityRule is a rule with its tags expanded. As in Azure, "*"
// is written "0.0.0.0/0" for addresses and "0-65535" for ports, a single port
// as a range, and every protocol as "All"; "0.0.0.0/0" here therefore stands for
// both address families where the rule says "*", and the lists have it twice. The
// singular fields are null when there are several values. ICMP, ESP and AH are beyond
// Azure's enumeration and keep their ARM names.
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
	// The application security groups are our addition to Azure's model, which
	// has no place for them; left out when there are none.
	SourceApplicationSecurityGroups      []SubResource `json:"sourceApplicationSecurityGroups,omitempty"`
	DestinationApplicationSecurityGroups []SubResource `json:"destinationApplicationSecurityGroups,omitempty"`
	Access                               string        `json:"access"`
	Priority                             int           `json:"priority"`
	Direction                            string        `json:"direction"`
}

// Effective shows an NSG as it holds where it is associated. expand resolves a
// service tag there; a tag that it doesn't know expands to nothing.
func Effective(nsg *ruleset.NSG, association EffectiveAssociation, expand func(tag string) []netip.Prefix) EffectiveNetworkSecurityGroup {
	e := EffectiveNetworkSecurityGroup{
		NetworkSecurityGroup: SubResource{nsg.ID}, Association: association, TagMap: map[string][]string{},
	}
	for _, direction := range []ruleset.Direction{ruleset.Inbound, ruleset.Outbound} {
		rules := nsg.Ordered(direction)
		for i := range rules {
			e.EffectiveSecurityRules = append(e.EffectiveSecurityRules, e.effectiveRule(&rules[i], expand))
		}
	}
	return e
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

// effectivePeer has "*" twice in the list, once for each address family, as Azure's answers.
func effectivePeer(p *ruleset.Peer) (one *string, several []string) {
	several = peerTexts(p)
	one = single(several)
	if p.Any {
		several = append(several, several[0])
	}
	return one, several
}

// expandTags resolves what a side names, nil when that is no tag.
func (e *EffectiveNetworkSecurityGroup) expandTags(side *ruleset.Peer, expand func(tag string) []netip.Prefix) (texts []string) {
	side.Each(func(p *ruleset.Peer) {
		switch {
		case p.Tag == "":
		case side.AnyOf == nil: // shared by all rules that name it
			texts = e.expandTag(p.Tag, expand)
		default:
			texts = append(texts, e.expandTag(p.Tag, expand)...)
		}
	})
	return texts
}

// expandTag resolves a tag once and remembers it in the tag map.
func (e *EffectiveNetworkSecurityGroup) expandTag(tag string, expand func(tag string) []netip.Prefix) []string {
	texts, known := e.TagMap[tag]
	if !known {
		texts = prefixTexts(expand(tag))
		e.TagMap[tag] = texts
	}
	return texts
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
