package dataplane

import (
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// datagram is what the oracle remembers of a fragmented one: every byte that it saw, and
// what became of the first fragment.
type datagram struct {
	expires   time.Duration
	seen      map[int]bool // bytes
	end       int          // of the whole; 0: not known
	headerEnd int
	judged    bool        // the first fragment was there
	drop      packet.Drop // of it, or what is wrong with the datagram
	poisoned  bool
	waiting   [][]byte // frames that came before the first fragment

	belongs    relation
	flow       conntrack.Key
	to         int
	generation int
	rules      []topology.RuleKey
}

// datagramKey is what the fragments of a datagram have in common.
type datagramKey struct {
	src, dst packet.Addr
	id       uint32
	proto    uint8 // IPv4 alone
	at       int   // attachment
}

func (d *datagram) complete() bool { return d.end > 0 && len(d.seen) == d.end }

func (d *datagram) poison(why packet.Drop) {
	d.drop, d.poisoned, d.rules = why, true, nil
}

// maxRuns is how many separate runs of bytes are followed.
const maxRuns = 8

// add notes the bytes of a fragment, unless they contradict what is known.
func (d *datagram) add(f *packet.Fragment) packet.Drop {
	for i := range d.seen {
		if int(f.Start) <= i && i < int(f.End) || !f.More && i >= int(f.End) {
			return packet.DropFragmentOverlap
		}
	}
	if d.end > 0 && (!f.More || int(f.End) > d.end) {
		return packet.DropFragmentOverlap
	}
	for i := int(f.Start); i < int(f.End); i++ {
		d.seen[i] = true
	}
	runs := 0
	for i := range d.seen {
		if !d.seen[i-1] {
			runs++
		}
	}
	if runs > maxRuns {
		for i := int(f.Start); i < int(f.End); i++ {
			delete(d.seen, i)
		}
		return packet.DropFragmentGaps
	}
	if !f.More {
		d.end = int(f.End)
	}
	return packet.NotDropped
}

// findDatagram forgets one that is over; what waited for it waited in vain.
func (o *oracle) findDatagram(k datagramKey) *datagram {
	d := o.datagrams[k]
	if d != nil && o.now >= d.expires {
		o.inVain += len(d.waiting)
		delete(o.datagrams, k)
		return nil
	}
	return d
}

func (o *oracle) newDatagram(k datagramKey) *datagram {
	d := &datagram{expires: o.now + 2*time.Second, seen: map[int]bool{}}
	o.datagrams[k] = d
	return d
}

// firstFragment reports whether the packet is to be judged as the first fragment of a datagram.
func (o *oracle) firstFragment(k datagramKey, e *expectation) bool {
	d := o.findDatagram(k)
	switch {
	case d == nil, d.judged && !d.poisoned && (d.complete() || d.drop != packet.NotDropped):
		d = o.newDatagram(k)
	case d.judged:
		d.poison(packet.DropFragmentOverlap)
		e.drop = packet.DropFragmentOverlap
		return false
	}
	d.headerEnd = int(e.packet.Fragment.HeaderEnd)
	d.add(&e.packet.Fragment)
	e.first = d
	return true
}

// decided leaves what became of a first fragment for the later ones, and returns what must
// become of those that have waited for it.
func (o *oracle) decided(e *expectation) (others []expectation) {
	d := e.first
	if d == nil {
		return nil
	}
	d.judged, d.drop, d.to, d.generation, d.belongs = true, e.drop, e.to, o.generation, e.belongs
	switch {
	case e.drop == packet.DropRule, e.drop == packet.NotDropped && e.belongs == noFlow:
		d.rules = e.rules
	case e.drop == packet.NotDropped:
		d.flow = e.key
	}
	frames := d.waiting
	d.waiting = nil
	for _, frame := range frames {
		later := expectation{frame: frame}
		later.drop = o.decode(frame, &later.packet)
		o.followFirst(d, &later)
		others = append(others, later)
	}
	return others
}

func (o *oracle) laterFragment(k datagramKey, e *expectation) {
	d := o.findDatagram(k)
	switch {
	case d == nil && o.mayWait(k.at):
		d = o.newDatagram(k)
		fallthrough
	case d != nil && !d.judged && o.mayWait(k.at):
		d.waiting = append(d.waiting, e.frame)
		e.waits = true
	case d == nil, !d.judged:
		e.drop = packet.DropFragmentNoFirst
	default:
		o.followFirst(d, e)
	}
}

// followFirst gives a later fragment the first one's verdict.
func (o *oracle) followFirst(d *datagram, e *expectation) {
	f := &e.packet.Fragment
	switch {
	case d.drop != packet.NotDropped:
		e.drop, e.rules = d.drop, d.rules
		return
	case d.complete(): // the identification is used again, and its first fragment is missing
		e.drop = packet.DropFragmentNoFirst
		return
	case int(f.Start) < d.headerEnd:
		e.drop = packet.DropFragmentHeader
	default:
		e.drop = d.add(f)
	}
	switch e.drop {
	case packet.NotDropped:
	case packet.DropFragmentGaps:
		return
	default:
		d.poison(e.drop)
		return
	}
	if d.belongs == noFlow {
		if d.generation != o.generation {
			e.drop = packet.DropFragmentNoFirst
			return
		}
		e.to, e.rules = d.to, d.rules
		return
	}
	flow, side := o.lookup(d.flow)
	if flow == nil { // with it its fragments end
		e.drop = packet.DropFragmentNoFirst
		return
	}
	if d.belongs == inFlow {
		flow.Count(side, &e.packet)
	}
	e.to, e.rules = int(flow.keys[1-side].Zone), flow.rules
}

// quotedDatagram is the flow of a datagram that went where the error comes from, of
// which a later fragment is quoted.
func (o *oracle) quotedDatagram(from int, quoted *packet.Quote) (packet.Tuple, bool) {
	for at := range enginetest.NumPlaces {
		d := o.findDatagram(datagramKey{quoted.Src, quoted.Dst, quoted.Fragment.ID, quoted.Fragment.Proto, at})
		if d != nil && d.judged && !d.poisoned && d.drop == packet.NotDropped && d.to == from {
			return d.flow.Tuple, d.belongs == inFlow
		}
	}
	return packet.Tuple{}, false
}

// waits is the number of fragments from an attachment that wait for their first one.
func (o *oracle) waits(at int) (n int) {
	for k, d := range o.datagrams {
		if k.at == at {
			n += len(d.waiting)
		}
	}
	return n
}

// mayWait reports whether there is room for another: half of all is an attachment's share.
func (o *oracle) mayWait(at int) bool {
	all := 0
	for other := range enginetest.NumPlaces {
		all += o.waits(other)
	}
	return all < o.hold && o.waits(at) < (o.hold+1)/2
}

// forgetDatagrams is what the table does now and then: what is over gives up what waits.
func (o *oracle) forgetDatagrams() {
	for k := range o.datagrams {
		o.findDatagram(k)
	}
}
