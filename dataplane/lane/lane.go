// Package lane writes to slow receivers. A write to a TUN runs the network stack of the receiver's namespace, its
// netfilter rules included, on the thread that writes. So a worker that finds a receiver slow hands the packets to a
// goroutine of the receiver's own, its lane. What that one does not get done is dropped, and everybody else's packets
// go on.
//
// Lanes leave the workers a processor, and together they work a quarter of the time of all processors: each
// rests behind a write, the longer the more of them have packets.
package lane

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/tun"
)

const (
	// MaxLanes bounds the lanes of an engine.
	MaxLanes = 64
	// MaxFrames and maxBytes bound what waits in a lane, headers included.
	MaxFrames = 256
	maxBytes  = 512 << 10
	// A write may take slowWrite, and slowSegment more for each packet of a superpacket, up to MaxSegments: a sender may say that
	// there are more.
	MaxSegments = 64
	slowWrite   = 50 * time.Microsecond
	slowSegment = 5 * time.Microsecond
	// TimedWrites are those that a Pace looks at.
	TimedWrites = 8
	// A lane's receiver is fast again when most of laneWrites writes are not slow.
	laneWrites = 64
	// longestRest bounds how long a lane rests behind a write.
	longestRest = 100 * time.Millisecond
)

// Allowance is how long so many writes of so many packets in all may take: a slow receiver's take longer.
func Allowance(writes, packets uint64) time.Duration {
	return slowWrite*time.Duration(writes) + slowSegment*time.Duration(min(packets, MaxSegments*writes))
}

// Pace says whether a receiver is slow: all but one of TimedWrites writes were. A thread that loses its processor
// makes some of them long.
type Pace struct {
	Slow         bool
	writes, long int // that were timed, and those of them that were slow
}

// Timed notes how long a write of so many packets took, and reports that enough were timed to tell that the receiver is
// fast. One is enough to tell that it is no longer slow.
func (p *Pace) Timed(took time.Duration, packets uint64) (fast bool) {
	long := took > Allowance(1, packets)
	if long {
		p.long++
	}
	if p.writes++; p.Slow {
		p.Slow = long
	} else if p.writes == TimedWrites {
		p.Slow = p.long >= TimedWrites-1
	} else {
		return false
	}
	p.writes, p.long = 0, 0
	return !p.Slow
}

// Lanes is what the lanes of an engine share. Safe for concurrent use.
type Lanes struct {
	made, busy atomic.Int32  // how many there are, and have packets
	turns      chan struct{} // has one for each write under way
	faults     *fault.Log
}

// NewLanes returns one without lanes.
func NewLanes(faults *fault.Log) *Lanes {
	return &Lanes{faults: faults, turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))}
}

// Count returns how many lanes there are, and how many of them have packets.
func (s *Lanes) Count() (made, busy int) { return int(s.made.Load()), int(s.busy.Load()) }

// Lane is the goroutine that writes to a slow receiver. Its methods are for the worker that made it.
type Lane struct {
	lanes    *Lanes
	clock    func() time.Duration
	queue    tun.Queue
	cell     *counter.Cell
	counters *counter.Set
	ring     [maxBytes]byte // the packets that wait; each in one piece
	taken    int            // bytes of the ring that were ever taken, gaps included; the worker's
	freed    atomic.Int64   // those of them that are free again
	ready    chan frame
	waiting  atomic.Int32 // packets, with the one that is written
	fast     atomic.Bool  // it takes packets as others do

	ending, ended chan struct{} // closed
}

// frame is a packet or a train in a lane.
type frame struct {
	at, length     int // in the ring
	until          int // of Lane.taken
	packets, bytes uint64
}

// Make starts a lane that writes to queue and counts in cell and counters; nil when there are MaxLanes.
func (s *Lanes) Make(queue tun.Queue, cell *counter.Cell, counters *counter.Set, clock func() time.Duration) *Lane {
	if s.made.Add(1) > MaxLanes {
		s.made.Add(-1)
		return nil
	}
	l := s.idle()
	l.queue, l.cell, l.counters, l.clock = queue, cell, counters, clock
	l.queue.SetSlow(true)
	go l.run()
	return l
}

func (s *Lanes) idle() *Lane {
	return &Lane{lanes: s, ready: make(chan frame, MaxFrames), ending: make(chan struct{}), ended: make(chan struct{})}
}

// Fast reports that the receiver is fast again and that nothing waits for it.
func (l *Lane) Fast() bool { return l.fast.Load() && l.waiting.Load() == 0 }

// End ends a lane. What it holds is dropped.
func (l *Lane) End() {
	close(l.ending)
	if l.waiting.Load() > 0 { // it may be writing
		<-l.ended
	}
	l.queue.SetSlow(false)
	l.lanes.made.Add(-1)
}

// Take copies a packet, of so many segments and their bytes, into the lane; false when it is full.
func (l *Lane) Take(parts [][]byte, packets, bytes uint64) bool {
	f := frame{at: l.taken % maxBytes, packets: packets, bytes: bytes}
	for _, p := range parts {
		f.length += len(p)
	}
	begin := l.taken
	if f.at+f.length > maxBytes { // not in one piece
		begin, f.at = begin+maxBytes-f.at, 0
	}
	f.until = begin + f.length
	if f.until-int(l.freed.Load()) > maxBytes || l.waiting.Load() == MaxFrames {
		return false
	}
	l.taken = f.until
	to := l.ring[f.at:f.at]
	for _, p := range parts {
		to = append(to, p...)
	}
	if l.waiting.Add(1) == 1 {
		l.lanes.busy.Add(1)
	}
	l.ready <- f
	return true
}

// run writes until the lane ends.
func (l *Lane) run() {
	defer close(l.ended)
	writes, long := 0, 0
	for {
		select {
		case <-l.ending:
			for l.waiting.Load() > 0 { // nobody adds to them
				f := <-l.ready
				l.counters.DropNow(packet.DropSlowReceiver, f.packets)
				l.free(f)
			}
			return
		case f := <-l.ready:
			took := l.write(f)
			rest, slow := l.rest(took), took > Allowance(1, f.packets)
			if slow {
				long++
			}
			if writes++; writes == laneWrites {
				l.fast.Store(long < laneWrites/8)
				writes, long = 0, 0
			}
			l.free(f)
			if slow {
				time.Sleep(rest)
			}
		}
	}
}

// write writes a frame. A panic costs this frame: nobody else uses the lane's queue.
func (l *Lane) write(f frame) (took time.Duration) {
	l.lanes.turns <- struct{}{}
	begun, err := l.clock(), error(nil)
	whole := l.lanes.faults.Try(fault.Lane, func() { err = l.queue.Write(l.ring[f.at : f.at+f.length]) })
	took = l.clock() - begun
	<-l.lanes.turns
	switch {
	case !whole:
		l.counters.DropNow(packet.DropPanic, f.packets)
	case err != nil:
		l.counters.DropNow(packet.DropTransmit, f.packets)
	default:
		l.cell.TransmitNow(f.packets, f.bytes)
	}
	return took
}

// rest is how long the lane rests behind a write.
func (l *Lane) rest(took time.Duration) time.Duration {
	times := 4*int(l.lanes.busy.Load())/runtime.GOMAXPROCS(0) - 1
	return min(took*time.Duration(max(times, 1)), longestRest)
}

// free makes room for other packets.
func (l *Lane) free(f frame) {
	l.freed.Store(int64(f.until))
	if l.waiting.Add(-1) == 0 {
		l.lanes.busy.Add(-1)
	}
}
