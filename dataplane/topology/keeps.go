package topology

import "github.com/nsgd/nsgd/dataplane/packet"

// Keeps reports whether the policy still has the translation of a flow that src sends as sent and
// that reaches to as arrives. Way for its first packet may say otherwise by now: backends that
// came or went change what it would choose, not what it has chosen.
func (s *Snapshot) Keeps(src, to *Endpoint, sent, arrives *packet.Tuple) bool {
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
	f := s.frontOf(src, sent)
	switch {
	case f == nil:
		return w.To != nil && w.To.Attachment == to.Attachment && arrives.Dst == sent.Dst && arrives.DstPort == sent.DstPort
	case f.one != nil:
		return f.one == to && arrives.Dst == to.address && arrives.DstPort == sent.DstPort
	}
	v := f.service(sent)
	return v != nil && v.leadsTo(to, sent, arrives)
}

// inRanges reports whether a port is one of the ranges'.
func inRanges(ranges []PortRange, a packet.Addr, port uint16) bool {
	for i := range ranges {
		if r := &ranges[i]; r.Address == a && r.First <= port && port <= r.Last {
			return true
		}
	}
	return false
}

// frontOf is the front that a packet enters by, or nil; see way.
func (s *Snapshot) frontOf(src *Endpoint, t *packet.Tuple) *front {
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

// leadsTo reports whether one of the service's backends gets packets as arrives.
func (v *service) leadsTo(to *Endpoint, sent, arrives *packet.Tuple) bool {
	port := sent.DstPort
	if v.port != 0 && !v.floating {
		port = v.port
	}
	if arrives.DstPort != port {
		return false
	}
	for i := range v.backends {
		b := &v.backends[i]
		address := b.address
		if v.floating {
			address = sent.Dst
		}
		if b.to == to && address == arrives.Dst {
			return true
		}
	}
	return false
}
