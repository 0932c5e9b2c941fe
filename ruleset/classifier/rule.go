package classifier

import (
	"net/netip"
	"slices"

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

// Equal reports that compiling either rule gives the same table.
func (r *Rule) Equal(o *Rule) bool {
	return r.Protocol == o.Protocol && equalLists(r.Sources, o.Sources) && equalLists(r.Destinations, o.Destinations) &&
		equalLists(r.SourcePorts, o.SourcePorts) && equalLists(r.DestinationPorts, o.DestinationPorts)
}

// equalLists compares contents, which it need not read when both lists are one.
func equalLists[E comparable](a, b []E) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
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
