package topology

import "github.com/nsgd/nsgd/dataplane/packet"

// likeness finds the classes of addresses that differ only in which network interface has them.
type likeness struct {
	*divider
	named   map[*Endpoint]bool
	numbers map[string]int // by the description of a class without who has it: its number
}

func newLikeness(c *divider) *likeness {
	return &likeness{c, c.snapshot.named(c.routes), map[string]int{}}
}

// named are the endpoints that a route, a frontend or a public address leads to.
func (s *Snapshot) named(all []*routes) map[*Endpoint]bool {
	named := map[*Endpoint]bool{}
	backends := func(r *frontendRule) {
		if r == nil {
			return
		}
		for i := range r.backends {
			named[r.backends[i].to] = true
		}
	}
	name := func(f *frontend) {
		named[f.target] = true
		for i := range f.rules {
			backends(&f.rules[i])
		}
		backends(f.anyPort)
	}
	for _, f := range s.public {
		name(f)
	}
	for _, n := range s.networks.list {
		for _, f := range n.frontends {
			name(f)
		}
	}
	for _, r := range all {
		for _, h := range r.hops.All() {
			named[h.endpoint] = true
			backends(h.balanced)
		}
	}
	return named
}

// routes are those of the outside, the platform, and all subnets and gateways.
func (s *Snapshot) routes() []*routes {
	all := []*routes{s.outside.routes, s.platform.routes}
	for _, n := range s.networks.list {
		all = append(all, n.sortedRoutes()...)
		if n.gateway != nil {
			all = append(all, n.gateway.routes)
		}
	}
	return all
}

// number numbers the addresses that are like the one of an endpoint, from 1 on; 0: there may be none.
// Nothing but the subnet may lead to the endpoint, and its network interface has no other address of the family.
func (l *likeness) number(e *Endpoint) int {
	if !l.plain(e) {
		return 0
	}
	l.describe(e.address.Netip(), func(owner *Endpoint, _ bool) {
		if owner == e {
			l.id("whoever has it")
			return
		}
		l.id(owner)
	})
	l.describeEndpoint(e)
	n := l.numbers[string(l.key)]
	if n == 0 {
		n = len(l.numbers) + 1
		l.numbers[string(l.key)] = n
	}
	return n
}

func (l *likeness) plain(e *Endpoint) bool {
	if e.NetworkInterface == nil || e.private() || l.named[e] || len(e.floating) > 0 || e.NetworkInterface.EnableIPForwarding {
		return false
	}
	for i := range e.NetworkInterface.IPConfigurations {
		other := packet.AddrFrom(e.NetworkInterface.IPConfigurations[i].Address)
		if other != e.address && other.Is4() == e.address.Is4() {
			return false
		}
	}
	return true
}

// describeEndpoint adds to the key all that a way and the rules look up at an endpoint, but whose it is.
func (l *likeness) describeEndpoint(e *Endpoint) {
	attachment := e.Attachment
	if attachment >= 0 && l.snapshot.Attachments[attachment].Kind == NetworkInterface {
		attachment = -2 // of its own
	}
	for _, of := range []any{e.Subnet, e.routes, attachment, e.Stateless, e.closed, e.Established, e.egress != nil} {
		l.id(of)
	}
	for _, stages := range [][]Stage{e.Outbound, e.Inbound, e.AdminOutbound, e.AdminInbound} {
		l.id(len(stages))
		for _, stage := range stages {
			l.id(stage)
		}
	}
	if e.egress == nil {
		return
	}
	for family := range e.egress {
		for k := range e.egress[family] {
			out := &e.egress[family][k]
			for _, of := range []any{out.kind, out.address, out.contended, out.idle, out.reset, len(out.ports)} {
				l.id(of)
			}
			for _, ports := range out.ports {
				l.id(ports)
			}
		}
	}
}
