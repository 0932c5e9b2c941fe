package classifier

import (
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// Rule is one security rule resolved to plain sets: the caller expands tags and application
// security groups. Rules that share one slice, such as a service tag's prefixes, compile
// faster than rules with equal copies.
type Rule struct {
	Protocol                      ruleset.Protocol
	Sources, Destinations         []netip.Prefix // "*" is both 0.0.0.0/0 and ::/0; empty matches nothing
	SourcePorts, DestinationPorts []ruleset.PortRange
}

// Resolved is a rule whose ends are expanded to prefixes. It shares the rule's ports.
func Resolved(r *ruleset.Rule, sources, destinations []netip.Prefix) Rule {
	return Rule{
		Protocol:         r.Protocol,
		Sources:          sources,
		Destinations:     destinations,
		SourcePorts:      r.SourcePorts,
		DestinationPorts: r.DestinationPorts,
	}
}

// Equal reports whether both rules compile to the same table.
func (r *Rule) Equal(o *Rule) bool {
	return r.Protocol == o.Protocol && equalLists(r.Sources, o.Sources) && equalLists(r.Destinations, o.Destinations) &&
		equalLists(r.SourcePorts, o.SourcePorts) && equalLists(r.DestinationPorts, o.DestinationPorts)
}

// equalLists compares contents. It does not read them when both lists are one slice.
func equalLists[E comparable](a, b []E) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// unmap turns an IPv4-mapped prefix into the IPv4 prefix in it. Tuples hold IPv4 addresses
// as IPv4, so the mapped prefix would match nothing.
func unmap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// Linear is the obvious classifier: rule after rule, prefix after prefix. It is the
// reference of Table's tests, and shares no code with Table that decides a match.
type Linear []Rule

// FirstMatch returns the index of the first rule that matches k, or -1. It
// doesn't allocate and is safe for concurrent use.
func (l Linear) FirstMatch(k *packet.Tuple) int {
	src, dst := k.Src.Netip(), k.Dst.Netip()
	for i := range l {
		r := &l[i]
		if namesProtocol(r.Protocol, k) && contains(r.Sources, src) && contains(r.Destinations, dst) &&
			namesSourcePort(r.SourcePorts, k) && namesDestinationPort(r.DestinationPorts, k) {
			return i
		}
	}
	return -1
}

func namesProtocol(p ruleset.Protocol, k *packet.Tuple) bool {
	switch p {
	case ruleset.AnyProtocol:
		return true
	case ruleset.TCP:
		return k.Proto == packet.ProtoTCP
	case ruleset.UDP:
		return k.Proto == packet.ProtoUDP
	case ruleset.ICMP:
		if k.Src.Is4() {
			return k.Proto == packet.ProtoICMP
		}
		return k.Proto == packet.ProtoICMPv6
	case ruleset.ICMPv6:
		return k.Proto == packet.ProtoICMPv6 && !k.Src.Is4()
	case ruleset.ESP:
		return k.Proto == packet.ProtoESP
	case ruleset.AH:
		return k.Proto == packet.ProtoAH
	}
	return false
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if unmap(p).Contains(a) {
			return true
		}
	}
	return false
}

func namesSourcePort(ranges []ruleset.PortRange, k *packet.Tuple) bool {
	if k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP {
		return inRanges(ranges, k.SrcPort)
	}
	return coverAll(ranges)
}

func namesDestinationPort(ranges []ruleset.PortRange, k *packet.Tuple) bool {
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6:
		return inRanges(ranges, k.DstPort)
	}
	return coverAll(ranges)
}

func inRanges(ranges []ruleset.PortRange, port uint16) bool {
	for _, r := range ranges {
		if r.First <= port && port <= r.Last {
			return true
		}
	}
	return false
}

// coverAll reports whether every port is in one of the ranges. It searches a range for the
// lowest port that is not covered yet, until there is none.
func coverAll(ranges []ruleset.PortRange) bool {
	for next := 0; next <= 65535; {
		end := -1
		for _, r := range ranges {
			if int(r.First) <= next && next <= int(r.Last) {
				end = max(end, int(r.Last))
			}
		}
		if end < 0 {
			return false
		}
		next = end + 1
	}
	return true
}
