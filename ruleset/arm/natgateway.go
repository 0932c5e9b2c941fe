package arm

import (
	"strconv"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// Codes for NAT gateways. Azure's is SubnetWithNatGatewayAndBasicSkuResourceNotAllowed
// (hashicorp/terraform-provider-azurerm issue 18570). The others are ours.
const (
	CodeGatewayAndBasic     = "SubnetWithNatGatewayAndBasicSkuResourceNotAllowed"
	CodeGatewayBasicAddress = "NatGatewayPublicIPAddressNotStandard"
	CodeGatewayIdle         = "NatGatewayInvalidIdleTimeout"
	CodeGatewayTooMany      = "NatGatewayInvalidNumberOfPublicIPAddresses"
	CodeSubnetOtherGateway  = "SubnetHasOtherNatGateway"
)

// Azure's limits of a NAT gateway.
const (
	maxGatewayIdle      = 120 // minutes
	maxGatewayAddresses = 16
)

// gatewayClaim is a NAT gateway that names a subnet.
type gatewayClaim struct {
	f       *fields
	gateway *policy.NATGateway
	id      string
}

func (l *loader) buildNATGateway(r *resource) {
	f := l.readTranslating(r.file, r.place(), r.body)
	if !f.named(r) {
		return
	}
	g := &policy.NATGateway{Name: r.name, ID: r.identity(), SKU: f.sku(r, policy.SKUStandard, policy.SKUStandardV2)}
	g.IdleTimeout = f.idle(CodeGatewayIdle, maxGatewayIdle, defaultIdle)
	f.gatewayAddresses(g)
	f.markCondition(r)
	g.Unknown = g.Unknown || len(f.open) > 0
	if !l.register(r, g.ID, g, g.Name) {
		return
	}
	l.out.Set.NATGateways = append(l.out.Set.NATGateways, g)
	for _, id := range f.references("subnets") {
		l.gatewayClaims = append(l.gatewayClaims, gatewayClaim{f, g, id})
	}
}

// gatewayAddresses reads the addresses and prefixes of a NAT gateway.
func (f *fields) gatewayAddresses(g *policy.NATGateway) {
	for _, field := range []string{"publicIpAddresses", "publicIpAddressesV6"} {
		for _, id := range f.references(field) {
			p, _ := f.resolveTranslating(publicAddressKind, field, id).(*policy.PublicIPAddress)
			if p == nil {
				g.Unknown = true
				continue
			}
			f.allocate(p, field)
			if p.SKU == policy.SKUBasic {
				f.fault(CodeGatewayBasicAddress, field, p.Name, "a NAT gateway takes public IP addresses of SKU Standard or StandardV2, this one is Basic")
			}
			g.Unknown = g.Unknown || !p.Address.IsValid()
			g.Addresses = append(g.Addresses, p)
		}
	}
	for _, field := range []string{"publicIpPrefixes", "publicIpPrefixesV6"} {
		for _, id := range f.references(field) {
			p, _ := f.resolveTranslating(publicPrefixKind, field, id).(*policy.PublicIPPrefix)
			if p == nil {
				g.Unknown = true
				continue
			}
			g.Unknown = g.Unknown || !p.Prefix.IsValid()
			g.Prefixes = append(g.Prefixes, p)
		}
	}
	for _, six := range []bool{false, true} {
		if n := countAddresses(g, six); n > maxGatewayAddresses {
			f.fault(CodeGatewayTooMany, "publicIpAddresses", strconv.Itoa(n), "a NAT gateway has at most %d public addresses of a family, those of its prefixes included", maxGatewayAddresses)
		}
	}
}

// countAddresses counts the gateway's addresses of a family, including those of prefixes.
func countAddresses(g *policy.NATGateway, six bool) (n int) {
	for _, p := range g.Addresses {
		if p.Address.IsValid() && p.Address.Is6() == six {
			n++
		}
	}
	for _, p := range g.Prefixes {
		if p.Prefix.IsValid() && p.Prefix.Addr().Is6() == six {
			n += 1 << min(p.Prefix.Addr().BitLen()-p.Prefix.Bits(), 16)
		}
	}
	return n
}

// natGateway reads a subnet's reference to its NAT gateway; nil when there is none. A
// broken reference gives an Unknown gateway.
func (f *fields) natGateway() *policy.NATGateway {
	const field = "natGateway"
	id := f.reference(field)
	if id == "" {
		if f.open[field] {
			return &policy.NATGateway{Unknown: true}
		}
		return nil
	}
	g, _ := f.resolveTranslating(natGatewayKind, field, id).(*policy.NATGateway)
	if g == nil {
		return &policy.NATGateway{Name: lastSegment(id), Unknown: true}
	}
	return g
}

// relateGateways gives NAT gateways to the subnets that they name. It reports Basic public
// addresses in a subnet with a NAT gateway.
func (l *loader) relateGateways() {
	const field = "subnets"
	for _, c := range l.gatewayClaims {
		s, _ := c.f.resolveTranslating(subnetKind, field, c.id).(*policy.Subnet)
		switch {
		case s == nil:
		case s.NATGateway == nil:
			s.NATGateway = c.gateway
		case s.NATGateway != c.gateway:
			c.f.fault(CodeSubnetOtherGateway, field, c.id, "the subnet has NAT gateway %q; it can have one", s.NATGateway.Name)
		}
	}
	for _, n := range l.out.Set.NetworkInterfaces {
		for i := range n.IPConfigurations {
			c := &n.IPConfigurations[i]
			if c.PublicIPAddress == nil || c.PublicIPAddress.SKU != policy.SKUBasic || c.Subnet.NATGateway == nil {
				continue
			}
			f := &fields{l: l, file: l.fileOf(n.ID), place: kindPaths[interfaceKind] + "/" + n.Name + "/ipConfigurations/" + c.Name}
			f.fault(CodeGatewayAndBasic, "publicIPAddress", c.PublicIPAddress.Name,
				"NAT Gateway cannot be deployed on subnet containing Basic SKU Public IP addresses or Basic SKU Load Balancer: subnet %q has %q",
				c.Subnet.Name, c.Subnet.NATGateway.Name)
		}
	}
}
