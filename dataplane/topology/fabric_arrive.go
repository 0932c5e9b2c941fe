package topology

import (
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// FromFabric reports that other hosts send packets by the attachment: their senders are judged there.
func (a *Attachment) FromFabric() bool { return a.fabric != nil }

// Outlet reports this host's own fabric for the internet: other hosts send by it what this one translates.
func (a *Attachment) Outlet() bool {
	return a.fabric != nil && a.fabric.sort == FabricInternet && a.fabric.own
}

// Inlet reports a fabric by which another host sends what it has received from the internet and translated.
func (a *Attachment) Inlet() bool {
	return a.fabric != nil && a.fabric.sort == FabricInternet && !a.fabric.own
}

// admitFabric admits what the kernel has let through: it knows which host may send from an address. Here a source must
// not be attached to this host, unless an appliance elsewhere may have forwarded it.
func (s *Snapshot) admitFabric(x *fabric, src packet.Addr) *Endpoint {
	g := x.group
	if IsPlatform(src) || src.IsReserved() {
		return nil
	}
	if x.sort == FabricInternet && !x.own {
		return s.translated(src)
	}
	if e, _ := g.hosts.Lookup(src.Netip()); e != nil && e.Elsewhere && e.routes.network.frontends[src] == nil {
		return e
	}
	if e := g.floating[src]; e != nil {
		return e
	}
	if e := s.elsewhereBehind(g, src); e != nil {
		return e
	}
	switch {
	case g.forwarder != nil:
		return g.forwarder
	case x.takesForeign():
		return s.translated(src)
	}
	return nil
}

// elsewhereBehind is the gateway elsewhere that has an address behind it; nil: none has.
func (s *Snapshot) elsewhereBehind(g *fabricGroup, src packet.Addr) *Endpoint {
	if len(g.gateways) == 0 {
		return nil
	}
	if e, _ := g.hosts.Lookup(src.Netip()); e != nil { // though a default route leads to the gateway
		return nil
	}
	for _, n := range g.gateways {
		if e := s.behind(n, src); e != nil && e.Elsewhere {
			return e
		}
	}
	return nil
}

// sendsOn reports that an endpoint sends from an address that only a fabric of its own leads back to.
func (e *Endpoint) sendsOn(src packet.Addr) bool {
	return e.receivesForeign && (e.NetworkInterface == nil || e.address != src)
}

// takesForeign reports the fabric of a gateway or NIC here that gets what hosts on the internet send: with floating IP, or
// as answers to what it sends on.
func (x *fabric) takesForeign() bool {
	if len(x.entry) == 0 {
		return false
	}
	return x.nic == nil || x.nic.EnableIPForwarding || slices.ContainsFunc(x.entry, func(e *Endpoint) bool { return len(e.floating) > 0 })
}

// translated is the outside if a packet that another host has translated may have a source: one of a
// host on the internet, or a public one that stands for a sender.
func (s *Snapshot) translated(src packet.Addr) *Endpoint {
	if s.public[src] != nil {
		return s.outside
	}
	return s.external(src)
}

// Receiver is the endpoint of this host for which another host has sent a packet; nil: none.
func (a *Attachment) Receiver(dst packet.Addr) *Endpoint {
	x := a.fabric
	switch {
	case a.Outlet():
		return nil
	case len(x.entry) == 0:
		e, _ := x.group.hosts.Lookup(dst.Netip())
		if e == nil || e.Attachment < 0 || e.Elsewhere {
			return nil
		}
		return e
	}
	for _, e := range x.entry {
		if e.Has(dst) || e.hasFloating(dst) {
			return e
		}
	}
	if nic := x.entry[0].NetworkInterface; nic != nil && !nic.EnableIPForwarding {
		return nil
	}
	return x.entry[0]
}

// SenderBeyond finds the endpoint that sent a packet to an endpoint of this host, or to the outside by an Outlet. Admit
// has found admitted. An appliance may have forwarded it: whoever stands last on the way from the packet's source to the
// receiver has, else the one by which answers go.
func (s *Snapshot) SenderBeyond(a *Attachment, admitted, to *Endpoint, t *packet.Tuple) *Endpoint {
	g := a.fabric.group
	switch {
	case a.Inlet():
		return admitted
	case to.hasFloating(t.Dst) && s.public[t.Dst] != nil && s.translated(t.Src) != nil:
		return s.outside
	case g.forwarder == nil && len(g.gateways) < 2:
		return admitted
	}
	if e := s.lastBefore(g, to, t); e != nil {
		return e
	}
	if a.Outlet() && g.forwarder != nil { // by its own routes the source would not have sent it here
		return g.forwarder
	}
	if back, _ := s.Route(to, t.Dst, t.Src); back != nil && back.Elsewhere && back.NetworkInterface != nil && back.NetworkInterface.EnableIPForwarding {
		return back
	}
	return admitted
}

// lastBefore is the endpoint elsewhere that stands before a receiver on the way from a packet's source; nil: no way leads
// from one elsewhere to it. Several gateways may have the source behind them.
func (s *Snapshot) lastBefore(g *fabricGroup, to *Endpoint, t *packet.Tuple) *Endpoint {
	if from, _ := g.hosts.Lookup(t.Src.Netip()); from != nil {
		return s.lastFrom(from, to, t)
	}
	for _, n := range g.gateways {
		if from := s.behind(n, t.Src); from != nil {
			if last := s.lastFrom(from, to, t); last != nil {
				return last
			}
		}
	}
	return nil
}

func (s *Snapshot) lastFrom(from, to *Endpoint, t *packet.Tuple) *Endpoint {
	const most = 16 // appliances; routes can lead in a circle
	for range most {
		next, _ := s.Route(from, t.Src, t.Dst)
		switch {
		case next == nil:
			return nil
		case next == to || s.isOutside(next) && s.isOutside(to):
			if !from.Elsewhere {
				return nil
			}
			return from
		case next.NetworkInterface == nil || !next.NetworkInterface.EnableIPForwarding:
			return nil
		}
		from = next
	}
	return nil
}

// Back is the attachment by which answers leave from the internet of this host to whoever has sent a tuple by an Outlet:
// by the fabric of an appliance that has forwarded it, else by the outlet.
func (s *Snapshot) Back(a *Attachment, sent *packet.Tuple) int {
	g := a.fabric.group
	if g.forwarder == nil && len(g.gateways) == 0 {
		return a.Index
	}
	src := s.lastBefore(g, s.outside, sent)
	if src != nil && src.sendsOn(sent.Src) {
		return src.Attachment
	}
	return a.Index
}

// Public reports a public address of the policy.
func (s *Snapshot) Public(a packet.Addr) bool { return s.public[a] != nil }

// Beyond is the endpoint elsewhere with an address, in the group of an attachment; nil: nobody there has it.
func (s *Snapshot) Beyond(a *Attachment, address packet.Addr) *Endpoint {
	if e := s.Peer(a, address); e != nil && e.Elsewhere {
		return e
	}
	return nil
}

// Forwards reports a network interface that may send what it does not own: an appliance.
func (a *Attachment) Forwards() bool { return a.forwards }

// Peer is the endpoint with an address in the group of an attachment, here or elsewhere; nil: nobody has it.
func (s *Snapshot) Peer(a *Attachment, address packet.Addr) *Endpoint {
	if a.network == nil || a.network.group == nil {
		return nil
	}
	e, _ := a.network.group.hosts.Lookup(address.Netip())
	return e
}

// Through is the fabric by which a host sends what it translates to the group of an attachment, which may be one of
// another snapshot. At that host it is the Outlet, elsewhere an Inlet; nil: there is none.
func (s *Snapshot) Through(a *Attachment, host string) *Attachment {
	if a.network == nil || a.network.group == nil {
		return nil
	}
	for _, b := range s.Attachments {
		if x := b.fabric; x != nil && x.sort == FabricInternet && x.host == host && x.group.id == a.network.group.id {
			return b
		}
	}
	return nil
}

// Translates is the host whose internet an Inlet or an Outlet leads to; empty: the attachment is neither.
func (a *Attachment) Translates() string {
	if a.fabric == nil || a.fabric.sort != FabricInternet {
		return ""
	}
	return a.fabric.host
}

// Exit is the attachment by which a packet leaves that src sends along a way; -1: none leads there from this host.
func (s *Snapshot) Exit(src *Endpoint, w *Way) int {
	switch to := w.To; {
	case !to.Elsewhere:
		return to.Attachment
	case s.isOutside(to):
		if n := src.routes.network; n != nil && n.group != nil {
			return n.group.internet
		}
		return -1
	case src == s.platform: // each host has a platform of its own
		return -1
	case s.fromOutside(src, w) && to.routes.network.group.own < 0:
		return -1
	case s.fromOutside(src, w) && !w.Floating && to.Subnet != nil:
		return to.routes.network.group.own
	default:
		return to.Attachment
	}
}

// fromOutside reports that this host takes a packet through the internet's attachment, in fact or by its translation.
func (s *Snapshot) fromOutside(src *Endpoint, w *Way) bool { return src == s.outside || w.Outward }

// Answers says where answers to a packet come in that leaves along a way: by the attachment at an index, or, with beyond,
// from other hosts for the end that is attached there.
func (s *Snapshot) Answers(src *Endpoint, w *Way) (index int, beyond bool) {
	switch to := w.To; {
	case !to.Elsewhere:
		return to.Attachment, false
	case s.isOutside(to) && src.sendsOn(w.Arrives.Src):
		return src.Attachment, true // by its own fabric: the address leads elsewhere
	case s.isOutside(to):
		return s.Exit(src, w), false
	case s.fromOutside(src, w):
		return to.routes.network.group.own, true
	}
	return src.Attachment, true
}

// HandsOff reports that another host translates what src sends along a way: this one has no internet.
func (s *Snapshot) HandsOff(src *Endpoint, w *Way) bool {
	return w.Outward && s.outside.Elsewhere && !src.Elsewhere
}

// Outside is everything outside the virtual networks.
func (s *Snapshot) Outside() *Endpoint { return s.outside }
