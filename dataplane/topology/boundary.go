package topology

import (
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

// boundary says which sources the internet's attachment lets in: addresses that a host on the
// internet can have, with those of Options.Outside, and that nothing of the policy has. It holds
// all others: one look-up decides.
type boundary struct{ refused bart.Lite }

// admits reports whether a packet from the internet may have this source. An address that embeds
// an IPv4 address stands for it, so that one must be admitted too.
func (b *boundary) admits(src packet.Addr) bool {
	if b.refused.Contains(src.Netip()) {
		return false
	}
	if src.Is4() {
		return true
	}
	switch {
	case src.Hi>>48 == 0x2002: // 6to4
		return b.admits4(src.Hi >> 16)
	case src.Hi == 0x0064_ff9b_0000_0000 && src.Lo>>32 == 0 || src.Hi>>16 == 0x0064_ff9b_0001: // NAT64
		return b.admits4(src.Lo)
	case src.Hi>>32 == 0x2001_0000: // Teredo: the server, and the client with its bits inverted
		return b.admits4(src.Hi) && b.admits4(^src.Lo)
	}
	return true
}

// admits4 is admits for the IPv4 address in the lower half of v.
func (b *boundary) admits4(v uint64) bool {
	a := uint32(v)
	return !b.refused.Contains(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}))
}

// holder is something of the policy that has a prefix.
type holder struct {
	prefix netip.Prefix
	what   string
}

// newBoundary collects what the policy and its attachments have. An extra prefix within one of
// these would admit nothing: that is a fault.
func newBoundary(set *policy.Set, routed *routedSet, public map[packet.Addr]*frontend, f *faults) *boundary {
	var holders []holder
	hold := func(p netip.Prefix, format string, args ...any) {
		holders = append(holders, holder{p.Masked(), fmt.Sprintf(format, args...)})
	}
	for _, a := range PlatformAddresses {
		hold(host(a), "the platform's address %s", a)
	}
	for _, v := range set.VirtualNetworks {
		for _, p := range v.AddressSpace {
			hold(p, "the address space of virtual network %q", v.Name)
		}
		for _, s := range v.Subnets {
			for _, p := range s.Prefixes {
				hold(p, "subnet %q of virtual network %q", s.Name, v.Name)
			}
		}
		for i := range v.Peerings {
			for _, p := range v.Peerings[i].RemoteAddressSpace {
				hold(p, "remoteAddressSpace of peering %q of virtual network %q", v.Peerings[i].Name, v.Name)
			}
		}
	}
	for _, n := range routed.networks.list {
		for _, p := range n.behindOwn {
			if p.Bits() > 0 {
				hold(p, "the networks behind the gateway of virtual network %q", n.vnet.Name)
			}
		}
		if n.hub != nil && n.hub.first == n {
			for _, p := range n.hub.prefixes {
				if p.Bits() > 0 {
					hold(p, "the networks behind the virtual hub of virtual network %q", n.vnet.Name)
				}
			}
		}
		for _, sub := range n.vnet.Subnets {
			routed.holdRoutes(set, n.routesOf(sub), hold)
		}
		if n.gateway != nil {
			routed.holdRoutes(set, n.gateway.routes, hold)
		}
	}
	for a := range public {
		hold(host(a.Netip()), "public address %s", a)
	}
	for _, p := range set.PublicIPPrefixes {
		if p.Prefix.IsValid() {
			hold(p.Prefix, "public IP prefix %q", p.Name)
		}
	}
	var refused netipx.IPSetBuilder
	for _, p := range everywhere {
		refused.AddPrefix(p)
	}
	for _, block := range specialPurpose {
		if p := netip.MustParsePrefix(block.prefix); block.internet {
			refused.RemovePrefix(p)
		} else {
			refused.AddPrefix(p)
		}
	}
	for _, p := range routed.networks.besides {
		for _, h := range holders {
			if h.prefix.Bits() <= p.Bits() && h.prefix.Overlaps(p) {
				f.add("prefixes of the internet: %s lies within %s, %s: allowed are prefixes that nothing of the policy has", p, h.what, h.prefix)
				break
			}
		}
		refused.RemovePrefix(p)
	}
	for _, h := range holders {
		refused.AddPrefix(h.prefix)
	}
	ranges, _ := refused.IPSet() // only an invalid prefix is an error
	b := &boundary{}
	for _, p := range ranges.Prefixes() {
		b.refused.Insert(p)
	}
	return b
}

// holdRoutes holds the prefixes of a route table that lead to a place of its own: the network, a
// gateway, an appliance, or nowhere. Whoever has such an address is there, and not on the internet. An
// appliance whose own routes lead on to the internet stands before a part of the internet. A
// default route, also one of two halves, says nothing about who is there.
func (s *routedSet) holdRoutes(set *policy.Set, r *routes, hold func(p netip.Prefix, format string, args ...any)) {
	if r.table == nil {
		return
	}
	for i := range r.table.Routes {
		route := &r.table.Routes[i]
		switch route.Hop {
		case policy.HopVnetLocal, policy.HopGateway, policy.HopVirtualAppliance, policy.HopNone:
		default:
			continue
		}
		for _, p := range set.Prefixes(route) {
			if p.Bits() > 1 && !s.leadsOutside(r, p) {
				hold(p, "route %q of route table %q", route.Name, r.table.Name)
			}
		}
	}
}

// leadsOutside reports that a prefix is reached over the internet, by way of appliances or not.
func (s *routedSet) leadsOutside(r *routes, p netip.Prefix) bool {
	const most = 16 // appliances; routes can lead in a circle
	for range most {
		h, _ := r.hops.LookupPrefix(p)
		switch {
		case h == nil:
			return false
		case h.balanced != nil && len(h.balanced.backends) > 0: // all backends have the same task
			r = h.balanced.backends[0].to.routes
			continue
		case h.endpoint == nil:
			return false
		case h.kind != policy.HopVirtualAppliance:
			return h.endpoint == s.outside
		}
		r = h.endpoint.routes
	}
	return false
}
