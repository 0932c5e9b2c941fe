package main

import (
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

var defaultRoutes = ruleset.Everywhere()

// routes are what an attachment's namespace sends into its device.
//
// A namespace of its own sends everything into the device: it has no other way out, and the
// filter drops what it has no route for. More specific routes of other interfaces there win, such
// as those of a router in front of a subnet's machines.
//
// The daemon's own namespace never gets a default route, which would cut the host off. It gets
// the address spaces of virtual networks. The internet and the platform get all of them; a NIC, a
// subnet or a gateway gets its own network's and its peers'. A subnet's attachment leaves out
// spaces within the subnet: the host has the subnet's machines on another interface.
//
// The device leaves IPv6 routes out as long as it has no IPv6 address. When two attachments in one
// namespace ask for the same route, the first gets it (taken), because the kernel holds it once.
// Routes are set when a device is made: a reload moves addresses, not routes.
func routes(a *AttachmentConfig, set *policy.Set, addresses []netip.Prefix, taken map[netip.Prefix]bool) []netip.Prefix {
	wanted := defaultRoutes
	if a.Netns == "" {
		wanted = spaces(a, set)
	}
	has6 := slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	var list []netip.Prefix
	for _, p := range wanted {
		// The kernel itself makes the route to an address's own network.
		connected := slices.ContainsFunc(addresses, func(own netip.Prefix) bool { return own.Masked() == p })
		if taken[p] || connected {
			continue
		}
		taken[p] = p.Addr().Is4() || has6
		list = append(list, p)
	}
	return list
}

// spaces are the address spaces that an attachment in the daemon's own namespace reaches.
func spaces(a *AttachmentConfig, set *policy.Set) []netip.Prefix {
	var own *policy.VirtualNetwork
	var within []netip.Prefix
	if a.NetworkInterface != "" {
		if nic, err := set.NetworkInterface(a.NetworkInterface); err == nil && len(nic.IPConfigurations) > 0 {
			own = nic.IPConfigurations[0].Subnet.VirtualNetwork
		}
	}
	if a.Subnet != "" {
		if subnet, err := set.Subnet(a.Subnet); err == nil {
			own, within = subnet.VirtualNetwork, subnet.Prefixes
		}
	}
	if a.Gateway != "" {
		if v, err := set.VirtualNetwork(a.Gateway); err == nil {
			own = v
		}
	}
	var list []netip.Prefix
	for _, v := range set.VirtualNetworks {
		if own != nil && v != own && !peers(own, v) {
			continue
		}
		for _, p := range v.AddressSpace {
			inside := func(own netip.Prefix) bool { return own.Bits() <= p.Bits() && own.Contains(p.Addr()) }
			if !slices.ContainsFunc(within, inside) && !slices.Contains(list, p) {
				list = append(list, p)
			}
		}
	}
	return list
}

// peers reports whether a network carries packets to another.
func peers(v, other *policy.VirtualNetwork) bool {
	p := v.Peering(other)
	return p != nil && p.AllowVirtualNetworkAccess && v.Connected(p)
}
