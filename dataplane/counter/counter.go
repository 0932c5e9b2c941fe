// Package counter holds what the packet path counts: rules, drops, attachments and the workers' turns.
// A worker has a Set of its own, so that workers stay off each other's cache lines; who looks sums over them.
package counter

import (
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// Rule is what a rule decided.
type Rule struct {
	Hits    uint64 // verdicts: new flows and denied packets
	Packets uint64 // wire segments that it let pass or dropped, those of live flows included
	Bytes   uint64 // of those segments, IP headers included
}

// Attachment is the traffic of one attachment as nsgd sees it: received from
// and transmitted to the far end of its TUN. Packets are wire segments.
type Attachment struct {
	ReceivePackets, ReceiveBytes, TransmitPackets, TransmitBytes uint64
}

const (
	chunkRules = 1024
	maxChunks  = topology.MaxRules / chunkRules
)

// Worker is what one worker did.
type Worker struct {
	Bursts  uint64 // turns at a queue that had packets
	Packets uint64 // that it read; a superpacket counts once
	// Worked is the time spent on them; the rest it waited.
	Worked time.Duration
}

// Platform is what passed for a service of the platform.
type Platform struct{ Packets, Bytes uint64 } // of wire segments, both ways

// ruleCell is one rule's; lastHit is the Unix time of its last verdict in nanoseconds.
type ruleCell struct {
	hits, packets, bytes atomic.Uint64
	lastHit              atomic.Int64
}

// Set belongs to one worker: only it adds, anybody reads.
type Set struct {
	// rules by slot; the last chunk is of the platform's services.
	rules [maxChunks + 1]atomic.Pointer[[chunkRules]ruleCell]
	*totals
	image       *image           // where the rest is, if it outlives the process
	attachments []*Cell          // by slot
	now         func() time.Time // the wall clock

	// The burst's own sums, flushed once at its end.
	pending      [pendingRules]pendingRule
	dirty        []uint8  // indexes into pending
	busy         []uint32 // attachments with pending sums
	pendingDrops [packet.NumDrops]uint32
	dropped      bool
	hitTime      int64 // of the burst's verdicts; 0: not taken yet
	// Slots, if not nil, gathers the rules that a burst has counted on, in their order; a
	// rule can be among them twice. The worker's alone.
	Slots *[]uint32
}

// totals are what a worker counts in all.
type totals struct {
	drops           [1 << 8]atomic.Uint64 // by packet.Drop; their place is the same in every version
	bursts, packets atomic.Uint64
	worked          atomic.Int64 // nanoseconds that were not spent waiting for packets
}

// Cell counts one attachment's traffic for one worker.
type Cell struct {
	*traffic
	own traffic // of a cell that ends with the process; by itself it would share a line with another worker's
	// pending sums of the burst; the worker's alone
	received, receivedBytes, transmitted, transmittedBytes uint64
	busy                                                   bool
	_                                                      [64]byte // keeps neighbours' heap objects off the line
}

// traffic is an attachment's.
type traffic struct {
	receivePackets, receiveBytes, transmitPackets, transmitBytes atomic.Uint64
}

// pendingRules is the size of the direct-mapped cache that gathers a burst's rule
// counts; a burst of 64 packets rarely meets more rules.
const pendingRules = 64

type pendingRule struct {
	slot                 uint32
	used                 bool
	hits, packets, bytes uint64
}

// New returns an empty set; now is the wall clock of last hits.
func New(now func() time.Time) *Set {
	return newSet(now, &totals{}, nil)
}

func newSet(now func() time.Time, t *totals, i *image) *Set {
	c := &Set{now: now, dirty: make([]uint8, 0, pendingRules), totals: t, image: i}
	c.rules[maxChunks].Store(c.chunk(maxChunks))
	return c
}

// chunk is the memory of a chunk of rules.
func (c *Set) chunk(i int) *[chunkRules]ruleCell {
	if c.image != nil {
		return &c.image.rules[i]
	}
	return new([chunkRules]ruleCell)
}

// NewCell makes the cell of the attachment with a number. Numbers below MaxCells outlive the process.
func (c *Set) NewCell(number int) *Cell {
	if c.image != nil && number < MaxCells {
		return &Cell{traffic: &c.image.cells[number]}
	}
	a := &Cell{}
	a.traffic = &a.own
	return a
}

// Clear makes a cell count from zero again.
func (a *Cell) Clear() {
	a.receivePackets.Store(0)
	a.receiveBytes.Store(0)
	a.transmitPackets.Store(0)
	a.transmitBytes.Store(0)
}

// Reserve makes room for rule slots below n. It is called before a slot
// is published in a snapshot or a flow record, so that the worker always
// finds its cell.
func (c *Set) Reserve(n int) {
	for i := 0; i*chunkRules < n; i++ {
		if c.rules[i].Load() == nil {
			c.rules[i].Store(c.chunk(i))
		}
	}
}

// Forget clears a slot that no packet is counted on any more.
func (c *Set) Forget(slot uint32) {
	cell := &c.rules[slot/chunkRules].Load()[slot%chunkRules]
	cell.hits.Store(0)
	cell.packets.Store(0)
	cell.bytes.Store(0)
	cell.lastHit.Store(0)
}

// Add adds wire segments and their bytes to a rule's sums of the running burst.
func (c *Set) Add(slot uint32, hits, packets, bytes uint64) {
	i := uint8(slot % pendingRules)
	e := &c.pending[i]
	if e.slot != slot || !e.used {
		if e.used {
			c.flushRule(e)
		} else {
			c.dirty = append(c.dirty, i)
		}
		*e = pendingRule{slot: slot, used: true}
		if c.Slots != nil {
			*c.Slots = append(*c.Slots, slot)
		}
	}
	e.hits += hits
	e.packets += packets
	e.bytes += bytes
}

func (c *Set) flushRule(e *pendingRule) {
	cell := &c.rules[e.slot/chunkRules].Load()[e.slot%chunkRules]
	if e.hits > 0 {
		cell.hits.Add(e.hits)
		if c.hitTime == 0 {
			c.hitTime = c.now().UnixNano()
		}
		cell.lastHit.Store(c.hitTime)
	}
	cell.packets.Add(e.packets)
	cell.bytes.Add(e.bytes)
}

// DropNow counts packets that a goroutine beside the worker's drops.
func (c *Set) DropNow(d packet.Drop, packets uint64) { c.drops[d].Add(packets) }

// Worked adds to the time that was not spent waiting for packets.
func (c *Set) Worked(took time.Duration) { c.worked.Add(int64(took)) }

// Packets are those that the worker has read. Safe for concurrent use.
func (c *Set) Packets() uint64 { return c.packets.Load() }

// Attach counts the attachment in a slot by a cell; the slots below have theirs. It reports whether it had another.
func (c *Set) Attach(slot int, cell *Cell) bool {
	if slot == len(c.attachments) {
		c.attachments = append(c.attachments, nil)
	}
	if c.attachments[slot] == cell {
		return false
	}
	c.attachments[slot] = cell
	return true
}

// Cell is that of the attachment in a slot.
func (c *Set) Cell(slot int) *Cell { return c.attachments[slot] }

// Took counts a burst of packets.
func (c *Set) Took(packets int) {
	if packets > 0 {
		c.bursts.Add(1)
		c.packets.Add(uint64(packets))
	}
}

// Drop counts a packet that is not carried.
func (c *Set) Drop(d packet.Drop) {
	c.pendingDrops[d]++
	c.dropped = true
}

// Receive counts what came from an attachment.
func (c *Set) Receive(attachment int, packets, bytes uint64) {
	a := c.pendingAttachment(attachment)
	a.received += packets
	a.receivedBytes += bytes
}

// Transmit counts what went to an attachment.
func (c *Set) Transmit(attachment int, packets, bytes uint64) {
	a := c.pendingAttachment(attachment)
	a.transmitted += packets
	a.transmittedBytes += bytes
}

// TransmitNow is Transmit for a goroutine that is not the worker's.
func (a *Cell) TransmitNow(packets, bytes uint64) {
	a.transmitPackets.Add(packets)
	a.transmitBytes.Add(bytes)
}

func (c *Set) pendingAttachment(i int) *Cell {
	a := c.attachments[i]
	if !a.busy {
		a.busy = true
		c.busy = append(c.busy, uint32(i))
	}
	return a
}

// Flush publishes the burst's sums. Whoever sees its packets at an attachment sees what became of them, too.
func (c *Set) Flush() {
	for _, i := range c.dirty {
		c.flushRule(&c.pending[i])
		c.pending[i].used = false
	}
	c.dirty, c.hitTime = c.dirty[:0], 0
	if c.dropped {
		for d := range c.pendingDrops {
			if n := c.pendingDrops[d]; n > 0 {
				c.drops[d].Add(uint64(n))
				c.pendingDrops[d] = 0
			}
		}
		c.dropped = false
	}
	for _, i := range c.busy {
		c.attachments[i].flush()
	}
	c.busy = c.busy[:0]
}

func (a *Cell) flush() {
	a.receivePackets.Add(a.received)
	a.receiveBytes.Add(a.receivedBytes)
	a.transmitPackets.Add(a.transmitted)
	a.transmitBytes.Add(a.transmittedBytes)
	a.received, a.receivedBytes, a.transmitted, a.transmittedBytes, a.busy = 0, 0, 0, 0, false
}

// Sets are those of an engine's workers, to be summed.
type Sets []*Set

// Rules sums what rules counted over the workers, by slot, for every slot
// below n. Safe for concurrent use; each number is exact and never goes back,
// the numbers of one rule may be a burst apart.
func (sets Sets) Rules(n int) []Rule {
	sums := make([]Rule, n)
	sets.eachRule(n, func(slot int, c *ruleCell) {
		s := &sums[slot]
		s.Hits += c.hits.Load()
		s.Packets += c.packets.Load()
		s.Bytes += c.bytes.Load()
	})
	return sums
}

// LastHits are the Unix times, in nanoseconds, of each rule's last verdict, 0 for a rule that
// has given none, by slot, for every slot below n. Safe for concurrent use.
func (sets Sets) LastHits(n int) []int64 {
	last := make([]int64, n)
	sets.eachRule(n, func(slot int, c *ruleCell) { last[slot] = max(last[slot], c.lastHit.Load()) })
	return last
}

// eachRule yields each worker's cells of the slots below n.
func (sets Sets) eachRule(n int, yield func(slot int, c *ruleCell)) {
	for _, set := range sets {
		for first := 0; first < n; first += chunkRules {
			chunk := set.rules[first/chunkRules].Load()
			if chunk == nil {
				continue
			}
			for i := range min(chunkRules, n-first) {
				yield(first+i, &chunk[i])
			}
		}
	}
}

// Services sums the platform's services over the workers. Safe for concurrent use.
func (sets Sets) Services() (sums [topology.NumServices]Platform) {
	for _, set := range sets {
		cells := set.rules[maxChunks].Load()
		for service := range sums {
			sums[service].Packets += cells[service].packets.Load()
			sums[service].Bytes += cells[service].bytes.Load()
		}
	}
	return sums
}

// Drops sums the packets that were not carried over the workers, by reason. Safe for concurrent use.
func (sets Sets) Drops() (sums [packet.NumDrops]uint64) {
	for _, set := range sets {
		for d := range sums {
			sums[d] += set.drops[d].Load()
		}
	}
	return sums
}

// Workers are the workers' turns. Safe for concurrent use.
func (sets Sets) Workers() []Worker {
	counts := make([]Worker, len(sets))
	for i, c := range sets {
		counts[i] = Worker{Bursts: c.bursts.Load(), Packets: c.packets.Load(), Worked: time.Duration(c.worked.Load())}
	}
	return counts
}

// Sum adds an attachment's cells. Safe for concurrent use.
func Sum(cells []*Cell) (sum Attachment) {
	for _, c := range cells {
		sum.ReceivePackets += c.receivePackets.Load()
		sum.ReceiveBytes += c.receiveBytes.Load()
		sum.TransmitPackets += c.transmitPackets.Load()
		sum.TransmitBytes += c.transmitBytes.Load()
	}
	return sum
}
