package conntrack

import (
	"runtime"
	"sync/atomic"
)

// tally counts the packets and bytes of one direction of a flow. Both numbers of a packet are added at once, because
// each atomic addition waits until all that was written before it is in the cache.
//
// A number that fills half of its part of recent gives a unit to moved. Whoever moves one says so in moved meanwhile, so
// that sum never misses a unit.
type tally struct {
	recent atomic.Uint64 // packets (bits 36-63), bytes (0-35)
	moved  atomic.Uint64 // workers that move a unit (bits 53-63), units of packets (30-52), units of bytes (0-29)
}

const (
	recentBits  = 36 // of the bytes
	recentBytes = 1<<recentBits - 1
	// A unit is half of what makes it move. So Uncount finds in recent what it takes back.
	bytesUnit   = 1 << (recentBits - 2)
	packetsUnit = 1 << 26

	moverBit        = 1 << 53
	movedPacketsBit = 1 << 30
)

// add adds a packet of that many segments and bytes.
func (c *tally) add(segments, bytes uint32) {
	const halfFull = 1<<63 | 1<<(recentBits-1)
	if c.recent.Add(uint64(segments)<<recentBits+uint64(bytes))&halfFull != 0 {
		c.move()
	}
}

// subtract takes back what the caller has added.
func (c *tally) subtract(segments, bytes uint32) {
	c.recent.Add(-(uint64(segments)<<recentBits + uint64(bytes)))
}

// move moves a unit of each number that fills half of its part, unless another worker is first. The next packet
// tries again then: there is room for 2^27 segments and 32 GB.
func (c *tally) move() {
	v := c.recent.Load()
	var taken, units uint64
	if v>>recentBits >= 2*packetsUnit {
		taken, units = packetsUnit<<recentBits, movedPacketsBit
	}
	if v&recentBytes >= 2*bytesUnit {
		taken, units = taken+bytesUnit, units+1
	}
	if taken == 0 {
		return
	}
	c.moved.Add(moverBit)
	if c.recent.CompareAndSwap(v, v-taken) {
		c.moved.Add(units)
	}
	c.moved.Add(^uint64(moverBit) + 1)
}

// sum is what was added so far. It waits for a worker that moves a unit, so no packet may wait for it.
func (c *tally) sum() (packets, bytes uint64) {
	for {
		if packets, bytes, ok := c.read(); ok {
			return packets, bytes
		}
		runtime.Gosched()
	}
}

// read is sum if no worker moves a unit meanwhile.
func (c *tally) read() (packets, bytes uint64, ok bool) {
	m := c.moved.Load()
	return c.added(m, c.recent.Load())
}

// added is the sum of moved and recent, read in this order. It looks at moved again: ok is false if a unit moved
// in between.
func (c *tally) added(m, v uint64) (packets, bytes uint64, ok bool) {
	ok = m < moverBit && c.moved.Load() == m
	return m/movedPacketsBit*packetsUnit + v>>recentBits, m%movedPacketsBit*bytesUnit + v&recentBytes, ok
}

// atMost reports whether no more than n packets were added, n being below a unit.
func (c *tally) atMost(n uint64) bool { return c.moved.Load() == 0 && c.recent.Load()>>recentBits <= n }

func (c *tally) reset() {
	c.recent.Store(0)
	c.moved.Store(0)
}

// adopt makes the tally one that no worker moves a unit of. One that a worker of the last process was moving is lost.
func (c *tally) adopt() {
	if m := c.moved.Load(); m >= moverBit {
		c.moved.Store(m % moverBit)
	}
}
