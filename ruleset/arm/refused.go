package arm

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Azure's codes for what it checks and nothing here needs.
const (
	CodeInvalidDomainLabel   = "InvalidDomainNameLabel"
	CodeGlobalBasic          = "GlobalPublicIPAddressNotSupportedForBasicPublicIpAddress"
	CodeInvalidDNSServer     = "NetcfgInvalidDnsServer"
	CodeEncryptionIncomplete = "MustSpecifyBothEncryptionIntentAndEnforcementPolicy"
	CodeGroupAtGatewaySubnet = "NetworkSecurityGroupCannotBeAttachedToGatewaySubnet"
	CodeGroupAtBastionSubnet = "NetworkSecurityGroupNotCompliantForAzureBastionSubnet"
	CodeTableAtBastionSubnet = "RouteTableCannotBeAttachedForAzureBastionSubnet" // Azure's (Azure-Landing-Zones issue 1679, azure-docs issue 40561)
	CodeInBastionSubnet      = "AzureBastionSubnet"                              // Azure's (ato-toolkit issue 26)
	CodeSubnetDelegated      = "SubnetIsDelegatedAndCannotBeUsed"                // in Documents.Warnings
	CodeGroupAtManagedSubnet = "SubnetInvalidNetworkSecurityGroup"               // ours
)

// Subnets with a purpose by their name.
const (
	bastionSubnet = "AzureBastionSubnet"
	gatewaySubnet = "GatewaySubnet"
)

// managedSubnets hold services that Azure itself protects; no NSG stands there.
var managedSubnets = []string{"AzureFirewallSubnet", "AzureFirewallManagementSubnet", "RouteServerSubnet"}

// domainLabel is what Azure takes as a domain name label. Capitals, which it refuses, are taken: published
// templates have placeholders of them.
var domainLabel = regexp.MustCompile(`^[a-z][a-z0-9-]{1,61}[a-z0-9]$`)

// known is a field's text in an object, empty for an expression: what nothing here needs may stay open.
func known(object map[string]any, field string) string {
	if text := textOf(object, field); !isExpression(text) {
		return text
	}
	return ""
}

// checkPublic checks the name and the tier of a public address.
func (f *fields) checkPublic(r *resource, p *policy.PublicIPAddress) {
	names, _ := lookup(f.values, "dnsSettings").(map[string]any)
	if label := known(names, "domainNameLabel"); label != "" && !domainLabel.MatchString(strings.ToLower(label)) {
		f.fault(CodeInvalidDomainLabel, "domainNameLabel", label,
			"allowed are 3 to 63 lower case letters, digits and hyphens, with a letter first and no hyphen last")
	}
	sku, _ := lookup(r.body, "sku").(map[string]any)
	if strings.EqualFold(known(sku, "tier"), "Global") && p.SKU == policy.SKUBasic {
		f.fault(CodeGlobalBasic, "sku", "Global", "allowed with SKU Basic is the tier Regional")
	}
}

// checkEncryption checks the encryption of a virtual network.
func (f *fields) checkEncryption() {
	encryption, _ := lookup(f.values, "encryption").(map[string]any)
	if lookup(encryption, "enabled") == true && lookup(encryption, "enforcement") == nil {
		f.fault(CodeEncryptionIncomplete, "encryption", asText(encryption), "enforcement is needed too; allowed are AllowUnencrypted and DropUnencrypted")
	}
}

// checkUse refuses a network interface in a bastion's subnet. It warns of a template's in a subnet that is delegated to a
// service: Learn lists Azure's refusal ("Troubleshoot virtual network deletion"). That is no fault, because some services
// (Databricks) have others' interfaces in theirs.
func (f *fields) checkUse(r *resource, s *policy.Subnet) {
	if strings.EqualFold(s.Name, bastionSubnet) {
		f.fault(CodeInBastionSubnet, "subnet", s.ID, "Subnet with name '%s' can be used only for the Azure Bastion resource.", bastionSubnet)
	}
	if to := f.l.delegated[s]; r.templated() && to != "" {
		f.l.warn(f.newFault(CodeSubnetDelegated, "subnet", s.ID, "the subnet is delegated to "+to+": Azure lets few other resources into it"))
	}
}

// delegation is the first service that a subnet is delegated to; empty when there is none, or it is not known.
func (f *fields) delegation() string {
	list, _ := lookup(f.values, "delegations").([]any)
	for _, v := range list {
		d, _ := v.(map[string]any)
		if name, _ := propertyOf(d, "serviceName").(string); name != "" && !isExpression(name) {
			return name
		}
	}
	return ""
}

// checkSpecial checks the subnets that have a purpose by their name.
func (f *fields) checkSpecial(s *policy.Subnet) {
	if t := s.RouteTable; t != nil && strings.EqualFold(s.Name, bastionSubnet) {
		f.fault(CodeTableAtBastionSubnet, "routeTable", t.ID, "Route Table %s cannot be attached to Azure Bastion Subnet %s.", t.Name, s.Name)
	}
	g := s.NetworkSecurityGroup
	if g == nil {
		return
	}
	const field = "networkSecurityGroup"
	switch {
	case strings.EqualFold(s.Name, gatewaySubnet):
		f.fault(CodeGroupAtGatewaySubnet, field, g.ID, "Network security group %s cannot be attached to %s %s.", g.Name, gatewaySubnet, s.ID)
	case strings.EqualFold(s.Name, bastionSubnet):
		if missing := missingForBastion(g); missing != "" {
			f.fault(CodeGroupAtBastionSubnet, field, g.ID, "Network security group %s does not have necessary rules for Azure Bastion Subnet %s: %s", g.Name, s.Name, missing)
		}
	default:
		for _, name := range managedSubnets {
			if strings.EqualFold(s.Name, name) {
				f.fault(CodeGroupAtManagedSubnet, field, g.ID, "no network security group can stand before %s, which Azure itself protects", name)
			}
		}
	}
}

// missingForBastion is a rule that a bastion needs and a group has not; empty: it has them. Default rules
// don't count (azure-docs issue 80806).
func missingForBastion(g *ruleset.NSG) string {
	for _, need := range []struct {
		direction ruleset.Direction
		tag       string
		port      uint16
	}{
		{ruleset.Inbound, "GatewayManager", 443}, {ruleset.Outbound, "AzureCloud", 443},
		{ruleset.Outbound, ruleset.TagVirtualNetwork, 22}, {ruleset.Outbound, ruleset.TagVirtualNetwork, 3389},
	} {
		rules := g.Ordered(need.direction)
		first := slices.IndexFunc(rules, func(r ruleset.Rule) bool {
			peer := &r.Source
			if need.direction == ruleset.Outbound {
				peer = &r.Destination
			}
			return r.AppliesTo(ruleset.TCP, need.port) && coversTag(peer, need.tag)
		})
		if first < 0 || rules[first].Default || rules[first].Access == ruleset.Deny {
			return fmt.Sprintf("a rule of its own must allow %s TCP %d with %s", strings.ToLower(need.direction.String()), need.port, need.tag)
		}
	}
	return ""
}

// coversTag reports that a peer holds all addresses of a tag: VirtualNetwork, or one of Azure's services.
func coversTag(p *ruleset.Peer, tag string) bool {
	for _, all := range p.Prefixes {
		if all.Bits() == 0 {
			return true
		}
	}
	public := p.Tag == ruleset.TagInternet && tag != ruleset.TagVirtualNetwork
	return p.Any || public || strings.EqualFold(p.Tag, tag)
}
