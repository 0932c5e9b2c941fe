package conntrack

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nsgd/nsgd/dataplane/packet"
)

const (
	// adoptAtOnce is how many records an adopter works on at a time, so that it waits for memory once for all of them.
	adoptAtOnce = 64
	// adoptShare is how many records an adopter takes in a row. No adopter starts for less than one share.
	adoptShare = 1 << 13
	// maxAdopters bounds the adopters, as each has a count for every zone.
	maxAdopters = 16
)

// adopter takes over a part of the records of an image, beside others. Each counts by itself: shared counts would have
// the adopters wait for each other.
type adopter struct {
	t *Table
	o *Options

	flows, translated int64
	lost              [NumLosses]int
	classes           [NumClasses]int64
	zones             []int32 // live flows by zone
	free, ready       chain
	doubles           []double
}

// chain is a list of records through their next.
type chain struct {
	first, last uint32 // number+1; 0: it is empty
	length      int64
}

// double is a flow that has a key in common with another one. linked says that its other key is in the index.
type double struct {
	f      Flow
	a, b   uint64 // hashes of its keys
	linked bool
}

// adopt takes over the records of the image: it builds index, counts and free list from them. Whatever the last
// process was about to do when it ended, each flow is there once, or not at all. It works on as many processors as it
// gets: packets wait for its end.
func (t *Table) adopt(o *Options) {
	for i := range t.counts[:t.counters.Load()] {
		c := &t.counts[i]
		for class := range c.live {
			c.live[class].Store(0)
		}
		c.translated.Store(0)
	}
	used := t.used.Load()
	adopters := make([]adopter, max(1, min(runtime.GOMAXPROCS(0), maxAdopters, int(used/adoptShare))))
	var claimed atomic.Uint32
	var all sync.WaitGroup
	for i := range adopters {
		a := &adopters[i]
		all.Go(func() {
			a.t, a.o, a.zones = t, o, make([]int32, len(t.zones))
			for {
				first := claimed.Add(adoptShare) - adoptShare
				if first >= used {
					return
				}
				a.take(first, min(first+adoptShare, used))
			}
		})
	}
	all.Wait()
	for i := range adopters {
		t.join(&adopters[i])
	}
	t.separate(adopters)
	for zone := range t.zones {
		if t.zones[zone].Load() > 0 && t.limited(uint16(zone)) {
			t.busyZones.Add(1)
		}
	}
}

// take takes over the records from first on, before end.
func (a *adopter) take(first, end uint32) {
	t := a.t
	type found struct {
		f               Flow
		original, reply Key
		a, b            uint64
	}
	var batch [adoptAtOnce]found
	for ; first < end; first += adoptAtOnce {
		n := 0
		for f := Flow(first); f < Flow(min(first+adoptAtOnce, end)); f++ {
			if !a.adoptable(f) {
				continue
			}
			x := &batch[n]
			x.f = f
			x.original, x.reply = t.keys(f)
			x.a, x.b = t.secrets.hash(&x.original), t.secrets.hash(&x.reply)
			n++
		}
		for i := range batch[:n] { // close together, so that the processor waits for many at once
			t.index.heads[batch[i].a&t.index.mask].Load()
			t.index.heads[batch[i].b&t.index.mask].Load()
		}
		for i := range batch[:n] {
			x := &batch[i]
			linked := x.original != x.reply
			if linked && !t.linkNew(x.f, Reply, &x.reply, x.b) {
				a.doubles = append(a.doubles, double{x.f, x.a, x.b, false})
				continue
			}
			if !t.linkNew(x.f, Original, &x.original, x.a) {
				a.doubles = append(a.doubles, double{x.f, x.a, x.b, linked})
				continue
			}
			a.count(x.f, &x.reply)
		}
	}
}

// linkNew is link beside other adopters. It is false, and nothing is linked, where another flow has the key. Who links
// that one at the same time changes the same head, so that one of the two sees the other.
func (t *Table) linkNew(f Flow, d Direction, k *Key, hash uint64) bool {
	head := &t.index.heads[hash&t.index.mask]
	for {
		first := head.Load()
		if first != 0 {
			if _, _, _, taken := t.find(k, hash); taken {
				return false
			}
		}
		t.records[f].links[d].Store(first)
		e := newRef(f, d, hash)
		if first == 0 {
			e |= refLast
		}
		if head.CompareAndSwap(first, uint32(e)) {
			return true
		}
	}
}

// separate decides about the flows that others have a key of, once all others are in the index.
func (t *Table) separate(adopters []adopter) {
	var doubles []double
	for i := range adopters {
		doubles = append(doubles, adopters[i].doubles...)
	}
	slices.SortFunc(doubles, func(x, y double) int { return cmp.Compare(x.f, y.f) })
	for _, x := range doubles {
		if x.linked {
			t.unlink(x.f, Reply, x.b)
		}
	}
	last := adopter{t: t, zones: make([]int32, len(t.zones))}
	for _, x := range doubles {
		if !last.makeWay(x.f, x.a, x.b) {
			last.lose(x.f, LostDouble)
			continue
		}
		original, reply := t.keys(x.f)
		if original != reply {
			t.link(x.f, Reply, x.b)
		}
		t.link(x.f, Original, x.a)
		last.count(x.f, &reply)
	}
	t.join(&last)
}

// makeWay reports whether a flow can have its keys. A process may have been killed between the end of one flow and the
// other's beginning in its place, so that both have them: the later one goes on.
func (a *adopter) makeWay(f Flow, hash, replyHash uint64) bool {
	t := a.t
	original, reply := t.keys(f)
	for _, k := range []struct {
		key  *Key
		hash uint64
	}{{&original, hash}, {&reply, replyHash}} {
		other, _, _, taken := t.find(k.key, k.hash)
		if !taken {
			continue
		}
		if int32(t.records[f].created-t.records[other].created) <= 0 {
			return false
		}
		oa, ob := t.hashes(other)
		t.unpublish(other, oa, ob)
		a.uncount(other)
		a.lose(other, LostDouble)
	}
	return true
}

// adoptable makes the record of a flow one that nobody waits for. It is false for one that does not go on.
func (a *adopter) adoptable(f Flow) bool {
	t, o := a.t, a.o
	r := &t.records[f]
	s := status(r.status.Load())
	switch {
	case !s.live():
		a.bequeathed(f)
		return false
	case s&statusWaits != 0:
		a.lose(f, LostWaiting)
		return false
	case s.class() >= NumClasses || s.class().Protocol() != protocolOf(r.proto) || int(r.zone) >= len(t.zones) || int(r.replyZone) >= len(t.zones) || !r.loadSlots().below(o.Slot):
		a.lose(f, LostDamaged)
		return false
	}
	if !t.adoption.Copied && (o.zoneNow(r.zone) == NoZone || o.zoneNow(r.replyZone) == NoZone) {
		a.lose(f, LostZone)
		return false
	}
	for _, stale := range []*atomic.Uint32{&r.successor, &r.next, &r.generation} {
		if stale.Load() != 0 {
			stale.Store(0)
		}
	}
	for d := range r.tallies {
		r.tallies[d].adopt()
	}
	return true
}

func protocolOf(proto uint8) string {
	switch proto {
	case packet.ProtoTCP:
		return "tcp"
	case packet.ProtoUDP:
		return "udp"
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return "icmp"
	}
	return "other"
}

// below reports that a packet can be counted on each of the slots.
func (s Slots) below(valid func(uint32) bool) bool {
	for ; s.More(); s = s.Rest() {
		if valid != nil && !valid(s.First()) {
			return false
		}
	}
	return true
}

// lose ends a flow that does not go on.
func (a *adopter) lose(f Flow, why Loss) {
	r := &a.t.records[f]
	a.lost[why]++
	r.status.Store(r.status.Load() &^ statusLive)
	if why == LostDamaged || !status(r.status.Load()).class().Cut() { // that has ended before
		a.t.counts[0].ended[EndFlushed].Add(1)
	}
	if why == LostDamaged { // nothing can be told of it
		a.t.blank(f)
		a.free.push(a.t, f)
		return
	}
	if why == LostZone { // another attachment may have its zone: what hears of its end must not take it for that
		r.generation.Store(0)
	}
	a.bequeathed(f)
}

// bequeathed puts a dead record where it belongs: it is free, or OnEnd has not heard of its flow.
func (a *adopter) bequeathed(f Flow) {
	r := &a.t.records[f]
	if r.status.Load() == 0 {
		a.t.blank(f)
		a.free.push(a.t, f)
		return
	}
	for d := range r.tallies {
		r.tallies[d].adopt()
	}
	a.ready.push(a.t, f)
}

func (c *chain) push(t *Table, f Flow) {
	t.records[f].next.Store(c.first)
	c.first = uint32(f + 1)
	if c.last == 0 {
		c.last = c.first
	}
	c.length++
}

// before puts the chain in front of the record of a number+1, and returns its first one.
func (c *chain) before(t *Table, next uint32) uint32 {
	if c.first == 0 {
		return next
	}
	t.records[c.last-1].next.Store(next)
	return c.first
}

// count adds a flow that goes on to the counts.
func (a *adopter) count(f Flow, reply *Key) {
	r := &a.t.records[f]
	class := status(r.status.Load()).class()
	a.flows++
	a.zones[r.zone]++
	if r.replyZone != r.zone {
		a.zones[r.replyZone]++
	}
	a.classes[class]++
	if r.marks&Translated != 0 {
		a.translated++
	}
	if class.Cut() {
		a.t.countCut(r, 1)
	}
	if r.marks&Shared != 0 { // no port has a map yet
		k := portKey(reply)
		a.t.portCount(&k).flows.Add(1)
	}
}

// uncount takes out of the counts what any adopter has added.
func (a *adopter) uncount(f Flow) {
	r := &a.t.records[f]
	class := status(r.status.Load()).class()
	a.flows--
	a.zones[r.zone]--
	if r.replyZone != r.zone {
		a.zones[r.replyZone]--
	}
	a.classes[class]--
	if r.marks&Translated != 0 {
		a.translated--
	}
	if class.Cut() {
		a.t.countCut(r, -1)
	}
	a.t.portChanges(f, -1)
}

// join adds what an adopter has counted to the table's counts, and its lists to the table's.
func (t *Table) join(a *adopter) {
	t.adoption.Flows += int(a.flows)
	for why, n := range a.lost {
		t.adoption.Lost[why] += n
	}
	t.live.Add(a.flows)
	for zone, n := range a.zones {
		if n != 0 {
			t.zones[zone].Add(int64(n))
		}
	}
	for class, n := range a.classes {
		t.counts[0].live[class].Add(n)
	}
	t.counts[0].translated.Add(a.translated)
	t.free.Store(uint64(a.free.before(t, uint32(t.free.Load()))))
	t.ready = a.ready.before(t, t.ready)
	t.waiting.Add(a.ready.length)
}
