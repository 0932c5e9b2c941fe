package topology

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// randomStreet is a policy of two peered networks with everything that translates, in any valid
// combination.
func randomStreet(random *rand.Rand) *policy.Set {
	coin := func(n int) bool { return random.IntN(n) == 0 }
	set := &policy.Set{}
	g := &ruleset.NSG{Name: "g", ID: "/nsg/g"}
	set.NetworkSecurityGroups = []*ruleset.NSG{g}
	minutes := func() time.Duration { return time.Duration(4+random.IntN(20)) * time.Minute }
	sku := func() policy.SKU { return []policy.SKU{policy.SKUBasic, policy.SKUStandard}[random.IntN(2)] }
	public := func() *policy.PublicIPAddress {
		n := len(set.PublicIPAddresses)
		p := &policy.PublicIPAddress{Name: fmt.Sprint("p", n), ID: fmt.Sprint("/pip/", n), SKU: sku(), IdleTimeout: minutes()}
		if !coin(6) {
			p.Address = netip.AddrFrom4([4]byte{203, 0, 113, byte(n)})
		}
		set.PublicIPAddresses = append(set.PublicIPAddresses, p)
		return p
	}
	for i, name := range []string{"v", "w"} {
		v := &policy.VirtualNetwork{Name: name, ID: "/vnet/" + name, AddressSpace: []netip.Prefix{pfx(fmt.Sprintf("10.%d.0.0/16", i))}}
		set.VirtualNetworks = append(set.VirtualNetworks, v)
		for j := range 3 {
			s := &policy.Subnet{Name: fmt.Sprint(name, j), ID: fmt.Sprint(v.ID, "/", j), VirtualNetwork: v, Prefixes: []netip.Prefix{pfx(fmt.Sprintf("10.%d.%d.0/24", i, j))}, DisableDefaultOutbound: coin(3)}
			if coin(2) {
				s.NetworkSecurityGroup = g
			}
			if coin(3) {
				s.NATGateway = &policy.NATGateway{Name: s.Name, ID: "/gw/" + s.ID, IdleTimeout: minutes()}
				if coin(2) {
					p := public()
					s.NATGateway.Addresses, s.NATGateway.Unknown = []*policy.PublicIPAddress{p}, !p.Address.IsValid()
				}
				if coin(3) {
					prefix := &policy.PublicIPPrefix{Name: s.Name, ID: "/prefix/" + s.ID, Prefix: pfx(fmt.Sprintf("203.0.%d.0/30", 120+3*i+j))}
					set.PublicIPPrefixes, s.NATGateway.Prefixes = append(set.PublicIPPrefixes, prefix), []*policy.PublicIPPrefix{prefix}
				}
				set.NATGateways = append(set.NATGateways, s.NATGateway)
			}
			v.Subnets = append(v.Subnets, s)
			for k := range 3 {
				c := policy.IPConfiguration{Name: "c", Address: netip.AddrFrom4([4]byte{10, byte(i), byte(j), byte(4 + k)}), Subnet: s, Primary: true}
				if coin(3) {
					c.PublicIPAddress = public()
				}
				nic := &policy.NetworkInterface{Name: fmt.Sprint(s.Name, k), ID: fmt.Sprint("/nic/", s.Name, k), EnableIPForwarding: coin(4), IPConfigurations: []policy.IPConfiguration{c}}
				if coin(3) {
					nic.NetworkSecurityGroup = g
				}
				set.NetworkInterfaces = append(set.NetworkInterfaces, nic)
			}
		}
	}
	v, w := set.VirtualNetworks[0], set.VirtualNetworks[1]
	v.Peerings = []policy.Peering{{Name: "p", Remote: w, AllowVirtualNetworkAccess: true, AllowForwardedTraffic: true}}
	w.Peerings = []policy.Peering{{Name: "p", Remote: v, AllowVirtualNetworkAccess: true, AllowForwardedTraffic: coin(2)}}
	for i := range 3 {
		set.LoadBalancers = append(set.LoadBalancers, randomBalancer(random, set, i, public, sku(), minutes))
	}
	return set
}

func randomBalancer(random *rand.Rand, set *policy.Set, i int, public func() *policy.PublicIPAddress, sku policy.SKU, minutes func() time.Duration) *policy.LoadBalancer {
	coin := func(n int) bool { return random.IntN(n) == 0 }
	lb := &policy.LoadBalancer{Name: fmt.Sprint("lb", i), ID: fmt.Sprint("/lb/", i), SKU: sku}
	internal := i == 2
	for j := range 2 {
		f := &policy.Frontend{Name: fmt.Sprint(j)}
		if internal {
			f.Subnet = set.VirtualNetworks[j].Subnets[0]
			f.Address = netip.AddrFrom4([4]byte{10, byte(j), 0, 99})
		} else {
			f.PublicIPAddress = public()
			f.Address = f.PublicIPAddress.Address
		}
		lb.Frontends = append(lb.Frontends, f)
		pool := &policy.BackendPool{Name: fmt.Sprint(j)}
		for _, k := range random.Perm(len(set.NetworkInterfaces))[:random.IntN(5)] {
			nic := set.NetworkInterfaces[k]
			c := nic.IPConfigurations[0]
			b := policy.Backend{NetworkInterface: nic, VirtualNetwork: c.Subnet.VirtualNetwork, Address: c.Address}
			if coin(4) {
				b.NetworkInterface = nil
			}
			pool.Backends = append(pool.Backends, b)
		}
		lb.Pools = append(lb.Pools, pool)
	}
	probe := &policy.HealthProbe{Name: "alive", Protocol: "Tcp", Port: 80, Interval: time.Second, Threshold: 1}
	lb.Probes = []*policy.HealthProbe{probe}
	for j, f := range lb.Frontends {
		for k, p := range []policy.Transport{policy.TransportTCP, policy.TransportUDP, policy.TransportAll} {
			if coin(2) || p == policy.TransportAll && !internal {
				continue
			}
			r := &policy.LoadBalancingRule{Name: fmt.Sprint(j, k), Frontend: f, Pools: []*policy.BackendPool{lb.Pools[random.IntN(2)]}, Protocol: p, FrontendPort: []uint16{80, 1040}[random.IntN(2)], FloatingIP: coin(4),
				TCPReset: coin(2), DisableOutboundSNAT: coin(2), IdleTimeout: minutes(), Distribution: []policy.Distribution{policy.DistributionDefault, policy.DistributionSourceIP}[random.IntN(2)]}
			r.BackendPort = r.FrontendPort
			if coin(2) && !r.FloatingIP {
				r.BackendPort = 8080
			}
			if p == policy.TransportAll {
				r.FrontendPort, r.BackendPort = 0, 0
			}
			if coin(2) {
				r.Probe = probe
			}
			lb.Rules = append(lb.Rules, r)
		}
		if coin(2) {
			n := &policy.InboundNATRule{Name: fmt.Sprint("n", j), Frontend: f, Protocol: policy.TransportTCP, First: 2000, Last: 2009, BackendPort: 22, Pool: lb.Pools[j], IdleTimeout: minutes()}
			lb.NATRules = append(lb.NATRules, n)
		}
	}
	if !internal && coin(2) {
		lb.OutboundRules = []*policy.OutboundRule{{Name: "out", Frontends: lb.Frontends[:1+random.IntN(2)], Pool: lb.Pools[random.IntN(2)], Protocol: []policy.Transport{policy.TransportTCP, policy.TransportAll}[random.IntN(2)],
			AllocatedPorts: []int{0, 1000, 16000}[random.IntN(3)], TCPReset: coin(2), IdleTimeout: minutes()}}
	}
	return lb
}

// everybody gives every NIC and subnet an attachment.
func everybody(set *policy.Set) []Spec {
	specs := []Spec{{Kind: Internet}, {Kind: Platform}}
	for _, nic := range set.NetworkInterfaces {
		specs = append(specs, Spec{Kind: NetworkInterface, Reference: nic.ID})
	}
	for _, v := range set.VirtualNetworks {
		for _, s := range v.Subnets {
			specs = append(specs, Spec{Kind: Subnet, Reference: s.ID})
		}
	}
	return specs
}

func TestRandomWaysAgreeWithTheARMObjects(t *testing.T) {
	translated, dropped := 0, map[packet.Drop]int{}
	for seed := range uint64(250) {
		random := rand.New(rand.NewPCG(seed, 7))
		set := randomStreet(random)
		o := Options{Seed: seed}
		if random.IntN(2) == 0 {
			o.DefaultOutbound = netip.MustParseAddr("203.0.113.250")
		}
		s, err := o.Build(set, everybody(set), NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		r := &slowWay{s: s, set: set, dflt: o.DefaultOutbound, down: map[netip.Addr]bool{}}
		for _, nic := range set.NetworkInterfaces {
			if random.IntN(3) == 0 {
				r.down[nic.IPConfigurations[0].Address] = true
			}
		}
		for _, p := range s.Probes() {
			p.Set(!r.down[p.Address])
		}
		for range 60 {
			p := randomPacket(random, set)
			var src *Endpoint
			for _, i := range random.Perm(len(s.Attachments)) {
				if src = s.Admit(s.Attachments[i], p.Src); src != nil {
					break
				}
			}
			if src == nil {
				continue
			}
			var w, again Way
			drop := s.Way(src, &p, &w)
			if diff := r.differs(&p, &w, drop, r.judge(src, &p)); diff != "" {
				t.Fatalf("seed %d: %s: %s", seed, p, diff)
			}
			if s.Way(src, &p, &again) != drop || again.To != w.To || again.Arrives != w.Arrives {
				t.Fatalf("seed %d: %s takes two ways", seed, p)
			}
			dropped[drop]++
			if w.Translated {
				translated++
			}
		}
	}
	t.Logf("%d translated, dropped %v", translated, dropped)
	if translated < 500 || dropped[packet.DropNoFrontend] == 0 || dropped[packet.DropNoBackend] == 0 || dropped[packet.DropNoOutbound] == 0 || dropped[packet.DropHairpin] == 0 || dropped[packet.DropSpoofed] == 0 {
		t.Errorf("the policies try too little: %d translated, %v", translated, dropped)
	}
}

// randomPacket is a packet between addresses of the policy, the internet and public addresses.
func randomPacket(random *rand.Rand, set *policy.Set) packet.Tuple {
	some := func() netip.Addr {
		switch random.IntN(6) {
		case 0:
			return netip.MustParseAddr("198.51.100.7")
		case 1:
			return netip.AddrFrom4([4]byte{203, 0, 113, byte(random.IntN(len(set.PublicIPAddresses) + 1))})
		case 2:
			return netip.AddrFrom4([4]byte{10, byte(random.IntN(2)), 0, 99})
		case 3:
			return netip.AddrFrom4([4]byte{10, byte(random.IntN(2)), byte(random.IntN(3)), 77})
		}
		return set.NetworkInterfaces[random.IntN(len(set.NetworkInterfaces))].IPConfigurations[0].Address
	}
	return packet.Tuple{Src: packet.AddrFrom(some()), Dst: packet.AddrFrom(some()), SrcPort: uint16(random.IntN(60000)), DstPort: []uint16{80, 1040, 2000, 2003, 22, 53}[random.IntN(6)],
		Proto: []uint8{packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoGRE}[random.IntN(5)]}
}
