package classifier

import (
	"net/netip"

	"github.com/nsgd/nsgd/ruleset"
)

// Rule is one security rule resolved to plain sets: tags and application
// security groups are expanded by the caller. Rules that share one slice as
// their list (a service tag's prefixes, say) compile faster than rules with
// equal copies of it.
type Rule struct {
	Protocol                      ruleset.Protocol
	Sources, Destinations         []netip.Prefix // "*" is both 0.0.0.0/0 and ::/0; empty matches nothing
	SourcePorts, DestinationPorts []ruleset.PortRange
}

// unmap gives the IPv4 prefix that an IPv4-mapped prefix stands for, and any
// other prefix as it is. Tuples hold IPv4 addresses as IPv4, so a mapped prefix
// left as IPv6 would match nothing.
func unmap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}
