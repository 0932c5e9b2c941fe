package dataplane

import (
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// RuleCount is what a rule decided.
type RuleCount struct {
	Hits    uint64 // verdicts: new flows and denied packets
	Packets uint64 // wire segments that it let pass or dropped, those of live flows included
	Bytes   uint64 // of those segments, IP headers included
}

// AttachmentCount is the traffic of one attachment as nsgd sees it: received from
// and transmitted to the far end of its TUN. Packets are wire segments.
type AttachmentCount struct {
	ReceivePackets, ReceiveBytes, TransmitPackets, TransmitBytes uint64
}

const (
	chunkRules = 1024
	maxChunks  = topology.MaxRules / chunkRules
)

// WorkerCount is what one worker did.
type WorkerCount struct {
	Bursts  uint64 // turns at a queue that had packets
	Packets uint64 // that it read; a superpacket counts once
	// Worked is the time spent on them; the rest it waited.
	Worked time.Duration
}

// PlatformCount is what passed for a service of the platform.
type PlatformCount struct{ Packets, Bytes uint64 } // of wire segments, both ways

// ruleCell is one rule's; lastHit is the Unix time of its last verdict in nanoseconds.
type ruleCell struct {
	hits, packets, bytes atomic.Uint64
	lastHit              atomic.Int64
}

// counters belong to one worker: only it adds, anybody reads. Worker-private
// memory keeps workers off each other's cache lines; sums are made at scrape.
type counters struct {
	// rules by slot; the last chunk is of the platform's services.
	rules       [maxChunks + 1]atomic.Pointer[[chunkRules]ruleCell]
	drops       [packet.NumDrops]atomic.Uint64
	attachments []*attachmentCell // by slot

	bursts, packets atomic.Uint64
	worked          atomic.Int64     // nanoseconds that were not spent waiting for packets
	now             func() time.Time // the wall clock

	// The burst's own sums, flushed once at its end.
	pending      [pendingRules]pendingRule
	dirty        []uint8  // indexes into pending
	busy         []uint32 // attachments with pending sums
	pendingDrops [packet.NumDrops]uint32
	dropped      bool
	hitTime      int64 // of the burst's verdicts; 0: not taken yet
	// slots, if not nil, gathers the rules that a burst has counted on, in their order; a
	// rule can be among them twice.
	slots *[]uint32
}

type attachmentCell struct {
	receivePackets, receiveBytes, transmitPackets, transmitBytes atomic.Uint64
	// pending sums of the burst; the worker's alone
	received, receivedBytes, transmitted, transmittedBytes uint64
	busy                                                   bool
	_                                                      [64]byte // keeps neighbours' heap objects off the line
}

// pendingRules is the size of the direct-mapped cache that gathers a burst's rule
// counts; a burst of 64 packets rarely meets more rules.
const pendingRules = 64

type pendingRule struct {
	slot                 uint32
	used                 bool
	hits, packets, bytes uint64
}

func newCounters(now func() time.Time) *counters {
	c := &counters{now: now, dirty: make([]uint8, 0, pendingRules)}
	c.rules[maxChunks].Store(new([chunkRules]ruleCell))
	return c
}

// reserve makes room for rule slots below n. It is called before a slot
// is published in a snapshot or a flow record, so that the worker always
// finds its cell.
func (c *counters) reserve(n int) {
	for i := 0; i*chunkRules < n; i++ {
		if c.rules[i].Load() == nil {
			c.rules[i].Store(new([chunkRules]ruleCell))
		}
	}
}

// forget clears a slot that no packet is counted on any more.
func (c *counters) forget(slot uint32) {
	cell := &c.rules[slot/chunkRules].Load()[slot%chunkRules]
	cell.hits.Store(0)
	cell.packets.Store(0)
	cell.bytes.Store(0)
	cell.lastHit.Store(0)
}

// rule adds to a rule's sums of the running burst.
func (c *counters) rule(slot uint32, hits uint64, p *packet.Packet) {
	i := uint8(slot % pendingRules)
	e := &c.pending[i]
	if e.slot != slot || !e.used {
		if e.used {
			c.flushRule(e)
		} else {
			c.dirty = append(c.dirty, i)
		}
		*e = pendingRule{slot: slot, used: true}
		if c.slots != nil {
			*c.slots = append(*c.slots, slot)
		}
	}
	e.hits += hits
	e.packets += uint64(p.Segments)
	e.bytes += uint64(p.WireLen)
}

func (c *counters) flushRule(e *pendingRule) {
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

// took counts a burst of packets.
func (c *counters) took(packets int) {
	if packets > 0 {
		c.bursts.Add(1)
		c.packets.Add(uint64(packets))
	}
}

// drop counts a packet that is not carried.
func (c *counters) drop(d packet.Drop) {
	c.pendingDrops[d]++
	c.dropped = true
}

// receive counts what came from an attachment, transmit what went to it.
func (c *counters) receive(attachment int, packets, bytes uint64) {
	a := c.pendingAttachment(attachment)
	a.received += packets
	a.receivedBytes += bytes
}

func (c *counters) transmit(attachment int, packets, bytes uint64) {
	a := c.pendingAttachment(attachment)
	a.transmitted += packets
	a.transmittedBytes += bytes
}

// transmitNow is transmit for a goroutine that is not the worker's.
func (a *attachmentCell) transmitNow(packets, bytes uint64) {
	a.transmitPackets.Add(packets)
	a.transmitBytes.Add(bytes)
}

func (c *counters) pendingAttachment(i int) *attachmentCell {
	a := c.attachments[i]
	if !a.busy {
		a.busy = true
		c.busy = append(c.busy, uint32(i))
	}
	return a
}

// flush publishes the burst's sums.
func (c *counters) flush() {
	for _, i := range c.dirty {
		c.flushRule(&c.pending[i])
		c.pending[i].used = false
	}
	c.dirty, c.hitTime = c.dirty[:0], 0
	for _, i := range c.busy {
		c.attachments[i].flush()
	}
	c.busy = c.busy[:0]
	if !c.dropped {
		return
	}
	for d := range c.pendingDrops {
		if n := c.pendingDrops[d]; n > 0 {
			c.drops[d].Add(uint64(n))
			c.pendingDrops[d] = 0
		}
	}
	c.dropped = false
}

func (a *attachmentCell) flush() {
	a.receivePackets.Add(a.received)
	a.receiveBytes.Add(a.receivedBytes)
	a.transmitPackets.Add(a.transmitted)
	a.transmitBytes.Add(a.transmittedBytes)
	a.received, a.receivedBytes, a.transmitted, a.transmittedBytes, a.busy = 0, 0, 0, 0, false
}

// RuleCounts sums a rule's counters over the workers, by slot, for every slot
// below n. Safe for concurrent use; each number is exact and never goes back,
// the numbers of one rule may be a burst apart.
func (e *Engine) RuleCounts(n int) []RuleCount {
	sums := make([]RuleCount, n)
	e.eachRule(n, func(slot int, c *ruleCell) {
		s := &sums[slot]
		s.Hits += c.hits.Load()
		s.Packets += c.packets.Load()
		s.Bytes += c.bytes.Load()
	})
	return sums
}

// RuleLastHits are the Unix times, in nanoseconds, of each rule's last verdict, 0 for a rule that
// has given none, by slot, for every slot below n. Safe for concurrent use.
func (e *Engine) RuleLastHits(n int) []int64 {
	last := make([]int64, n)
	e.eachRule(n, func(slot int, c *ruleCell) { last[slot] = max(last[slot], c.lastHit.Load()) })
	return last
}

// eachRule yields each worker's cells of the slots below n.
func (e *Engine) eachRule(n int, yield func(slot int, c *ruleCell)) {
	for _, w := range e.workers {
		for first := 0; first < n; first += chunkRules {
			chunk := w.counters.rules[first/chunkRules].Load()
			if chunk == nil {
				continue
			}
			for i := range min(chunkRules, n-first) {
				yield(first+i, &chunk[i])
			}
		}
	}
}

// PlatformCounts sums the platform's services' counters over the workers. Safe for concurrent
// use.
func (e *Engine) PlatformCounts() (sums [topology.NumServices]PlatformCount) {
	for _, w := range e.workers {
		cells := w.counters.rules[maxChunks].Load()
		for service := range sums {
			sums[service].Packets += cells[service].packets.Load()
			sums[service].Bytes += cells[service].bytes.Load()
		}
	}
	return sums
}

// Drops sums the packets that were not carried, by reason. Superpackets count
// once; a fragment that waits for its first one is not among them yet. Safe for
// concurrent use.
func (e *Engine) Drops() (sums [packet.NumDrops]uint64) {
	sums[packet.DropFragmentNoFirst] = e.fragments.WaitedInVain()
	for _, w := range e.workers {
		for d := range sums {
			sums[d] += w.counters.drops[d].Load()
		}
	}
	return sums
}

// WorkerCounts are those of every worker. Safe for concurrent use.
func (e *Engine) WorkerCounts() []WorkerCount {
	counts := make([]WorkerCount, len(e.workers))
	for i, w := range e.workers {
		c := w.counters
		counts[i] = WorkerCount{Bursts: c.bursts.Load(), Packets: c.packets.Load(), Worked: time.Duration(c.worked.Load())}
	}
	return counts
}

// AttachmentCounts sums traffic by attachment index. Safe for concurrent use.
func (e *Engine) AttachmentCounts() []AttachmentCount {
	ports := e.setting.Load().ports
	sums := make([]AttachmentCount, len(ports))
	for i := range ports {
		for _, c := range ports[i].cells {
			sums[i].ReceivePackets += c.receivePackets.Load()
			sums[i].ReceiveBytes += c.receiveBytes.Load()
			sums[i].TransmitPackets += c.transmitPackets.Load()
			sums[i].TransmitBytes += c.transmitBytes.Load()
		}
	}
	return sums
}
