package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/translate"
)

// Where a policy translates, the first packet of a flow is judged twice: by its sender's
// outbound stages as it was sent, by its receiver's inbound stages as it arrives. The flow's
// record keeps both tuples; every packet of the flow is rewritten by it, last before it is written.

// note remembers the flow that the packet belongs to, if that has something of its own.
func (w *worker) note(f conntrack.Flow, d conntrack.Direction) {
	if w.marks = w.flows.Marks(f); w.marks != 0 {
		w.marked, w.direction = f, d
	}
}

// translate rewrites a packet that belongs to a flow with marks.
func (w *worker) translate(b []byte, p *packet.Packet) {
	if w.marks&conntrack.Resets != 0 && w.belongs == toItsFlow {
		if number, ok := translate.Ack(b, p); ok {
			w.flows.Acknowledged(w.marked, w.direction, number)
		}
	}
	if w.marks&conntrack.Translated == 0 {
		return
	}
	to := w.flows.Becomes(w.marked, w.direction)
	if w.belongs == toQuotedFlow {
		inner := to.Reverse()
		translate.Error(b, p, &w.quote, &inner, w.complainant(&to, p))
		return
	}
	translate.Packet(b, p, &to)
}

// translateFirst is translate for the first fragment of a datagram with key k. Later fragments may
// be quoted with the addresses that they get.
func (w *worker) translateFirst(k *fragment.Key, b []byte, p *packet.Packet) {
	w.translate(b, p)
	if w.marks&conntrack.Translated != 0 && w.belongs == toItsFlow {
		k := *k
		k.Src, k.Dst = p.Src, p.Dst
		w.first.Flow.Tuple = p.Tuple
		w.engine.fragments.Also(&k, &w.first, w.time)
	}
}

// translateLater is translate for a later fragment; related is fragment.Verdict's.
func (w *worker) translateLater(b []byte, p *packet.Packet, related bool) {
	if w.marks&conntrack.Translated == 0 {
		return
	}
	to := w.flows.Becomes(w.marked, w.direction)
	if related {
		translate.ErrorFragment(b, p, w.complainant(&to, p), to.Dst)
		return
	}
	translate.Packet(b, p, &to)
}

// complainant is whom an ICMP error comes from, as its receiver sees it; to is what a packet of
// the error's direction becomes. What is behind a translated address speaks with that address,
// the end itself and a router before it alike (RFC 5508 section 4.2); others speak for themselves.
func (w *worker) complainant(to *packet.Tuple, p *packet.Packet) packet.Addr {
	if sent := w.flows.Becomes(w.marked, conntrack.Reply-w.direction); sent.Dst != to.Src {
		return to.Src
	}
	return p.Src
}

// portTries bounds how often a port is chosen anew that another worker took meanwhile.
const portTries = 4

// beginShared is the end of begin for a flow that shares an address: it chooses a port that no
// live flow to the destination has. What two flows to different destinations have may be the same.
func (w *worker) beginShared(s *topology.Snapshot, from *topology.Attachment, p *packet.Packet) (int, packet.Drop) {
	d := &w.decision
	used := w.exhausted.find(&d.Way)
	if used.is(&d.Way, w.now) {
		return 0, packet.DropSNATExhausted
	}
	ports, sent := s.Choose(&d.Way, &p.Tuple), d.Verdict.N
	for range portTries {
		if !w.choosePort(&ports, &d.Way) {
			*used = poolOf(&d.Way, w.now)
			return 0, packet.DropSNATExhausted
		}
		d.Verdict.N = sent
		if d.Receive(p) != packet.NotDropped {
			return 0, w.denied(p)
		}
		to, drop := w.commit(s, from, p)
		if drop != packet.DropFlowConflict {
			return to, drop
		}
	}
	return 0, packet.DropFlowConflict
}

// choosePort completes the tuple that arrives with the next address and port, or identifier, that is free.
func (w *worker) choosePort(ports *topology.Choice, way *topology.Way) bool {
	k := &w.answer
	for ports.Next(&way.Arrives) {
		*k = conntrack.Key{Tuple: way.Arrives.Reverse(), Zone: uint16(way.To.Attachment)}
		if _, _, ok := w.flows.Lookup(k, w.now); !ok {
			return true
		}
	}
	return false
}

// pool is ports of which none was free for a destination at a tick.
type pool struct {
	at    conntrack.Tick
	ports *topology.PortRange
	dst   packet.Addr
	port  uint16
	proto uint8
}

func poolOf(way *topology.Way, now conntrack.Tick) pool {
	return pool{now, &way.Ports[0], way.Arrives.Dst, way.Arrives.DstPort, way.Arrives.Proto}
}

// pools caches recently exhausted pools, so that a flood into one fails in O(1).
type pools [16]pool

func (x *pools) find(way *topology.Way) *pool {
	h := (way.Arrives.Dst.Lo ^ uint64(way.Arrives.DstPort)<<32) * 0x9e3779b97f4a7c15
	return &x[h>>60]
}

func (x *pool) is(way *topology.Way, now conntrack.Tick) bool { return *x == poolOf(way, now) }
