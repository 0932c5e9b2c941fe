package topology

import (
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// translation is what Way needs besides the routes.
type translation struct {
	public     map[packet.Addr]*frontend // public addresses; nothing else has them
	probes     []*Probe
	shared     map[packet.Addr][]*Endpoint // probed backends with the address of another network too
	translates bool                        // a packet may be translated, or may meet what is closed
	given      bool                        // the policy gives a public address
}

// newTranslation makes the frontends of public addresses and load balancers, and the egress of
// each endpoint.
func newTranslation(set *policy.Set, defaultOutbound netip.Addr, share Share, routed *routedSet) *translation {
	t := &translation{public: map[packet.Addr]*frontend{}}
	t.addFrontends(set, defaultOutbound, routed)
	routed.balance()
	t.shareAddresses(routed.byAddress)
	t.translates = addEgresses(set, defaultOutbound, share, routed) || len(t.public) > 0
	t.translates = t.translates || slices.ContainsFunc(routed.all(), func(e *Endpoint) bool { return e.closed || e.closedAt != nil })
	for _, n := range routed.networks.list {
		t.translates = t.translates || len(n.frontends) > 0
	}
	for _, a := range routed.attachments {
		for _, e := range slices.Concat(routed.nics, routed.subnets) {
			if a.Kind == Subnet && e.Attachment == a.Index && len(e.floating) > 0 {
				a.floating = append(a.floating, e)
			}
		}
	}
	return t
}

func (t *translation) addFrontends(set *policy.Set, defaultOutbound netip.Addr, routed *routedSet) {
	empty := &frontend{public: true}
	hold := func(a netip.Addr) {
		if address := packet.AddrFrom(a); a.IsValid() && t.public[address] == nil {
			t.public[address] = empty
		}
	}
	for _, nic := range set.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			c := &nic.IPConfigurations[i]
			public := c.PublicIPAddress
			if public == nil {
				continue
			}
			routed.closeNIC(nic, public.SKU)
			if public.Address.IsValid() {
				t.public[packet.AddrFrom(public.Address)] = &frontend{public: true, target: routed.byNIC[endpointKey{nic, c.Address.Unmap()}], idle: public.IdleTimeout}
			}
		}
	}
	for _, lb := range set.LoadBalancers {
		routed.closeBackends(lb)
		t.addBalancer(lb, routed.networks)
	}
	for _, public := range set.PublicIPAddresses {
		hold(public.Address)
	}
	for _, prefix := range set.PublicIPPrefixes {
		for _, a := range prefix.Addresses() {
			hold(a)
		}
	}
	t.given = givesPublic(set)
	hold(defaultOutbound)
}

// givesPublic reports that a policy gives a public address, whether it is known or not.
func givesPublic(set *policy.Set) bool {
	return len(set.PublicIPAddresses)+len(set.PublicIPPrefixes)+len(set.NATGateways) > 0 ||
		slices.ContainsFunc(set.NetworkInterfaces, func(nic *policy.NetworkInterface) bool {
			return slices.ContainsFunc(nic.IPConfigurations, func(c policy.IPConfiguration) bool { return c.PublicIPAddress != nil })
		}) ||
		slices.ContainsFunc(set.LoadBalancers, func(lb *policy.LoadBalancer) bool {
			return slices.ContainsFunc(lb.Frontends, (*policy.Frontend).Public)
		})
}

// closeNIC closes the addresses of a NIC that no NSG judges, if the internet could reach one of them by an
// address of a closed SKU, whether the policy knows that address or not.
func (s *endpointSet) closeNIC(nic *policy.NetworkInterface, sku policy.SKU) {
	for i := range nic.IPConfigurations {
		if e := s.byNIC[endpointKey{nic, nic.IPConfigurations[i].Address.Unmap()}]; sku.Closed() && len(e.Inbound) == 0 {
			e.closed = true
		}
	}
}

// closeBackends closes the backends of public frontends. One that is given by its address need not be a
// NIC of the policy.
func (s *endpointSet) closeBackends(lb *policy.LoadBalancer) {
	closeAll := func(f *policy.Frontend, backends ...policy.Backend) {
		if !f.Public() {
			return
		}
		for i := range backends {
			e, _ := s.networks.of[backends[i].VirtualNetwork].hosts.Lookup(backends[i].Address)
			switch {
			case e == nil:
			case e.NetworkInterface != nil:
				s.closeNIC(e.NetworkInterface, lb.SKU)
			case lb.SKU.Closed() && len(e.Inbound) == 0:
				if e.closedAt == nil {
					e.closedAt = map[packet.Addr]bool{}
				}
				e.closedAt[packet.AddrFrom(backends[i].Address)] = true
			}
		}
	}
	for _, r := range lb.Rules {
		for _, p := range r.Pools {
			closeAll(r.Frontend, p.Backends...)
		}
	}
	for _, r := range lb.NATRules {
		if r.Pool != nil {
			closeAll(r.Frontend, r.Pool.Backends...)
		} else if r.Backend != nil {
			closeAll(r.Frontend, *r.Backend)
		}
	}
}

// addBalancer makes the frontends of one load balancer.
func (t *translation) addBalancer(lb *policy.LoadBalancer, networks *networkSet) {
	probes := map[probedBackend]*health{}
	for _, of := range lb.Frontends {
		if !of.Address.IsValid() {
			continue
		}
		f := &frontend{public: of.Public()}
		for _, r := range lb.Rules {
			if r.Frontend == of {
				t.addRule(f, lb, r, networks, probes)
			}
		}
		for _, r := range lb.NATRules {
			if r.Frontend == of {
				f.addNATRule(r, networks)
			}
		}
		slices.SortFunc(f.rules, compareFrontendRules)
		address := packet.AddrFrom(of.Address)
		if f.public {
			t.public[address] = f
			continue
		}
		n := networks.of[of.Subnet.VirtualNetwork]
		if n.frontends == nil {
			n.frontends = map[packet.Addr]*frontend{}
		}
		n.frontends[address] = f
	}
}

// addRule enters a load balancing rule.
func (t *translation) addRule(f *frontend, lb *policy.LoadBalancer, of *policy.LoadBalancingRule, networks *networkSet, probes map[probedBackend]*health) {
	r := frontendRule{first: of.FrontendPort, last: of.FrontendPort, port: of.BackendPort, distribution: of.Distribution, floating: of.FloatingIP,
		reset: of.TCPReset, idle: of.IdleTimeout}
	for _, p := range of.Pools {
		for i := range p.Backends {
			b, ok := networks.backend(&p.Backends[i], of.Frontend, of.FloatingIP)
			if !ok || slices.ContainsFunc(r.backends, func(other backend) bool { return other.to == b.to && other.address == b.address }) {
				continue
			}
			if of.Probe != nil {
				b.health = t.addProbe(lb, of.Probe, b, probes)
			}
			r.backends = append(r.backends, b)
		}
	}
	if of.Protocol == policy.TransportAll {
		f.anyPort = &r
		return
	}
	r.protocol = protocolOf(of.Protocol)
	f.rules = append(f.rules, r)
}

// addNATRule enters an inbound NAT rule.
func (f *frontend) addNATRule(of *policy.InboundNATRule, networks *networkSet) {
	r := frontendRule{protocol: protocolOf(of.Protocol), first: of.First, last: of.Last, port: of.BackendPort, floating: of.FloatingIP,
		reset: of.TCPReset, idle: of.IdleTimeout, perPort: of.Pool != nil}
	var members []policy.Backend
	if of.Pool != nil {
		members = of.Pool.Backends
	} else if of.Backend != nil {
		members = []policy.Backend{*of.Backend}
	}
	for i := range members {
		if b, ok := networks.backend(&members[i], of.Frontend, of.FloatingIP); ok {
			r.backends = append(r.backends, b)
		}
	}
	f.rules = append(f.rules, r)
}

// backend finds the endpoint with a backend's address. With a floating address the endpoint
// then also answers from the frontend's address.
func (s *networkSet) backend(of *policy.Backend, frontend *policy.Frontend, floating bool) (backend, bool) {
	e, _ := s.of[of.VirtualNetwork].hosts.Lookup(of.Address)
	if e == nil {
		return backend{}, false
	}
	if address := packet.AddrFrom(frontend.Address); floating && !e.hasFloating(address) {
		e.floating = append(e.floating, address)
	}
	return backend{to: e, address: packet.AddrFrom(of.Address)}, true
}

func protocolOf(t policy.Transport) uint8 {
	if t == policy.TransportUDP {
		return packet.ProtoUDP
	}
	return packet.ProtoTCP
}
