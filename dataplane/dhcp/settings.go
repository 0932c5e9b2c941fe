package dhcp

import (
	"net"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// gatewayMAC is the hardware address by which every machine in Azure reaches everything.
var gatewayMAC = net.HardwareAddr{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc}

var (
	server  = topology.PlatformAddresses[0] // of DHCPv4, and the platform's resolver
	imds    = topology.PlatformAddresses[1]
	server6 = topology.PlatformAddresses[2] // of DHCPv6, and the default router of IPv6
)

const (
	// domain is of the machines that use the platform's resolver, when the NIC doesn't say its own.
	domain = "internal.cloudapp.net"
	// customDomain is Azure's placeholder in networks with DNS servers of their own
	// ("Name resolution for resources in Azure virtual networks").
	customDomain = "reddog.microsoft.com"
	// maxServers bounds the DNS servers of one family that a machine is told.
	maxServers = 16
	// usualMTU needs no word.
	usualMTU = 1500
)

// settings are what the policy says to the machine of a NIC.
type settings struct {
	nic *policy.NetworkInterface
	// address is the primary address with its subnet's length, address6 the first one of IPv6. Either may be
	// missing.
	address, address6 netip.Prefix
	servers           []netip.Addr // of DNS, both families
	domain            string
	mtu               int // of the interface
}

// settingsOf reads the settings of a NIC; nil for no NIC.
func settingsOf(nic *policy.NetworkInterface, mtu int) *settings {
	if nic == nil || len(nic.IPConfigurations) == 0 {
		return nil
	}
	s := &settings{nic: nic, mtu: mtu, servers: nic.DNSServers}
	for i := range nic.IPConfigurations {
		c := &nic.IPConfigurations[i]
		switch p := addressIn(c); {
		case p.Addr().Is6() && !s.address6.IsValid():
			s.address6 = p
		case p.Addr().Is4() && (!s.address.IsValid() || c.Primary):
			s.address = p
		}
	}
	if len(s.servers) == 0 {
		s.servers = nic.IPConfigurations[0].Subnet.VirtualNetwork.DNSServers
	}
	switch {
	case len(s.servers) > 0 && !slices.Equal(s.servers, []netip.Addr{policy.AzureDNS}):
		s.domain = customDomain
	case nic.DomainNameSuffix != "":
		s.domain = nic.DomainNameSuffix
	default:
		s.domain = domain
	}
	if len(s.servers) == 0 {
		s.servers = []netip.Addr{policy.AzureDNS}
	}
	return s
}

// addressIn is an address with the length of its subnet's prefix.
func addressIn(c *policy.IPConfiguration) netip.Prefix {
	for _, p := range c.Subnet.Prefixes {
		if p.Contains(c.Address) {
			return netip.PrefixFrom(c.Address, p.Bits())
		}
	}
	return netip.PrefixFrom(c.Address, c.Address.BitLen())
}

// gateway is the first address of the subnet, which Azure keeps for it.
func (s *settings) gateway() netip.Addr { return s.address.Masked().Addr().Next() }

// owns reports an address that the machine has or may give itself.
func (s *settings) owns(a netip.Addr) bool {
	return slices.ContainsFunc(s.nic.IPConfigurations, func(c policy.IPConfiguration) bool { return c.Address == a })
}

// elsewhere reports an address that the machine reaches by the gateway: the platform's, and all of the virtual
// network but its own.
func (s *settings) elsewhere(a netip.Addr) bool {
	if slices.Contains(topology.PlatformAddresses, a) {
		return true
	}
	space := s.nic.IPConfigurations[0].Subnet.VirtualNetwork.AddressSpace
	return !s.owns(a) && slices.ContainsFunc(space, func(p netip.Prefix) bool { return p.Contains(a) })
}

// dns are the DNS servers of one family.
func (s *settings) dns(ipv6 bool) (list []net.IP) {
	for _, a := range s.servers {
		if a.Is6() == ipv6 && len(list) < maxServers {
			list = append(list, a.AsSlice())
		}
	}
	return list
}
