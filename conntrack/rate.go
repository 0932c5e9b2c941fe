package conntrack

import (
	"sync/atomic"
	"time"
)

// ticksPerSecond is also the number of parts of a token: each tick then adds whole parts.
const ticksPerSecond = uint32(time.Second / TickLength)

// maxRate is the largest rate that keeps a full bucket within 32 bits.
const maxRate = 1<<32/int(ticksPerSecond) - 1

// rates holds a token bucket for each zone. A flow that begins takes a token. The zero value
// limits nothing.
type rates struct {
	perSecond uint32
	zones     []rate
	cursor    uint32 // where refresh goes on; the sweeper's alone
}

// rate is one zone's bucket, on a cache line of its own.
type rate struct {
	// word holds the tick of the last change in its upper half and the parts of tokens of
	// that tick in the lower half. The tick of a full bucket means nothing.
	word      atomic.Uint64
	unlimited atomic.Bool
	_         [52]byte
}

func newRates(o *Options) rates {
	r := rates{perSecond: uint32(o.NewPerSecond)}
	if o.NewPerSecond == 0 {
		return r
	}
	r.zones = make([]rate, o.Zones)
	for zone := range r.zones {
		r.limit(uint16(zone), o.limits(uint16(zone)))
	}
	return r
}

// limit gives a zone a full bucket, or none.
func (r *rates) limit(zone uint16, limited bool) {
	r.zones[zone].unlimited.Store(!limited)
	r.zones[zone].word.Store(uint64(r.full()))
}

func (r *rates) full() uint32 { return r.perSecond * ticksPerSecond }

// take takes a token of each of a flow's zones, or none of any.
func (r *rates) take(zone, replyZone uint16, now Tick) bool {
	if r.zones == nil {
		return true
	}
	if !r.takeOne(zone, now) {
		return false
	}
	if replyZone == zone || r.takeOne(replyZone, now) {
		return true
	}
	r.giveOne(zone)
	return false
}

// give puts back what take took.
func (r *rates) give(zone, replyZone uint16) {
	if r.zones == nil {
		return
	}
	r.giveOne(zone)
	if replyZone != zone {
		r.giveOne(replyZone)
	}
}

// refresh brings the next zone's bucket up to date. Ticks more than 248 days apart, half of
// their range, can't be compared.
func (r *rates) refresh(now Tick) {
	if len(r.zones) > 0 {
		zone := uint16(r.cursor % uint32(len(r.zones)))
		r.cursor++
		if r.takeOne(zone, now) {
			r.giveOne(zone)
		}
	}
}

func (r *rates) takeOne(zone uint16, now Tick) bool {
	z := &r.zones[zone]
	for !z.unlimited.Load() {
		word := z.word.Load()
		last, parts := Tick(word>>32), uint64(uint32(word))
		full := uint64(r.full())
		if elapsed := now.since(last); elapsed > 0 || parts == full {
			parts, last = min(parts+uint64(elapsed)*uint64(r.perSecond), full), now
		}
		if parts < uint64(ticksPerSecond) {
			if last == Tick(word>>32) || z.word.CompareAndSwap(word, uint64(last)<<32|parts) {
				return false
			}
			continue
		}
		if z.word.CompareAndSwap(word, uint64(last)<<32|(parts-uint64(ticksPerSecond))) {
			return true
		}
	}
	return true
}

func (r *rates) giveOne(zone uint16) {
	z := &r.zones[zone]
	for !z.unlimited.Load() {
		word := z.word.Load()
		parts := min(uint64(uint32(word))+uint64(ticksPerSecond), uint64(r.full()))
		if z.word.CompareAndSwap(word, word&^(1<<32-1)|parts) {
			return
		}
	}
}
