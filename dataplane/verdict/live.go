package verdict

import (
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// Room is how many attachments an engine has room for. It numbers the flow table's zones: one for each attachment, and
// one more for wherever else the attachment's flows go, its far zone.
type Room int

// ZonesEach are the flow table's zones of an attachment.
const ZonesEach = 2

// Zones is how many zones a flow table needs.
func (r Room) Zones() int { return ZonesEach * int(r) }

// Far is the far zone of an attachment.
func (r Room) Far(attachment int) uint16 { return uint16(int(r) + attachment) }

// Attachment is the attachment of a flow's zone. whole is false for a far zone: the flow is known at this attachment only.
func (r Room) Attachment(zone uint16) (index int, whole bool) {
	return int(zone) % int(r), int(zone) < int(r)
}

// ZoneOf is the zone in which a packet for an address comes in that was read from an attachment.
func (r Room) ZoneOf(from *topology.Attachment, dst packet.Addr) uint16 {
	switch {
	case !from.FromFabric() || from.Inlet():
		return uint16(from.Index)
	case from.Outlet():
		return r.Far(from.Index)
	}
	if to := from.Receiver(dst); to != nil {
		return r.Far(to.Attachment)
	}
	return uint16(from.Index) // where no flow is
}

// End is the endpoint with an address at a zone: behind its attachment, or elsewhere in the group of a far zone's. It is
// nil when nobody there has the address.
func (r Room) End(s *topology.Snapshot, zone uint16, address packet.Addr) *topology.Endpoint {
	index, whole := r.Attachment(zone)
	if !s.Attached(index) {
		return nil
	}
	if whole {
		return s.Admit(s.Attachments[index], address)
	}
	return s.Beyond(s.Attachments[index], address)
}

// ExitBeyond is the attachment by which a packet for an address leaves to a far zone; ok is false if none does.
func (r Room) ExitBeyond(s *topology.Snapshot, zone uint16, dst packet.Addr) (to int, ok bool) {
	index, _ := r.Attachment(zone)
	if !s.Attached(index) {
		return 0, false
	}
	a := s.Attachments[index]
	if a.Outlet() {
		return index, true
	}
	if end := s.Beyond(a, dst); end != nil {
		return end.Attachment, true
	}
	return 0, false
}

// Standing is what the record of a live flow says when the flow is judged again.
type Standing struct {
	Zone       uint16 // where its packets of the original direction go
	Marks      conntrack.Marks
	Receiver   packet.Addr  // who they reach
	Arrives    packet.Tuple // and as what
	Generation uint32       // of the last judgement
	Answered   bool
}

// Stands reports that nothing asks to judge the flow again: no NSG with flushConnection has changed on its way
// since, and somebody has answered it.
func (r *Standing) Stands(flushed uint32) bool { return flushed <= r.Generation && r.Answered }

// Judgement is what becomes of a flow that is judged again.
type Judgement uint8

const (
	JudgedStands Judgement = iota
	JudgedPasses
	JudgedDenied
	JudgedElsewhere // its packets would go elsewhere
	JudgedLost      // nobody has its receiver's address
	JudgedLater     // nothing is attached yet where its packets go: the next policy judges it
)

// Again decides what becomes of a live flow that an older policy than s has judged, by a packet that src sends in
// its original direction. It changes nothing, so that it answers for a policy that is not in force too.
func (d *Decision) Again(s *topology.Snapshot, room Room, from *topology.Attachment, src *topology.Endpoint, r *Standing, p *packet.Packet) Judgement {
	flushed := src.Flushed
	_, whole := room.Attachment(r.Zone)
	marked := r.Marks&(conntrack.Translated|conntrack.Floating) != 0
	switch {
	case !whole: // the receiver's end has a record of its own
	case !s.Attached(int(r.Zone)):
		return JudgedLater
	case marked:
		// Its receiver is the one that it was translated for, whatever would be chosen now.
		dst := s.Admit(s.Attachments[r.Zone], r.Receiver)
		if dst == nil {
			return JudgedLost
		}
		d.Along(s, src, dst, &p.Tuple, &r.Arrives)
		flushed = max(flushed, dst.Flushed)
	default:
		if d.RouteFrom(s, from, src, &p.Tuple); d.Way.To != nil {
			flushed = max(flushed, d.Way.To.Flushed)
		}
	}
	if r.Stands(flushed) {
		return JudgedStands
	}
	switch {
	case !whole:
		d.AskSender(s, src, p)
	case marked: // its way stands, so that rules alone decide
		d.AskSender(s, src, p)
		d.Receive(p)
	default:
		d.Send(p)
		d.Receive(p)
	}
	switch {
	case d.Drop != packet.NotDropped:
		return JudgedDenied
	case whole && uint16(d.Exit()) != r.Zone:
		return JudgedElsewhere
	}
	return JudgedPasses
}

// Stays reports whether a flow's ends are where they were, and the way between them too. An
// address that is behind another attachment now, or behind none, sends spoofed packets at its old
// place, and at its new one a record of the old would stand in the way of the replies. A
// way that routes or peerings have changed must not be taken any more: the flow's next packet
// finds the new one, if the rules allow it there. old is nil where another process began the flow.
func (r Room) Stays(old, s *topology.Snapshot, f *conntrack.FlowInfo) bool {
	from, whole := r.Attachment(f.Key.Zone)
	to, known := r.Attachment(f.ReplyKey.Zone)
	if whole && s.Admit(s.Attachments[from], f.Key.Src) == nil ||
		known && s.Admit(s.Attachments[to], f.Receiver) == nil {
		return false
	}
	if f.Marks != 0 {
		src, dst, arrives := r.End(s, f.Key.Zone, f.Key.Src), r.End(s, f.ReplyKey.Zone, f.Receiver), f.ReplyKey.Reverse()
		return src != nil && dst != nil && s.KeepsTranslation(src, dst, &f.Key.Tuple, &arrives)
	}
	if !whole || !known { // such a flow's packets are routed one by one
		return true
	}
	var d Decision
	d.RouteFromSlot(s, from, &f.Key.Tuple)
	if s.Attachments[to].Inlet() && d.Drop == packet.NotDropped && !d.Refused() && d.Way.To == s.Outside() {
		return true // another host translates it, whichever would be chosen now
	}
	if d.Drop != packet.NotDropped || d.Refused() || d.Rewrites() || d.Way.Closed || d.Way.To == nil || d.Exit() != to {
		return false
	}
	if d.Answered() || old == nil {
		return d.Answered()
	}
	d.RouteFromSlot(old, from, &f.Key.Tuple)
	return d.Drop != packet.NotDropped || d.Way.To == nil || !d.Answered()
}

// RouteFromSlot is RouteFrom for the attachment at a slot; one that is not there yet leads nowhere.
func (d *Decision) RouteFromSlot(s *topology.Snapshot, from int, t *packet.Tuple) {
	*d = Decision{Here: true}
	if !s.Attached(from) {
		return
	}
	if src := s.Admit(s.Attachments[from], t.Src); src != nil {
		d.RouteFrom(s, s.Attachments[from], src, t)
	}
}

// Established is the timeout of a flow that stays: the longer of its two ends'. Of a flow that
// is known at one end only, the other is where that end's packets go now. translated bounds the timeouts of flows that
// are translated; 0: nothing does.
func (r Room) Established(s *topology.Snapshot, f *conntrack.FlowInfo, translated time.Duration) time.Duration {
	from, whole := r.Attachment(f.Key.Zone)
	to, known := r.Attachment(f.ReplyKey.Zone)
	t := &f.Key.Tuple
	if !whole {
		from, t = to, &f.ReplyKey.Tuple
	}
	src := s.Admit(s.Attachments[from], t.Src)
	d := Decision{Here: true}
	switch {
	case src == nil: // translated between two hosts
		return f.Established
	case f.Marks != 0:
		if d.Route(s, src, t) != packet.NotDropped || d.Refused() { // no backend is up, say
			return f.Established
		}
	case whole && known:
		d.Along(s, src, s.Admit(s.Attachments[to], f.ReplyKey.Src), t, t)
	default:
		d.Onward(s, src, &packet.Packet{Tuple: *t})
	}
	return d.Idle(t.Proto, translated)
}

// Ends says whether a live flow would end under s, by what a reload and then the flow's next packet do. Where a packet
// that is denied ends it, the decision's Drop says why.
func (d *Decision) Ends(old, s *topology.Snapshot, room Room, f *conntrack.FlowInfo) bool {
	if *d = (Decision{Here: true}); !room.Stays(old, s, f) {
		return true
	}
	r := Standing{Zone: f.ReplyKey.Zone, Marks: f.Marks, Receiver: f.Receiver, Arrives: f.ReplyKey.Reverse(),
		Generation: f.Generation, Answered: f.Answered}
	p := packet.Packet{Tuple: f.Key.Tuple, Segments: 1}
	switch p.Proto {
	case packet.ProtoICMP:
		p.ICMPType = packet.ICMPv4EchoRequest
	case packet.ProtoICMPv6:
		p.ICMPType = packet.ICMPv6EchoRequest
	}
	if from, whole := room.Attachment(f.Key.Zone); whole {
		j := d.Again(s, room, s.Attachments[from], s.Admit(s.Attachments[from], f.Key.Src), &r, &p)
		return j != JudgedStands && j != JudgedPasses
	}
	to, known := room.Attachment(f.ReplyKey.Zone) // the record of the receiver's end
	if !known {                                   // translated between two hosts: neither end is judged here
		return false
	}
	way := topology.Way{To: s.Admit(s.Attachments[to], f.Receiver), Arrives: p.Tuple}
	return !r.Stands(way.To.Flushed) && d.Receives(s, &way, &p) != packet.NotDropped
}

// Cuts yields the live flows that would end if a candidate were the policy in force instead of old: at once, because an end or
// the way between the ends is not what it was, or with their next packet, which the rules deny. In the second case
// the decision's Drop says why. It walks over the flow table without stopping it, changes nothing, and returns how
// many flows live. Yield must not keep what it gets.
func Cuts(flows *conntrack.Table, room Room, old, candidate *topology.Snapshot, yield func(*conntrack.FlowInfo, *Decision)) (live int) {
	var d Decision
	flows.Flows(func(f *conntrack.FlowInfo) bool {
		if f.Class.Cut() {
			return true
		}
		live++
		if d.Ends(old, candidate, room, f) {
			yield(f, &d)
		}
		return true
	})
	return live
}

// WouldGo is the way of a packet that was read from an attachment, whatever rules say of it; ok is false where it leads nowhere.
func (d *Decision) WouldGo(s *topology.Snapshot, from *topology.Attachment, t *packet.Tuple) (to int, ok bool) {
	src, drop := Admit(s, from, t)
	if drop != packet.NotDropped {
		return 0, false
	}
	*d = Decision{Here: true}
	if d.RouteFrom(s, from, src, t) != packet.NotDropped || d.Way.To == nil {
		return 0, false
	}
	return d.Exit(), true
}
