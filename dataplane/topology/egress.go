package topology

import (
	"net/netip"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// egressKind says how packets leave to the internet.
type egressKind uint8

const (
	egressAsSent     egressKind = iota // nothing known translates it
	egressOwnAddress                   // with an address of its own
	egressShared                       // with a port of an address that flows share
	egressBlocked                      // Azure gives no way out
)

// egress is how an endpoint's packets of one kind of traffic leave to the internet.
type egress struct {
	kind    egressKind
	address packet.Addr // of egressOwnAddress
	ports   []PortRange // of egressShared
	// contended says that endpoints of several attachments take of the same ports.
	contended bool
	idle      time.Duration
	reset     bool
}

// traffic is a kind of packet that Azure's outbound methods tell apart.
type traffic uint8

const (
	trafficTCP traffic = iota
	trafficUDP
	trafficICMP
	trafficOther // has no port or identifier to share an address by
	numTraffic
)

// egresses are an endpoint's, by family (IPv4 first) and traffic.
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

// takes reports that a load balancer's rule of a transport applies to the traffic.
func (k traffic) takes(t policy.Transport) bool {
	switch t {
	case policy.TransportTCP:
		return k == trafficTCP
	case policy.TransportUDP:
		return k == trafficUDP
	}
	return true
}

// translateSource gives a packet the source that the internet sees.
func (e *Endpoint) translateSource(t *packet.Tuple, w *Way) packet.Drop {
	family := 1
	if t.Src.Is4() {
		family = 0
	}
	out := &e.egress[family][trafficOf(t.Proto)]
	switch out.kind {
	case egressOwnAddress:
		w.Arrives.Src = out.address
	case egressShared:
		w.Ports, w.Contended = out.ports, out.contended
	case egressBlocked:
		return packet.DropNoOutbound
	}
	w.shortenIdle(out.idle, out.reset)
	return packet.NotDropped
}

// addEgresses finds how each endpoint's packets leave to the internet. An endpoint's egress
// stays nil when all its packets leave as sent. any is false when that holds for all of them.
func addEgresses(set *policy.Set, defaultOutbound netip.Addr, share Share, routed *routedSet) (any bool) {
	pools := memberships(set)
	for _, e := range slices.Concat(routed.nics, routed.subnets) {
		var all egresses
		translates := false
		for family := range all {
			for k := range numTraffic {
				out := e.outboundMethod(family == 1, k, pools, defaultOutbound)
				out.ports = share.of(out.ports)
				if out.kind == egressShared && (k == trafficOther || len(out.ports) == 0) {
					out = egress{kind: egressBlocked}
				}
				all[family][k] = out
				translates = translates || out.kind != egressAsSent
			}
		}
		if translates {
			e.egress, any = &all, true
		}
	}
	markContended(slices.Concat(routed.nics, routed.subnets))
	return any
}

// markContended finds the ports that endpoints of several attachments may take.
func markContended(endpoints []*Endpoint) {
	type pool struct {
		ports PortRange
		traffic
	}
	users := map[pool]int{} // attachment, or several
	const several = -1
	each := func(visit func(*Endpoint, pool, *egress)) {
		for _, e := range endpoints {
			if e.egress == nil || e.Attachment < 0 {
				continue
			}
			for family := range e.egress {
				for k := range e.egress[family] {
					if out := &e.egress[family][k]; out.kind == egressShared {
						visit(e, pool{out.ports[0], traffic(k)}, out)
					}
				}
			}
		}
	}
	each(func(e *Endpoint, p pool, _ *egress) {
		if user, ok := users[p]; !ok {
			users[p] = e.Attachment
		} else if user != e.Attachment {
			users[p] = several
		}
	})
	each(func(_ *Endpoint, p pool, out *egress) { out.contended = users[p] == several })
}

// outboundMethod follows Azure's precedence: NAT gateway, the ipConfiguration's public address,
// a load balancer, default outbound access. If the method's address is not known, packets leave
// as sent.
func (e *Endpoint) outboundMethod(six bool, k traffic, pools map[poolMember][]*membership, defaultOutbound netip.Addr) egress {
	if g := e.Subnet.NATGateway; g != nil {
		if ports := shared(g.PublicAddresses(), six); ports != nil {
			return egress{kind: egressShared, ports: ports, idle: g.IdleTimeout}
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
			return egress{kind: egressOwnAddress, address: packet.AddrFrom(public.Address), idle: public.IdleTimeout}
		}
		if c.UnknownPools {
			return egress{}
		}
		if out, ok := balancerEgress(pools[poolMember{c.Subnet.VirtualNetwork, c.Address}], six, k); ok {
			return out
		}
	}
	switch {
	case e.Subnet.DisableDefaultOutbound:
		return egress{kind: egressBlocked}
	case defaultOutbound.IsValid() && defaultOutbound.Is6() == six:
		return egress{kind: egressShared, ports: shared([]netip.Addr{defaultOutbound}, six), idle: IdleUDP}
	}
	return egress{}
}

// configuration is the ipConfiguration of a NIC's endpoint.
func (e *Endpoint) configuration() *policy.IPConfiguration {
	for i := range e.NetworkInterface.IPConfigurations {
		if c := &e.NetworkInterface.IPConfigurations[i]; packet.AddrFrom(c.Address) == e.address {
			return c
		}
	}
	panic("topology: an endpoint without its ipConfiguration")
}

// shared are all ports of a family's addresses.
func shared(addresses []netip.Addr, six bool) (ports []PortRange) {
	for _, a := range addresses {
		if a.Is6() == six {
			ports = append(ports, PortRange{packet.AddrFrom(a), firstSharedPort, lastSharedPort})
		}
	}
	return ports
}

// poolMember is a backend, whichever pool lists it.
type poolMember struct {
	network *policy.VirtualNetwork
	address netip.Addr
}

// membership is a load balancer with a backend in one of its pools.
type membership struct {
	balancer *policy.LoadBalancer
	backend  poolMember
	// byInterface says that a pool names the ipConfiguration, not just its address. Only then a
	// Standard load balancer takes default outbound access away.
	byInterface bool
}

// memberships are the load balancers of all backends, in the policy's order.
func memberships(set *policy.Set) map[poolMember][]*membership {
	all := map[poolMember][]*membership{}
	for _, lb := range set.LoadBalancers {
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

func memberOf(b *policy.Backend) poolMember { return poolMember{b.VirtualNetwork, b.Address} }

// balancerEgress is the way out that load balancers give a backend: an outbound rule, else a
// load balancing rule. ok is false when no load balancer decides it.
func balancerEgress(list []*membership, six bool, k traffic) (out egress, ok bool) {
	for _, m := range list {
		for _, r := range m.balancer.OutboundRules {
			if i := indexIn(r.Pool.Backends, m.backend); i >= 0 && k.takes(r.Protocol) {
				return m.byOutboundRule(r, i, six), true
			}
		}
	}
	standard := false
	for _, m := range list {
		if out, ok := m.byBalancingRules(six, k); ok {
			return out, true
		}
		standard = standard || m.byInterface && m.balancer.SKU.Closed()
	}
	return egress{kind: egressBlocked}, standard
}

func indexIn(list []policy.Backend, m poolMember) int {
	return slices.IndexFunc(list, func(b policy.Backend) bool { return memberOf(&b) == m })
}

// byOutboundRule is the way out by an outbound rule, for member i of its pool.
func (m *membership) byOutboundRule(r *policy.OutboundRule, i int, six bool) egress {
	addresses, known := m.outbound(r.Frontends, six)
	if !known {
		return egress{}
	}
	out := egress{kind: egressShared, idle: r.IdleTimeout, reset: r.TCPReset}
	if n := r.AllocatedPorts; n > 0 {
		var all []PortRange
		for _, a := range addresses {
			all = append(all, m.freePorts(a)...)
		}
		out.ports = cutPorts(all, i*n, n)
	} else {
		out.ports = m.defaultPorts(addresses, i, len(r.Pool.Backends))
	}
	return out
}

// byBalancingRules is the way out by the public frontends of load balancing rules without
// disableOutboundSnat. ok is false when there is no such rule.
func (m *membership) byBalancingRules(six bool, k traffic) (out egress, ok bool) {
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
		if out.kind == egressAsSent {
			out = egress{kind: egressShared, idle: r.IdleTimeout, reset: r.TCPReset}
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
	out.ports = m.defaultPorts(addresses, indexIn(members, m.backend), len(members))
	return out, true
}

// outbound are the public addresses of frontends. known is false when one of them is not known.
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
