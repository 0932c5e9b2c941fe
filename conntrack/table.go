// Package conntrack is the flow table: which packets belong to a flow that the
// rules have allowed, in what state that flow is, and when it is over.
//
// A flow is one record of 128 bytes and 32 more for TCP windows, without pointers. All records lie in slabs that
// New allocates: memory is chosen at start, and the garbage collector has nothing to mark.
// The kernel backs the slab's pages as they are first used.
//
// A hash index leads to a record by two keys: that of the packets which began the flow,
// and that of the replies. Each key has the zone (attachment) where such packets come in.
//
// # Concurrency
//
// Every goroutine that carries packets owns one Worker. Lookup and Pass take no lock:
// they read the index with atomic loads, a record's key does not change while it can be
// found, and all that changes is atomic. Insert and End take the locks of two chains.
//
// The record of a flow that ended is used again only after every worker has called Quiesce
// or is parked. So a Flow stays the same flow for as long as a worker holds it.
//
// # Time
//
// The table has no clock: callers pass the coarse time as a Tick. A flow that has been
// idle for its timeout is absent from that tick on, before Expire frees it. Ticks are
// compared modulo 2^32, so Expire must visit each record at least every 248 days.
package conntrack

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
)

// Options configure a Table. The zero value of every field is usable.
type Options struct {
	// Max is the number of live flows; 0: 1,000,000, at most MaxFlows.
	Max int
	// MaxPerZone is the number of live flows that touch one zone; 0: 500,000, at most MaxFlows.
	MaxPerZone int
	// NewPerSecond is how many flows may begin a second in one zone, at either end. A
	// second's worth may begin at once. 0: any number; at most MaxNewPerSecond.
	NewPerSecond int
	// UnlimitedZones reports zones without MaxPerZone and NewPerSecond; nil: none. Only
	// New calls it; LimitZone changes what it said.
	UnlimitedZones func(zone uint16) bool
	// Zones is the number of zones; 0: all 65,536.
	Zones int
	// Timeouts by class.
	Timeouts Timeouts
	// TCPStrict lets only a SYN begin a TCP flow. Callers pass it to MayCreate.
	TCPStrict bool
	// WindowsOff lets every TCP segment count, whatever its numbers: whoever knows the ports can then end a
	// connection.
	WindowsOff bool
	// Workers is the number of goroutines that carry packets; 0: 1.
	Workers int
	// Silent, if not nil, hears from Expire of each established connection with Resets
	// that it ends. Silent must not call the table.
	Silent func(*Silence)
	// Seed of the hash; zero: random.
	Seed [2]uint64
	// Reserved is what Reserve has made for these options; where it does not fit, or is nil, New makes another one.
	Reserved *Reserved
	// Images, if not nil, keeps the table's memory beyond the process: New takes over the flows of the last one.
	Images Images
	// NotesPerFlow is how many bytes Notes has for each record.
	NotesPerFlow int
	// OldZones are what the zones of the last process are now, NoZone where there is none; nil: the same.
	OldZones []uint16
	// Later is by how much the ticks of the last process's records are moved on: its clock was another one.
	Later Tick
	// Slot reports what slots flows of the last process may have; nil: any.
	Slot func(slot uint32) bool
}

const (
	defaultMax        = 1_000_000
	defaultMaxPerZone = 500_000
	maxWorkers        = 1024
	// MaxZones is the largest Options.Zones.
	MaxZones = 1 << 16
	// MaxFlows is the largest Options.Max: 16 Mi records less the largest reserve.
	MaxFlows = maxRecords - maxWorkers*reserveMax
	// MaxNewPerSecond is the largest Options.NewPerSecond.
	MaxNewPerSecond = maxRate
)

// Table is a flow table. Its own methods are safe for concurrent use; a Worker is not.
type Table struct {
	image
	index       index
	secrets     secrets
	lifetimes   [statusClasses]uint32 // by Class
	established uint32                // ticks, of a flow without a lifetime of its own
	strict      bool
	loose       bool // Options.WindowsOff
	silent      func(*Silence)
	max         int64
	maxPerZone  int64
	zoneMax     []atomic.Int64 // by zone
	rates       rates
	ports       ports

	_ [64]byte // what every lookup reads stands above, what inserts write below
	reclaimer
	live  atomic.Int64
	cuts  atomic.Int64   // flows of the classes that are cut
	zones []atomic.Int64 // live flows by zone
	// zoneCuts are cuts by zone.
	zoneCuts []atomic.Int64
	// busyZones are the zones with a limit that have flows.
	busyZones atomic.Int64
	// barren are the ticks in which a search for a victim found none: by zone, and in all.
	barren      []atomic.Uint64
	barrenTable atomic.Uint64
	now         atomic.Uint32 // Tick of the last Expire

	workers []*Worker // those of Worker, then sweeper and control
	sweeper guardedWorker
	control guardedWorker
	cursor  uint32 // next record to look at; guarded by sweeper.mu

	adoption Adoption
	// floor is as large as an image beside the heap, and never touched: the collector runs as seldom as if the records
	// were in the heap.
	floor []byte
}

// guardedWorker is a worker that several goroutines share, one at a time.
type guardedWorker struct {
	mu     sync.Mutex
	worker *Worker
}

// New makes a table and allocates all of its memory: about 177 bytes for each flow of Max,
// and 64 more for one with Marks. The kernel backs what has been used.
func New(o Options) (*Table, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	lifetimes, established, err := o.Timeouts.lifetimes()
	if err != nil {
		return nil, err
	}
	secrets, err := newSecrets(o.Seed)
	if err != nil {
		return nil, err
	}
	reserve := o.Workers * min(max(o.Max, reserveMin), reserveMax)
	reserved := o.take()
	t := &Table{
		loose:       o.WindowsOff,
		silent:      o.Silent,
		index:       reserved.index,
		secrets:     secrets,
		lifetimes:   lifetimes,
		established: established,
		strict:      o.TCPStrict,
		max:         int64(o.Max),
		maxPerZone:  int64(o.MaxPerZone),
		zoneMax:     reserved.zoneMax,
		zones:       reserved.zones,
		zoneCuts:    reserved.zoneCuts,
		barren:      reserved.barren,
		rates:       newRates(&o),
		ports:       ports{counts: reserved.portCounts, maps: map[Key]*portMap{}},
	}
	if err := t.openImage(&o, o.Max+reserve); err != nil {
		return nil, err
	}
	for zone := range t.zoneMax {
		if o.limits(uint16(zone)) {
			t.zoneMax[zone].Store(t.maxPerZone)
		}
	}
	for i := range o.Workers + 2 {
		t.workers = append(t.workers, newWorker(t, uint64(i)))
	}
	t.sweeper.worker, t.control.worker = t.workers[o.Workers], t.workers[o.Workers+1]
	t.adopt(&o)
	return t, nil
}

// LimitZone says whether a zone has MaxPerZone and NewPerSecond from now on. No flow may touch the zone, and
// none may begin there meanwhile.
func (t *Table) LimitZone(zone uint16, limited bool) {
	t.zoneMax[zone].Store(t.zoneLimit(limited))
	if t.rates.zones != nil {
		t.rates.limit(zone, limited)
	}
}

func (t *Table) zoneLimit(limited bool) int64 {
	if limited {
		return t.maxPerZone
	}
	return math.MaxInt64
}

func (o *Options) limits(zone uint16) bool { return o.UnlimitedZones == nil || !o.UnlimitedZones(zone) }

// complete sets the defaults and checks the rest.
func (o *Options) complete() error {
	for _, f := range []struct {
		name       string
		value      *int
		def, limit int
	}{
		{"max", &o.Max, defaultMax, MaxFlows},
		{"maxPerZone", &o.MaxPerZone, defaultMaxPerZone, MaxFlows},
		{"newPerSecond", &o.NewPerSecond, 0, MaxNewPerSecond},
		{"zones", &o.Zones, MaxZones, MaxZones},
		{"workers", &o.Workers, 1, maxWorkers},
	} {
		if *f.value == 0 {
			*f.value = f.def
		}
		if *f.value < 0 || *f.value > f.limit {
			return fmt.Errorf("conntrack: %s: %d: must be between 0 and %d", f.name, *f.value, f.limit)
		}
	}
	return nil
}

// Strict is Options.TCPStrict, for MayCreate.
func (t *Table) Strict() bool { return t.strict }

// Worker returns worker i of Options.Workers to the one goroutine that owns it. From then on
// that goroutine must call Quiesce regularly, or Park: others wait for it to reuse records.
func (t *Table) Worker(i int) *Worker {
	if i < 0 || i >= len(t.workers)-2 {
		panic(fmt.Sprintf("conntrack: worker %d of %d", i, len(t.workers)-2))
	}
	w := t.workers[i]
	w.Unpark()
	return w
}
