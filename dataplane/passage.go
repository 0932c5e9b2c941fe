package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/tun"
)

// passage is one packet on its way through the engine: all that belongs to it, and the steps that it
// takes. A worker has two, one of them for fragments that have waited, and uses each again and again:
// enter begins anew. The fields behind a step's name are valid after that step.
type passage struct {
	w        *worker
	snapshot *topology.Snapshot
	from     *topology.Attachment
	*slot                       // the packet: its bytes, what they say, and its flow key
	src      *topology.Endpoint // admit: who has sent it

	// flow: the flow that the packet belongs to, if relation is not noFlow. flow and direction are
	// set only if the flow has marks.
	relation  relation
	marks     conntrack.Marks
	flow      conntrack.Flow
	direction conntrack.Direction
	// restarts says that the packet asks for a new flow in place of one that is over, and succeeds that it
	// does in place of one that lives; replaced is that flow, and sent the packet's direction in it.
	restarts, succeeds bool
	replaced           conntrack.Flow
	sent               conntrack.Direction

	quote    packet.Quote     // what an ICMP error quotes; valid if relation is related
	quoted   conntrack.Key    // the key of the flow that it quotes
	datagram fragment.Verdict // fragment: the datagram's

	decision verdict.Decision // begin, and when a live flow is judged again
	to       int              // write: the attachment; -1 while there is none, valid while somebody watches

	observed observation // valid while somebody watches
}

// relation is how a packet that was carried stands to a flow.
type relation uint8

const (
	noFlow  relation = iota // the rules let it pass by itself
	inFlow                  // it is one of the flow's packets
	related                 // it is an ICMP error about one of them
)

// streak is what consecutive packets of one flow in a group share. It is found once, and what they add is counted once. The second
// of them begins it. The zero value is no streak.
type streak struct {
	lasts     bool
	flow      conntrack.Flow
	direction conntrack.Direction
	marks     conntrack.Marks
	src       *topology.Endpoint
	to        int
	slots     conntrack.Slots
	// Of the packets behind the second: wire segments and their bytes. A group bounds them.
	packets, bytes uint32
}

// endStreak counts what the packets of a streak add.
func (w *worker) endStreak() {
	if !w.streak.lasts {
		return
	}
	r := w.streak
	w.streak.lasts = false
	if r.packets > 0 {
		w.flows.Add(r.flow, r.direction, r.packets, r.bytes)
		w.countRules(r.slots, 0, uint64(r.packets), uint64(r.bytes))
	}
}

func (x *passage) enter(s *topology.Snapshot, from *topology.Attachment, read *slot) {
	x.snapshot, x.from, x.slot = s, from, read
	x.relation, x.marks, x.restarts, x.succeeds = noFlow, 0, false, false
}

// flowKey is the key of the flow that the packet belongs to.
func (x *passage) flowKey() *conntrack.Key {
	if x.relation == related {
		return &x.quoted
	}
	return &x.key
}

// carry takes a packet that came from an attachment, and that prepare has decoded, through all
// steps. It counts and returns why the packet was dropped, or packet.NotDropped.
func (x *passage) carry(s *topology.Snapshot, from *topology.Attachment, read *slot) packet.Drop {
	x.enter(s, from, read)
	if x.w.watchers != nil {
		x.observe()
	}
	return x.leave(x.steps())
}

// leave counts why the packet was dropped, and tells the watchers what became of it.
func (x *passage) leave(drop packet.Drop) packet.Drop {
	if x.w.watchers != nil {
		x.tell(drop)
	}
	if drop != packet.NotDropped {
		x.w.counters.Drop(drop)
		if x.w.decisions != nil && drop.OfPolicy() {
			x.decided(drop)
		}
	}
	return drop
}

// steps are those of every packet. A fragment takes the last ones in fragments.go.
func (x *passage) steps() (drop packet.Drop) {
	w, read := x.w, x.slot
	p := &read.packet
	if w.streak.lasts {
		if to, drop, ok := x.goOn(); ok {
			return x.finish(to, drop)
		}
	}
	if read.drop != packet.NotDropped {
		return read.drop
	}
	if w.fenced {
		return packet.DropFenced
	}
	if x.src, drop = verdict.Admit(x.snapshot, x.from, &p.Tuple); drop != packet.NotDropped {
		return drop
	}
	if p.Fragment.IsFragment() {
		return x.fragment()
	}
	return x.finish(x.destination())
}

// finish writes a packet that has a destination.
func (x *passage) finish(to int, drop packet.Drop) packet.Drop {
	if drop != packet.NotDropped {
		return drop
	}
	if x.marks != 0 {
		x.translate()
	}
	x.to = to
	return x.w.write(to, x.frame, &x.packet, x.hash)
}

// goOn takes a packet of the streak's flow the same way: the snapshot, the sender and the flow are those of the packet before
// it. It is false for any other packet, which ends the streak.
func (x *passage) goOn() (to int, drop packet.Drop, ok bool) {
	w, p := x.w, &x.packet
	r, flows := &w.streak, w.flows
	if !x.follows || flows.Asks(p) || !flows.Lives(r.flow, w.now) {
		w.endStreak()
		return 0, packet.NotDropped, false
	}
	x.src, x.relation = r.src, inFlow
	if drop := flows.Advance(r.flow, r.direction, p, w.now); drop != packet.NotDropped {
		return 0, drop, true
	}
	r.packets += p.Segments
	r.bytes += p.WireLen
	if w.watchers != nil {
		x.observeSlots(r.slots, 0)
	}
	if x.marks = r.marks; x.marks != 0 {
		x.flow, x.direction = r.flow, r.direction
	}
	return r.to, packet.NotDropped, true
}

// destination finds the attachment that an admitted packet goes to: as part of a live flow, or as
// the rules say. A flow lives on until commit if the packet asks for a new one in its place: a packet
// that the rules deny must not end it.
func (x *passage) destination() (to int, drop packet.Drop) {
	flows, now, read := x.w.flows, x.w.now, x.slot
	p := &read.packet
	if p.IsICMPError() {
		return x.icmpError()
	}
	x.relation = inFlow
	f, d, live := flows.LookupHash(&read.key, read.hash, now)
	if !live {
		return x.begin()
	}
	if flows.Asks(p) && x.asks(&f, &d) {
		return x.begin()
	}
	if d == conntrack.Original && flows.Generation(f) < uint32(x.snapshot.Generation) {
		if drop, lives := x.rejudge(f); drop != packet.NotDropped {
			return 0, drop
		} else if !lives {
			return x.begin()
		}
	}
	if drop := flows.Pass(f, d, p, now); drop != packet.NotDropped {
		return 0, drop
	}
	return x.follow(f, d)
}

// asks reports whether a packet of a live flow asks for a new one. If it answers one that waits in the flow's
// place, that one is the packet's flow from now on.
func (x *passage) asks(f *conntrack.Flow, d *conntrack.Direction) bool {
	flows, p := x.w.flows, &x.packet
	if flows.Accepts(*f, *d, p, x.w.now) {
		next, direction, ok := flows.LookupHash(&x.key, x.hash, x.w.now)
		if !ok { // it has ended at once
			return true
		}
		*f, *d = next, direction
		return false
	}
	x.restarts, x.succeeds = flows.Restarts(*f, *d, p), flows.Succeeds(*f, *d, p)
	x.replaced, x.sent = *f, *d
	return x.restarts || x.succeeds
}

// follow takes the way of a flow that the packet has passed in, and counts the packet on the rules
// that allowed the flow.
func (x *passage) follow(f conntrack.Flow, d conntrack.Direction) (to int, drop packet.Drop) {
	if to = int(x.w.flows.PeerZone(f, d)); to >= int(x.w.engine.room) {
		return x.onward(f, d)
	}
	slots := x.w.flows.Slots(f)
	x.countSlots(slots, 0)
	x.note(f, d)
	if x.follows { // more of them are likely
		x.w.streak = streak{lasts: true, flow: f, direction: d, marks: x.marks, src: x.src, to: to, slots: slots}
	}
	return to, packet.NotDropped
}

// note remembers the flow that the packet belongs to, if that has something of its own.
func (x *passage) note(f conntrack.Flow, d conntrack.Direction) {
	if x.marks = x.w.flows.Marks(f); x.marks != 0 {
		x.flow, x.direction = f, d
	}
}

// icmpError carries an ICMP error as part of the live flow that it quotes, or
// else as the rules for ICMP decide. It never begins, extends or changes a flow.
func (x *passage) icmpError() (int, packet.Drop) {
	w, p := x.w, &x.packet
	if x.findQuoted() {
		if f, d, ok := w.flows.Lookup(&x.quoted, w.now); ok {
			to := int(w.flows.PeerZone(f, d))
			if to >= int(w.engine.room) {
				fixed := false
				if to, fixed = x.beyond(f, d); fixed {
					ok = to >= 0
				} else {
					to, ok = x.quotedSender()
				}
			}
			if ok {
				x.relation = related
				x.countSlots(w.flows.Slots(f), 0)
				x.note(f, d)
				return to, packet.NotDropped
			}
		}
		if to, ok := x.quotedHere(); ok {
			return to, packet.NotDropped
		}
	}
	d := &x.decision
	if x.route(); d.Changed() || d.Drop == packet.DropSpoofed {
		return 0, packet.DropICMPNoFlow // by which address is nobody's to say (RFC 5508 section 4)
	}
	d.Send(p)
	if d.Receive(p) != packet.NotDropped {
		return 0, x.denied()
	}
	x.countSlots(d.Verdict.Slots(), 1)
	return d.Exit(), packet.NotDropped
}

// findQuoted sets the quoted key to that of the flow which an answer to the quoted packet would belong
// to, if it came from where the error does: the quoted packet went there.
func (x *passage) findQuoted() (ok bool) {
	if x.quote, ok = packet.DecodeQuote(x.frame[tun.HeaderLen:], &x.packet); !ok {
		return false
	}
	t := x.quote.Tuple
	if x.quote.Fragment.IsLater() {
		// It has no ports, but the first one of its datagram had.
		k := fragment.Key{Src: t.Src, Dst: t.Dst, ID: x.quote.Fragment.ID, Proto: x.quote.Fragment.Proto}
		v := &x.datagram
		if !x.w.engine.fragments.Quoted(&k, x.key.Zone, x.w.time, v) || !v.InFlow || v.Related {
			return false
		}
		t = v.Flow.Tuple
	}
	x.quoted = conntrack.Key{Tuple: t.Reverse(), Zone: x.key.Zone}
	return true
}

// countSlots counts the packet on the rules of slots, and hits. A NIC can have its subnet's
// NSG, whose rule then decides two stages, one after the other; it still counts
// what was sent, once.
func (x *passage) countSlots(slots conntrack.Slots, hits uint64) {
	if x.w.watchers != nil {
		x.observeSlots(slots, hits)
	}
	x.w.countRules(slots, hits, uint64(x.packet.Segments), uint64(x.packet.WireLen))
}

// countRules is countSlots of several packets at once: of so many wire segments, and their bytes.
func (w *worker) countRules(slots conntrack.Slots, hits, packets, bytes uint64) {
	last := conntrack.NoSlot
	for ; slots.More(); slots = slots.Rest() {
		slot := slots.First()
		if slot != last {
			w.counters.Add(slot, hits, packets, bytes)
		}
		last = slot
	}
}
