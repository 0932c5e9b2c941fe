package ruleset

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
)

// The tags that need no tag file.
const (
	TagVirtualNetwork    = "VirtualNetwork"
	TagInternet          = "Internet"
	TagAzureLoadBalancer = "AzureLoadBalancer"
	TagPlatformDNS       = "AzurePlatformDNS"
	TagPlatformIMDS      = "AzurePlatformIMDS"
	TagPlatformLKM       = "AzurePlatformLKM"
)

// platformAddress is Azure's host virtual address, the same in every region: the source of
// load balancer probes. Probes to IPv6 backends come from probeIPv6.
var (
	platformAddress = netip.MustParsePrefix("168.63.129.16/32")
	probeIPv6       = netip.MustParsePrefix("fe80::1234:5678:9abc/128")
)

// PrivateIPv4 are the private and shared ranges (RFC 1918, RFC 6598). The slice must not be
// changed.
var PrivateIPv4 = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"),
}

// notInternet are the IPv4 ranges that Azure's Internet tag leaves out in every network, as
// its effective rules of 2019, 2021 and 2023 show. Some 50 blocks more are left out there:
// most of 21/8, 22/8 and 25/8, and parts of Microsoft's own space. They differ from year to
// year, so that they are not here.
var notInternet = append(slices.Clone(PrivateIPv4),
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("224.0.0.0/3"),
)

// globalIPv6 is all that IANA assigns as global unicast.
var globalIPv6 = netip.MustParsePrefix("2000::/3")

var everywhere = []netip.Prefix{
	netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0),
}

// Everywhere is every address: 0.0.0.0/0 and ::/0. The result is always the same slice
// and must not be changed.
func Everywhere() []netip.Prefix { return everywhere }

// InternetPrefixes is the Internet tag as a network sees it: the public IPv4 unicast
// addresses and 2000::/3, without the prefixes of exclude. Those are the prefixes of the
// network's VirtualNetwork tag, but its 168.63.129.16/32 stays in: Azure has it in both tags.
// The result is sorted, IPv4 first, and has the fewest prefixes that cover these addresses.
func InternetPrefixes(exclude []netip.Prefix) []netip.Prefix {
	var b netipx.IPSetBuilder
	b.AddPrefix(everywhere[0])
	b.AddPrefix(globalIPv6)
	for _, p := range slices.Concat(notInternet, exclude) {
		if p.IsValid() && p != platformAddress {
			b.RemovePrefix(p)
		}
	}
	set, _ := b.IPSet() // only an invalid prefix is an error
	return set.Prefixes()
}

// VirtualNetworkPrefixes is the VirtualNetwork tag of a network: space, which is its own
// and its peers' address space, and the platform's address. The result is sorted and
// leaves out prefixes that others contain.
func VirtualNetworkPrefixes(space []netip.Prefix) []netip.Prefix {
	sorted := []netip.Prefix{platformAddress}
	for _, p := range space {
		if p.IsValid() {
			sorted = append(sorted, p.Masked())
		}
	}
	slices.SortFunc(sorted, netip.Prefix.Compare)
	var prefixes []netip.Prefix
	for _, p := range sorted {
		// A prefix that contains p sorts before it, and is the last one kept.
		if n := len(prefixes); n == 0 || !prefixes[n-1].Overlaps(p) {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}

// AzureLoadBalancerPrefixes is the AzureLoadBalancer tag, the same everywhere.
func AzureLoadBalancerPrefixes() []netip.Prefix { return []netip.Prefix{platformAddress, probeIPv6} }

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

// KnownTags gives the spelling of a service tag, asked for in any case. For a tag that
// cannot be used, problem says why and which tags are known.
type KnownTags func(tag string) (canonical, problem string)

// canonicalTag gives the spelling of a service tag, or a problem. Built-in tags are
// always known. Others are known if known has them, or by their look if known is nil.
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

// CanonicalBuiltInTag spells a tag that needs no tag file, given in any case or as Azure's
// old deployment model spells it. ok is false for any other text.
func CanonicalBuiltInTag(text string) (tag string, ok bool) {
	tag, ok = classicTags[strings.ToLower(text)]
	return tag, ok
}

// RouteTag is canonicalTag for a route, which may only name tags of a service tag file.
func RouteTag(text string, known KnownTags) (tag, problem string) {
	tag, problem = canonicalTag(text, known)
	if problem == "" && IsBuiltInTag(tag) {
		return "", "the tag " + tag + " is for security rules"
	}
	return tag, problem
}

// IsBuiltInTag reports whether a tag in canonical spelling needs no tag file.
func IsBuiltInTag(tag string) bool {
	return tag == TagVirtualNetwork || tag == TagInternet || tag == TagAzureLoadBalancer || PlatformServiceOf(tag) != nil
}

// LooksLikeTag reports whether text begins with a letter and has only letters, digits and
// single dots between them, as "Storage.WestEurope".
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
