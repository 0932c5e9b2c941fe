package ruleset

import (
	"net/netip"
	"slices"
)

// BuiltInTags lists the tags that need no tag file, in words.
const BuiltInTags = TagVirtualNetwork + ", " + TagInternet + ", " + TagAzureLoadBalancer + ", " +
	TagPlatformDNS + ", " + TagPlatformIMDS + " and " + TagPlatformLKM

// PlatformService is what an AzurePlatform tag stands for: one port of its addresses,
// since several services share an address.
type PlatformService struct {
	Tag       string
	Addresses []netip.Prefix
	Protocols []Protocol // never AnyProtocol
	Port      uint16
}

// platformServices are in no tag file. The addresses of LKM are those of
// kms.core.windows.net and azkms.core.windows.net in the public cloud.
var platformServices = []PlatformService{
	{TagPlatformDNS, []netip.Prefix{platformAddress}, []Protocol{TCP, UDP}, 53},
	{TagPlatformIMDS, []netip.Prefix{netip.MustParsePrefix("169.254.169.254/32")}, []Protocol{TCP}, 80},
	{TagPlatformLKM, []netip.Prefix{
		netip.MustParsePrefix("20.118.99.224/32"), netip.MustParsePrefix("23.102.135.246/32"), netip.MustParsePrefix("40.83.235.53/32"),
	}, []Protocol{TCP}, 1688},
}

// PlatformServiceOf is the service of a tag in canonical spelling; nil for any other tag.
// The result is shared and must not be changed.
func PlatformServiceOf(tag string) *PlatformService {
	i := slices.IndexFunc(platformServices, func(s PlatformService) bool { return s.Tag == tag })
	if i < 0 {
		return nil
	}
	return &platformServices[i]
}

// Narrow limits a rule's protocol and ports to the service. ok is false when they have
// nothing in common. AnyProtocol stays as it is when the service has several protocols.
func (s *PlatformService) Narrow(protocol Protocol, ports []PortRange) (Protocol, []PortRange, bool) {
	switch {
	case protocol == AnyProtocol && len(s.Protocols) == 1:
		protocol = s.Protocols[0]
	case protocol != AnyProtocol && !slices.Contains(s.Protocols, protocol):
		return protocol, nil, false
	}
	for _, r := range ports {
		if r.First <= s.Port && s.Port <= r.Last {
			return protocol, []PortRange{{s.Port, s.Port}}, true
		}
	}
	return protocol, nil, false
}
