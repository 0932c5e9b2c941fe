package reference

import (
	"net/netip"
	"strings"
)

// hostAddress is the platform's address.
const hostAddress = "168.63.129.16"

// notInternet are the special ranges of IPv4 that are not publicly reachable.
var notInternet = []string{
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3",
}

// inTag reports whether an address is in a service tag as a subnet sees it.
func (p *Policy) inTag(tag string, a netip.Addr, subnetID string) bool {
	switch strings.ToLower(tag) {
	case "virtualnetwork", "virtual_network":
		return a.String() == hostAddress || inAny(p.virtualNetwork(subnetID), a)
	case "azureloadbalancer", "azure_loadbalancer":
		return a.String() == hostAddress
	case "internet":
		if p.inTag("VirtualNetwork", a, subnetID) {
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
