package dataplane

import (
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/tun"
)

// A write to a TUN runs the network stack of the receiver's namespace, its netfilter rules included, on
// the thread that writes. So a worker that finds a receiver slow hands the packets to a goroutine of the
// receiver's own, which rests about as long as it works, a
// millisecond at most. What that one does not get done is dropped, and
// everybody else's packets go on.

const (
	// Turns that take longer for each packet have the writes of the next timedTurns timed.
	slowPacket = 50 * time.Microsecond
	timedTurns = 16
	// A receiver is slow when half of timedWrites writes take longer than slowWrite: a thread that loses its
	// processor makes a few of them long. It is fast again when most of laneWrites take less.
	timedWrites = 8
	slowWrite   = 50 * time.Microsecond
	laneWrites  = 64
	// laneFrames bounds the packets that wait for a slow receiver, for each worker.
	laneFrames = 256
	// longestRest bounds how long a lane rests behind a write.
	longestRest = time.Millisecond
)

// outlet is how a worker writes to an attachment that may be slow.
type outlet struct {
	writes, long int   // that were timed, and those of them beyond slowWrite
	slow         bool  // the lane writes
	lane         *lane // nil until the receiver is found slow
}

// lane is the goroutine that writes to a slow receiver.
type lane struct {
	w           *worker
	to          int
	free, ready chan laneFrame
	fast        atomic.Bool // it takes packets as others do
	ended       chan struct{}
}

// laneFrame is a packet or a train in a lane.
type laneFrame struct {
	buffer         []byte // of bufferLen
	length         int
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
	if o.slow && o.lane.fast.Load() && len(o.lane.free) == laneFrames { // it has written all that it was given
		o.slow = false
	}
	if o.slow {
		if !o.lane.take(parts, packets, bytes) {
			return packet.DropSlowReceiver
		}
		return packet.NotDropped
	}
	begun := w.engine.clock()
	err := writeParts(w.queues[to], parts)
	if w.engine.clock()-begun > slowWrite {
		o.long++
	}
	if o.writes++; o.writes == timedWrites {
		if o.long >= timedWrites/2 {
			w.slowDown(to)
		}
		o.writes, o.long = 0, 0
	}
	if err != nil {
		return w.refused(to, err)
	}
	w.counters.transmit(to, packets, bytes)
	return packet.NotDropped
}

func writeParts(q tun.Queue, parts [][]byte) error {
	if len(parts) == 1 {
		return q.Write(parts[0])
	}
	return q.WriteParts(parts)
}

// slowDown gives an attachment's queue to a lane.
func (w *worker) slowDown(to int) {
	o := &w.outlets[to]
	if o.slow, w.suspects[to] = true, true; o.lane != nil {
		o.lane.fast.Store(false)
		return
	}
	l := &lane{w: w, to: to, free: make(chan laneFrame, laneFrames), ready: make(chan laneFrame, laneFrames), ended: make(chan struct{})}
	for range laneFrames {
		l.free <- laneFrame{buffer: make([]byte, bufferLen)}
	}
	o.lane = l
	go l.run()
}

// take copies a packet into the lane; false when it is full.
func (l *lane) take(parts [][]byte, packets, bytes uint64) bool {
	select {
	case f := <-l.free:
		f.length, f.packets, f.bytes = 0, packets, bytes
		for _, p := range parts {
			f.length += copy(f.buffer[f.length:], p)
		}
		l.ready <- f
		return true
	default:
		return false
	}
}

// run writes until ready is closed. It rests as long as it has worked.
func (l *lane) run() {
	defer close(l.ended)
	clock, counters := l.w.engine.clock, l.w.counters
	writes, long := 0, 0
	for f := range l.ready {
		begun := clock()
		err := l.w.queues[l.to].Write(f.buffer[:f.length])
		took := clock() - begun
		if err == nil {
			counters.transmitNow(l.to, f.packets, f.bytes)
		} else {
			counters.drops[packet.DropTransmit].Add(f.packets)
		}
		if took > slowWrite {
			long++
		}
		if writes++; writes == laneWrites {
			l.fast.Store(long < laneWrites/8)
			writes, long = 0, 0
		}
		l.free <- f
		if took > slowWrite {
			time.Sleep(min(took, longestRest))
		}
	}
}

// endLanes waits until the lanes have written what they hold.
func (w *worker) endLanes() {
	for i := range w.outlets {
		if o := &w.outlets[i]; o.lane != nil {
			close(o.lane.ready)
			<-o.lane.ended
			w.outlets[i], w.suspects[i] = outlet{}, false
		}
	}
}
