package dataplane

import (
	"math"
	"math/bits"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/translate"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
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

// ofTranslation reports a reason that Snapshot.Way has and Snapshot.Route has not.
func ofTranslation(why packet.Drop) bool {
	return packet.DropClosed <= why && why <= packet.DropSNATExhausted
}

// translated finds the way of a packet without a flow; it reports whether Route does not say all of it.
func (w *worker) translated(s *topology.Snapshot, src *topology.Endpoint, p *packet.Packet) (why packet.Drop, ok bool) {
	why = s.Way(src, &p.Tuple, &w.way)
	return why, ofTranslation(why) || why == packet.DropSpoofed || w.way.Translated || w.way.Floating || w.way.Closed
}

// portTries bounds how often a port is chosen anew that another worker took meanwhile.
const portTries = 4

// beginTranslated is begin for a packet whose way is w.way; why is what Way said.
func (w *worker) beginTranslated(s *topology.Snapshot, from *topology.Attachment, src *topology.Endpoint, why packet.Drop, p *packet.Packet) (int, packet.Drop) {
	way := &w.way
	if why != packet.NotDropped && !ofTranslation(why) {
		return 0, why
	}
	if drop := w.mayCreateTranslated(src, way, p); drop != packet.NotDropped {
		return 0, drop
	}
	k := p.Classification()
	verdict.Judge(src, nil, &k, &w.verdict)
	if w.verdict.Access == ruleset.Deny {
		w.countVerdict(&w.verdict, p)
		return 0, packet.DropRule
	}
	switch {
	case why != packet.NotDropped:
		return 0, why
	case way.Closed:
		return 0, packet.DropClosed
	case s.SMTPBlocked(src, way.To, &k):
		return 0, packet.DropSMTP
	case s.Routed() && !s.Answers(from, &p.Tuple, way):
		return 0, packet.DropAsymmetric
	}
	sent := w.verdict
	for range portTries {
		if drop := w.choosePort(way); drop != packet.NotDropped {
			return 0, drop
		}
		to, drop := w.arriveTranslated(s, from, src, &sent, p)
		if drop != packet.DropFlowConflict || way.Ports == nil {
			return to, drop
		}
	}
	return 0, packet.DropFlowConflict
}

// mayCreateTranslated is mayCreate for a packet with a way. A connection whose port was
// chosen for it can't be picked up in mid-stream: it would get another one.
func (w *worker) mayCreateTranslated(src *topology.Endpoint, way *topology.Way, p *packet.Packet) packet.Drop {
	drop := conntrack.MayCreate(p, w.strict || way.Ports != nil)
	if drop == packet.NotDropped || way.Ports != nil || conntrack.MayCreateStateless(p) != packet.NotDropped {
		return drop
	}
	if src.Stateless || way.To != nil && way.To.Stateless {
		return packet.NotDropped
	}
	return drop
}

// arriveTranslated lets a packet that its sender's rules allowed pass at the receiver's end, and
// records the flow.
func (w *worker) arriveTranslated(s *topology.Snapshot, from *topology.Attachment, src *topology.Endpoint, sent *verdict.Verdict, p *packet.Packet) (int, packet.Drop) {
	way := &w.way
	k := p.ClassificationOf(&way.Arrives)
	verdict.Judge(nil, way.To, &k, &w.verdict)
	w.verdict = sent.And(&w.verdict)
	if w.verdict.Access == ruleset.Deny {
		w.countVerdict(&w.verdict, p)
		return 0, packet.DropRule
	}
	w.arrives = way.Arrives
	w.init = conntrack.Init{
		Slots:       w.verdict.Slots(),
		Generation:  uint32(s.Generation),
		Established: w.engine.idle(way, src, p.Proto),
		Stateless:   src.Stateless || way.To.Stateless,
		ReplyZone:   uint16(way.To.Attachment),
		Arrives:     &w.arrives,
	}
	if way.Translated {
		w.init.Marks |= conntrack.Translated
	}
	if way.Floating {
		w.init.Marks |= conntrack.Floating
		w.init.Receiver = packet.AddrFrom(way.To.Address())
	}
	if way.Reset && p.Proto == packet.ProtoTCP {
		w.init.Marks |= conntrack.Resets
	}
	return w.enter(s, from, &w.verdict, p)
}

// idle is the timeout of a flow on a way.
func (e *Engine) idle(way *topology.Way, src *topology.Endpoint, protocol uint8) time.Duration {
	most := e.options.TranslationIdle
	if most == 0 {
		most = math.MaxInt64
	}
	switch {
	case way.Translated && protocol == packet.ProtoUDP:
		return min(most, topology.IdleUDP)
	case way.Idle > 0:
		return min(most, way.Idle)
	}
	return longer(src, way.To)
}

// choosePort completes a way's arriving tuple with an address and a port, or an identifier, that
// no live flow to the destination has. What two flows to different destinations have may be the same.
func (w *worker) choosePort(way *topology.Way) packet.Drop {
	if way.Ports == nil {
		return packet.NotDropped
	}
	a := &way.Arrives
	switch a.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6:
	default: // has nothing to tell flows by
		return packet.DropNoOutbound
	}
	used := w.exhausted.find(way)
	if used.is(way, w.now) {
		return packet.DropSNATExhausted
	}
	n := portsOf(way.Ports)
	k := &w.answer
	for i := range min(n, portLooks) {
		a.Src, a.SrcPort = portAt(way.Ports, probe(w.hash, i, n))
		*k = conntrack.Key{Tuple: a.Reverse(), Zone: uint16(way.To.Attachment)}
		if _, _, ok := w.flows.Lookup(k, w.now); !ok {
			return packet.NotDropped
		}
	}
	*used = pool{w.now, &way.Ports[0], a.Dst, a.DstPort, a.Proto}
	return packet.DropSNATExhausted
}

// portLooks bounds how many ports are tried for one flow. With 60,000 of 64,512 in use
// 14 are enough on average; with fewer than fifty left a flow may be refused though there is one.
const portLooks = 2000

// probe is the i-th of n ports to try, in an order that the seeded hash of the flow's key gives:
// all of them if there are no more than portLooks, else at random.
func probe(hash uint64, i, n uint32) uint32 {
	if n <= portLooks {
		first, _ := bits.Mul64(hash, uint64(n))
		return (uint32(first) + i) % n
	}
	hash += uint64(i) * 0x9e3779b97f4a7c15
	hash ^= hash >> 32
	at, _ := bits.Mul64(hash*0xd6e8feb86659fd93, uint64(n))
	return uint32(at)
}

func portsOf(ranges []topology.PortRange) (n uint32) {
	for i := range ranges {
		n += uint32(ranges[i].Last-ranges[i].First) + 1
	}
	return n
}

func portAt(ranges []topology.PortRange, i uint32) (packet.Addr, uint16) {
	for r := range ranges {
		n := uint32(ranges[r].Last-ranges[r].First) + 1
		if i < n {
			return ranges[r].Address, ranges[r].First + uint16(i)
		}
		i -= n
	}
	return ranges[0].Address, ranges[0].First
}

// pool is ports of which none was free for a destination at a tick.
type pool struct {
	at    conntrack.Tick
	ports *topology.PortRange
	dst   packet.Addr
	port  uint16
	proto uint8
}

// pools are some that were found exhausted of late: it makes a flood into one cheap.
type pools [16]pool

func (x *pools) find(way *topology.Way) *pool {
	h := (way.Arrives.Dst.Lo ^ uint64(way.Arrives.DstPort)<<32) * 0x9e3779b97f4a7c15
	return &x[h>>60]
}

func (x *pool) is(way *topology.Way, now conntrack.Tick) bool {
	a := &way.Arrives
	return *x == pool{now, &way.Ports[0], a.Dst, a.DstPort, a.Proto}
}
