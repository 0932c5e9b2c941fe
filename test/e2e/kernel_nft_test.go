package e2e

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// nftables is the scenario for the router: the same NSGs written by hand, so to say,
// from Azure's document, sharing nothing with nsgd but what the three tags stand for.
//
// A chain of an NSG drops what it denies and returns from what it allows, to the next
// NSG. The mark on a connection says that every NSG allowed its first packet: "state
// established" would not do, since the kernel counts as new whatever has not been answered.
func (s *scenario) nftables() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	for _, tag := range []string{ruleset.TagVirtualNetwork, ruleset.TagInternet, ruleset.TagAzureLoadBalancer} {
		for family := range 2 {
			if prefixes := ofFamily(tagPrefixes(tag), family); prefixes != "" {
				line("define %s%d = { %s }", tag, family, prefixes)
			}
		}
	}
	line("table inet nsg {}\ndelete table inet nsg\ntable inet nsg {")
	for i, rules := range s.groups {
		for _, direction := range []string{"Inbound", "Outbound"} {
			line("chain %s%d {", direction, i)
			for _, r := range withDefaults(rules, direction) {
				for _, text := range r.nftables() {
					line("%s", text)
				}
			}
			line("}")
		}
	}
	// Anti-spoofing, as a virtual network has it, before connection tracking.
	line("chain admission { type filter hook prerouting priority raw; policy accept;")
	for vm, address := range s.address {
		line("iifname r%d ip saddr != %s drop", vm, address[0])
		line("iifname r%d ip6 saddr != %s drop", vm, address[1])
	}
	line("iifname r%d ip saddr { %s, 168.63.129.16, 169.254.169.254 } drop", figureInternet, ofFamily(figureSpace, 0))
	line("iifname r%d ip6 saddr { %s } drop", figureInternet, ofFamily(figureSpace, 1))
	// What no host of the internet has.
	line("iifname r%d ip saddr { 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.88.99.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3 } drop", figureInternet)
	line("iifname r%d ip6 saddr != 2000::/3 drop", figureInternet)
	// A router must not (RFC 4291 2.5.6), but Linux has a route for each of its links.
	line("ip6 daddr fe80::/10 drop")
	line("}")
	line("chain forward { type filter hook forward priority filter; policy drop;")
	line("ct mark 1 accept")
	line("ct state related accept")
	// An error message that belongs to no connection is for the ordinary rules.
	line("ct state invalid icmp type { 3, 11, 12 } jump judge")
	line("ct state invalid icmp type { 3, 11, 12 } accept")
	line("ct state invalid icmpv6 type 1-4 jump judge")
	line("ct state invalid icmpv6 type 1-4 accept")
	line("ct state { invalid, untracked } drop")
	line("jump judge")
	line("ct mark set 1 accept")
	line("}")
	line("chain judge {")
	for vm := range figureVMs {
		for _, group := range []int{s.nicGroup[vm], s.subnetGroup[subnetOf[vm]]} {
			if group != noGroup {
				line("iifname r%d jump Outbound%d", vm, group)
			}
		}
	}
	for vm := range figureVMs {
		for _, group := range []int{s.subnetGroup[subnetOf[vm]], s.nicGroup[vm]} {
			if group != noGroup {
				line("oifname r%d jump Inbound%d", vm, group)
			}
		}
	}
	line("}")
	line("}")
	return b.String()
}

// withDefaults are a group's rules of one direction in their order.
func withDefaults(rules []scenarioRule, direction string) []scenarioRule {
	all := []string{"*"}
	ordered := slices.DeleteFunc(slices.Clone(rules), func(r scenarioRule) bool { return r.direction != direction })
	slices.SortFunc(ordered, func(a, b scenarioRule) int { return cmp.Compare(a.priority, b.priority) })
	add := func(source, destination, access string) {
		ordered = append(ordered, scenarioRule{direction: direction, access: access, protocol: "*",
			source: []string{source}, destination: []string{destination}, sourcePorts: all, destinationPorts: all})
	}
	add("VirtualNetwork", "VirtualNetwork", "Allow")
	if direction == "Inbound" {
		add("AzureLoadBalancer", "*", "Allow")
	} else {
		add("*", "Internet", "Allow")
	}
	add("*", "*", "Deny")
	return ordered
}

// nftables is one line for each family and kind of protocol that the rule speaks of.
func (r *scenarioRule) nftables() []string {
	verdict := "return"
	if r.access == "Deny" {
		verdict = "drop"
	}
	var lines []string
	for family := range 2 {
		source, ok := addressMatch(family, "saddr", r.source)
		destination, ok2 := addressMatch(family, "daddr", r.destination)
		if !ok || !ok2 {
			continue
		}
		for _, protocol := range r.protocolMatches(family) {
			lines = append(lines, strings.Join([]string{"meta nfproto", [2]string{"ipv4", "ipv6"}[family],
				source, destination, protocol, verdict}, " "))
		}
	}
	return lines
}

// addressMatch is false when the side has no address of the family.
func addressMatch(family int, field string, atoms []string) (string, bool) {
	var prefixes []netip.Prefix
	for _, atom := range atoms {
		switch atom {
		case "*":
			return "", true
		case ruleset.TagVirtualNetwork, ruleset.TagInternet, ruleset.TagAzureLoadBalancer:
			if ofFamily(tagPrefixes(atom), family) == "" {
				return "", false
			}
			return fmt.Sprintf("%s %s $%s%d", [2]string{"ip", "ip6"}[family], field, atom, family), true
		}
		p, err := netip.ParsePrefix(atom)
		if err != nil {
			a := netip.MustParseAddr(atom)
			p = netip.PrefixFrom(a, a.BitLen())
		}
		prefixes = append(prefixes, p)
	}
	words := ofFamily(prefixes, family)
	return fmt.Sprintf("%s %s { %s }", [2]string{"ip", "ip6"}[family], field, words), words != ""
}

// tagPrefixes is what a service tag stands for in the figure.
func tagPrefixes(tag string) []netip.Prefix {
	switch tag {
	case ruleset.TagVirtualNetwork:
		return ruleset.VirtualNetworkPrefixes(figureSpace)
	case ruleset.TagInternet:
		return ruleset.InternetPrefixes(ruleset.VirtualNetworkPrefixes(figureSpace))
	}
	return ruleset.AzureLoadBalancerPrefixes()
}

func ofFamily(prefixes []netip.Prefix, family int) string {
	var words []string
	for _, p := range prefixes {
		if p.Addr().Is4() == (family == 0) {
			words = append(words, p.String())
		}
	}
	return strings.Join(words, ", ")
}

// protocolMatches are alternatives. Ports are those of TCP and UDP; of ICMP the
// destination port is the type, and there is no source port; what has no ports is
// matched only by a rule that names all of them.
func (r *scenarioRule) protocolMatches(family int) []string {
	ports := ""
	allSources, allDestinations := allPorts(r.sourcePorts), allPorts(r.destinationPorts)
	if !allSources {
		ports += " th sport { " + strings.Join(r.sourcePorts, ", ") + " }"
	}
	if !allDestinations {
		ports += " th dport { " + strings.Join(r.destinationPorts, ", ") + " }"
	}
	number, icmp := [2]string{"1", "58"}[family], [2]string{"icmp", "icmpv6"}[family]
	var icmpMatch []string
	switch {
	case !allSources:
	case allDestinations:
		icmpMatch = []string{"meta l4proto " + number}
	default:
		if types := icmpTypes(r.destinationPorts); types != "" {
			icmpMatch = []string{icmp + " type { " + types + " }"}
		}
	}
	portless := allSources && allDestinations
	switch r.protocol {
	case "Tcp":
		return []string{"meta l4proto 6" + ports}
	case "Udp":
		return []string{"meta l4proto 17" + ports}
	case "Icmp":
		return icmpMatch
	case "Esp", "Ah":
		if !portless {
			return nil
		}
		return []string{"meta l4proto " + map[string]string{"Esp": "50", "Ah": "51"}[r.protocol]}
	}
	if portless {
		return []string{""}
	}
	return append([]string{"meta l4proto { 6, 17 }" + ports}, icmpMatch...)
}

// allPorts reports whether the ranges cover every port; those of scenarios do so only
// as "*" or as two halves in order.
func allPorts(ranges []string) bool {
	next := 0
	for _, text := range ranges {
		if text == "*" {
			return true
		}
		if low, high := portBounds(text); low == next {
			next = high + 1
		}
	}
	return next == 65536
}

// icmpTypes are the ranges as far as they are ICMP types.
func icmpTypes(ranges []string) string {
	var types []string
	for _, text := range ranges {
		low, high := portBounds(text)
		high = min(high, 255)
		switch {
		case low == high:
			types = append(types, strconv.Itoa(low))
		case low < high:
			types = append(types, fmt.Sprintf("%d-%d", low, high))
		}
	}
	return strings.Join(types, ", ")
}

func portBounds(text string) (low, high int) {
	first, last, isRange := strings.Cut(text, "-")
	low, _ = strconv.Atoi(first)
	if !isRange {
		return low, low
	}
	high, _ = strconv.Atoi(last)
	return low, high
}
