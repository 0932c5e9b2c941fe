package reference

import (
	"net/netip"
	"strings"
)

// hostAddress is the platform's address, and hostAddress6 sends probes to IPv6 backends.
const (
	hostAddress  = "168.63.129.16"
	hostAddress6 = "fe80::1234:5678:9abc"
)

// notInternet are the special ranges of IPv4 that recorded tag maps leave out of Internet.
var notInternet = []string{
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.2.0/24", "192.168.0.0/16",
	"198.18.0.0/15", "224.0.0.0/3",
}

// inTag reports whether an address is in a service tag as a subnet sees it.
func (p *Policy) inTag(tag string, a netip.Addr, subnetID string) bool {
	switch strings.ToLower(tag) {
	case "virtualnetwork", "virtual_network":
		return a.String() == hostAddress || inAny(p.virtualNetwork(subnetID), a)
	case "azureloadbalancer", "azure_loadbalancer":
		return a.String() == hostAddress || a.String() == hostAddress6
	case "internet":
		if inAny(p.virtualNetwork(subnetID), a) {
			return false
		}
		if a.Is6() {
			return inAny([]string{"2000::/3"}, a)
		}
		return !inAny(notInternet, a)
	}
	return inAny(p.tags[strings.ToLower(tag)], a)
}

// virtualNetwork are the prefixes of the tag for a subnet.
func (p *Policy) virtualNetwork(subnetID string) []string {
	return addressSpace(p.networkOf(subnetID))
}

func addressSpace(network object) []string {
	space, _ := field(network, "addressSpace").(object)
	return texts(space, "addressPrefixes")
}

func inAny(prefixes []string, a netip.Addr) bool {
	for _, text := range prefixes {
		if netip.MustParsePrefix(text).Contains(a) {
			return true
		}
	}
	return false
}
