package arm

import (
	"net/netip"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// propagate tells route tables which connections propagate to them. Labels hold in all hubs of a WAN.
func (s *hubSet) propagate() {
	for _, h := range s.list {
		for _, t := range h.tables {
			for _, label := range t.labels {
				h.wan.byLabel[label] = append(h.wan.byLabel[label], t)
			}
		}
	}
	for _, h := range s.list {
		for _, c := range h.connections {
			for _, t := range c.tables {
				t.learn(c)
			}
			for _, label := range c.labels {
				for _, t := range h.wan.byLabel[label] {
					t.learn(c)
				}
			}
		}
	}
}

// learn adds a connection that propagates to a table, once.
func (t *hubTable) learn(c *hubConnection) {
	if n := len(t.from); n == 0 || t.from[n-1] != c {
		t.from = append(t.from, c)
	}
}

// routes are what connections learn that are associated with a table. They share it.
func (t *hubTable) routes(internetSecurity bool) *policy.HubTable {
	which := 0
	if internetSecurity {
		which = 1
	}
	if t.shared[which] == nil {
		t.shared[which] = &policy.HubTable{Routes: t.learned(internetSecurity)}
	}
	return t.shared[which]
}

// privateTraffic are the prefixes that a hub announces for a routing intent for private traffic.
var privateTraffic = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16")}

// learned makes routes. Of equal prefixes the first holds.
func (t *hubTable) learned(internetSecurity bool) (routes []policy.HubRoute) {
	everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	known := map[netip.Prefix]bool{everything: !internetSecurity}
	add := func(p netip.Prefix, to *policy.VirtualNetwork) {
		if !known[p] {
			known[p] = true
			routes = append(routes, policy.HubRoute{Prefix: p, Network: to})
		}
	}
	for _, p := range t.static {
		add(p, nil)
	}
	if t.hub.internet {
		add(everything, nil)
	}
	for _, c := range t.from {
		to := c.network
		if t.hub.private { // through the firewall
			to = nil
		}
		for _, p := range c.network.AddressSpace {
			if p.Addr().Is4() { // hubs carry no IPv6 ("Virtual WAN FAQ")
				add(p, to)
			}
		}
	}
	if t.hub.private {
		for _, p := range privateTraffic {
			add(p, nil)
		}
	}
	return routes
}
