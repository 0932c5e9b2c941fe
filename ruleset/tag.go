package ruleset

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// platformAddress is Azure's host virtual address: the source of load balancer
// probes, the same in every region.
var platformAddress = netip.MustParsePrefix("168.63.129.16/32")

// PrivateIPv4 are the private and shared ranges (RFC 1918, RFC 6598). The slice must not be
// changed.
var PrivateIPv4 = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"),
}

// notInternet are the IPv4 ranges that Azure's Internet tag leaves out in every
// network. 169.254.0.0/16 is not among them, as in Azure's own expansion.
var notInternet = append(slices.Clone(PrivateIPv4),
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("224.0.0.0/3"),
)

var (
	allIPv4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	// globalIPv6 is all that IANA assigns as global unicast.
	globalIPv6 = netip.MustParsePrefix("2000::/3")
)

// InternetPrefixes is the Internet tag as a network sees it: the public IPv4
// unicast addresses and 2000::/3 without the prefixes of exclude, which are
// those of the network's VirtualNetwork tag. The result is sorted, IPv4 first,
// and the shortest list of prefixes that covers exactly these addresses.
func InternetPrefixes(exclude []netip.Prefix) []netip.Prefix {
	exclude = masked(exclude)
	prefixes := subtract(nil, allIPv4, slices.Concat(notInternet, exclude))
	return subtract(prefixes, globalIPv6, exclude)
}

// VirtualNetworkPrefixes is the VirtualNetwork tag of a network whose own and
// peered address spaces are space: these and the platform's address, sorted,
// without prefixes that others contain.
func VirtualNetworkPrefixes(space []netip.Prefix) []netip.Prefix {
	sorted := append(masked(space), platformAddress)
	slices.SortFunc(sorted, netip.Prefix.Compare)
	var prefixes []netip.Prefix
	for _, p := range sorted {
		// Whatever contains p sorts before it, and is the last one kept.
		if n := len(prefixes); n == 0 || !prefixes[n-1].Overlaps(p) {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}

// AzureLoadBalancerPrefixes is the AzureLoadBalancer tag, the same everywhere.
func AzureLoadBalancerPrefixes() []netip.Prefix { return []netip.Prefix{platformAddress} }

func masked(list []netip.Prefix) []netip.Prefix {
	result := make([]netip.Prefix, 0, len(list)+1)
	for _, p := range list {
		if p.IsValid() {
			result = append(result, p.Masked())
		}
	}
	return result
}

// subtract appends to list what is left of p without the prefixes of holes. It
// halves p until a half is whole or gone, so the result is in order and no two
// neighbours of it could be one prefix.
func subtract(list []netip.Prefix, p netip.Prefix, holes []netip.Prefix) []netip.Prefix {
	var inside []netip.Prefix
	for _, h := range holes {
		if !h.Overlaps(p) {
			continue
		}
		if h.Bits() <= p.Bits() {
			return list
		}
		inside = append(inside, h)
	}
	if len(inside) == 0 {
		return append(list, p)
	}
	low, high := halves(p)
	return subtract(subtract(list, low, inside), high, inside)
}

// halves splits a prefix that is shorter than its address.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	bits := p.Bits()
	address := p.Addr().AsSlice()
	address[bits/8] |= 0x80 >> (bits % 8)
	upper, _ := netip.AddrFromSlice(address)
	return netip.PrefixFrom(p.Addr(), bits+1), netip.PrefixFrom(upper, bits+1)
}

// classicTags are the built-in tags, and the spellings of Azure's old deployment model.
var classicTags = map[string]string{
	"virtual_network":    TagVirtualNetwork,
	"internet":           TagInternet,
	"azure_loadbalancer": TagAzureLoadBalancer,
	"virtualnetwork":     TagVirtualNetwork,
	"azureloadbalancer":  TagAzureLoadBalancer,
	"azureplatformdns":   TagPlatformDNS,
	"azureplatformimds":  TagPlatformIMDS,
	"azureplatformlkm":   TagPlatformLKM,
}

// KnownTags says how a service tag is spelt; the question has any case. A tag that
// can't be used has a problem instead, which says why and what is known.
type KnownTags func(tag string) (canonical, problem string)

// canonicalTag recognises a service tag, or says with problem what the text is
// instead. The built-in tags are always known, others when known has them,
// or, when known is nil, because they look like one.
func canonicalTag(text string, known KnownTags) (tag, problem string) {
	if tag, ok := classicTags[strings.ToLower(text)]; ok {
		return tag, ""
	}
	if !LooksLikeTag(text) {
		return "", "no service tag either"
	}
	if known == nil {
		return text, ""
	}
	return known(text)
}

// BuiltInTagNames are the tags that need no tag file, in order.
func BuiltInTagNames() []string {
	return slices.Compact(slices.Sorted(maps.Values(classicTags)))
}

// CanonicalBuiltInTag spells a tag that needs no tag file, given in any case or in the
// words of Azure's old deployment model; ok is false for every other text.
func CanonicalBuiltInTag(text string) (tag string, ok bool) {
	tag, ok = classicTags[strings.ToLower(text)]
	return tag, ok
}

// RouteTag is canonicalTag for a route, which takes the tags of a service tag file only.
func RouteTag(text string, known KnownTags) (tag, problem string) {
	tag, problem = canonicalTag(text, known)
	if problem == "" && IsBuiltInTag(tag) {
		return "", "the tag " + tag + " is for security rules"
	}
	return tag, problem
}

// IsBuiltInTag reports a tag, in canonical spelling, that needs no tag file.
func IsBuiltInTag(tag string) bool {
	return tag == TagVirtualNetwork || tag == TagInternet || tag == TagAzureLoadBalancer || PlatformServiceOf(tag) != nil
}

// LooksLikeTag reports letters, digits and single dots between them, beginning
// with a letter, as in "Storage.WestEurope".
func LooksLikeTag(text string) bool {
	if len(text) > MaxNameLength {
		return false
	}
	afterDot := false
	for i := range len(text) {
		c := text[i]
		switch {
		case isLetter(c), i > 0 && isDigit(c):
			afterDot = false
		case c == '.' && i > 0 && !afterDot:
			afterDot = true
		default:
			return false
		}
	}
	return text != "" && !afterDot
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
