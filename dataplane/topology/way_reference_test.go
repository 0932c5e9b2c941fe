package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// slowWay decides about a packet by a walk through all ARM objects. It knows endpoints by their
// address, and trusts Route.
type slowWay struct {
	s    *Snapshot
	set  *policy.Set
	dflt netip.Addr
	down map[netip.Addr]bool // backends
}

// outcome is the possible results for a packet: one of the receivers, with any of the sources.
type outcome struct {
	drop      packet.Drop
	receivers []receiver
	sources   []source // nil: as sent
	idle      time.Duration
	reset     bool
	entered   bool // by a public address or a frontend
}

// returns reports that the sender must not be the receiver: it would see its own address as source.
func (o *outcome) returns() bool { return o.entered && o.sources == nil }

type receiver struct {
	network  *policy.VirtualNetwork // nil: outside
	address  netip.Addr             // of the endpoint
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
	out := r.follow(src, t)
	if src == r.s.outside || r.isPublic(t.Dst.Netip()) {
		for i := range out.receivers {
			to := &out.receivers[i]
			to.closed = to.closed || r.closed(to.network, to.address)
		}
	}
	return out
}

// closed reports a NIC without an NSG that a Standard address leads to, of any resource and by any of its
// addresses, and an address without a NIC that a Standard load balancer leads to.
func (r *slowWay) closed(network *policy.VirtualNetwork, a netip.Addr) bool {
	for _, nic := range r.set.NetworkInterfaces {
		has, led, guarded := false, false, nic.NetworkSecurityGroup != nil
		for _, c := range nic.IPConfigurations {
			led = led || r.balanced(c.Subnet.VirtualNetwork, c.Address) || c.PublicIPAddress != nil && c.PublicIPAddress.SKU != policy.SKUBasic
			if c.Subnet.VirtualNetwork == network && c.Address == a {
				has, guarded = true, guarded || c.Subnet.NetworkSecurityGroup != nil
			}
		}
		if has {
			return led && !guarded
		}
	}
	for _, sub := range network.Subnets {
		for _, p := range sub.Prefixes {
			if p.Contains(a) {
				return r.balanced(network, a) && sub.NetworkSecurityGroup == nil
			}
		}
	}
	return false
}

// balanced reports an address that a public frontend of a Standard load balancer leads to.
func (r *slowWay) balanced(network *policy.VirtualNetwork, a netip.Addr) (named bool) {
	is := func(b policy.Backend) bool { return b.VirtualNetwork == network && b.Address == a }
	for _, lb := range r.set.LoadBalancers {
		for _, rule := range lb.Rules {
			for _, p := range rule.Pools {
				named = named || lb.SKU != policy.SKUBasic && rule.Frontend.Subnet == nil && slices.ContainsFunc(p.Backends, is)
			}
		}
		for _, rule := range lb.NATRules {
			if lb.SKU == policy.SKUBasic || rule.Frontend.Subnet != nil {
				continue
			}
			named = named || rule.Pool != nil && slices.ContainsFunc(rule.Pool.Backends, is) || rule.Backend != nil && is(*rule.Backend)
		}
	}
	return named
}

// follow is judge but for what is closed by another name.
func (r *slowWay) follow(src *Endpoint, t *packet.Tuple) outcome {
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
		if r.isPublic(dst) && out.sources == nil {
			return outcome{drop: packet.DropNoOutbound}
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
					return r.enter(e.Subnet.VirtualNetwork, t, outcome{})
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

// floats reports that a load balancer delivers packets to an address unchanged to src.
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
func (r *slowWay) enter(network *policy.VirtualNetwork, t *packet.Tuple, out outcome) outcome {
	dst := t.Dst.Netip()
	out.entered = true
	if network == nil {
		for _, nic := range r.set.NetworkInterfaces {
			for _, c := range nic.IPConfigurations {
				if c.PublicIPAddress != nil && c.PublicIPAddress.Address == dst {
					out.idle = shorter(&out, c.PublicIPAddress.IdleTimeout, false)
					return r.reach(out, []receiver{{c.Subnet.VirtualNetwork, c.Address, c.Address, t.DstPort, false, c.PublicIPAddress.SKU != policy.SKUBasic}})
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

func (r *slowWay) balance(lb *policy.LoadBalancer, f *policy.Frontend, t *packet.Tuple, out outcome) outcome {
	is := func(p policy.Transport) bool {
		return p == policy.TransportTCP && t.Proto == packet.ProtoTCP || p == policy.TransportUDP && t.Proto == packet.ProtoUDP
	}
	for _, n := range lb.NATRules {
		if n.Frontend != f || !is(n.Protocol) || t.DstPort < n.First || t.DstPort > n.Last {
			continue
		}
		out.idle = shorter(&out, n.IdleTimeout, n.TCPReset)
		if n.Pool != nil {
			if i := int(t.DstPort - n.First); i < len(n.Pool.Backends) {
				b := n.Pool.Backends[i]
				return r.reach(out, r.back(lb, f, t, []policy.Backend{b}, n.BackendPort, false))
			}
			return outcome{drop: packet.DropNoBackend}
		}
		if n.Backend == nil {
			return outcome{drop: packet.DropNoBackend}
		}
		return r.reach(out, r.back(lb, f, t, []policy.Backend{*n.Backend}, n.BackendPort, false))
	}
	for _, every := range []bool{false, true} {
		for _, rule := range lb.Rules {
			all := rule.Protocol == policy.TransportAll && (t.Proto == packet.ProtoTCP || t.Proto == packet.ProtoUDP)
			if rule.Frontend != f || every != (rule.Protocol == policy.TransportAll) || !all && (!is(rule.Protocol) || rule.FrontendPort != t.DstPort) {
				continue
			}
			var up []policy.Backend
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

func (r *slowWay) back(lb *policy.LoadBalancer, f *policy.Frontend, t *packet.Tuple, backends []policy.Backend, port uint16, floating bool) (list []receiver) {
	for _, b := range backends {
		to := receiver{b.VirtualNetwork, b.Address, b.Address, port, floating, f.Subnet == nil && lb.SKU != policy.SKUBasic}
		if floating {
			to.dst, to.port = t.Dst.Netip(), t.DstPort
		}
		list = append(list, to)
	}
	return list
}

// reach sets the receivers; closed stays only where no network security group stands.
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

// leave lists the sources that the internet may see of a NIC or a subnet's host.
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
		if out, ok := (&balancedSlow{r, src, t.Proto, four, ported}).leave(); ok {
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

// balancedSlow finds the way out of one backend by the load balancers that it is behind.
type balancedSlow struct {
	*slowWay
	src          *Endpoint
	proto        uint8
	four, ported bool
}

func (r *balancedSlow) me(b policy.Backend) bool {
	return b.VirtualNetwork == r.src.Subnet.VirtualNetwork && b.Address == r.src.Address()
}

func (r *balancedSlow) is(p policy.Transport) bool {
	return p == policy.TransportAll || p == policy.TransportTCP && r.proto == packet.ProtoTCP || p == policy.TransportUDP && r.proto == packet.ProtoUDP
}

// freePorts lists the free ports of a load balancer's address one by one.
func freePorts(lb *policy.LoadBalancer, a netip.Addr) (list []source) {
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

func portsByDefault(size int) int {
	switch {
	case size <= 50:
		return 1024
	case size <= 100:
		return 512
	}
	return 256
}

// give is the part of some frontends that member i of size gets.
func (r *balancedSlow) give(lb *policy.LoadBalancer, frontends []*policy.Frontend, i, size, allocated int, out outcome) outcome {
	if slices.ContainsFunc(frontends, func(f *policy.Frontend) bool { return !f.Address.IsValid() }) {
		return outcome{}
	}
	if !r.ported {
		return outcome{drop: packet.DropNoOutbound}
	}
	var all []source
	used := 0
	for _, f := range frontends {
		if f.Address.Is4() != r.four {
			continue
		}
		free := freePorts(lb, f.Address)
		if allocated == 0 {
			if n := portsByDefault(size); used+n <= 1024 {
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

func (r *balancedSlow) leave() (outcome, bool) {
	for _, lb := range r.set.LoadBalancers {
		for _, o := range lb.OutboundRules {
			for i, b := range o.Pool.Backends {
				if r.me(b) && r.is(o.Protocol) {
					return r.give(lb, o.Frontends, i, len(o.Pool.Backends), o.AllocatedPorts, outcome{idle: o.IdleTimeout, reset: o.TCPReset}), true
				}
			}
		}
	}
	standard := false
	for _, lb := range r.set.LoadBalancers {
		if out, ok := r.byBalancingRules(lb); ok {
			return out, true
		}
		for _, p := range lb.Pools {
			standard = standard || lb.SKU != policy.SKUBasic && slices.ContainsFunc(p.Backends, func(b policy.Backend) bool { return r.me(b) && b.NetworkInterface != nil })
		}
	}
	return outcome{drop: packet.DropNoOutbound}, standard
}

// byBalancingRules is the way out by load balancing rules without disableOutboundSnat.
func (r *balancedSlow) byBalancingRules(lb *policy.LoadBalancer) (outcome, bool) {
	var frontends []*policy.Frontend
	var all []policy.Backend
	var first *policy.LoadBalancingRule
	for _, rule := range lb.Rules {
		var members []policy.Backend
		for _, p := range rule.Pools {
			members = append(members, p.Backends...)
		}
		if rule.DisableOutboundSNAT || rule.Frontend.Subnet != nil || !r.is(rule.Protocol) || !slices.ContainsFunc(members, r.me) {
			continue
		}
		if first == nil {
			first = rule
		}
		if !slices.Contains(frontends, rule.Frontend) {
			frontends = append(frontends, rule.Frontend)
		}
		for _, m := range members {
			if !slices.ContainsFunc(all, func(o policy.Backend) bool { return o.VirtualNetwork == m.VirtualNetwork && o.Address == m.Address }) {
				all = append(all, m)
			}
		}
	}
	if first == nil {
		return outcome{}, false
	}
	return r.give(lb, frontends, slices.IndexFunc(all, r.me), len(all), 0, outcome{idle: first.IdleTimeout, reset: first.TCPReset}), true
}

// differs says how a way differs from the reference's outcome; empty when it does not.
func (r *slowWay) differs(t *packet.Tuple, w *Way, drop packet.Drop, want outcome) string {
	if drop == packet.DropHairpin {
		if want.returns() && slices.ContainsFunc(want.receivers, func(to receiver) bool { return to.address == t.Src.Netip() }) {
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
	if want.returns() && got.address == t.Src.Netip() {
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

// joined joins neighbouring ports into ranges.
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
