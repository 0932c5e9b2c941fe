package azure

import (
	"net/netip"

	"github.com/nsgd/nsgd/ruleset"
)

// EffectiveNetworkSecurityGroupListResult is Azure's list of the effective network
// security groups of a NIC.
type EffectiveNetworkSecurityGroupListResult struct {
	Value    []EffectiveNetworkSecurityGroup `json:"value"`
	NextLink *string                         `json:"nextLink"` // always null: there is one page
}

// EffectiveNetworkSecurityGroup is one NSG that holds for a NIC, or one collection of
// security admin rules.
type EffectiveNetworkSecurityGroup struct {
	NetworkSecurityGroup SubResource          `json:"networkSecurityGroup"`
	Association          EffectiveAssociation `json:"association"`
	TagMap               map[string][]string  `json:"tagMap"`
	// EffectiveSecurityRules are the inbound rules in the order in which they
	// are tried, then the outbound ones.
	EffectiveSecurityRules []EffectiveSecurityRule `json:"effectiveSecurityRules"`
}

// EffectiveAssociation says where an NSG is attached, or which network manager owns a rule
// collection. Exactly one field is set.
type EffectiveAssociation struct {
	NetworkManager   *SubResource `json:"networkManager,omitempty"`
	Subnet           *SubResource `json:"subnet,omitempty"`
	NetworkInterface *SubResource `json:"networkInterface,omitempty"`
}

// Effective shows an NSG as it holds where it is associated. expand gives the prefixes
// of a service tag there, none for an unknown tag.
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

// expandTags gives the prefixes of the tags that a side names; nil when it names none.
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

// EffectiveRouteListResult is the answer of Azure's effective routes of a NIC.
type EffectiveRouteListResult struct {
	Value    []EffectiveRoute `json:"value"`
	NextLink *string          `json:"nextLink"` // always null
}

// EffectiveRoute is one route. Lists are never null.
type EffectiveRoute struct {
	Name                       *string  `json:"name"` // of a user-defined route; else null
	DisableBGPRoutePropagation bool     `json:"disableBgpRoutePropagation"`
	Source                     string   `json:"source"` // Default, User or VirtualNetworkGateway
	State                      string   `json:"state"`  // Active, or Invalid where another route has its place
	AddressPrefix              []string `json:"addressPrefix"`
	NextHopIPAddress           []string `json:"nextHopIpAddress"`
	// NextHopType is VnetLocal, VNetPeering, Internet, None, VirtualAppliance, VirtualNetworkGateway,
	// VirtualNetworkServiceEndpoint or InterfaceEndpoint.
	NextHopType string `json:"nextHopType"`
}
