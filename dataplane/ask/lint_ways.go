package ask

import (
	"net/netip"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// wayIn is how packets from the internet get to an address of a network interface.
type wayIn struct {
	what      string // such as "public address web-ip"
	transport policy.Transport
	ports     ruleset.PortRange // as the receiver sees them
	address   netip.Addr        // of the receiver, as its rules see it
	// public is the address that the internet asks, not valid where Azure will choose it, and asked the port there.
	// at tells ways with the same receiver apart.
	public netip.Addr
	asked  ruleset.PortRange
	at     string
}

// takes reports whether packets to a port come this way.
func (w *wayIn) takes(p ruleset.Protocol, port uint16) bool {
	transport := map[ruleset.Protocol]policy.Transport{ruleset.TCP: policy.TransportTCP, ruleset.UDP: policy.TransportUDP}[p]
	return w.transport.Overlaps(transport) && w.ports.First <= port && port <= w.ports.Last
}

type hostKey struct {
	network *policy.VirtualNetwork
	address netip.Addr
}

// waysIn are the ways from the internet, by the address that they lead to. A public address counts whether
// Azure has assigned it or not.
func waysIn(set *policy.Set) map[hostKey][]wayIn {
	ways := map[hostKey][]wayIn{}
	for _, nic := range set.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			c := &nic.IPConfigurations[i]
			if c.PublicIPAddress != nil {
				key := hostKey{c.Subnet.VirtualNetwork, c.Address}
				p := c.PublicIPAddress
				ways[key] = append(ways[key], wayIn{what: "public address " + p.Name, transport: policy.TransportAll, ports: ruleset.AllPorts, address: c.Address,
					public: p.Address, asked: ruleset.AllPorts, at: publicAt(p.Address, p.ID, p.Name)})
			}
		}
	}
	for _, lb := range set.LoadBalancers {
		for _, r := range lb.Rules {
			what := "rule " + r.Name + " of load balancer " + lb.Name
			for _, pool := range r.Pools {
				for i := range pool.Backends {
					addBalanced(ways, &pool.Backends[i], r.Frontend, what, r.Protocol, r.FrontendPort, r.BackendPort, r.FloatingIP)
				}
			}
		}
		for _, r := range lb.NATRules {
			what := "NAT rule " + r.Name + " of load balancer " + lb.Name
			if r.Backend != nil {
				addBalanced(ways, r.Backend, r.Frontend, what, r.Protocol, r.First, r.BackendPort, r.FloatingIP)
			}
			if r.Pool != nil {
				for i := range r.Pool.Backends {
					addBalanced(ways, &r.Pool.Backends[i], r.Frontend, what, r.Protocol, r.First, r.BackendPort, r.FloatingIP)
				}
			}
		}
	}
	return ways
}

// addBalanced adds the way through a public frontend. A floating address that is not known leads nowhere.
func addBalanced(ways map[hostKey][]wayIn, b *policy.Backend, f *policy.Frontend, what string, t policy.Transport, frontendPort, backendPort uint16, floating bool) {
	if f == nil || !f.Public() {
		return
	}
	w := wayIn{what: what, transport: t, ports: ruleset.PortRange{First: backendPort, Last: backendPort}, address: b.Address,
		public: f.Address, asked: ruleset.PortRange{First: frontendPort, Last: frontendPort}, at: publicAt(f.Address, f.ID, f.Name)}
	if floating {
		w.ports, w.address = ruleset.PortRange{First: frontendPort, Last: frontendPort}, f.Address
	}
	if t == policy.TransportAll {
		w.ports, w.asked = ruleset.AllPorts, ruleset.AllPorts
	}
	if w.address.IsValid() {
		key := hostKey{b.VirtualNetwork, b.Address}
		ways[key] = append(ways[key], w)
	}
}
