package ruleset

import (
	"net/netip"
	"slices"
)

// BuiltInTags lists the tags that need no tag file, in words.
const BuiltInTags = TagVirtualNetwork + ", " + TagInternet + ", " + TagAzureLoadBalancer + ", " +
	TagPlatformDNS + ", " + TagPlatformIMDS + " and " + TagPlatformLKM

// PlatformService is what an AzurePlatform tag stands for: not addresses alone, since
// several services share one, but a port of theirs.
type PlatformService struct {
	Tag       string
	Addresses []netip.Prefix
	Protocols []Protocol // never AnyProtocol
	Port      uint16
}

// platformServices by tag. They are in no tag file. Those of LKM are the public cloud's
// kms.core.windows.net and azkms.core.windows.net.
var platformServices = []PlatformService{
	{TagPlatformDNS, []netip.Prefix{platformAddress}, []Protocol{TCP, UDP}, 53},
	{TagPlatformIMDS, []netip.Prefix{netip.MustParsePrefix("169.254.169.254/32")}, []Protocol{TCP}, 80},
	{TagPlatformLKM, []netip.Prefix{
		netip.MustParsePrefix("20.118.99.224/32"), netip.MustParsePrefix("23.102.135.246/32"), netip.MustParsePrefix("40.83.235.53/32"),
	}, []Protocol{TCP}, 1688},
}

// PlatformServiceOf is what a tag in canonical spelling stands for; nil for any other tag.
// It is shared and must not be changed.
func PlatformServiceOf(tag string) *PlatformService {
	i := slices.IndexFunc(platformServices, func(s PlatformService) bool { return s.Tag == tag })
	if i < 0 {
		return nil
	}
	return &platformServices[i]
}

// Narrow holds a rule's protocol and ports to the service; ok is false when they have
// nothing in common. Any protocol stays any where the service has several.
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
