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
	w.Translated = s.translates && (w.Ports != nil || w.Arrives != *t)
	return drop
}

func (s *Snapshot) way(src *Endpoint, t *packet.Tuple, w *Way) packet.Drop {
	if !s.translates {
		var drop packet.Drop
		w.To, drop = s.Route(src, t.Src, t.Dst)
		return drop
	}
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
	case e == nil:
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

// Answers reports whether what answers a packet comes back by where the packet came from: there
// its flow is known, and its addresses are translated back. w is where Way has sent it, with or
// without a chosen port. The outside and the platform answer the way that they were asked.
// Answers to an address that stands for the sender come back when they are on their way outside.
func (s *Snapshot) Answers(src *Endpoint, sent *packet.Tuple, w *Way) bool {
	if w.To.routes == s.outside.routes {
		return true
	}
	seen := w.Arrives.Src
	if len(w.Ports) > 0 {
		seen = w.Ports[0].Address
	}
	back, _ := s.Route(w.To, w.Arrives.Dst, seen)
	if seen == sent.Src {
		return back != nil && back.beside(src)
	}
	return back != nil && back.routes == s.outside.routes
}

// beside reports two endpoints that are behind one attachment, or would be if there were one.
func (e *Endpoint) beside(other *Endpoint) bool {
	if e.Attachment >= 0 || other.Attachment >= 0 {
		return e.Attachment == other.Attachment
	}
	return e == other || e.NetworkInterface != nil && e.NetworkInterface == other.NetworkInterface
}

// portLooks bounds how many ports are tried for one flow. With 60,000 of 64,512 in use
// 14 are enough on average; with fewer than fifty left a flow may be refused though there is one.
const portLooks = 2000

// Choice goes through the ports that a flow may take, in an order of its own.
type Choice struct {
	ranges   []PortRange
	hash     uint64
	n, tried uint32
}

// Choose begins to go through a way's Ports for a flow that is sent as a tuple. Snapshots with one
// seed try them in the same order.
func (s *Snapshot) Choose(w *Way, sent *packet.Tuple) Choice {
	c := Choice{ranges: w.Ports}
	for i := range c.ranges {
		c.n += uint32(c.ranges[i].Last-c.ranges[i].First) + 1
	}
	c.hash = mix(mix(mix(mix(s.seed, sent.Src.Hi), sent.Src.Lo), sent.Dst.Hi), sent.Dst.Lo)
	c.hash = mix(c.hash, uint64(sent.SrcPort)<<32|uint64(sent.DstPort)<<16|uint64(sent.Proto)<<8|7)
	return c
}

// Next puts the next port and its address into what arrives; false when none is left, or when
// enough have been tried. All are tried once if they are no more than portLooks, else some at random.
func (c *Choice) Next(arrives *packet.Tuple) bool {
	if c.tried >= min(c.n, portLooks) {
		return false
	}
	i := uint32(0)
	if c.n <= portLooks {
		i = (uint32(below(c.hash, int(c.n))) + c.tried) % c.n
	} else {
		i = uint32(below(mix(c.hash, uint64(c.tried)), int(c.n)))
	}
	c.tried++
	for r := range c.ranges {
		n := uint32(c.ranges[r].Last-c.ranges[r].First) + 1
		if i < n {
			arrives.Src, arrives.SrcPort = c.ranges[r].Address, c.ranges[r].First+uint16(i)
			return true
		}
		i -= n
	}
	return false
}
