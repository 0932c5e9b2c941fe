package conntrack

import (
	"math"
	"sync/atomic"
)

// A zone may take all room that is free. When the table is full, room is made at the cost of the zones
// that have more than their share, which is the table's limit divided by the zones with flows. Who has
// less than a share gets room whatever the others' flows are; who has more only gets what nobody misses.
//
// A flow that was cut remembers a denial, which a flood must not lift. So it makes room as an established
// flow does. Those beyond a part of a zone's flows make room for others, or a denial of many would fill the
// zone with them.

// reserve takes a place in the table and in both zones. It evicts a flow where one is full.
func (w *Worker) reserve(zone, replyZone uint16, now Tick) (Refusal, bool) {
	t := w.table
	if takePlace(&t.live, t.max) == 0 && (!w.evictFor(zone, replyZone, now) || takePlace(&t.live, t.max) == 0) {
		return RefusedTable, false
	}
	if !w.reserveIn(zone, now) {
		t.live.Add(-1)
		return RefusedZone, false
	}
	if replyZone != zone && !w.reserveIn(replyZone, now) {
		t.live.Add(-1)
		t.leave(zone)
		return RefusedZone, false
	}
	return 0, true
}

func (t *Table) unreserve(zone, replyZone uint16) {
	t.live.Add(-1)
	t.leave(zone)
	if replyZone != zone {
		t.leave(replyZone)
	}
}

func (w *Worker) reserveIn(zone uint16, now Tick) bool {
	t := w.table
	return t.enter(zone) || w.evictIn(zone, now) && t.enter(zone)
}

// takePlace counts one more below a limit, and returns the new count; 0: there is no room.
func takePlace(count *atomic.Int64, limit int64) int64 {
	for {
		n := count.Load()
		if n >= limit {
			return 0
		}
		if count.CompareAndSwap(n, n+1) {
			return n + 1
		}
	}
}

// enter takes a place in a zone, leave gives it back.
func (t *Table) enter(zone uint16) bool {
	n := takePlace(&t.zones[zone], t.zoneMax[zone].Load())
	if n == 1 && t.limited(zone) {
		t.busyZones.Add(1)
	}
	return n > 0
}

func (t *Table) leave(zone uint16) {
	if t.zones[zone].Add(-1) == 0 && t.limited(zone) {
		t.busyZones.Add(-1)
	}
}

func (t *Table) limited(zone uint16) bool { return t.zoneMax[zone].Load() != math.MaxInt64 }

// share is how many flows a zone may keep when others need room. A zone that asks counts too.
func (t *Table) share(zone, replyZone uint16) int64 {
	n := t.busyZones.Load()
	if t.limited(zone) && t.zones[zone].Load() == 0 {
		n++
	}
	if replyZone != zone && t.limited(replyZone) && t.zones[replyZone].Load() == 0 {
		n++
	}
	return t.max / max(n, 1)
}

// has reports that a zone has its share.
func (t *Table) has(zone uint16, share int64) bool {
	return t.limited(zone) && t.zones[zone].Load() >= share
}

// above reports that an end of a flow has its share, or that no end has one.
func (t *Table) above(zone, replyZone uint16, share int64) bool {
	return t.has(zone, share) || t.has(replyZone, share) || !t.limited(zone) && !t.limited(replyZone)
}

// Flows that were cut stay while they are at most one in cutPart of their zone's flows.
const cutPart = 4

// crowded reports that flows that were cut take more of a zone than they may.
func (t *Table) crowded(zone uint16) bool {
	return t.zoneCuts[zone].Load()*cutPart > t.zones[zone].Load()
}

// crowdedAbove is crowded for an end for which a flow is above.
func (t *Table) crowdedAbove(r *record, share int64) bool {
	shareless := !t.limited(r.zone) && !t.limited(r.replyZone)
	return t.crowded(r.zone) && (shareless || t.has(r.zone, share)) || t.crowded(r.replyZone) && (shareless || t.has(r.replyZone, share))
}

// countCut counts a flow that was cut, or that is one no more.
func (t *Table) countCut(r *record, by int64) {
	t.cuts.Add(by)
	t.zoneCuts[r.zone].Add(by)
	if r.replyZone != r.zone {
		t.zoneCuts[r.replyZone].Add(by)
	}
}

// The search for a victim stops at evictSample flows that are fit, but not before it has
// looked at evictLeast: in a flood the first few will do. It looks at evictLook at most, and at
// evictScan for a zone below its share.
//
// In a full zone it goes through evictScan records; it may miss a zone with few flows among
// many others. In a full table at most the reserve is unused, so the reserve and evictLook
// records are certain to give enough flows.
const (
	evictSample = 4
	evictLeast  = 8
	evictLook   = 64
	evictScan   = 512
)

const (
	passedOver = -1 // the rank of flows that are not counted as looked at
	lastResort = 1  // the rank of flows that do not end the search
)

// evictIn makes room in a full zone. A search without a result is not repeated in the same tick: a
// flood into a full zone costs no more than a look at it.
func (w *Worker) evictIn(zone uint16, now Tick) bool {
	t := w.table
	if t.barren[zone].Load() == barrenAt(now) {
		return false
	}
	crowded := t.crowded(zone)
	found := w.evict(now, evictScan, evictLook, func(r *record, s status) int {
		if !r.touches(zone) {
			return passedOver
		}
		return s.class().evictable(crowded)
	})
	if !found {
		t.barren[zone].Store(barrenAt(now))
	}
	return found
}

// evictFor makes room in a full table for a flow between two zones.
func (w *Worker) evictFor(zone, replyZone uint16, now Tick) bool {
	t := w.table
	share := t.share(zone, replyZone)
	below, look := false, uint32(evictLook)
	if !t.above(zone, replyZone, share) {
		below, look = true, evictScan // then any flow of those above will do: there are some, since the table is full
	} else if t.barrenTable.Load() == barrenAt(now) {
		return false
	}
	reserve := uint32(len(t.records) - int(t.max))
	found := w.evict(now, reserve+look, int(look), func(r *record, s status) int {
		if !t.above(r.zone, r.replyZone, share) {
			return 0
		}
		rank := s.class().evictable(s.class().Cut() && t.crowdedAbove(r, share))
		if below && rank == 0 {
			return r.ofOthers(s)
		}
		return rank
	})
	if !found && !below {
		t.barrenTable.Store(barrenAt(now))
	}
	return found
}

// barrenAt marks a tick; 0 marks none.
func barrenAt(now Tick) uint64 { return uint64(now) | 1<<32 }

// evict goes through some records and looks at live ones. It ends a flow that is over already, else the
// one with the highest rank above 0, the longest idle of those.
func (w *Worker) evict(now Tick, scan uint32, look int, rank func(*record, status) int) bool {
	t := w.table
	used := t.used.Load()
	if used == 0 {
		return false
	}
	var victim Flow
	best, longest := 0, uint32(0)
	first := w.pick(used)
	looked, fit := 0, 0
	for i := uint32(0); i < min(scan, used) && looked < look && (fit < evictSample || looked < evictLeast); i++ {
		f := Flow((first + i) % used)
		r := &t.records[f]
		s := status(r.status.Load())
		if !s.live() {
			continue
		}
		this := rank(r, s)
		if this == passedOver {
			continue
		}
		looked++
		if t.expiresIn(r, s, now) == 0 {
			if w.End(f, t.timedOut(f)) {
				return true
			}
			continue
		}
		if this > lastResort {
			fit++
		}
		if idle := now.since(Tick(r.lastSeen.Load())); this > best || this > 0 && this == best && idle > longest {
			victim, best, longest = f, this, idle
		}
	}
	return best > 0 && w.End(victim, EndEvicted)
}

// ofOthers ranks what else may be ended for a zone below its share, which is anything: the higher the sooner.
// A question with its answer goes before what goes on, and what was cut comes last.
func (r *record) ofOthers(s status) int {
	c := s.class()
	switch {
	case c.Cut():
		return lastResort
	case c.Protocol() != "tcp" && r.tallies[Original].atMost(1) && r.tallies[Reply].atMost(1):
		return 3
	}
	return 2
}
