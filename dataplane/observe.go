package dataplane

import (
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/tun"
)

// headLen is how much of a packet the steps may write to: the headers, and those that an
// ICMP error quotes.
const headLen = 256

// observation is what a packet's passage notes for watchers.
type observation struct {
	event   watch.Event
	counted bool // rules, or none, have let the packet pass or dropped it
	// outside is how many segments had been out of their window before this packet.
	outside uint64
	judged  bool                      // it has begun a flow, or was let pass or dropped by itself
	slots   [maxNotes]conntrack.Slots // the rules, the first notes of them
	notes   uint8
	head    [headLen]byte
	headLen int
}

// maxNotes is how often rules are noted of one packet: of the flow at its sender's end, and of that at its receiver's.
const maxNotes = 2

// beginWatch begins a burst.
func (w *worker) beginWatch() {
	w.watchers, w.watched, w.decisions = w.engine.watchers.Now(), 0, w.engine.watchers.Decisions()
}

// watchGroup begins a group of packets that were read. Its time is that of an instant between
// their reading and their writing, so an answer is later than what it answers, whichever worker has it.
func (w *worker) watchGroup() {
	if w.watchers == nil || w.watchers.DecidedOnly {
		return
	}
	for _, sub := range w.watchers.Subscriptions {
		sub.Begin(w.index)
	}
	w.watched = time.Now().UnixNano()
	for _, sub := range w.watchers.Subscriptions {
		sub.Since(w.index, w.watched)
	}
}

// instant is the group's time for watchers: of its first packet that they are told of, where nobody has asked for an earlier one.
func (w *worker) instant() int64 {
	if w.watched == 0 {
		w.watched = time.Now().UnixNano()
	}
	return w.watched
}

// endWatch ends a burst.
func (w *worker) endWatch() {
	if w.decisions != nil {
		w.decisions.Publish(w.index)
	}
	if w.watchers == nil || w.watchers.DecidedOnly {
		return
	}
	for _, sub := range w.watchers.Subscriptions {
		sub.End(w.index)
	}
}

// observe notes what the steps may change. Where packets of live flows are not told, as for flow logs and the history,
// that is next to nothing: most packets are such.
func (x *passage) observe() {
	o := &x.observed
	x.to, o.counted, o.judged, o.notes = -1, false, false, 0
	o.event.Packet.Tuple = x.packet.Tuple
	if x.w.watchers.Snap {
		o.headLen = copy(o.head[:], x.frame[tun.HeaderLen:])
	}
	if !x.w.watchers.DecidedOnly {
		x.observePacket()
	}
}

// observePacket notes the packet, except for its tuple and the rules.
func (x *passage) observePacket() {
	w, e := x.w, &x.observed.event
	sent := e.Packet.Tuple
	e.Packet = x.packet
	e.Packet.Tuple = sent
	e.Time, e.From, e.Length = w.instant(), int32(x.from.Index), uint32(len(x.frame)-tun.HeaderLen)
	x.observed.outside = w.flows.OutOfWindow()
	e.Standing, e.Direction, e.Translated, e.Snapped = watch.NoFlow, conntrack.Original, false, 0
}

// observeSlots notes the rules that a packet counts on.
func (x *passage) observeSlots(slots conntrack.Slots, hits uint64) {
	o := &x.observed
	if !o.counted {
		o.counted, o.judged = true, hits > 0
	}
	if int(o.notes) < len(o.slots) {
		o.slots[o.notes] = slots
		o.notes++
	}
}

// tell tells the watchers what became of the packet, unless it waits for its datagram's first fragment.
func (x *passage) tell(drop packet.Drop) {
	w, o, e := x.w, &x.observed, &x.observed.event
	if drop == packet.NotDropped && (x.to < 0 || w.watchers.DroppedOnly || w.watchers.DecidedOnly && (!o.judged || x.relation != inFlow)) {
		return
	}
	if w.watchers.DecidedOnly {
		if w.watchers.Spent(w.instant(), drop != packet.NotDropped) {
			return
		}
		x.observePacket()
	}
	p := &x.packet
	e.Generation, e.Drop, e.To = x.snapshot.Generation, drop, int32(x.to)
	e.Packet.Segments, e.Packet.WireLen = p.Segments, p.WireLen
	if p.Tuple != e.Packet.Tuple {
		e.Translated, e.Arrives = true, p.Tuple
	}
	if drop != packet.NotDropped && x.to < 0 {
		x.wouldGo(e)
	}
	e.N = 0
	for _, slots := range o.slots[:o.notes] {
		e.Note(slots)
	}
	x.setStanding(e)
	e.OutOfWindow = !w.watchers.DecidedOnly && w.flows.OutOfWindow() > o.outside
	var head, rest []byte
	if w.watchers.Snap {
		head, rest = o.head[:o.headLen], x.frame[tun.HeaderLen+o.headLen:]
	}
	for _, sub := range w.watchers.Subscriptions {
		if sub.Wants(e) {
			sub.Put(w.index, e, head, rest)
		}
	}
}

// decided gives a packet to whoever judges it again: one that has begun a flow, or that the policy drops. Nothing has
// rewritten it yet.
func (x *passage) decided(drop packet.Drop) {
	if d := x.w.decisions.Put(x.w.index); d != nil {
		d.Packet, d.Generation, d.From, d.Drop = x.packet, x.snapshot.Generation, int32(x.from.Index), drop
	}
}

// wouldGo notes where a dropped packet was to go, if it was asked and is somewhere.
func (x *passage) wouldGo(e *watch.Event) {
	if e.Packet.Dst == (packet.Addr{}) {
		return
	}
	var d verdict.Decision
	to, ok := d.WouldGo(x.snapshot, x.from, &e.Packet.Tuple)
	if !ok {
		return
	}
	e.To = int32(to)
	// A packet that is denied was not rewritten yet, and the addresses that were sent lead elsewhere.
	if e.Drop == packet.DropRule && d.Way.Translated && d.Way.Ports == nil {
		e.Translated, e.Arrives = true, d.Way.Arrives
	}
}

// setStanding says how the packet stands to a flow. It looks the flow up once more to find the
// direction, so that packets which nobody watches do not pay for it.
func (x *passage) setStanding(e *watch.Event) {
	o, key := &x.observed, x.flowKey()
	switch {
	case e.Packet.Fragment.IsLater():
		if !o.counted || !x.datagram.InFlow {
			return
		}
		e.Standing, key = watch.InFlow, &x.datagram.Flow
		if x.datagram.Related {
			e.Standing = watch.Related
		}
	case e.Drop == packet.DropTCPState:
		e.Standing = watch.InFlow
	case !o.counted || x.relation == noFlow:
		return
	case x.relation == related:
		e.Standing = watch.Related
	case !o.judged:
		e.Standing = watch.InFlow
	case e.Drop == packet.NotDropped || e.Drop == packet.DropTransmit || e.Drop == packet.DropSlowReceiver:
		e.Standing = watch.Begins
		return
	default:
		return
	}
	if _, d, ok := x.w.flows.Lookup(key, x.w.now); ok {
		e.Direction = d
	}
}

// Watch gives a subscription to what becomes of packets, until its Close. The error is a
// *watch.Error where the filter names what is not there, watch.ErrWatchers, or about the options.
func (e *Engine) Watch(o watch.Options) (*watch.Subscription, error) {
	return e.watchers.Watch(len(e.workers), o, e.WatchNames)
}

// Judge gives the packets about which the policy decides to one reader at a time, until Close. There is room for so many of each
// worker. The error is watch.ErrDecisions.
func (e *Engine) Judge(packets int) (*watch.Decisions, error) {
	return e.watchers.Judge(len(e.workers), packets)
}

// WatchNames are the names that a filter may name now.
func (e *Engine) WatchNames() *watch.Names { return e.watchNames(e.Snapshot()) }

func (e *Engine) watchNames(s *topology.Snapshot) *watch.Names {
	n := &watch.Names{}
	for _, a := range s.Attachments {
		name := a.Name
		if a.Kind == topology.Vacant {
			name = "" // nobody asks for it
		}
		n.Attachments = append(n.Attachments, name)
	}
	for _, k := range e.registry.Keys() {
		n.Rules = append(n.Rules, watch.RuleName{NetworkSecurityGroup: k.NetworkSecurityGroup, Rule: k.Rule})
	}
	return n
}
