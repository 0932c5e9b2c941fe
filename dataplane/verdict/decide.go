package verdict

import (
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
)

// Decision is what becomes of a packet that belongs to no flow. Decide takes all steps; a live packet
// takes them one by one, in the order Route, MayBegin, Send, Receive, because the engine chooses a
// port in between and may know the flow at the receiver's end. The first step that finds a reason to
// drop the packet sets Drop, and no later one is taken.
//
// A Decision is used again and again without being cleared: Route and Along begin anew. Nothing
// here allocates.
type Decision struct {
	// Drop is the reason that was found; packet.NotDropped: none so far.
	Drop packet.Drop
	// Way says who receives the packet and with which addresses; To is nil where there is no way.
	Way topology.Way
	// Verdict holds the stages that were asked: the sender's, then the receiver's.
	Verdict Verdict
	// Sent is how many of the stages are the sender's; valid after Send.
	Sent int
	// Apart says that answers take another way than the packet: each end keeps a record of its
	// own. Valid after Send.
	Apart bool
	// Known says that the receiver's end knows the packet's flow, so that nothing begins there. The
	// engine sets it between Route and Send.
	Known bool
	// Here judges only the ends that are attached to this host, and takes only the part of a way that this host takes:
	// for live packets. Questions leave it false: they judge all ends. It stays set until it is changed.
	Here bool
	// Joins says that the packet begins a record as one in mid-stream does: an appliance may see the answers
	// alone, and the other end is elsewhere. Valid after MayBegin.
	Joins bool

	snapshot *topology.Snapshot
	source   *topology.Endpoint
	sent     packet.Addr // from where
	fault    packet.Drop // of translation; the sender's rules come before it
	// arrived says that another host has sent the packet, and has judged all but the receiver's stages. handed
	// says that another host translates it: whole is its whole way then, and Way what this host takes of it.
	arrived, handed bool
	whole           topology.Way

	classified packet.Tuple // see packet.Packet.Classification
}

// Decide says what becomes of a packet that src sends and that begins a flow. Where the flow's port is
// chosen among several, it is the one that the engine takes first.
func (d *Decision) Decide(s *topology.Snapshot, src *topology.Endpoint, p *packet.Packet) packet.Drop {
	d.Route(s, src, &p.Tuple)
	return d.decide(p)
}

// DecideFrom is Decide for a packet as it comes from an attachment of this host: its sender has to be admitted there, and only
// the ends that are attached here are judged. d is empty where the sender is not admitted.
func (d *Decision) DecideFrom(s *topology.Snapshot, from *topology.Attachment, p *packet.Packet) packet.Drop {
	src, drop := Admit(s, from, &p.Tuple)
	if drop != packet.NotDropped {
		*d = Decision{}
		return drop
	}
	d.Here = true
	d.RouteFrom(s, from, src, &p.Tuple)
	return d.decide(p)
}

// DecideBy is Decide for one of the ways that the packet may take.
func (d *Decision) DecideBy(s *topology.Snapshot, src *topology.Endpoint, p *packet.Packet, by *topology.Taken) packet.Drop {
	d.take(s, src, p, by)
	return d.decide(p)
}

func (d *Decision) decide(p *packet.Packet) packet.Drop {
	if d.MayBegin(p, false) != packet.NotDropped || d.Send(p) != packet.NotDropped {
		return d.Drop
	}
	if d.Way.Ports != nil {
		d.snapshot.Choose(&d.Way, &p.Tuple)
	}
	return d.Receive(p)
}

// Route finds the way of a packet that src sends as a tuple. Where nothing is attached to its end the
// reason comes with Way.To. A snapshot without any attachment answers for the policy alone: there every
// end counts as attached.
func (d *Decision) Route(s *topology.Snapshot, src *topology.Endpoint, sent *packet.Tuple) packet.Drop {
	d.begin(s, src, sent.Src)
	why := s.Way(src, sent, &d.Way)
	if d.Here {
		return d.here(why, sent)
	}
	return d.taken(why)
}

func (d *Decision) taken(why packet.Drop) packet.Drop {
	if why.OfTranslation() {
		d.fault = why
		return d.Drop
	}
	return d.routed(why)
}

// Course says what becomes of a packet that src sends and that takes one of its ways, apart from the rules.
// before is why no rule is asked about it, behind why none of the receiver is, whatever the sender's say.
func (d *Decision) Course(s *topology.Snapshot, src *topology.Endpoint, p *packet.Packet, by *topology.Taken) (before, behind packet.Drop) {
	if d.take(s, src, p, by) != packet.NotDropped || d.MayBegin(p, false) != packet.NotDropped {
		return d.Drop, packet.NotDropped
	}
	return packet.NotDropped, d.carry(p)
}

// take is Route by one of the ways.
func (d *Decision) take(s *topology.Snapshot, src *topology.Endpoint, p *packet.Packet, by *topology.Taken) packet.Drop {
	d.begin(s, src, p.Src)
	d.Way = by.Way
	return d.taken(by.Drop)
}

// Onward is Route for a packet of a flow that its sender's end knows, and that nothing translates:
// routes alone lead it. No stage of the sender is asked then.
func (d *Decision) Onward(s *topology.Snapshot, src *topology.Endpoint, p *packet.Packet) packet.Drop {
	d.begin(s, src, p.Src)
	to, why := s.Route(src, p.Src, p.Dst)
	d.Way = topology.Way{To: to, Arrives: p.Tuple}
	return d.routed(why)
}

// Port25 refuses a packet that the receiver's end does not know, if the subscription blocks its port.
func (d *Decision) Port25(p *packet.Packet) packet.Drop {
	if d.Drop == packet.NotDropped && d.snapshot.SMTPBlocked(d.source, d.judged().To, &p.Tuple) {
		d.Drop = packet.DropSMTP
	}
	return d.Drop
}

func (d *Decision) routed(why packet.Drop) packet.Drop {
	to, src := d.Way.To, d.source
	switch {
	case why != packet.NotDropped && (to == nil || len(d.snapshot.Attachments) > 0):
		d.Drop = why
	case to.NetworkInterface != nil && to.NetworkInterface == src.NetworkInterface && !d.Way.Floating && !to.Has(d.Way.Arrives.Dst):
		d.Drop = packet.DropNextHop // an appliance whose own routes lead to it
	}
	return d.Drop
}

// Along takes a way that was found before: to is who receives what src sends as one tuple and what
// arrives as another.
func (d *Decision) Along(s *topology.Snapshot, src, to *topology.Endpoint, sent, arrives *packet.Tuple) {
	d.begin(s, src, sent.Src)
	d.Way = topology.Way{To: to, Arrives: *arrives, Translated: *sent != *arrives}
}

// Keep makes the way that Route has found that of a live flow, which reaches to as arrives. It reports
// false, and changes nothing, where the policy does not translate the flow so any more.
func (d *Decision) Keep(to *topology.Endpoint, sent, arrives *packet.Tuple) bool {
	return d.fault == packet.NotDropped && d.snapshot.KeepWay(d.source, to, sent, arrives, &d.Way)
}

func (d *Decision) begin(s *topology.Snapshot, src *topology.Endpoint, sent packet.Addr) {
	d.Drop, d.fault, d.Apart, d.Known, d.Sent = packet.NotDropped, packet.NotDropped, false, false, 0
	d.Joins, d.arrived, d.handed = false, false, false
	d.snapshot, d.source, d.sent = s, src, sent
	d.Verdict.reset()
}

// Changed reports a packet that translation has to do with: one that is refused by it, or that
// arrives elsewhere or otherwise than its addresses say.
func (d *Decision) Changed() bool {
	way := d.judged()
	return d.fault != packet.NotDropped || way.Translated || way.Floating || way.Closed
}

// Refused reports a packet that translation refuses.
func (d *Decision) Refused() bool { return d.fault != packet.NotDropped }

// MayBegin says whether a packet can be a flow's first: strict lets only a SYN begin one of TCP.
// A connection whose port is chosen for it cannot be picked up in mid-stream, because it would get
// another one. Where an end wants no TCP states (Stateless) any segment begins a flow.
func (d *Decision) MayBegin(p *packet.Packet, strict bool) packet.Drop {
	if d.Drop != packet.NotDropped {
		return d.Drop
	}
	shared := d.judged().Ports != nil
	d.Drop = conntrack.MayCreate(p, strict || shared)
	if d.Drop != packet.NotDropped && !shared && d.Stateless() && conntrack.MayCreateStateless(p) == packet.NotDropped {
		d.Drop = packet.NotDropped
	}
	if d.Drop != packet.NotDropped && d.Drop != packet.DropTCPFlags && d.Here && !shared && d.othersKnow(p) {
		d.Drop, d.Joins = packet.NotDropped, true
	}
	return d.Drop
}

// Send asks the sender's stages, and then what else can refuse the packet before it is the
// receiver's: translation, a closed address, port 25, and answers that would not be translated back.
func (d *Decision) Send(p *packet.Packet) packet.Drop {
	if d.Drop != packet.NotDropped {
		return d.Drop
	}
	if d.askSender(p) != packet.NotDropped {
		return d.Drop
	}
	return d.carry(p)
}

// carry is what Send does behind the sender's stages.
func (d *Decision) carry(p *packet.Packet) packet.Drop {
	switch way := d.judged(); {
	case d.arrived: // from the internet, as sent; what comes from a group has a record of its own anyway
		d.Apart = d.source == d.snapshot.Outside() && !d.snapshot.Public(d.sent) && d.snapshot.Routed() && !d.Answered()
	case d.fault != packet.NotDropped:
		d.Drop = d.fault
	case way.Closed:
		d.Drop = packet.DropClosed
	case !d.Known && !d.senderJudged() && d.Port25(p) != packet.NotDropped:
	case !d.snapshot.Routed() || d.Answered():
	case way.Translated || way.Floating:
		d.Drop = packet.DropAsymmetric
	default:
		d.Apart = true
	}
	return d.Drop
}

// Answered reports that answers come back by where the packet came from.
func (d *Decision) Answered() bool { return d.snapshot.RepliesReturn(d.source, d.sent, d.judged()) }

// Receive asks the receiver's stages about the packet as it arrives.
func (d *Decision) Receive(p *packet.Packet) packet.Drop {
	if d.Drop != packet.NotDropped {
		return d.Drop
	}
	if d.Here && d.Way.To.Elsewhere {
		return d.Drop
	}
	d.Verdict.receive(d.Way.To, p.Classification(&d.Way.Arrives, &d.classified))
	if d.Verdict.Access == ruleset.Deny {
		d.Drop = packet.DropRule
	}
	return d.Drop
}

// Sends decides by the sender's own chain, whatever becomes of the packet beyond it: its stages, its
// way out to the internet, and port 25. The result is one of DropRule, DropNoOutbound, DropSMTP and
// NotDropped. The way and its translation are in Way.
func (d *Decision) Sends(s *topology.Snapshot, src *topology.Endpoint, p *packet.Packet) packet.Drop {
	d.Route(s, src, &p.Tuple)
	d.Drop = packet.NotDropped
	switch {
	case d.askSender(p) != packet.NotDropped:
	case d.fault == packet.DropNoOutbound:
		d.Drop = d.fault
	case s.SMTPBlocked(src, d.Way.To, &p.Tuple):
		d.Drop = packet.DropSMTP
	}
	return d.Drop
}

// AskSender decides by the sender's stages alone.
func (d *Decision) AskSender(s *topology.Snapshot, src *topology.Endpoint, p *packet.Packet) packet.Drop {
	d.begin(s, src, p.Src)
	return d.askSender(p)
}

func (d *Decision) askSender(p *packet.Packet) packet.Drop {
	if d.senderJudged() {
		return d.Drop
	}
	d.Verdict.send(d.source, p.Classification(&p.Tuple, &d.classified))
	if d.Sent = d.Verdict.N; d.Verdict.Access == ruleset.Deny {
		d.Drop = packet.DropRule
	}
	return d.Drop
}

// Receives decides by the receiver's own chain at the end of a way: whether the way's address is
// closed, then the receiver's stages, about the packet as it arrives.
func (d *Decision) Receives(s *topology.Snapshot, way *topology.Way, p *packet.Packet) packet.Drop {
	d.begin(s, nil, p.Src)
	if d.Way = *way; way.Closed {
		d.Drop = packet.DropClosed
	}
	return d.Receive(p)
}

// ReceivedSlots are those of the receiver's stages.
func (d *Decision) ReceivedSlots() conntrack.Slots { return d.Verdict.slots(d.Sent, d.Verdict.N) }

// Stateless reports an end whose TCP flows have no states.
func (d *Decision) Stateless() bool {
	to := d.judged().To
	return d.source.Stateless || to != nil && to.Stateless
}

// Established is the idle timeout of TCP that the ends' virtual networks give, the longer one; 0: the
// default.
func (d *Decision) Established() time.Duration {
	to := d.judged().To
	if to == nil {
		return d.source.Established
	}
	return max(d.source.Established, to.Established)
}

// Idle is the idle timeout of the flow: its translation's where it has one, which most bounds, else
// that of Established. most is 0 for no bound.
func (d *Decision) Idle(protocol uint8, most time.Duration) time.Duration {
	idle := d.judged().Idle
	if d.judged().Translated && protocol == packet.ProtoUDP {
		idle = topology.IdleUDP
	}
	switch {
	case idle == 0:
		return d.Established()
	case most == 0:
		return idle
	}
	return min(most, idle)
}

// Record is what the flow of a decision that lets it pass is recorded with, unless it is Apart. It
// refers to d.
func (d *Decision) Record(init *conntrack.Init, protocol uint8, most time.Duration) {
	way := &d.Way
	*init = conntrack.Init{
		Slots:       d.Verdict.Slots(),
		Generation:  uint32(d.snapshot.Generation),
		Established: d.Idle(protocol, most),
		Stateless:   d.Stateless(),
		ReplyZone:   uint16(way.To.Attachment),
	}
	if way.Translated {
		init.Marks |= conntrack.Translated
	}
	if way.Ports != nil {
		init.Marks |= conntrack.Shared
	}
	if way.Floating {
		init.Marks |= conntrack.Floating
		init.Receiver = packet.AddrFrom(way.To.Address())
	}
	if way.Reset && protocol == packet.ProtoTCP {
		init.Marks |= conntrack.Resets
	}
	if init.Marks != 0 {
		init.Arrives = &way.Arrives
	}
}

// RecordSent is what the sender's end of a leg records, RecordReceived what the receiver's does,
// where they are Apart; replyZone is where the record's answers come in.
func (d *Decision) RecordSent(init *conntrack.Init, replyZone uint16) {
	d.recordOne(init, d.Verdict.sentSlots(d.Sent), replyZone)
}

// RecordReceived is RecordSent for the receiver's end.
func (d *Decision) RecordReceived(init *conntrack.Init, replyZone uint16) {
	d.recordOne(init, d.ReceivedSlots(), replyZone)
}

func (d *Decision) recordOne(init *conntrack.Init, slots conntrack.Slots, replyZone uint16) {
	*init = conntrack.Init{Slots: slots, Generation: uint32(d.snapshot.Generation), Established: d.Established(),
		Stateless: d.Stateless(), ReplyZone: replyZone}
}
