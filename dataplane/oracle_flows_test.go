package dataplane

import (
	"fmt"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/conntrack/conntracktest"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// lookup finds the flow of a packet that comes in under a key, and from which side.
func (o *oracle) lookup(k conntrack.Key) (*oracleFlow, int) {
	f := o.flows[k]
	if f == nil || f.cut > 0 || f.Over(o.now) {
		return nil, 0
	}
	if f.keys[conntracktest.Original] == k {
		return f, conntracktest.Original
	}
	return f, conntracktest.Reply
}

func (o *oracle) remove(f *oracleFlow) {
	for _, k := range f.keys {
		if o.flows[k] == f {
			delete(o.flows, k)
		}
	}
}

// alive are the flows that are not over.
func (o *oracle) alive() map[*oracleFlow]bool {
	alive := map[*oracleFlow]bool{}
	for _, f := range o.flows {
		if !f.over(o.now) {
			alive[f] = true
			if f.next != nil && !f.next.Over(o.now) {
				alive[f.next] = true
			}
		}
	}
	return alive
}

// orphans are how many flows wait in place of one that is over. They take up room until they are met.
func (o *oracle) orphans() (n int) {
	for k, f := range o.flows {
		if k == f.keys[0] && f.over(o.now) && f.next != nil && !f.next.Over(o.now) {
			n++
		}
	}
	return n
}

// settle completes an expectation by what is the flow table's own choice: whether it
// refused a flow for want of room. The flows that it evicted are gone already.
func (o *oracle) settle(e *expectation, refused bool) {
	if e.ends != nil {
		o.remove(e.ends)
	}
	if e.begins == nil {
		return
	}
	if refused {
		e.refuse(packet.DropFlowLimit)
		return
	}
	if old := e.succeeds; old != nil && o.flows[old.keys[0]] == old {
		if next := old.next; next != nil && next.keys[0] == e.key && !next.stale && !next.Over(o.now) && !next.Succeeds(conntracktest.Original, &e.packet) {
			e.drop = next.Pass(conntracktest.Original, &e.packet, o.now) // it was sent once more
			e.hit, e.rules, e.begins = false, next.rules, nil
			return
		}
		old.next = e.begins
		return
	}
	original, reply := e.begins.keys[0], e.begins.keys[1]
	if f, _ := o.lookup(reply); f != nil { // the replies would belong to it
		e.refuse(packet.DropFlowConflict)
		return
	}
	for _, k := range e.begins.keys {
		if f := o.flows[k]; f != nil { // over
			o.remove(f)
		}
	}
	o.flows[original], o.flows[reply] = e.begins, e.begins
}

// refuse: an allowed packet that gets no flow counts for no rule.
func (e *expectation) refuse(why packet.Drop) {
	e.drop, e.rules, e.begins = why, nil, nil
}

// count books the packet on the rules that let it pass or denied it.
func (o *oracle) count(e *expectation) {
	for _, key := range e.rules {
		c := o.rules[key]
		if e.hit {
			c.Hits++
		}
		c.Packets += uint64(e.packet.Segments)
		c.Bytes += uint64(e.packet.WireLen)
		o.rules[key] = c
	}
}

// readdress ends the flows of addresses that a new policy has elsewhere, and gives the others
// its timeout.
func (o *oracle) readdress() {
	for f := range o.alive() {
		if f.stale = true; f.cut > 0 {
			for _, k := range f.keys {
				if !o.owns(int(k.Zone), k.Src.Netip()) {
					o.remove(f)
				}
			}
			continue
		}
		if f.Established = 4 * time.Minute; o.set.VirtualNetworks[0].FlowTimeout > 0 {
			f.Established = o.set.VirtualNetworks[0].FlowTimeout
		}
		for _, k := range f.keys {
			if !o.owns(int(k.Zone), k.Src.Netip()) {
				o.remove(f)
			}
		}
	}
}

// limits are those of the flow table: of all flows, and of those of one NIC.
type limits struct{ all, nic int }

func limited(zone uint16) bool { return enginetest.Specs[zone].Kind == topology.NetworkInterface }

// full counts the limits that stand in the way of a flow between two zones: none of
// the flows there is over.
func (l limits) full(alive map[*oracleFlow]bool, slack int, begins *oracleFlow) (full []map[*oracleFlow]bool) {
	if len(alive)+slack >= l.all {
		full = append(full, alive)
	}
	for i, k := range begins.keys {
		if !limited(k.Zone) || i == 1 && k.Zone == begins.keys[0].Zone {
			continue
		}
		touching := map[*oracleFlow]bool{}
		for f := range alive {
			if f.keys[0].Zone == k.Zone || f.keys[1].Zone == k.Zone {
				touching[f] = true
			}
		}
		if len(touching)+slack >= l.nic {
			full = append(full, touching)
		}
	}
	return full
}

// fit are the flows that a full table may end for one that begins: of the zones that have their share,
// what nobody misses, or anything if that one's zones have less. What waits or was cut (slack) takes up
// room in zones that the oracle does not know, and then the answer is the larger one.
func (l limits) fit(alive map[*oracleFlow]bool, slack int, begins *oracleFlow) map[*oracleFlow]bool {
	flows := map[uint16]int{}
	for f := range alive {
		for i, k := range f.keys {
			if limited(k.Zone) && (i == 0 || k.Zone != f.keys[0].Zone) {
				flows[k.Zone]++
			}
		}
	}
	busy := len(flows)
	for i, k := range begins.keys {
		if limited(k.Zone) && flows[k.Zone] == 0 && (i == 0 || k.Zone != begins.keys[0].Zone) {
			busy++
		}
	}
	share := l.all / max(busy, 1)
	above := func(f *oracleFlow, more int) bool {
		a, b := f.keys[0].Zone, f.keys[1].Zone
		return !limited(a) && !limited(b) || limited(a) && flows[a]+more >= share || limited(b) && flows[b]+more >= share
	}
	fit := map[*oracleFlow]bool{}
	for f := range alive {
		if above(f, slack) && (f.cut > 0 || f.Evictable() || !above(begins, 0)) {
			fit[f] = true
		}
	}
	return fit
}

// evicted finds the flows that the table ended to make room for another.
func (o *oracle) evicted(l limits, e *expectation, table *conntrack.Table, n int) (gone []*oracleFlow, err error) {
	alive := o.alive()
	if e.ends != nil {
		delete(alive, e.ends)
	}
	if e.begins == nil {
		return nil, fmt.Errorf("%d flows evicted for a packet that begins none", n)
	}
	if full := l.full(alive, o.orphans(), e.begins); n > len(full) {
		return nil, fmt.Errorf("%d flows evicted at %d limits", n, len(full))
	}
	type entry struct {
		key   conntrack.Key
		waits bool
	}
	fit := map[*oracleFlow]bool{}
	if len(alive)+o.orphans() >= l.all {
		fit = l.fit(alive, len(alive), e.begins)
	}
	left := map[entry]bool{}
	for f := range table.Flows {
		left[entry{f.Key, f.Waits}] = true
	}
	slack := o.orphans()
	for f := range alive {
		waits := o.flows[f.keys[0]] != f && o.flows[f.keys[1]] != f
		there := left[entry{f.keys[0], waits}]
		if f == e.succeeds && !left[entry{e.key, true}] { // it made room for the one that was to wait
			there = false
		}
		if there {
			continue
		}
		if f.cut > 0 {
			slack++
			o.remove(f)
			continue
		}
		if waits { // its end is counted only if the other flow is there still
			slack++
			for _, old := range o.flows {
				if old.next == f {
					old.next = nil
				}
			}
			continue
		}
		if !f.Evictable() && !fit[f] {
			return nil, fmt.Errorf("%v was evicted", f.keys[0])
		}
		gone = append(gone, f)
	}
	if e.succeeds != nil && e.succeeds.next != nil && len(gone) < n && slack == 0 {
		e.succeeds.next = nil // it made room for the SYN that began it, sent once more
		slack++
	}
	if len(gone) > n || len(gone)+slack < n {
		return nil, fmt.Errorf("%d flows evicted, %d are gone", n, len(gone))
	}
	return gone, nil
}

// mayRefuse: there was no room for a flow, and no flow fit to be evicted, now or earlier in the tick.
func (o *oracle) mayRefuse(l limits, e *expectation) error {
	if e.begins == nil {
		return fmt.Errorf("a packet that begins no flow")
	}
	alive := o.alive()
	delete(alive, e.ends)
	full := l.full(alive, o.orphans(), e.begins)
	if tick := ticks(o.now); len(full) > 0 && o.fruitless == tick {
		return nil
	} else if len(full) > 0 {
		o.fruitless = tick
	}
	for i, flows := range full {
		fit := false
		for f := range flows {
			fit = fit || f.cut > 0 || f.Evictable()
		}
		if whole := len(alive)+o.orphans() >= l.all; i == 0 && whole {
			fit = len(l.fit(alive, 0, e.begins)) > 0
		}
		if !fit {
			return nil
		}
	}
	return fmt.Errorf("there is room, or a flow to evict")
}
