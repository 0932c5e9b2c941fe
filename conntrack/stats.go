package conntrack

import (
	"math"
	"sync/atomic"
	"unsafe"
)

// EndCause is why a flow ended.
type EndCause uint8

// The causes.
const (
	EndExpired   EndCause = iota // idle for its timeout
	EndClosed                    // timed out after both FINs, or after RST
	EndEvicted                   // for a new flow in a full table or zone
	EndRestarted                 // for a new flow with the same key
	EndFlushed                   // by the operator
	EndDenied                    // judged again and denied
	EndMoved                     // goes on in another table
	NumEndCauses
)

// String is the cause's name in metrics.
func (c EndCause) String() string {
	return [NumEndCauses]string{"expired", "closed", "evicted", "restarted", "flushed", "denied", "moved"}[c]
}

// Refusal is why a new flow was not recorded.
type Refusal uint8

// The refusals.
const (
	RefusedTable    Refusal = iota // the table is full
	RefusedZone                    // a zone is full
	RefusedConflict                // the replies would belong to another live flow
	RefusedRate                    // too many flows began in a zone within the last second
	NumRefusals
)

// String is the refusal's name in metrics.
func (r Refusal) String() string {
	return [NumRefusals]string{"table", "zone", "conflict", "rate"}[r]
}

// Stats are the table's counts. All but Flows, Live and Translated only grow.
type Stats struct {
	Flows, Limit int64
	Live         [NumClasses]int64 // Flows by class
	Translated   int64             // Flows with Translated
	Created      uint64
	Ended        [NumEndCauses]uint64
	Refused      [NumRefusals]uint64
	// OutOfWindow counts TCP segments that passed, but did not fit the windows of their connection.
	OutOfWindow uint64
	// EndedPackets and EndedBytes count the flows that ended. A flow is added once no worker
	// can pass another packet on it: together with the live flows no packet is lost.
	EndedPackets, EndedBytes uint64
}

// workerCounts are one worker's share of Stats, or that of one of the last process. live and translated are differences and may be
// negative: often another worker ends a flow than the one that created it.
type workerCounts struct {
	live       [NumClasses]atomic.Int64
	translated atomic.Int64
	created    atomic.Uint64

	outOfWindow atomic.Uint64
	ended       [NumEndCauses]atomic.Uint64
	refused     [NumRefusals]atomic.Uint64

	_ [32]byte // to a whole number of cache lines
}

// Stats sums up all workers' counts. While workers run, a flow that changes its class may be
// counted in no class or in two.
func (t *Table) Stats() Stats {
	s := Stats{Flows: t.live.Load(), Limit: t.max, EndedPackets: t.endedPackets.Load(), EndedBytes: t.endedBytes.Load()}
	for n := range t.counts[:t.counters.Load()] {
		c := &t.counts[n]
		for i := range s.Live {
			s.Live[i] += c.live[i].Load()
		}
		s.Translated += c.translated.Load()
		s.Created += c.created.Load()
		s.OutOfWindow += c.outOfWindow.Load()
		for i := range s.Ended {
			s.Ended[i] += c.ended[i].Load()
		}
		for i := range s.Refused {
			s.Refused[i] += c.refused[i].Load()
		}
	}
	for i := range s.Live {
		s.Live[i] = max(s.Live[i], 0)
	}
	s.Translated = max(s.Translated, 0)
	return s
}

// Memory is the size of the table in bytes. New makes all of it; the kernel backs what has
// been used.
func (t *Table) Memory() uint64 {
	return uint64(len(t.notes)) + uint64(len(t.records))*uint64(unsafe.Sizeof(record{})) +
		uint64(len(t.sides))*uint64(unsafe.Sizeof(sides{})) +
		uint64(len(t.translations))*uint64(unsafe.Sizeof(translation{})) +
		uint64(len(t.index.heads))*uint64(unsafe.Sizeof(t.index.heads[0])) +
		uint64(len(t.index.locks))*uint64(unsafe.Sizeof(t.index.locks[0])) +
		uint64(len(t.zones))*uint64(unsafe.Sizeof(t.zones[0])+unsafe.Sizeof(t.zoneCuts[0])+unsafe.Sizeof(t.barren[0])+unsafe.Sizeof(t.zoneMax[0])) +
		uint64(len(t.ports.counts))*uint64(unsafe.Sizeof(portCount{})) +
		uint64(len(t.rates.zones))*uint64(unsafe.Sizeof(rate{}))
}

// MaxPerZone is the limit of zones that have one.
func (t *Table) MaxPerZone() int { return int(t.maxPerZone) }

// ZoneLimit is how many flows may touch a zone. limited is false for a zone without a limit.
func (t *Table) ZoneLimit(zone uint16) (limit int64, limited bool) {
	limit = t.zoneMax[zone].Load()
	return limit, limit != math.MaxInt64
}

// ZoneFlows is the number of flows that touch a zone.
func (t *Table) ZoneFlows(zone uint16) int64 { return t.zones[zone].Load() }
