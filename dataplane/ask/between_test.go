package ask

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// holds reports whether a set has a packet.
func (p *PathSet) holds(k *packet.Tuple) bool {
	return slices.ContainsFunc(p.Boxes, func(b analysis.Box) bool { return b.Has(k) })
}

// asFlow is a packet as a question of verify about its sender, which is a network interface, or about its receiver.
func asFlow(b *Between, k *packet.Tuple, sender *topology.Endpoint) *azure.Flow {
	q := &azure.Flow{Direction: ruleset.Inbound, Protocol: k.Proto, Local: k.Dst.Netip(), Remote: k.Src.Netip(), LocalPort: k.DstPort, RemotePort: k.SrcPort}
	if nic := sender.NetworkInterface; nic != nil {
		q = &azure.Flow{Direction: ruleset.Outbound, Protocol: k.Proto, Local: k.Src.Netip(), Remote: k.Dst.Netip(), LocalPort: k.SrcPort, RemotePort: k.DstPort, NetworkInterface: nic.ID}
	}
	return q
}

// Each packet is in one set, with what verify says of its path, and verify confirms each witness.
func TestBetweenAgreesWithVerifyOfThePath(t *testing.T) {
	policies, packets, allowed := worldsOf(150, 20), 25, 0
	for seed := range uint64(policies) {
		s := randomPolicies(t, seed)[0]
		b := NewBetween(s, 0)
		r := rand.New(rand.NewPCG(seed, 6))
		for range 12 {
			from, to, ok := randomPair(r, s)
			if !ok {
				continue
			}
			sender := s.SendersFrom(from)[0]
			ends := [2]*End{endOf(t, b, from), endOf(t, b, to)}
			sets, err := b.Ask(ends[0], ends[1], nil)
			if err != nil || len(sets.Undecided) > 0 {
				t.Fatalf("seed %d: %s to %s: %v, %+v", seed, from, to, err, sets)
			}
			check := func(k packet.Tuple) {
				if types := map[bool]uint16{true: packet.ICMPv4EchoRequest, false: packet.ICMPv6EchoRequest}; isICMP(&k) && k.DstPort != types[from.Is4()] {
					return // verify asks about echo requests only
				}
				var in []*PathSet
				for i := range sets.Sets {
					if sets.Sets[i].holds(&k) {
						in = append(in, &sets.Sets[i])
					}
				}
				want, err := Verify(s, asFlow(b, &k, sender), true)
				if err != nil {
					return // a question that verify refuses: an appliance, say
				}
				if len(in) != 1 {
					t.Fatalf("seed %d: %v (ports %d, %d) is in %d sets, verify says %+v", seed, k, k.SrcPort, k.DstPort, len(in), want)
				}
				if got := in[0]; got.Access != want.Access || got.Reason != want.Reason || want.RuleName != "" && got.Deciders[len(got.Deciders)-1].RuleName != want.RuleName && got.Access == "Deny" {
					t.Fatalf("seed %d: %v (ports %d, %d): %+v, verify says %+v", seed, k, k.SrcPort, k.DstPort, got, want)
				}
				if want.Access == "Allow" {
					allowed++
				}
			}
			for i := range sets.Sets {
				for _, k := range sets.Sets[i].Witnesses {
					check(k)
				}
			}
			for range packets {
				check(packetBetween(r, from, to))
			}
		}
	}
	if allowed < policies {
		t.Errorf("only %d packets of %d policies are allowed: the test says little", allowed, policies)
	}
}

func isICMP(k *packet.Tuple) bool {
	return k.Proto == packet.ProtoICMP && k.Src.Is4() || k.Proto == packet.ProtoICMPv6 && !k.Src.Is4()
}

// randomPair chooses two places. ok is false for one place twice, for two IP versions, and without one sure sender.
func randomPair(r *rand.Rand, s *topology.Snapshot) (from, to netip.Addr, ok bool) {
	from, to = randomPlace(r), randomPlace(r)
	return from, to, from.Is4() == to.Is4() && from != to && len(s.SendersFrom(from)) == 1
}

func randomPlace(r *rand.Rand) netip.Addr {
	return netip.MustParseAddr(enginetest.Hosts[r.IntN(len(enginetest.Hosts))].Address(r.IntN(2))).Unmap()
}

func endOf(t *testing.T, b *Between, a netip.Addr) *End {
	t.Helper()
	end, err := b.End(a.String())
	if err != nil {
		t.Fatal(err)
	}
	return end
}

// packetBetween is a packet between two addresses, as rules see it.
func packetBetween(r *rand.Rand, from, to netip.Addr) packet.Tuple {
	ports := []uint16{0, 8, 22, 25, 53, 67, 79, 80, 81, 82, 128, 1023, 1024, 1688, 8037, 65535}
	k := packet.Tuple{Src: packet.AddrFrom(from), Dst: packet.AddrFrom(to)}
	k.Proto = []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6, packet.ProtoESP, packet.ProtoAH, packet.ProtoGRE}[r.IntN(7)]
	switch {
	case k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP:
		k.SrcPort, k.DstPort = ports[r.IntN(len(ports))], ports[r.IntN(len(ports))]
	case isICMP(&k):
		k.DstPort = []uint16{packet.ICMPv4EchoRequest, packet.ICMPv6EchoRequest}[map[bool]int{true: 0, false: 1}[from.Is4()]]
	}
	return k
}

// The first address of both ends is the same one: a packet to itself says nothing of the others.
func TestBetweenWithinOneSubnet(t *testing.T) {
	s, err := topology.Build(figureOfTheSeed(), nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	b := NewBetween(s, 0)
	end, err := b.End("10.0.1.64/26")
	if err != nil {
		t.Fatal(err)
	}
	sets, err := b.Ask(end, end, []analysis.Service{{Protocol: packet.ProtoTCP}})
	if err != nil || len(sets.Sets) == 0 {
		t.Fatalf("%v: %+v", err, sets)
	}
	for i := range sets.Sets {
		if set := &sets.Sets[i]; set.Reason != ReasonRule {
			t.Errorf("%s: %s, want what a rule says", set.Access, set.Reason)
		}
	}
}

// Routes lead each appliance to the load balancer before all of them, so that the ways double at every leg.
func TestACircleOfBalancedAppliancesIsBounded(t *testing.T) {
	vnet := &policy.VirtualNetwork{Name: "v", ID: "/v", AddressSpace: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	table := &policy.RouteTable{Name: "rt", ID: "/rt", Routes: []policy.Route{{Name: "all", Prefix: netip.MustParsePrefix("0.0.0.0/0"), Hop: policy.HopVirtualAppliance,
		Appliance: netip.MustParseAddr("10.0.0.100")}}}
	sub := &policy.Subnet{Name: "s", ID: "/v/s", VirtualNetwork: vnet, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, RouteTable: table}
	vnet.Subnets = []*policy.Subnet{sub}
	set := &policy.Set{VirtualNetworks: []*policy.VirtualNetwork{vnet}, RouteTables: []*policy.RouteTable{table}}
	pool := &policy.BackendPool{Name: "p"}
	for i := range 4 {
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + i)})
		set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: "nva" + a.String(), ID: "/nic/" + a.String(), EnableIPForwarding: true,
			IPConfigurations: []policy.IPConfiguration{{Name: "c", Address: a, Subnet: sub, Primary: true}}})
		pool.Backends = append(pool.Backends, policy.Backend{VirtualNetwork: vnet, Address: a})
	}
	front := &policy.Frontend{Name: "f", Subnet: sub, Address: netip.MustParseAddr("10.0.0.100")}
	set.LoadBalancers = []*policy.LoadBalancer{{Name: "lb", ID: "/lb", SKU: policy.SKUStandard, Frontends: []*policy.Frontend{front}, Pools: []*policy.BackendPool{pool},
		Rules: []*policy.LoadBalancingRule{{Name: "ha", Frontend: front, Pools: []*policy.BackendPool{pool}, Protocol: policy.TransportAll}}}}
	s, err := topology.Build(set, nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	b := NewBetween(s, 0)
	from, err := b.End("10.0.0.50")
	if err != nil {
		t.Fatal(err)
	}
	sets, err := b.Ask(from, endOf(t, b, netip.MustParseAddr("203.0.113.10")), []analysis.Service{{Protocol: packet.ProtoTCP}})
	if err != nil || len(sets.Sets) > 0 || len(sets.Undecided) != 1 || sets.Undecided[0].Why != "there are too many ways" {
		t.Errorf("%v: %+v, want too many ways", err, sets)
	}
}
