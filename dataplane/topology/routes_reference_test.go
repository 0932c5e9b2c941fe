package topology

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// candidate is a route of the reference: a prefix, its rank among equals, and its next hop.
type candidate struct {
	prefix netip.Prefix
	rank   int // 0 system, 1 gateway, 2 user-defined
	kind   policy.NextHopType
	at     string // appliance
}

// slowNextHop lists every route of a spoke's subnet, straight from the policy. It takes the
// longest, and between equals the one of the highest rank.
func slowNextHop(v *policy.VirtualNetwork, t *policy.RouteTable, learned []netip.Prefix, to netip.Addr) candidate {
	var best candidate
	for _, c := range slowRoutes(v, t, learned) {
		if c.prefix.Contains(to) && (!best.prefix.IsValid() || c.prefix.Bits() > best.prefix.Bits() || c.prefix.Bits() == best.prefix.Bits() && c.rank > best.rank) {
			best = c
		}
	}
	return best
}

func slowRoutes(v *policy.VirtualNetwork, t *policy.RouteTable, learned []netip.Prefix) (all []candidate) {
	for _, p := range everywhere {
		all = append(all, candidate{p, 0, policy.HopInternet, ""})
	}
	for i, p := range unroutable {
		taken := false // of the private IPv4 ranges, which stand first, by a route for everything
		if t != nil && i < 4 {
			for _, r := range t.Routes {
				taken = taken || r.Prefix == everywhere[0] && r.Hop != policy.HopInternet
			}
		}
		if !taken {
			all = append(all, candidate{p, 0, policy.HopNone, ""})
		}
	}
	var own []netip.Prefix
	for _, p := range v.AddressSpace {
		all, own = append(all, candidate{p, 0, policy.HopVnetLocal, ""}), append(own, p)
	}
	borrows := false
	for _, p := range v.Peerings {
		for _, back := range p.Remote.Peerings {
			if back.Remote != v || p.State != "" || back.State != "" || !p.AllowVirtualNetworkAccess || !back.AllowVirtualNetworkAccess {
				continue
			}
			for _, space := range p.Remote.AddressSpace {
				all, own = append(all, candidate{space, 0, HopPeering, ""}), append(own, space)
			}
			borrows = borrows || p.UseRemoteGateways && back.AllowGatewayTransit && p.Remote.Name == "hub"
		}
	}
	if v.Name != "hub" && !borrows {
		learned = nil
	}
	if v.HubTable != nil {
		for _, r := range v.HubTable.Routes {
			learned = append(slices.Clip(learned), r.Prefix)
		}
	}
	if t == nil || !t.DisableGatewayRoutes {
		for _, p := range learned {
			inside := false
			for _, o := range own {
				inside = inside || o.Bits() <= p.Bits() && o.Overlaps(p)
			}
			if !inside {
				all = append(all, candidate{p, 1, policy.HopGateway, ""})
			}
		}
	}
	if t != nil {
		for _, r := range t.Routes {
			at := ""
			if r.Hop == policy.HopVirtualAppliance {
				at = r.Appliance.String()
			}
			all = append(all, candidate{r.Prefix, 2, r.Hop, at})
		}
	}
	return all
}

// gatewayRoutes are the prefixes of gateways among effective routes, with whether they decide.
func gatewayRoutes(all []EffectiveRoute) map[netip.Prefix]bool {
	active := map[netip.Prefix]bool{}
	for _, r := range all {
		if r.Source == RouteGateway {
			active[r.Prefixes[0]] = active[r.Prefixes[0]] || r.Active
		}
	}
	return active
}

// gatewayCandidates is gatewayRoutes of the reference.
func gatewayCandidates(all []candidate) map[netip.Prefix]bool {
	active := map[netip.Prefix]bool{}
	for _, c := range all {
		if c.rank == 1 {
			active[c.prefix] = !slices.ContainsFunc(all, func(other candidate) bool { return other.prefix == c.prefix && other.rank == 2 })
		}
	}
	return active
}

// slowTag is the VirtualNetwork tag of a spoke's subnet, with the routes of rank 1 and of the table.
func slowTag(v *policy.VirtualNetwork, t *policy.RouteTable, all []candidate) []netip.Prefix {
	space := slices.Clone(v.AddressSpace)
	for i := range v.Peerings {
		if p := &v.Peerings[i]; p.AllowVirtualNetworkAccess && v.Connected(p) {
			space = append(space, p.Remote.AddressSpace...)
		}
	}
	for _, c := range all {
		if c.rank > 0 {
			space = append(space, c.prefix)
		}
	}
	return ruleset.VirtualNetworkPrefixes(space)
}

// randomHubTables gives networks the routes of virtual hubs, which some of them share.
func randomHubTables(set *policy.Set, prefixes []netip.Prefix, random *rand.Rand) {
	tables := []*policy.HubTable{nil, {}, {}}
	for _, t := range tables[1:] {
		for _, i := range random.Perm(len(prefixes))[:random.IntN(8)] {
			r := policy.HubRoute{Prefix: prefixes[i]}
			if n := random.IntN(2 * len(set.VirtualNetworks)); n < len(set.VirtualNetworks) {
				r.Network = set.VirtualNetworks[n]
			}
			t.Routes = append(t.Routes, r)
		}
	}
	for _, v := range set.VirtualNetworks {
		v.HubTable = tables[random.IntN(len(tables))]
	}
}

func TestRandomRoutesAgreeWithTheListOfAllOfThem(t *testing.T) {
	prefixes := []netip.Prefix{pfx("0.0.0.0/0"), pfx("10.0.0.0/8"), pfx("10.0.0.0/16"), pfx("10.1.0.0/16"), pfx("10.2.0.0/16"), pfx("10.0.1.0/24"), pfx("10.1.1.0/24"), pfx("10.2.1.0/24"),
		pfx("10.0.1.4/32"), pfx("192.168.0.0/16"), pfx("192.168.3.0/24"), pfx("203.0.113.0/24"), pfx("168.0.0.0/8"), pfx("172.16.0.0/12")}
	addresses := []string{"10.0.1.4", "10.0.1.5", "10.0.7.7", "10.1.1.4", "10.1.2.3", "10.2.1.4", "10.9.9.9", "192.168.3.3", "192.168.9.9", "203.0.113.5", "198.51.100.1", "172.16.1.1", "169.254.7.7"}
	for seed := range 300 {
		random := rand.New(rand.NewPCG(uint64(seed), 6))
		coin := func(n int) bool { return random.IntN(n) == 0 }
		set := hubAndSpokes()
		for _, v := range set.VirtualNetworks {
			for i := range v.Peerings {
				p := &v.Peerings[i]
				p.AllowVirtualNetworkAccess, p.UseRemoteGateways, p.AllowGatewayTransit = !coin(6), p.UseRemoteGateways && !coin(3), p.AllowGatewayTransit && !coin(4)
				if coin(8) {
					p.State = policy.PeeringDisconnected
				}
			}
			s := v.Subnets[len(v.Subnets)-1]
			if coin(4) {
				continue
			}
			s.RouteTable = &policy.RouteTable{ID: "/rt/" + v.Name, DisableGatewayRoutes: coin(4)}
			for _, i := range random.Perm(len(prefixes))[:random.IntN(5)] {
				r := policy.Route{Name: fmt.Sprint(i), Prefix: prefixes[i], Hop: []policy.NextHopType{policy.HopVnetLocal, policy.HopInternet, policy.HopVirtualAppliance, policy.HopNone, policy.HopGateway}[random.IntN(5)]}
				if r.Hop == policy.HopVirtualAppliance {
					r.Appliance = netip.MustParseAddr([]string{"10.0.1.4", "10.0.1.5", "10.9.9.9"}[random.IntN(3)])
				}
				s.RouteTable.Routes = append(s.RouteTable.Routes, r)
			}
		}
		randomHubTables(set, prefixes, random)
		var learned []netip.Prefix
		for _, i := range random.Perm(len(prefixes))[:1+random.IntN(3)] {
			if p := prefixes[i]; p.Bits() == 0 || p.Bits() < 16 || !pfx("10.0.0.0/16").Overlaps(p) { // not within the hub: a fault
				learned = append(learned, p)
			}
		}
		if learned == nil {
			learned = []netip.Prefix{pfx("192.168.0.0/16")}
		}
		specs := append(append([]Spec(nil), hubSpecs[:atGateway]...), Spec{Kind: Gateway, Reference: "hub", Prefixes: learned})
		s, err := Build(set, specs, NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range set.VirtualNetworks {
			from := s.nicEndpoint(t, []string{"plain", "spoke1", "spoke2"}[i])
			table := v.Subnets[len(v.Subnets)-1].RouteTable
			all := slowRoutes(v, table, learned)
			if got, want := from.routes.view.virtualNetwork, slowTag(v, table, all); !slices.Equal(got, want) {
				t.Fatalf("seed %d: VirtualNetwork at %s is %v, want %v", seed, v.Name, got, want)
			}
			if got, want := gatewayRoutes(s.EffectiveRoutes(from)), gatewayCandidates(all); !maps.Equal(got, want) {
				t.Fatalf("seed %d: gateway routes of %s are %v, want %v", seed, v.Name, got, want)
			}
			for _, a := range addresses {
				to := netip.MustParseAddr(a)
				want := slowNextHop(v, table, learned, to)
				got := s.NextHop(from, to)
				at := ""
				if got.Address.IsValid() {
					at = got.Address.String()
				}
				if got.Type != want.kind || at != want.at || (got.Table != nil) != (want.rank == 2) {
					t.Fatalf("seed %d: from %s to %s: got %+v, want %+v", seed, v.Name, a, got, want)
				}
				// If Route finds an endpoint, it must be the one of the reference's hop.
				e, drop := s.Route(from, from.address, ip(a))
				if drop != packet.NotDropped {
					continue
				}
				switch want.kind {
				case policy.HopGateway:
					if s.Attachments[e.Attachment].Kind != Gateway && (v.HubTable == nil || e.address != ip(a)) {
						t.Fatalf("seed %d: from %s to %s: %+v is no gateway", seed, v.Name, a, e)
					}
				case policy.HopInternet:
					if e != s.outside {
						t.Fatalf("seed %d: from %s to %s: %+v is not outside", seed, v.Name, a, e)
					}
				case policy.HopVirtualAppliance:
					if e.address != ip(want.at) {
						t.Fatalf("seed %d: from %s to %s: %v is not the appliance", seed, v.Name, a, e.address)
					}
				default:
					if e.NetworkInterface != nil && e.address != ip(a) {
						t.Fatalf("seed %d: from %s to %s: went to %v", seed, v.Name, a, e.address)
					}
				}
			}
		}
	}
}
