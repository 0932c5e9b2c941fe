package topology

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// front is an address that stands for others: a public one, or a load balancer's in a subnet.
type front struct {
	public bool
	closed bool // public and not of SKU Basic
	// one is the ipConfiguration that has the public address, idle its timeout; else nil.
	one  *Endpoint
	idle time.Duration
	// services are a load balancer's rules by protocol and port, which overlap nowhere; every,
	// if not nil, takes what they leave of TCP and UDP.
	services []service
	every    *service
}

// service is a load balancing rule or an inbound NAT rule.
type service struct {
	protocol     uint8
	first, last  uint16 // frontend ports
	port         uint16 // of the backend; 0: as it was sent
	backends     []backend
	distribution policy.Distribution
	// each says that every port of the range has a backend of its own, in their order.
	each     bool
	floating bool
	reset    bool
	idle     time.Duration
}

// backend is one of those behind a service.
type backend struct {
	to      *Endpoint
	address packet.Addr
	health  *health // nil: up
}

func (b *backend) up() bool { return b.health == nil || !b.health.down.Load() }

// enter takes a packet through a front to whoever stands behind it.
func (s *Snapshot) enter(f *front, t *packet.Tuple, w *Way) packet.Drop {
	w.To = f.one
	if f.one != nil {
		if w.returns(f.one.address) {
			return packet.DropHairpin
		}
		w.Arrives.Dst = f.one.address
		w.within(f.idle, false)
		return f.arrive(w)
	}
	v := f.service(t)
	if v == nil {
		return packet.DropNoFrontend
	}
	b := v.choose(s.seed, &w.Arrives)
	if b == nil {
		return packet.DropNoBackend
	}
	w.To = b.to
	if w.returns(b.address) {
		return packet.DropHairpin
	}
	if v.floating {
		w.Floating = true
	} else {
		w.Arrives.Dst = b.address
		if v.port != 0 {
			w.Arrives.DstPort = v.port
		}
	}
	w.within(v.idle, v.reset)
	return f.arrive(w)
}

// returns reports whether a packet is on its way back to its own sender at an address, without an
// address that stands for him: he would get it from himself, as no host takes it.
func (w *Way) returns(a packet.Addr) bool { return w.Ports == nil && w.Arrives.Src == a }

// arrive says whether there is anybody whom the packet can reach.
func (f *front) arrive(w *Way) packet.Drop {
	w.Closed = f.closed && len(w.To.Inbound) == 0
	if w.To.Attachment < 0 {
		return packet.DropNoRoute
	}
	return packet.NotDropped
}

// service finds the rule for a packet; nil when there is none.
func (f *front) service(t *packet.Tuple) *service {
	if t.Proto != packet.ProtoTCP && t.Proto != packet.ProtoUDP {
		return nil
	}
	low, high := 0, len(f.services)
	for low < high { // the first that begins behind the port
		middle := (low + high) / 2
		if v := &f.services[middle]; v.protocol < t.Proto || v.protocol == t.Proto && v.first <= t.DstPort {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low > 0 {
		if v := &f.services[low-1]; v.protocol == t.Proto && t.DstPort <= v.last {
			return v
		}
	}
	return f.every
}

// choose finds the backend for a packet; nil when none of them is up. As long as its backend is up, a
// packet with the same fields finds the same one, whatever happens to the others.
func (v *service) choose(seed uint64, t *packet.Tuple) *backend {
	n := len(v.backends)
	if v.each {
		if i := int(t.DstPort - v.first); i < n {
			return &v.backends[i]
		}
		return nil
	}
	if n == 0 {
		return nil
	}
	h := v.hash(seed, t)
	if b := &v.backends[below(h, n)]; b.up() {
		return b
	}
	up := 0
	for i := range v.backends {
		if v.backends[i].up() {
			up++
		}
	}
	if up == 0 {
		return nil
	}
	// A state may change meanwhile: the last one that is up then takes the packet.
	nth, last := below(mix(h, uint64(up)), up), -1
	for i := range v.backends {
		if !v.backends[i].up() {
			continue
		}
		last = i
		if nth == 0 {
			break
		}
		nth--
	}
	if last < 0 {
		return nil
	}
	return &v.backends[last]
}

// hash is that of the fields which the service's distribution names.
func (v *service) hash(seed uint64, t *packet.Tuple) uint64 {
	h := mix(mix(mix(mix(seed, t.Src.Hi), t.Src.Lo), t.Dst.Hi), t.Dst.Lo)
	switch v.distribution {
	case policy.DistributionSourceIP:
		return mix(h, 2)
	case policy.DistributionSourceIPProtocol:
		return mix(h, uint64(t.Proto)<<8|3)
	}
	return mix(h, uint64(t.SrcPort)<<32|uint64(t.DstPort)<<16|uint64(t.Proto)<<8|5)
}

// mix folds a word into a hash: a multiplication of 128 bits, as wyhash does it.
func mix(h, v uint64) uint64 {
	high, low := bits.Mul64(h^0x9e3779b97f4a7c15, v^0xe7037ed1a0b428db)
	return high ^ low ^ bits.RotateLeft64(h, 29)
}

// below maps a hash to a number less than n.
func below(h uint64, n int) int {
	high, _ := bits.Mul64(h, uint64(n))
	return int(high)
}

func compareServices(a, b service) int {
	return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.first, b.first))
}

// addFronts makes the fronts of the policy: public addresses, and load balancers' frontends.
func (b *builder) addFronts() {
	p := b.s.Policy
	nobody := &front{public: true}
	hold := func(a packet.Addr) {
		if b.s.public[a] == nil {
			b.s.public[a] = nobody
		}
	}
	for _, nic := range p.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			c := &nic.IPConfigurations[i]
			if public := c.PublicIPAddress; public != nil && public.Address.IsValid() {
				e := b.s.endpoints[endpointKey{nic, c.Address.Unmap()}]
				b.s.public[packet.AddrFrom(public.Address)] = &front{public: true, closed: public.SKU.Closed(), one: e, idle: public.IdleTimeout}
			}
		}
	}
	for _, lb := range p.LoadBalancers {
		b.addBalancer(lb)
	}
	for _, public := range p.PublicIPAddresses {
		if public.Address.IsValid() {
			hold(packet.AddrFrom(public.Address))
		}
	}
	for _, prefix := range p.PublicIPPrefixes {
		for _, a := range prefix.Addresses() {
			hold(packet.AddrFrom(a))
		}
	}
	if a := b.options.DefaultOutbound; a.IsValid() {
		hold(packet.AddrFrom(a))
	}
}

// addBalancer makes the fronts of one load balancer.
func (b *builder) addBalancer(lb *policy.LoadBalancer) {
	probes := map[probedBackend]*health{}
	for _, frontend := range lb.Frontends {
		if !frontend.Address.IsValid() {
			continue
		}
		f := &front{public: frontend.Public(), closed: frontend.Public() && lb.SKU.Closed()}
		for _, r := range lb.Rules {
			if r.Frontend == frontend {
				b.addRule(f, lb, r, probes)
			}
		}
		for _, r := range lb.NATRules {
			if r.Frontend == frontend {
				b.addNATRule(f, r)
			}
		}
		slices.SortFunc(f.services, compareServices)
		address := packet.AddrFrom(frontend.Address)
		if f.public {
			b.s.public[address] = f
			continue
		}
		n := b.networks[frontend.Subnet.VirtualNetwork]
		if n.frontends == nil {
			n.frontends = map[packet.Addr]*front{}
		}
		n.frontends[address] = f
	}
}

// addRule enters a load balancing rule.
func (b *builder) addRule(f *front, lb *policy.LoadBalancer, r *policy.LoadBalancingRule, probes map[probedBackend]*health) {
	v := service{first: r.FrontendPort, last: r.FrontendPort, port: r.BackendPort, distribution: r.Distribution, floating: r.FloatingIP,
		reset: r.TCPReset, idle: r.IdleTimeout}
	for _, p := range r.Pools {
		for i := range p.Backends {
			back, ok := b.backend(&p.Backends[i], r.Frontend, r.FloatingIP)
			if !ok || slices.ContainsFunc(v.backends, func(other backend) bool { return other.to == back.to && other.address == back.address }) {
				continue
			}
			if r.Probe != nil {
				back.health = b.probe(lb, r.Probe, back, probes)
			}
			v.backends = append(v.backends, back)
		}
	}
	if r.Protocol == policy.TransportAll {
		f.every = &v
		return
	}
	v.protocol = protocolOf(r.Protocol)
	f.services = append(f.services, v)
}

// addNATRule enters an inbound NAT rule, if there is somebody behind it.
func (b *builder) addNATRule(f *front, r *policy.InboundNATRule) {
	v := service{protocol: protocolOf(r.Protocol), first: r.First, last: r.Last, port: r.BackendPort, floating: r.FloatingIP,
		reset: r.TCPReset, idle: r.IdleTimeout, each: r.Pool != nil}
	var members []policy.Backend
	if r.Pool != nil {
		members = r.Pool.Backends
	} else if r.Backend != nil {
		members = []policy.Backend{*r.Backend}
	}
	for i := range members {
		if back, ok := b.backend(&members[i], r.Frontend, r.FloatingIP); ok {
			v.backends = append(v.backends, back)
		}
	}
	f.services = append(f.services, v)
}

// backend finds who has a backend's address.
func (b *builder) backend(of *policy.Backend, frontend *policy.Frontend, floating bool) (backend, bool) {
	e, _ := b.networks[of.VirtualNetwork].hosts.Lookup(of.Address)
	if e == nil {
		return backend{}, false
	}
	if address := packet.AddrFrom(frontend.Address); floating && !e.floating(address) {
		e.floats = append(e.floats, address)
	}
	return backend{to: e, address: packet.AddrFrom(of.Address)}, true
}

func protocolOf(t policy.Transport) uint8 {
	if t == policy.TransportUDP {
		return packet.ProtoUDP
	}
	return packet.ProtoTCP
}
