package topology

import (
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Way says where a flow's first packet goes, and which addresses it has there.
type Way struct {
	// To is the endpoint that the packet reaches. When Snapshot.Way gives a reason to drop, it
	// is the endpoint that the packet would have reached, or nil.
	To *Endpoint
	// Arrives is the packet as To sees it. If Ports is set, Src and SrcPort must still be
	// chosen. SrcPort of an ICMP echo is the identifier.
	Arrives packet.Tuple
	// Ports are the ranges to choose the source from, when several flows share an address; nil:
	// Arrives is complete. The slice is shared and must not be changed.
	Ports []PortRange
	// Contended says that several attachments take of Ports.
	Contended bool
	// Translated says that Arrives differs from what was sent, or that Ports is set.
	Translated bool
	// Floating says that the packet keeps its destination, though the backend does not have
	// that address.
	Floating bool
	// Outward says that the packet leaves to the internet, or goes through it to a public address of the policy.
	Outward bool
	// Closed says that the packet must be dropped: it came from the internet, To or the way to it
	// has a Standard address, and no NSG stands before To.
	Closed bool
	// Idle is the translation's idle timeout for TCP, the shorter of two; 0: the flow's own.
	// UDP has IdleUDP.
	Idle time.Duration
	// Reset says that both ends get a RST when the flow times out (enableTcpReset).
	Reset bool
}

// IdleUDP is the idle timeout of translated UDP flows. No resource of Azure changes it.
const IdleUDP = 4 * time.Minute

// PortRange is an address and the ports of it that flows may take, both ends included.
type PortRange struct {
	Address     packet.Addr
	First, Last uint16
}

// Translates reports whether the policy translates anything. If not, Route says all.
func (s *Snapshot) Translates() bool { return s.translates }

// Way finds the route and the translation of a packet that src sends and that begins a flow.
// It allocates nothing.
//
// For packets from outside, public addresses are looked up before the routes. For others they
// are looked up behind a route to the internet. A load balancer's internal frontend stands
// where a route ends, like a host of its subnet.
func (s *Snapshot) Way(src *Endpoint, t *packet.Tuple, w *Way) packet.Drop {
	return s.wayBy(src, t, w, nil)
}

// wayBy is Way by choices; nil are those that it makes for the packet.
func (s *Snapshot) wayBy(src *Endpoint, t *packet.Tuple, w *Way, c *choices) packet.Drop {
	w.reset(t)
	if !s.translates { // nor is an address closed
		var drop packet.Drop
		w.To, drop = s.route(src, t.Src, t.Dst, c)
		w.Outward = src != s.outside && s.isOutside(w.To)
		return drop
	}
	drop := s.way(src, t, w, c)
	if w.To != nil && src == s.outside && w.To.closesAt(w.Arrives.Dst) {
		w.Closed = true
	}
	w.Translated = w.Ports != nil || w.Arrives != *t
	return drop
}

// reset begins anew, field by field: a copy of the whole costs each new flow some ten nanoseconds.
func (w *Way) reset(t *packet.Tuple) {
	w.Arrives = *t // not together with others: that makes a second copy
	w.To, w.Ports, w.Idle = nil, nil, 0
	w.Translated, w.Floating, w.Outward, w.Closed, w.Reset, w.Contended = false, false, false, false, false, false
}

func (s *Snapshot) way(src *Endpoint, t *packet.Tuple, w *Way, c *choices) packet.Drop {
	if len(src.floating) > 0 && src.hasFloating(t.Src) {
		return packet.DropSpoofed // only replies have this source
	}
	outside := src == s.outside
	if outside {
		if f := s.public[t.Dst]; f != nil {
			return s.enter(f, t, w, c)
		}
	}
	e, drop := s.route(src, t.Src, t.Dst, c)
	if e == nil && src == s.platform {
		e, drop = s.probed(t, c)
	}
	w.To = e
	w.Outward = !outside && s.isOutside(e)
	switch {
	case e == nil:
		return drop
	case e == s.outside && !outside:
		if src.egress != nil && src.Has(t.Src) {
			if why := src.translateSource(t, w); why != packet.NotDropped {
				return why
			}
		}
		if f := s.public[t.Dst]; f != nil {
			// The source means something in the sender's network only. The receiver would take
			// it for a neighbour's.
			if w.Ports == nil && w.Arrives.Src == t.Src {
				return packet.DropNoOutbound
			}
			return s.enter(f, t, w, c)
		}
	case e.NetworkInterface == nil && e.Subnet != nil:
		if f := e.routes.network.frontends[t.Dst]; f != nil {
			return s.enter(f, t, w, c)
		}
	}
	return drop
}

// hasFloating reports a load balancer's floating address with the endpoint behind it. The
// endpoint replies from that address.
func (e *Endpoint) hasFloating(a packet.Addr) bool { return slices.Contains(e.floating, a) }

// shortenIdle applies the idle timeout of one more translation.
func (w *Way) shortenIdle(idle time.Duration, reset bool) {
	if idle > 0 && (w.Idle == 0 || idle < w.Idle) {
		w.Idle, w.Reset = idle, reset
	}
}

// Routed reports that replies may take another way than the request came, even to an address
// that the sender has itself.
func (s *Snapshot) Routed() bool { return s.userRoutes }

// RepliesReturn reports whether replies to a packet come back where the packet came from. There its
// flow is known, and its addresses are translated back. sent is the source that src sent it from, w
// where Way has sent it; its port may still be open. The outside and the platform reply the way that they were asked.
// Replies to an address that stands for the sender come back when they are on their way outside.
func (s *Snapshot) RepliesReturn(src *Endpoint, sent packet.Addr, w *Way) bool {
	if w.To.routes.network == nil {
		return true
	}
	seen := w.Arrives.Src
	if len(w.Ports) > 0 {
		seen = w.Ports[0].Address
	}
	back, _ := s.Route(w.To, w.Arrives.Dst, seen)
	if seen == sent {
		return back != nil && back.sharesAttachment(src)
	}
	return back != nil && back.routes.network == nil
}

// sharesAttachment reports that two endpoints are behind one attachment. Endpoints without one, or on
// another host, share it when they are the same, or belong to one NIC.
func (e *Endpoint) sharesAttachment(other *Endpoint) bool {
	if !e.Elsewhere && !other.Elsewhere && (e.Attachment >= 0 || other.Attachment >= 0) {
		return e.Attachment == other.Attachment
	}
	return e == other || e.NetworkInterface != nil && e.NetworkInterface == other.NetworkInterface ||
		e.Elsewhere && other.Elsewhere && e.routes.network == nil && other.routes.network == nil // the outside, and services there
}

// isOutside reports the outside, as the internet or as service endpoints reach it.
func (s *Snapshot) isOutside(e *Endpoint) bool {
	return e != nil && (e == s.outside || e == s.services)
}
