package topology

import (
	"github.com/gaissmai/bart"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// alone makes the snapshot that of some NICs by themselves, as a question about a NIC's own
// chain sees it: everybody else is behind the internet's attachment, or the platform's, sends what
// they like and is reached from everywhere, without rules of their own. What the NICs' routes say is kept only
// in telling who is outside.
func (b *builder) alone() {
	s := b.s
	s.alone, s.routed = true, false
	others := &Endpoint{Attachment: s.outside.Attachment, routes: s.outside.routes}
	hosts := &bart.Table[*Endpoint]{}
	for _, e := range b.nics {
		if e.Attachment < 0 {
			continue
		}
		p := host(e.address.Netip())
		if _, taken := hosts.Get(p); taken {
			b.fail("address %s is of several of the network interfaces: by its addresses a packet must say whose it is", p.Addr())
		}
		hosts.Insert(p, e)
	}
	*s.outside.routes = routes{}
	for _, p := range everywhere {
		s.outside.routes.hops.Insert(p, &hop{hosts: hosts, drop: packet.DropNoRoute})
	}
	changed := map[*routes]*routes{}
	for _, e := range b.nics {
		if e.Attachment < 0 {
			continue
		}
		if changed[e.routes] == nil {
			changed[e.routes] = b.routesAlone(e.routes, others, hosts)
		}
		e.routes = changed[e.routes]
	}
}

// routesAlone are routes that lead everywhere.
func (b *builder) routesAlone(r *routes, others *Endpoint, hosts *bart.Table[*Endpoint]) *routes {
	open := &routes{network: r.network, table: r.table, view: r.view, everything: r.everything,
		adminInbound: r.adminInbound, adminOutbound: r.adminOutbound}
	for p, h := range r.hops.All() {
		to := others
		if h.endpoint == b.s.outside || h.endpoint == b.s.platform {
			to = h.endpoint
		}
		open.hops.Insert(p, &hop{kind: h.kind, table: h.table, address: h.address, endpoint: to, drop: packet.DropNoRoute})
	}
	for p, e := range hosts.All() {
		open.hops.Insert(p, &hop{endpoint: e, drop: packet.DropNoRoute})
	}
	return open
}
