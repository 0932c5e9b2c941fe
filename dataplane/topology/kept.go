package topology

import "github.com/nsgd/nsgd/dataplane/packet"

// KeepsTranslation reports whether the policy still translates a live flow as it did: src sends it as
// sent, and it reaches to as arrives. Way may choose another backend for a first packet by
// now; that changes no choice that was made before.
func (s *Snapshot) KeepsTranslation(src, to *Endpoint, sent, arrives *packet.Tuple) bool {
	var w Way
	switch drop := s.Way(src, sent, &w); drop {
	case packet.NotDropped, packet.DropNoBackend, packet.DropHairpin, packet.DropNoRoute:
	default:
		return false
	}
	if w.Ports != nil {
		if !inRanges(w.Ports, arrives.Src, arrives.SrcPort) {
			return false
		}
	} else if w.Arrives.Src != arrives.Src || w.Arrives.SrcPort != arrives.SrcPort {
		return false
	}
	f := s.frontendOf(src, sent)
	switch {
	case f == nil:
		return w.To != nil && w.To.Attachment == to.Attachment && arrives.Dst == sent.Dst && arrives.DstPort == sent.DstPort
	case f.target != nil:
		return f.target == to && arrives.Dst == to.address && arrives.DstPort == sent.DstPort
	}
	r := f.rule(sent)
	return r != nil && r.leadsTo(to, sent, arrives)
}

// KeepWay makes w, which Way has found for what src sends, the way of a live flow that reaches to as
// arrives. It reports false, and changes nothing, if the policy does not translate the flow so any more.
func (s *Snapshot) KeepWay(src, to *Endpoint, sent, arrives *packet.Tuple, w *Way) bool {
	if !s.KeepsTranslation(src, to, sent, arrives) {
		return false
	}
	w.To, w.Arrives = to, *arrives
	w.Closed = src == s.outside && to.closesAt(arrives.Dst)
	if f := s.frontendOf(src, sent); f != nil && f.closes(to, arrives.Dst) {
		w.Closed = true
	}
	return true
}

// inRanges reports whether one of the ranges has a port of an address.
func inRanges(ranges []PortRange, a packet.Addr, port uint16) bool {
	for i := range ranges {
		if r := &ranges[i]; r.Address == a && r.First <= port && port <= r.Last {
			return true
		}
	}
	return false
}

// frontendOf is the frontend that Way takes a packet through; nil: none.
func (s *Snapshot) frontendOf(src *Endpoint, t *packet.Tuple) *frontend {
	if src == s.outside && s.public[t.Dst] != nil {
		return s.public[t.Dst]
	}
	e, _ := s.Route(src, t.Src, t.Dst)
	switch {
	case e == nil:
		return nil
	case e == s.outside && src != s.outside:
		return s.public[t.Dst]
	case e.NetworkInterface == nil && e.Subnet != nil:
		return e.routes.network.frontends[t.Dst]
	}
	return nil
}

// leadsTo reports whether the rule may deliver a sent packet to an endpoint as arrives.
func (r *frontendRule) leadsTo(to *Endpoint, sent, arrives *packet.Tuple) bool {
	port := sent.DstPort
	if r.port != 0 && !r.floating {
		port = r.port
	}
	if arrives.DstPort != port {
		return false
	}
	for i := range r.backends {
		b := &r.backends[i]
		address := b.address
		if r.floating {
			address = sent.Dst
		}
		if b.to == to && address == arrives.Dst {
			return true
		}
	}
	return false
}
