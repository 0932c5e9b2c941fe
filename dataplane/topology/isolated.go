package topology

import (
	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// isolate changes the routes so that only the rules of the attached NICs are asked, as a
// question about a NIC's own chain needs it. All other addresses are treated as internet hosts
// without NSGs. The NICs' routes only tell which destinations are outside or the platform.
func isolate(s *routedSet, f *faults) {
	others := &Endpoint{Attachment: s.outside.Attachment, routes: s.outside.routes}
	hosts := &bart.Table[*Endpoint]{}
	for _, e := range s.nics {
		if e.Attachment < 0 {
			continue
		}
		p := host(e.address.Netip())
		if _, taken := hosts.Get(p); taken {
			f.add("address %s is of several of the network interfaces: by its addresses a packet must say whose it is", p.Addr())
		}
		hosts.Insert(p, e)
	}
	for _, e := range []*Endpoint{s.outside, s.platform} {
		*e.routes = *noRoutes()
		for _, p := range everywhere {
			e.routes.hops.Insert(p, &hop{hosts: hosts, drop: packet.DropNoRoute})
		}
	}
	open := map[*routes]*routes{}
	for _, e := range s.nics {
		if e.Attachment < 0 {
			continue
		}
		if open[e.routes] == nil {
			open[e.routes] = s.openRoutes(e.routes, others, hosts)
		}
		e.routes = open[e.routes]
	}
}

// openRoutes copies routes so that each of them leads somewhere.
func (s *routedSet) openRoutes(r *routes, others *Endpoint, hosts *bart.Table[*Endpoint]) *routes {
	open := &routes{hops: &bart.Table[*hop]{}, network: r.network, table: r.table, peers: r.peers, behindGateway: r.behindGateway, view: r.view, hasDefault: r.hasDefault,
		adminInbound: r.adminInbound, adminOutbound: r.adminOutbound}
	for p, h := range r.hops.All() {
		to := others
		if h.endpoint == s.outside || h.endpoint == s.platform {
			to = h.endpoint
		}
		open.hops.Insert(p, &hop{kind: h.kind, table: h.table, address: h.address, endpoint: to, drop: packet.DropNoRoute})
	}
	for p, e := range hosts.All() {
		open.hops.Insert(p, &hop{endpoint: e, drop: packet.DropNoRoute})
	}
	return open
}
