package topology

import (
	"net/netip"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Ports that flows may take of a shared address. Of a load balancer's frontend Azure gives 64,000.
const (
	firstSharedPort      = 1024
	lastSharedPort       = 65535
	lastBalancerPort     = firstSharedPort + 64000 - 1
	balancerPortBlock    = 8    // a rule's frontend port keeps so many from outbound flows
	maxDefaultAllocation = 1024 // ports of a backend, over all frontends, that nobody has allocated
)

// outward is how packets of one kind leave to the internet.
type outward uint8

const (
	leavesAsSent   outward = iota // nothing is known that translates it
	leavesAsOne                   // with an address of its own
	leavesShared                  // with an address and a port of several
	leavesNotAtAll                // Azure gives no way out
)

// egress is how an endpoint's packets of one kind leave to the internet.
type egress struct {
	outward outward
	address packet.Addr // of leavesAsOne
	ports   []PortRange // of leavesShared
	idle    time.Duration
	reset   bool
}

// traffic is what outbound methods tell packets apart by.
type traffic uint8

const (
	trafficTCP traffic = iota
	trafficUDP
	trafficICMP
	trafficOther // has nothing to share an address by
	numTraffic
)

// egresses are those of an endpoint, by family (IPv4 first) and traffic.
type egresses [2][numTraffic]egress

func trafficOf(protocol uint8) traffic {
	switch protocol {
	case packet.ProtoTCP:
		return trafficTCP
	case packet.ProtoUDP:
		return trafficUDP
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return trafficICMP
	}
	return trafficOther
}

// takes reports that a load balancer's rule of a transport is for the traffic.
func (k traffic) takes(t policy.Transport) bool {
	switch t {
	case policy.TransportTCP:
		return k == trafficTCP
	case policy.TransportUDP:
		return k == trafficUDP
	}
	return true
}

// leave gives a packet the source that the internet sees.
func (e *Endpoint) leave(t *packet.Tuple, w *Way) packet.Drop {
	family := 1
	if t.Src.Is4() {
		family = 0
	}
	out := &e.egress[family][trafficOf(t.Proto)]
	switch out.outward {
	case leavesAsOne:
		w.Arrives.Src = out.address
	case leavesShared:
		w.Ports = out.ports
	case leavesNotAtAll:
		return packet.DropNoOutbound
	}
	w.within(out.idle, out.reset)
	return packet.NotDropped
}

// addEgresses finds how each endpoint leaves to the internet; its egress is nil when all that it
// sends leaves as sent.
func (b *builder) addEgresses() {
	pools := b.memberships()
	for _, e := range slices.Concat(b.nics, b.subnets) {
		var all egresses
		translates := false
		for family := range all {
			for k := range numTraffic {
				out := b.egress(e, family == 1, k, pools)
				if out.outward == leavesShared && (k == trafficOther || len(out.ports) == 0) {
					out = egress{outward: leavesNotAtAll}
				}
				all[family][k] = out
				translates = translates || out.outward != leavesAsSent
			}
		}
		if translates {
			e.egress, b.s.translates = &all, true
		}
	}
}

// egress is Azure's precedence of outbound methods: NAT gateway, the ipConfiguration's public
// address, a load balancer, default outbound access. What is there and not known how leaves as sent.
func (b *builder) egress(e *Endpoint, six bool, k traffic, pools map[member][]*membership) egress {
	if g := e.Subnet.NATGateway; g != nil {
		if ports := shared(g.PublicAddresses(), six); ports != nil {
			return egress{outward: leavesShared, ports: ports, idle: g.IdleTimeout}
		}
		if g.Unknown {
			return egress{}
		}
	}
	if e.NetworkInterface != nil {
		c := e.configuration()
		if public := c.PublicIPAddress; public != nil {
			if !public.Address.IsValid() {
				return egress{}
			}
			return egress{outward: leavesAsOne, address: packet.AddrFrom(public.Address), idle: public.IdleTimeout}
		}
		if c.UnknownPools {
			return egress{}
		}
		if out, ok := balanced(pools[member{c.Subnet.VirtualNetwork, c.Address}], six, k); ok {
			return out
		}
	}
	switch a := b.options.DefaultOutbound; {
	case e.Subnet.DisableDefaultOutbound:
		return egress{outward: leavesNotAtAll}
	case a.IsValid() && a.Is6() == six:
		return egress{outward: leavesShared, ports: shared([]netip.Addr{a}, six), idle: IdleUDP}
	}
	return egress{}
}

// configuration is a NIC endpoint's.
func (e *Endpoint) configuration() *policy.IPConfiguration {
	for i := range e.NetworkInterface.IPConfigurations {
		if c := &e.NetworkInterface.IPConfigurations[i]; packet.AddrFrom(c.Address) == e.address {
			return c
		}
	}
	panic("topology: an endpoint without its ipConfiguration")
}

// shared are all ports of the addresses of a family.
func shared(addresses []netip.Addr, six bool) (ports []PortRange) {
	for _, a := range addresses {
		if a.Is6() == six {
			ports = append(ports, PortRange{packet.AddrFrom(a), firstSharedPort, lastSharedPort})
		}
	}
	return ports
}

// member is a backend, whichever pool it is in.
type member struct {
	network *policy.VirtualNetwork
	address netip.Addr
}

// membership is a load balancer with a backend in one of its pools.
type membership struct {
	balancer *policy.LoadBalancer
	backend  member
	// byInterface says that a pool names the ipConfiguration, not just its address: only then a
	// Standard load balancer takes default outbound access away.
	byInterface bool
}

// memberships are the load balancers of all backends, in the policy's order.
func (b *builder) memberships() map[member][]*membership {
	all := map[member][]*membership{}
	for _, lb := range b.s.Policy.LoadBalancers {
		for _, p := range lb.Pools {
			for i := range p.Backends {
				m := memberOf(&p.Backends[i])
				list := all[m]
				if len(list) == 0 || list[len(list)-1].balancer != lb {
					list = append(list, &membership{balancer: lb, backend: m})
					all[m] = list
				}
				last := list[len(list)-1]
				last.byInterface = last.byInterface || p.Backends[i].NetworkInterface != nil
			}
		}
	}
	return all
}

func memberOf(b *policy.Backend) member { return member{b.VirtualNetwork, b.Address} }

// balanced is the way out that load balancers give a backend: an outbound rule, else what their load
// balancing rules do by the way. ok is false when they have no part in it.
func balanced(list []*membership, six bool, k traffic) (out egress, ok bool) {
	for _, m := range list {
		for _, r := range m.balancer.OutboundRules {
			if i := indexIn(r.Pool.Backends, m.backend); i >= 0 && k.takes(r.Protocol) {
				return m.byRule(r, i, six), true
			}
		}
	}
	standard := false
	for _, m := range list {
		if out, ok := m.byTheWay(six, k); ok {
			return out, true
		}
		standard = standard || m.byInterface && m.balancer.SKU.Closed()
	}
	return egress{outward: leavesNotAtAll}, standard
}

func indexIn(list []policy.Backend, m member) int {
	return slices.IndexFunc(list, func(b policy.Backend) bool { return memberOf(&b) == m })
}

// byRule is the way out by an outbound rule, for member i of its pool.
func (m *membership) byRule(r *policy.OutboundRule, i int, six bool) egress {
	addresses, known := m.outbound(r.Frontends, six)
	if !known {
		return egress{}
	}
	out := egress{outward: leavesShared, idle: r.IdleTimeout, reset: r.TCPReset}
	if n := r.AllocatedPorts; n > 0 {
		var all []PortRange
		for _, a := range addresses {
			all = append(all, m.free(a)...)
		}
		out.ports = cut(all, i*n, n)
	} else {
		out.ports = m.byDefault(addresses, i, len(r.Pool.Backends))
	}
	return out
}

// byTheWay is the way out by the public frontends of load balancing rules without
// disableOutboundSnat; ok is false when there is no such rule.
func (m *membership) byTheWay(six bool, k traffic) (out egress, ok bool) {
	var frontends []*policy.Frontend
	var members []policy.Backend
	for _, r := range m.balancer.Rules {
		if r.DisableOutboundSNAT || !r.Frontend.Public() || !k.takes(r.Protocol) {
			continue
		}
		mine := false
		for _, p := range r.Pools {
			mine = mine || indexIn(p.Backends, m.backend) >= 0
		}
		if !mine {
			continue
		}
		if out.outward == leavesAsSent {
			out = egress{outward: leavesShared, idle: r.IdleTimeout, reset: r.TCPReset}
		}
		if !slices.Contains(frontends, r.Frontend) {
			frontends = append(frontends, r.Frontend)
		}
		for _, p := range r.Pools {
			for i := range p.Backends {
				if indexIn(members, memberOf(&p.Backends[i])) < 0 {
					members = append(members, p.Backends[i])
				}
			}
		}
	}
	if frontends == nil {
		return egress{}, false
	}
	addresses, known := m.outbound(frontends, six)
	if !known {
		return egress{}, true
	}
	out.ports = m.byDefault(addresses, indexIn(members, m.backend), len(members))
	return out, true
}

// outbound are the public addresses of frontends; known is false when one of them is not known.
func (m *membership) outbound(frontends []*policy.Frontend, six bool) (list []netip.Addr, known bool) {
	for _, f := range frontends {
		addresses := f.Outbound()
		if len(addresses) == 0 {
			return nil, false
		}
		for _, a := range addresses {
			if a.Is6() == six {
				list = append(list, a)
			}
		}
	}
	return list, true
}

// free are the ports of a frontend's address that outbound flows may take: not those in a block of
// eight with a port of a rule.
func (m *membership) free(a netip.Addr) (list []PortRange) {
	taken := map[uint16]bool{}
	take := func(f *policy.Frontend, first, last uint16) {
		for block := int(first) / balancerPortBlock; f.Address == a && block <= int(last)/balancerPortBlock; block++ {
			taken[uint16(block)] = true
		}
	}
	for _, r := range m.balancer.Rules {
		take(r.Frontend, r.FrontendPort, r.FrontendPort)
	}
	for _, r := range m.balancer.NATRules {
		take(r.Frontend, r.First, r.Last)
	}
	address := packet.AddrFrom(a)
	for first := firstSharedPort; first <= lastBalancerPort; first += balancerPortBlock {
		if taken[uint16(first/balancerPortBlock)] {
			continue
		}
		last := uint16(first + balancerPortBlock - 1)
		if n := len(list); n > 0 && int(list[n-1].Last) == first-1 {
			list[n-1].Last = last
		} else {
			list = append(list, PortRange{address, uint16(first), last})
		}
	}
	return list
}

// byDefault are the ports of member i of a pool that nobody has allocated: as many of each address as
// the size of the pool gives, and 1,024 at most (azure-docs, load-balancer-outbound-connections,
// default port allocation).
func (m *membership) byDefault(addresses []netip.Addr, i, size int) (ports []PortRange) {
	n := 32
	for _, step := range []struct{ size, ports int }{{800, 64}, {400, 128}, {200, 256}, {100, 512}, {50, 1024}} {
		if size <= step.size {
			n = step.ports
		}
	}
	for j, a := range addresses {
		if (j+1)*n > maxDefaultAllocation {
			break
		}
		ports = append(ports, cut(m.free(a), i*n, n)...)
	}
	return ports
}

// cut takes n ports of ranges, from the one of a number on; fewer where there are no more.
func cut(ranges []PortRange, from, n int) (list []PortRange) {
	for _, r := range ranges {
		size := int(r.Last) - int(r.First) + 1
		if from >= size {
			from -= size
			continue
		}
		take := min(n, size-from)
		if take <= 0 {
			break
		}
		first := int(r.First) + from
		list = append(list, PortRange{r.Address, uint16(first), uint16(first + take - 1)})
		n, from = n-take, 0
	}
	return list
}
