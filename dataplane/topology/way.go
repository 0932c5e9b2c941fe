package topology

import (
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Way says what becomes of a flow's first packet: who receives it and with which addresses.
type Way struct {
	// To is whom the packet reaches; where Snapshot.Way gives a reason to drop it, whom it
	// would have reached, or nil.
	To *Endpoint
	// Arrives is the packet as To sees it. With Ports, Src and SrcPort are still to be
	// chosen; of an ICMP echo SrcPort is the identifier.
	Arrives packet.Tuple
	// Ports are what source address and port come from, when several flows share an address;
	// nil: Arrives is whole. The slice is shared and must not be changed.
	Ports []PortRange
	// Translated says that Arrives differs from what was sent, or that Ports is set.
	Translated bool
	// Floating says that the packet is delivered with the destination that it was sent to, to a
	// backend that has not got the address.
	Floating bool
	// Closed says that the packet came by a Standard address, and that no NSG stands before To: it
	// must be dropped.
	Closed bool
	// Idle is the idle timeout of the translation for TCP, of two the shorter; 0: the flow's own.
	// UDP has IdleUDP.
	Idle time.Duration
	// Reset says that both ends get a RST when the flow times out (enableTcpReset).
	Reset bool
}

// IdleUDP is the idle timeout of translated UDP flows, which no resource of Azure changes.
const IdleUDP = 4 * time.Minute

// PortRange is an address and the ports of it that flows may take, both ends included.
type PortRange struct {
	Address     packet.Addr
	First, Last uint16
}

// Translates reports whether the policy translates anything; false: Route says all.
func (s *Snapshot) Translates() bool { return s.translates }

// Way is Route, and what translation adds to it, for a packet that src sends and that begins a
// flow. It allocates nothing.
//
// Public addresses come first to what the outside sends, and last to what a route sends to the
// internet; the frontends of internal load balancers are where a route ends, as hosts of their
// subnets.
func (s *Snapshot) Way(src *Endpoint, t *packet.Tuple, w *Way) packet.Drop {
	*w = Way{Arrives: *t}
	drop := s.way(src, t, w)
	w.Translated = w.Ports != nil || w.Arrives != *t
	return drop
}

func (s *Snapshot) way(src *Endpoint, t *packet.Tuple, w *Way) packet.Drop {
	if len(src.floats) > 0 && src.floating(t.Src) {
		return packet.DropSpoofed // replies only bear it
	}
	outside := src == s.outside
	if outside {
		if f := s.public[t.Dst]; f != nil {
			return s.enter(f, t, w)
		}
	}
	e, drop := s.Route(src, t.Src, t.Dst)
	w.To = e
	switch {
	case e == nil || !s.translates:
		return drop
	case e == s.outside && !outside:
		f := s.public[t.Dst]
		if src.egress != nil && src.Has(t.Src) {
			if why := src.leave(t, w); why != packet.NotDropped {
				return why
			}
		}
		if f != nil {
			return s.enter(f, t, w)
		}
	case e.NetworkInterface == nil && e.Subnet != nil:
		if f := e.routes.network.frontends[t.Dst]; f != nil {
			return s.enter(f, t, w)
		}
	}
	return drop
}

// floating reports an address of a load balancer with a floating address, behind which the endpoint
// is: its answers come from there.
func (e *Endpoint) floating(a packet.Addr) bool { return slices.Contains(e.floats, a) }

// within bounds the idle timeout of a way by one translation more.
func (w *Way) within(idle time.Duration, reset bool) {
	if idle > 0 && (w.Idle == 0 || idle < w.Idle) {
		w.Idle, w.Reset = idle, reset
	}
}
