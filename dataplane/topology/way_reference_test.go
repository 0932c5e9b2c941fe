package topology

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
)

// slowWay is what the ARM objects say of a packet, read from the first to the last each time. It
// knows endpoints by the address that they have, and trusts Route.
type slowWay struct {
	s    *Snapshot
	set  *arm.Set
	dflt netip.Addr
	down map[netip.Addr]bool // backends
}

// outcome is what may become of a packet: one of the receivers, with any of the sources.
type outcome struct {
	drop      packet.Drop
	receivers []receiver
	sources   []source // nil: as sent
	idle      time.Duration
	reset     bool
	inside    bool // by an internal load balancer
}

type receiver struct {
	network  *arm.VirtualNetwork // nil: outside
	address  netip.Addr          // who has it
	dst      netip.Addr
	port     uint16
	floating bool
	closed   bool
}

type source struct {
	address     netip.Addr
	first, last int // -1: the port stays
}

func (r *slowWay) judge(src *Endpoint, t *packet.Tuple) outcome {
	if r.floats(src, t.Src.Netip()) {
		return outcome{drop: packet.DropSpoofed}
	}
	dst, outside := t.Dst.Netip(), src == r.s.outside
	if outside && r.isPublic(dst) {
		return r.enter(nil, t, outcome{})
	}
	e, drop := r.s.Route(src, t.Src, t.Dst)
	if e == nil {
		return outcome{drop: drop}
	}
	if e == r.s.outside && !outside {
		if !r.isPublic(dst) && drop != packet.NotDropped {
			return outcome{drop: drop}
		}
		var out outcome
		if src.Subnet != nil && src.Has(t.Src) {
			if out = r.leave(src, t); out.drop != packet.NotDropped {
				return out
			}
		}
		if r.isPublic(dst) {
			return r.enter(nil, t, out)
		}
		out.receivers = []receiver{{dst: dst, port: t.DstPort}}
		return out
	}
	if e.Subnet != nil && e.NetworkInterface == nil {
		for _, lb := range r.set.LoadBalancers {
			for _, f := range lb.Frontends {
				if f.Subnet != nil && f.Address == dst && f.Subnet.VirtualNetwork == e.Subnet.VirtualNetwork {
					return r.enter(e.Subnet.VirtualNetwork, t, outcome{inside: true})
				}
			}
		}
	}
	if drop != packet.NotDropped {
		return outcome{drop: drop}
	}
	to := receiver{dst: dst, port: t.DstPort}
	if e.Subnet != nil {
		to.network, to.address = e.Subnet.VirtualNetwork, dst
		if e.NetworkInterface != nil {
			to.address = e.Address()
		}
	}
	return outcome{receivers: []receiver{to}}
}

func (r *slowWay) isPublic(a netip.Addr) bool {
	for _, p := range r.set.PublicIPAddresses {
		if p.Address == a {
			return true
		}
	}
	for _, p := range r.set.PublicIPPrefixes {
		if p.Prefix.IsValid() && p.Prefix.Contains(a) {
			return true
		}
	}
	return a == r.dflt
}

// floats reports that src is a backend that gets packets to an address untouched.
func (r *slowWay) floats(src *Endpoint, a netip.Addr) bool {
	for _, lb := range r.set.LoadBalancers {
		for _, rule := range lb.Rules {
			for _, p := range rule.Pools {
				for _, b := range p.Backends {
					if rule.FloatingIP && rule.Frontend.Address == a && src.NetworkInterface != nil && src.Subnet.VirtualNetwork == b.VirtualNetwork && src.Address() == b.Address {
						return true
					}
				}
			}
		}
	}
	return false
}

// enter takes a packet through a public address (network is nil) or an internal frontend.
func (r *slowWay) enter(network *arm.VirtualNetwork, t *packet.Tuple, out outcome) outcome {
	dst := t.Dst.Netip()
	if network == nil {
		for _, nic := range r.set.NetworkInterfaces {
			for _, c := range nic.IPConfigurations {
				if c.PublicIPAddress != nil && c.PublicIPAddress.Address == dst {
					out.idle = shorter(&out, c.PublicIPAddress.IdleTimeout, false)
					return r.reach(out, []receiver{{c.Subnet.VirtualNetwork, c.Address, c.Address, t.DstPort, false, c.PublicIPAddress.SKU != arm.SKUBasic}})
				}
			}
		}
	}
	for _, lb := range r.set.LoadBalancers {
		for _, f := range lb.Frontends {
			if f.Address != dst || (f.Subnet == nil) != (network == nil) || network != nil && f.Subnet.VirtualNetwork != network {
				continue
			}
			return r.balance(lb, f, t, out)
		}
	}
	return outcome{drop: packet.DropNoFrontend}
}

func (r *slowWay) balance(lb *arm.LoadBalancer, f *arm.Frontend, t *packet.Tuple, out outcome) outcome {
	is := func(p arm.Transport) bool {
		return p == arm.TransportTCP && t.Proto == packet.ProtoTCP || p == arm.TransportUDP && t.Proto == packet.ProtoUDP
	}
	for _, n := range lb.NATRules {
		if n.Frontend != f || !is(n.Protocol) || t.DstPort < n.First || t.DstPort > n.Last {
			continue
		}
		out.idle = shorter(&out, n.IdleTimeout, n.TCPReset)
		if n.Pool != nil {
			if i := int(t.DstPort - n.First); i < len(n.Pool.Backends) {
				b := n.Pool.Backends[i]
				return r.reach(out, r.back(lb, f, t, []arm.Backend{b}, n.BackendPort, false))
			}
			return outcome{drop: packet.DropNoBackend}
		}
		if n.Backend == nil {
			return outcome{drop: packet.DropNoBackend}
		}
		return r.reach(out, r.back(lb, f, t, []arm.Backend{*n.Backend}, n.BackendPort, false))
	}
	for _, every := range []bool{false, true} {
		for _, rule := range lb.Rules {
			all := rule.Protocol == arm.TransportAll && (t.Proto == packet.ProtoTCP || t.Proto == packet.ProtoUDP)
			if rule.Frontend != f || every != (rule.Protocol == arm.TransportAll) || !all && (!is(rule.Protocol) || rule.FrontendPort != t.DstPort) {
				continue
			}
			var up []arm.Backend
			for _, p := range rule.Pools {
				for _, b := range p.Backends {
					if rule.Probe == nil || !r.down[b.Address] {
						up = append(up, b)
					}
				}
			}
			if len(up) == 0 {
				return outcome{drop: packet.DropNoBackend}
			}
			out.idle = shorter(&out, rule.IdleTimeout, rule.TCPReset)
			port := rule.BackendPort
			if all {
				port = t.DstPort
			}
			return r.reach(out, r.back(lb, f, t, up, port, rule.FloatingIP))
		}
	}
	return outcome{drop: packet.DropNoFrontend}
}

func (r *slowWay) back(lb *arm.LoadBalancer, f *arm.Frontend, t *packet.Tuple, backends []arm.Backend, port uint16, floating bool) (list []receiver) {
	for _, b := range backends {
		to := receiver{b.VirtualNetwork, b.Address, b.Address, port, floating, f.Subnet == nil && lb.SKU != arm.SKUBasic}
		if floating {
			to.dst, to.port = t.Dst.Netip(), t.DstPort
		}
		list = append(list, to)
	}
	return list
}

// reach leaves closed only where no network security group stands.
func (r *slowWay) reach(out outcome, list []receiver) outcome {
	for _, to := range list {
		guarded := false
		for _, nic := range r.set.NetworkInterfaces {
			for _, c := range nic.IPConfigurations {
				if c.Subnet.VirtualNetwork == to.network && c.Address == to.address {
					guarded = nic.NetworkSecurityGroup != nil || c.Subnet.NetworkSecurityGroup != nil
				}
			}
		}
		to.closed = to.closed && !guarded
		out.receivers = append(out.receivers, to)
	}
	return out
}

func shorter(out *outcome, idle time.Duration, reset bool) time.Duration {
	if out.idle == 0 || idle < out.idle {
		out.reset = reset
		return idle
	}
	return out.idle
}

// leave lists the sources that a NIC or a subnet's host may have outside.
func (r *slowWay) leave(src *Endpoint, t *packet.Tuple) outcome {
	four, known := t.Src.Is4(), true
	ported := t.Proto == packet.ProtoTCP || t.Proto == packet.ProtoUDP || t.Proto == packet.ProtoICMP || t.Proto == packet.ProtoICMPv6
	share := func(addresses []netip.Addr, idle time.Duration) outcome {
		out := outcome{idle: idle}
		for _, a := range addresses {
			if a.Is4() == four {
				out.sources = append(out.sources, source{a, 1024, 65535})
			}
		}
		if !ported && out.sources != nil {
			return outcome{drop: packet.DropNoOutbound}
		}
		return out
	}
	if g := src.Subnet.NATGateway; g != nil {
		var addresses []netip.Addr
		for _, p := range g.Addresses {
			if known = known && p.Address.IsValid(); p.Address.IsValid() {
				addresses = append(addresses, p.Address)
			}
		}
		for _, p := range g.Prefixes {
			for a := p.Prefix.Addr(); p.Prefix.Contains(a); a = a.Next() {
				addresses = append(addresses, a)
			}
		}
		if out := share(addresses, g.IdleTimeout); out.sources != nil || out.drop != packet.NotDropped {
			return out
		} else if !known {
			return outcome{}
		}
	}
	if src.NetworkInterface != nil {
		for _, c := range src.NetworkInterface.IPConfigurations {
			if p := c.PublicIPAddress; c.Address == t.Src.Netip() && p != nil {
				if !p.Address.IsValid() {
					return outcome{}
				}
				return outcome{sources: []source{{p.Address, -1, -1}}, idle: p.IdleTimeout}
			}
		}
		if out, ok := r.byBalancer(src, t, four, ported); ok {
			return out
		}
	}
	if src.Subnet.DisableDefaultOutbound {
		return outcome{drop: packet.DropNoOutbound}
	}
	if r.dflt.IsValid() && r.dflt.Is4() == four {
		return share([]netip.Addr{r.dflt}, 4*time.Minute)
	}
	return outcome{}
}

// byBalancer counts the ports of a load balancer's addresses out, one by one.
func (r *slowWay) byBalancer(src *Endpoint, t *packet.Tuple, four, ported bool) (outcome, bool) {
	me := func(b arm.Backend) bool {
		return b.VirtualNetwork == src.Subnet.VirtualNetwork && b.Address == src.Address()
	}
	is := func(p arm.Transport) bool {
		return p == arm.TransportAll || p == arm.TransportTCP && t.Proto == packet.ProtoTCP || p == arm.TransportUDP && t.Proto == packet.ProtoUDP
	}
	ports := func(lb *arm.LoadBalancer, a netip.Addr) (list []source) {
		for p := 1024; p < 1024+64000; p++ {
			free := true
			for _, rule := range lb.Rules {
				free = free && (rule.Frontend.Address != a || int(rule.FrontendPort)/8 != p/8)
			}
			for _, n := range lb.NATRules {
				free = free && (n.Frontend.Address != a || p/8 < int(n.First)/8 || p/8 > int(n.Last)/8)
			}
			if free {
				list = append(list, source{a, p, p})
			}
		}
		return list
	}
	perBackend := func(size int) int {
		switch {
		case size <= 50:
			return 1024
		case size <= 100:
			return 512
		}
		return 256
	}
	give := func(lb *arm.LoadBalancer, frontends []*arm.Frontend, i, size, allocated int, idle time.Duration, reset bool) outcome {
		if !ported {
			for _, f := range frontends {
				if !f.Address.IsValid() {
					return outcome{}
				}
			}
			return outcome{drop: packet.DropNoOutbound}
		}
		out := outcome{idle: idle, reset: reset}
		var all []source
		used := 0
		for _, f := range frontends {
			if !f.Address.IsValid() {
				return outcome{}
			}
			if f.Address.Is4() != four {
				continue
			}
			free := ports(lb, f.Address)
			if allocated == 0 {
				if n := perBackend(size); used+n <= 1024 {
					out.sources, used = append(out.sources, free[i*n:(i+1)*n]...), used+n
				}
			}
			all = append(all, free...)
		}
		if allocated > 0 {
			out.sources = all[min(len(all), i*allocated):min(len(all), (i+1)*allocated)]
		}
		if len(out.sources) == 0 {
			return outcome{drop: packet.DropNoOutbound}
		}
		return out
	}
	for _, lb := range r.set.LoadBalancers {
		for _, o := range lb.OutboundRules {
			for i, b := range o.Pool.Backends {
				if me(b) && is(o.Protocol) {
					return give(lb, o.Frontends, i, len(o.Pool.Backends), o.AllocatedPorts, o.IdleTimeout, o.TCPReset), true
				}
			}
		}
	}
	standard := false
	for _, lb := range r.set.LoadBalancers {
		var frontends []*arm.Frontend
		var all []arm.Backend
		var first *arm.LoadBalancingRule
		for _, rule := range lb.Rules {
			var members []arm.Backend
			for _, p := range rule.Pools {
				members = append(members, p.Backends...)
			}
			if rule.DisableOutboundSNAT || rule.Frontend.Subnet != nil || !is(rule.Protocol) || !slices.ContainsFunc(members, me) {
				continue
			}
			if first == nil {
				first = rule
			}
			if !slices.Contains(frontends, rule.Frontend) {
				frontends = append(frontends, rule.Frontend)
			}
			for _, m := range members {
				if !slices.ContainsFunc(all, func(o arm.Backend) bool { return o.VirtualNetwork == m.VirtualNetwork && o.Address == m.Address }) {
					all = append(all, m)
				}
			}
		}
		if first != nil {
			return give(lb, frontends, slices.IndexFunc(all, me), len(all), 0, first.IdleTimeout, first.TCPReset), true
		}
		for _, p := range lb.Pools {
			standard = standard || lb.SKU != arm.SKUBasic && slices.ContainsFunc(p.Backends, func(b arm.Backend) bool { return me(b) && b.NetworkInterface != nil })
		}
	}
	return outcome{drop: packet.DropNoOutbound}, standard
}

// differs says how a way is not the outcome that the reference knows; empty when it is.
func (r *slowWay) differs(t *packet.Tuple, w *Way, drop packet.Drop, want outcome) string {
	if drop == packet.DropHairpin {
		if want.inside && slices.ContainsFunc(want.receivers, func(to receiver) bool { return to.address == t.Src.Netip() }) {
			return ""
		}
		return "hairpin, though the sender is no backend"
	}
	if drop != want.drop {
		return fmt.Sprintf("dropped as %s, want %s", drop, want.drop)
	}
	if drop != packet.NotDropped {
		return ""
	}
	got := receiver{dst: w.Arrives.Dst.Netip(), port: w.Arrives.DstPort, floating: w.Floating, closed: w.Closed}
	if w.To.Subnet != nil {
		got.network, got.address = w.To.Subnet.VirtualNetwork, w.Arrives.Dst.Netip()
		if w.To.NetworkInterface != nil {
			got.address = w.To.Address()
		}
	}
	if want.inside && got.address == t.Src.Netip() {
		return "reaches its own sender"
	}
	if !slices.Contains(want.receivers, got) {
		return fmt.Sprintf("reaches %+v, want one of %+v", got, want.receivers)
	}
	var sources []source
	for _, p := range w.Ports {
		sources = append(sources, source{p.Address.Netip(), int(p.First), int(p.Last)})
	}
	if w.Ports == nil && w.Arrives.Src != t.Src {
		sources = []source{{w.Arrives.Src.Netip(), -1, -1}}
	}
	if !slices.Equal(joined(sources), joined(want.sources)) || w.Ports != nil && w.Arrives.Src != t.Src || w.Arrives.SrcPort != t.SrcPort || w.Arrives.Proto != t.Proto {
		return fmt.Sprintf("leaves with %v, want %v", joined(sources), joined(want.sources))
	}
	if w.Idle != want.idle || w.Reset != want.reset {
		return fmt.Sprintf("idle %s, reset %v; want %s, %v", w.Idle, w.Reset, want.idle, want.reset)
	}
	if w.Translated != (w.Ports != nil || w.Arrives != *t) {
		return fmt.Sprintf("translated %v", w.Translated)
	}
	return ""
}

// joined puts ports that follow each other into one range.
func joined(list []source) (out []source) {
	for _, s := range list {
		if n := len(out); n > 0 && s.first >= 0 && out[n-1].address == s.address && out[n-1].last+1 == s.first {
			out[n-1].last = s.last
		} else {
			out = append(out, s)
		}
	}
	return out
}

// randomStreet is a policy of two peered networks with everything that translates, in any
// combination that reading takes.
func randomStreet(random *rand.Rand) *arm.Set {
	coin := func(n int) bool { return random.IntN(n) == 0 }
	set := &arm.Set{}
	g := &ruleset.NSG{Name: "g", ID: "/nsg/g"}
	set.NetworkSecurityGroups = []*ruleset.NSG{g}
	minutes := func() time.Duration { return time.Duration(4+random.IntN(20)) * time.Minute }
	sku := func() arm.SKU { return []arm.SKU{arm.SKUBasic, arm.SKUStandard}[random.IntN(2)] }
	public := func() *arm.PublicIPAddress {
		n := len(set.PublicIPAddresses)
		p := &arm.PublicIPAddress{Name: fmt.Sprint("p", n), ID: fmt.Sprint("/pip/", n), SKU: sku(), IdleTimeout: minutes()}
		if !coin(6) {
			p.Address = netip.AddrFrom4([4]byte{203, 0, 113, byte(n)})
		}
		set.PublicIPAddresses = append(set.PublicIPAddresses, p)
		return p
	}
	for i, name := range []string{"v", "w"} {
		v := &arm.VirtualNetwork{Name: name, ID: "/vnet/" + name, AddressSpace: []netip.Prefix{pfx(fmt.Sprintf("10.%d.0.0/16", i))}}
		set.VirtualNetworks = append(set.VirtualNetworks, v)
		for j := range 3 {
			s := &arm.Subnet{Name: fmt.Sprint(name, j), ID: fmt.Sprint(v.ID, "/", j), VirtualNetwork: v, Prefixes: []netip.Prefix{pfx(fmt.Sprintf("10.%d.%d.0/24", i, j))}, DisableDefaultOutbound: coin(3)}
			if coin(2) {
				s.NetworkSecurityGroup = g
			}
			if coin(3) {
				s.NATGateway = &arm.NATGateway{Name: s.Name, ID: "/gw/" + s.ID, IdleTimeout: minutes()}
				if coin(2) {
					p := public()
					s.NATGateway.Addresses, s.NATGateway.Unknown = []*arm.PublicIPAddress{p}, !p.Address.IsValid()
				}
				if coin(3) {
					prefix := &arm.PublicIPPrefix{Name: s.Name, ID: "/prefix/" + s.ID, Prefix: pfx(fmt.Sprintf("203.0.%d.0/30", 120+3*i+j))}
					set.PublicIPPrefixes, s.NATGateway.Prefixes = append(set.PublicIPPrefixes, prefix), []*arm.PublicIPPrefix{prefix}
				}
				set.NATGateways = append(set.NATGateways, s.NATGateway)
			}
			v.Subnets = append(v.Subnets, s)
			for k := range 3 {
				c := arm.IPConfiguration{Name: "c", Address: netip.AddrFrom4([4]byte{10, byte(i), byte(j), byte(4 + k)}), Subnet: s, Primary: true}
				if coin(3) {
					c.PublicIPAddress = public()
				}
				nic := &arm.NetworkInterface{Name: fmt.Sprint(s.Name, k), ID: fmt.Sprint("/nic/", s.Name, k), EnableIPForwarding: coin(4), IPConfigurations: []arm.IPConfiguration{c}}
				if coin(3) {
					nic.NetworkSecurityGroup = g
				}
				set.NetworkInterfaces = append(set.NetworkInterfaces, nic)
			}
		}
	}
	v, w := set.VirtualNetworks[0], set.VirtualNetworks[1]
	v.Peerings = []arm.Peering{{Name: "p", Remote: w, AllowVirtualNetworkAccess: true, AllowForwardedTraffic: true}}
	w.Peerings = []arm.Peering{{Name: "p", Remote: v, AllowVirtualNetworkAccess: true, AllowForwardedTraffic: coin(2)}}
	for i := range 3 {
		set.LoadBalancers = append(set.LoadBalancers, randomBalancer(random, set, i, public, sku(), minutes))
	}
	return set
}

func randomBalancer(random *rand.Rand, set *arm.Set, i int, public func() *arm.PublicIPAddress, sku arm.SKU, minutes func() time.Duration) *arm.LoadBalancer {
	coin := func(n int) bool { return random.IntN(n) == 0 }
	lb := &arm.LoadBalancer{Name: fmt.Sprint("lb", i), ID: fmt.Sprint("/lb/", i), SKU: sku}
	internal := i == 2
	for j := range 2 {
		f := &arm.Frontend{Name: fmt.Sprint(j)}
		if internal {
			f.Subnet = set.VirtualNetworks[j].Subnets[0]
			f.Address = netip.AddrFrom4([4]byte{10, byte(j), 0, 99})
		} else {
			f.PublicIPAddress = public()
			f.Address = f.PublicIPAddress.Address
		}
		lb.Frontends = append(lb.Frontends, f)
		pool := &arm.BackendPool{Name: fmt.Sprint(j)}
		for _, k := range random.Perm(len(set.NetworkInterfaces))[:random.IntN(5)] {
			nic := set.NetworkInterfaces[k]
			c := nic.IPConfigurations[0]
			b := arm.Backend{NetworkInterface: nic, VirtualNetwork: c.Subnet.VirtualNetwork, Address: c.Address}
			if coin(4) {
				b.NetworkInterface = nil
			}
			pool.Backends = append(pool.Backends, b)
		}
		lb.Pools = append(lb.Pools, pool)
	}
	probe := &arm.HealthProbe{Name: "alive", Protocol: "Tcp", Port: 80, Interval: time.Second, Threshold: 1}
	lb.Probes = []*arm.HealthProbe{probe}
	for j, f := range lb.Frontends {
		for k, p := range []arm.Transport{arm.TransportTCP, arm.TransportUDP, arm.TransportAll} {
			if coin(2) || p == arm.TransportAll && !internal {
				continue
			}
			r := &arm.LoadBalancingRule{Name: fmt.Sprint(j, k), Frontend: f, Pools: []*arm.BackendPool{lb.Pools[random.IntN(2)]}, Protocol: p, FrontendPort: []uint16{80, 1040}[random.IntN(2)], FloatingIP: coin(4),
				TCPReset: coin(2), DisableOutboundSNAT: coin(2), IdleTimeout: minutes(), Distribution: []arm.Distribution{arm.DistributionDefault, arm.DistributionSourceIP}[random.IntN(2)]}
			r.BackendPort = r.FrontendPort
			if coin(2) && !r.FloatingIP {
				r.BackendPort = 8080
			}
			if p == arm.TransportAll {
				r.FrontendPort, r.BackendPort = 0, 0
			}
			if coin(2) {
				r.Probe = probe
			}
			lb.Rules = append(lb.Rules, r)
		}
		if coin(2) {
			n := &arm.InboundNATRule{Name: fmt.Sprint("n", j), Frontend: f, Protocol: arm.TransportTCP, First: 2000, Last: 2009, BackendPort: 22, Pool: lb.Pools[j], IdleTimeout: minutes()}
			lb.NATRules = append(lb.NATRules, n)
		}
	}
	if !internal && coin(2) {
		lb.OutboundRules = []*arm.OutboundRule{{Name: "out", Frontends: lb.Frontends[:1+random.IntN(2)], Pool: lb.Pools[random.IntN(2)], Protocol: []arm.Transport{arm.TransportTCP, arm.TransportAll}[random.IntN(2)],
			AllocatedPorts: []int{0, 1000, 16000}[random.IntN(3)], TCPReset: coin(2), IdleTimeout: minutes()}}
	}
	return lb
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
		specs := []Spec{{Kind: Internet}, {Kind: Platform}}
		for _, nic := range set.NetworkInterfaces {
			specs = append(specs, Spec{Kind: NetworkInterface, Reference: nic.ID})
		}
		for _, v := range set.VirtualNetworks {
			for _, s := range v.Subnets {
				specs = append(specs, Spec{Kind: Subnet, Reference: s.ID})
			}
		}
		s, err := o.Build(set, specs, NewRegistry())
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

// randomPacket is from somebody to somebody of the policy, or to its public addresses.
func randomPacket(random *rand.Rand, set *arm.Set) packet.Tuple {
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
