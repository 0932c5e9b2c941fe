package dataplane

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/tun"
)

// A write to a TUN runs the network stack of the receiver's namespace, its netfilter rules included, on
// the thread that writes. So a worker that finds a receiver slow hands the packets to a goroutine of the
// receiver's own, its lane. What that one does not get done is dropped, and everybody else's packets go on.
//
// Lanes leave the workers a processor, and together they work a quarter of the time of all processors: each
// rests behind a write, the longer the more of them have packets.

const (
	// Turns that take longer for each packet have the writes of the next timedTurns timed.
	slowPacket = 50 * time.Microsecond
	timedTurns = 16
	// A receiver is slow when all but one of timedWrites writes take longer than slowWrite: a thread that loses its
	// processor makes some of them long. Each packet of a superpacket may take slowSegment more. It is fast again
	// when most of laneWrites take less.
	timedWrites = 8
	slowWrite   = 50 * time.Microsecond
	slowSegment = 5 * time.Microsecond
	laneWrites  = 64
	// maxLanes bounds the lanes of an engine. A slow receiver that gets none is sent a packet every retryEvery,
	// which tells whether it is slow still.
	maxLanes   = 64
	retryEvery = 100 * time.Millisecond
	// laneFrames and laneBytes bound what waits in a lane, headers included.
	laneFrames = 256
	laneBytes  = 512 << 10
	// longestRest bounds how long a lane rests behind a write.
	longestRest = 100 * time.Millisecond
)

// outlet is how a worker writes to an attachment that may be slow.
type outlet struct {
	writes, long int // that were timed, and those of them beyond slowWrite
	slow         bool
	lane         *lane         // that writes; nil when not slow, and when there are too many
	tried        time.Duration // when a packet last went to a slow receiver without a lane
}

// lanes is what the lanes of an engine share.
type lanes struct {
	made, busy atomic.Int32  // how many there are, and have packets
	turns      chan struct{} // has one for each write under way
}

func newLanes() *lanes { return &lanes{turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))} }

// lane is the goroutine that writes to a slow receiver.
type lane struct {
	w       *worker
	queue   tun.Queue
	cell    *attachmentCell
	ring    [laneBytes]byte // the packets that wait; each in one piece
	taken   int             // bytes of the ring that were ever taken, gaps included; the worker's
	freed   atomic.Int64    // those of them that are free again
	ready   chan laneFrame
	waiting atomic.Int32 // packets, with the one that is written
	fast    atomic.Bool  // it takes packets as others do

	ending, ended chan struct{} // closed
}

// laneFrame is a packet or a train in a lane.
type laneFrame struct {
	at, length     int // in the ring
	until          int // of lane.taken
	packets, bytes uint64
}

// timeWrites notes how long a turn took, and times writes for a while if it was long.
func (w *worker) timeWrites(took time.Duration, packets uint64) {
	switch {
	case took > slowPacket*time.Duration(max(packets, 1)):
		w.timed = timedTurns
	case w.timed > 0:
		w.timed--
	default:
		return
	}
	for i := range w.outlets {
		w.suspects[i] = w.timed > 0 || w.outlets[i].slow
	}
}

// writeSlowly is the write to a receiver that may be slow. A lane counts what it is given.
func (w *worker) writeSlowly(to int, parts [][]byte, packets, bytes uint64) packet.Drop {
	o := &w.outlets[to]
	if o.lane != nil && o.lane.fast.Load() && o.lane.waiting.Load() == 0 {
		w.endLane(o)
		o.slow = false
	}
	if o.slow && o.lane == nil {
		w.giveLane(to)
	}
	switch {
	case o.lane != nil:
		if !o.lane.take(parts, packets, bytes) {
			return packet.DropSlowReceiver
		}
		return packet.NotDropped
	case o.slow && w.time-o.tried < retryEvery:
		return packet.DropSlowReceiver
	}
	begun := w.engine.clock()
	err := writeParts(w.queues[to], parts)
	o.timed(isLong(w.engine.clock()-begun, packets))
	o.tried, w.suspects[to] = w.time, w.suspects[to] || o.slow
	if err != nil {
		return w.refused(to, err)
	}
	w.counters.transmit(to, packets, bytes)
	return packet.NotDropped
}

// isLong reports a write that takes longer than a fast receiver needs for so many packets.
func isLong(took time.Duration, packets uint64) bool {
	return took > slowWrite+slowSegment*time.Duration(packets)
}

// timed notes whether a write of the worker's own was long. One is enough to tell that a receiver is no longer slow.
func (o *outlet) timed(long bool) {
	if long {
		o.long++
	}
	if o.writes++; o.slow {
		o.slow = long
	} else if o.writes == timedWrites {
		o.slow = o.long >= timedWrites-1
	} else {
		return
	}
	o.writes, o.long = 0, 0
}

func writeParts(q tun.Queue, parts [][]byte) error {
	if len(parts) == 1 {
		return q.Write(parts[0])
	}
	return q.WriteParts(parts)
}

// giveLane gives a slow receiver a lane, unless there are too many.
func (w *worker) giveLane(to int) {
	shared := w.engine.lanes
	if shared.made.Add(1) > maxLanes {
		shared.made.Add(-1)
		return
	}
	l := &lane{w: w, queue: w.queues[to], cell: w.counters.attachments[to], ready: make(chan laneFrame, laneFrames), ending: make(chan struct{}), ended: make(chan struct{})}
	l.queue.SetSlow(true)
	w.outlets[to].lane = l
	go l.run()
}

// endLane ends a lane. What it holds is dropped.
func (w *worker) endLane(o *outlet) {
	close(o.lane.ending)
	if o.lane.waiting.Load() > 0 { // it may be writing
		<-o.lane.ended
	}
	o.lane.queue.SetSlow(false)
	w.engine.lanes.made.Add(-1)
	o.lane = nil
}

// take copies a packet into the lane; false when it is full.
func (l *lane) take(parts [][]byte, packets, bytes uint64) bool {
	f := laneFrame{at: l.taken % laneBytes, packets: packets, bytes: bytes}
	for _, p := range parts {
		f.length += len(p)
	}
	begin := l.taken
	if f.at+f.length > laneBytes { // not in one piece
		begin, f.at = begin+laneBytes-f.at, 0
	}
	f.until = begin + f.length
	if f.until-int(l.freed.Load()) > laneBytes || l.waiting.Load() == laneFrames {
		return false
	}
	l.taken = f.until
	to := l.ring[f.at:f.at]
	for _, p := range parts {
		to = append(to, p...)
	}
	if l.waiting.Add(1) == 1 {
		l.w.engine.lanes.busy.Add(1)
	}
	l.ready <- f
	return true
}

// run writes until the lane ends.
func (l *lane) run() {
	defer close(l.ended)
	writes, long := 0, 0
	for {
		select {
		case <-l.ending:
			for l.waiting.Load() > 0 { // nobody adds to them
				f := <-l.ready
				l.w.counters.drops[packet.DropSlowReceiver].Add(f.packets)
				l.free(f)
			}
			return
		case f := <-l.ready:
			took := l.write(f)
			rest, slow := l.rest(took), isLong(took, f.packets)
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

func (l *lane) write(f laneFrame) (took time.Duration) {
	clock, counters := l.w.engine.clock, l.w.counters
	l.w.engine.lanes.turns <- struct{}{}
	begun := clock()
	err := l.queue.Write(l.ring[f.at : f.at+f.length])
	took = clock() - begun
	<-l.w.engine.lanes.turns
	if err == nil {
		l.cell.transmitNow(f.packets, f.bytes)
	} else {
		counters.drops[packet.DropTransmit].Add(f.packets)
	}
	return took
}

// rest is how long the lane rests behind a write.
func (l *lane) rest(took time.Duration) time.Duration {
	times := 4*int(l.w.engine.lanes.busy.Load())/runtime.GOMAXPROCS(0) - 1
	return min(took*time.Duration(max(times, 1)), longestRest)
}

// free makes room for other packets.
func (l *lane) free(f laneFrame) {
	l.freed.Store(int64(f.until))
	if l.waiting.Add(-1) == 0 {
		l.w.engine.lanes.busy.Add(-1)
	}
}

// endLanes ends all lanes.
func (w *worker) endLanes() {
	for slot := range w.outlets {
		w.forgetSlow(slot)
	}
}

// forgetSlow begins anew with a receiver, as one that is not known to be slow.
func (w *worker) forgetSlow(to int) {
	if w.outlets[to].lane != nil {
		w.endLane(&w.outlets[to])
	}
	w.outlets[to], w.suspects[to] = outlet{}, false
}
