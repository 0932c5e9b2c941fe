package dataplane

import (
	"errors"
	"math/bits"
	"os"
	"runtime"
	"time"

	"github.com/nsgd/nsgd/dataplane/coalesce"
	"github.com/nsgd/nsgd/dataplane/lane"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/tun"
)

// maxTrains bounds the flows of a burst whose packets are gathered at a time.
const maxTrains = 8

// train is packets of one flow that wait for the flow's next one, or for the end of the
// burst.
type train struct {
	coalesce.Train
	to   int
	hash uint64 // the flow key's
}

// trains are a worker's. The packets of a flow leave in the order in which they came, and
// trains in the order in which they began.
type trains struct {
	slots [maxTrains]train
	open  uint8 // a bit for each slot that holds packets
	next  int   // the slot of the next train
}

// write hands a packet to an attachment's queue: by itself and at once, or with others of its flow
// and of the burst. hash is that of the packet's flow key.
func (w *worker) write(to int, frame []byte, p *packet.Packet, hash uint64) packet.Drop {
	if w.gather(to, frame, p, hash) {
		return packet.NotDropped
	}
	w.wrote(uint64(p.Segments))
	if w.suspects[to] {
		w.one[0] = frame
		return w.writeSlowly(to, w.one[:], uint64(p.Segments), uint64(p.WireLen))
	}
	err := w.queues[to].Write(frame)
	if p.Segments > 1 {
		w.takes[to] = w.queues[to].Offload()
	}
	if err != nil {
		return w.refused(to, err)
	}
	w.counters.Transmit(to, uint64(p.Segments), uint64(p.WireLen))
	return packet.NotDropped
}

// gather appends the packet to its flow's train, or begins one; on false, earlier packets of the
// flow have been sent and the caller sends this one.
func (w *worker) gather(to int, frame []byte, p *packet.Packet, hash uint64) bool {
	if p.Fragment.IsFragment() { // has no ports: whose train it would overtake is not known
		w.sendTrains()
		return false
	}
	for open := w.trains.open; open != 0; open &= open - 1 {
		i := bits.TrailingZeros8(open)
		if t := &w.trains.slots[i]; t.hash == hash {
			if t.to == to && t.Append(frame, p) {
				return true
			}
			w.sendTrain(i)
			break
		}
	}
	if p.Segments != 1 || !w.takesTrains(to, p.Proto) {
		return false
	}
	if w.trains.next == maxTrains {
		w.sendTrains()
	}
	t := &w.trains.slots[w.trains.next]
	if !t.Start(frame, p) {
		return false
	}
	t.to, t.hash = to, hash
	w.trains.open |= 1 << w.trains.next
	w.trains.next++
	return true
}

// takesTrains reports whether a device takes superpackets of a protocol.
func (w *worker) takesTrains(to int, protocol uint8) bool {
	switch protocol {
	case packet.ProtoTCP:
		return w.takes[to] >= tun.TSO
	case packet.ProtoUDP:
		return w.takes[to] >= tun.USO
	}
	return false
}

// sendTrains sends all that waits.
func (w *worker) sendTrains() {
	for w.trains.open != 0 {
		w.sendTrain(bits.TrailingZeros8(w.trains.open))
	}
	w.trains.next = 0
}

func (w *worker) sendTrain(i int) {
	w.trains.open &^= 1 << i
	t := &w.trains.slots[i]
	packets, bytes := t.Len(), t.WireLen()
	parts := t.Frame()
	w.wrote(uint64(packets))
	var drop packet.Drop
	if w.suspects[t.to] {
		drop = w.writeSlowly(t.to, parts, uint64(packets), uint64(bytes))
	} else {
		err := writeParts(w.queues[t.to], parts)
		if packets > 1 {
			w.takes[t.to] = w.queues[t.to].Offload()
		}
		if err != nil {
			drop = w.refused(t.to, err)
		} else {
			w.counters.Transmit(t.to, uint64(packets), uint64(bytes))
		}
	}
	if drop != packet.NotDropped {
		for range packets {
			w.counters.Drop(drop)
		}
	}
}

// refused says why a packet that a queue did not take is dropped. It logs a device's refusal, at most
// once a minute for each device and worker: a hostile sender must not fill the log.
func (w *worker) refused(to int, err error) packet.Drop {
	if errors.Is(err, tun.ErrAgain) || errors.Is(err, os.ErrClosed) {
		return packet.DropTransmit
	}
	last, now := &w.refusals[to], w.engine.clock()
	if *last == 0 || now-*last >= time.Minute {
		*last = now
		w.engine.log.Warn("write refused", "attachment", w.engine.attachmentName(to), "error", err)
	}
	return packet.DropTransmit
}

// Receivers that may be slow; the packets of those that are go through lanes.

const (
	// Behind a turn that was long, timedTurns are asked for their processor time; behind one that was long by that, the writes of
	// so many turns are timed.
	timedTurns = 16
	// readTime is what a turn may take for each packet that it reads, besides its writes.
	readTime = 5 * time.Microsecond
	// A slow receiver that gets no lane is sent a packet every retryEvery, which tells whether it is slow still.
	retryEvery = 100 * time.Millisecond
)

// outlet is how a worker writes to an attachment that may be slow.
type outlet struct {
	lane.Pace
	lane  *lane.Lane    // that writes; nil when not slow, and when there are too many
	tried time.Duration // when a packet last went to a slow receiver without a lane
}

// stint is what a turn began with.
type stint struct {
	woken, busy time.Duration
	packets     uint64
}

// beginTurn notes the time. Processor time is asked for only for a while behind a turn that was long: each call of it is one of
// the system, and a turn is mostly long because another thread had the processor.
func (w *worker) beginTurn() stint {
	t := stint{woken: w.engine.clock(), packets: w.counters.Packets()}
	if w.writes, w.segments = 0, 0; w.doubts > 0 {
		runtime.LockOSThread() // else the time may be of two threads
		t.busy = w.engine.busy()
	}
	return t
}

// endTurn times writes for a while if a turn was long by its processor time.
func (w *worker) endTurn(t stint) {
	took, allowed := w.engine.clock()-t.woken, readTime*time.Duration(max(w.counters.Packets()-t.packets, 1))+lane.Allowance(w.writes, w.segments)
	w.counters.Worked(took)
	long, doubted := took > allowed, w.doubts > 0
	if doubted {
		w.doubts--
		long = w.engine.busy()-t.busy > allowed
		runtime.UnlockOSThread()
	}
	if took > allowed {
		w.doubts = timedTurns
	}
	switch {
	case w.timed > 1:
		w.timed--
		return
	case long && doubted:
		w.timed = timedTurns
	case w.timed == 1:
		w.timed = 0
	default:
		return
	}
	for i := range w.outlets {
		w.suspects[i] = w.timed > 0 || w.outlets[i].Slow
	}
}

// writeSlowly is the write to a receiver that may be slow. A lane counts what it is given.
func (w *worker) writeSlowly(to int, parts [][]byte, packets, bytes uint64) packet.Drop {
	o := &w.outlets[to]
	if o.lane != nil && o.lane.Fast() {
		o.lane.End()
		o.lane, o.Slow = nil, false
	}
	if o.Slow && o.lane == nil {
		o.lane = w.engine.lanes.Make(w.queues[to], w.counters.Cell(to), w.counters, w.engine.clock)
	}
	switch {
	case o.lane != nil:
		if !o.lane.Take(parts, packets, bytes) {
			return packet.DropSlowReceiver
		}
		return packet.NotDropped
	case o.Slow && w.time-o.tried < retryEvery:
		return packet.DropSlowReceiver
	}
	took, err := w.timeWrite(to, parts)
	w.suspects[to] = !o.Timed(took, packets)
	o.tried = w.time
	if err != nil {
		return w.refused(to, err)
	}
	w.counters.Transmit(to, packets, bytes)
	return packet.NotDropped
}

// timeWrite writes, and says how much processor time that took: whoever wakes up by it may take the processor, which is no time
// of the receiver's stack.
func (w *worker) timeWrite(to int, parts [][]byte) (took time.Duration, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begun := w.engine.busy()
	err = writeParts(w.queues[to], parts)
	return w.engine.busy() - begun, err
}

// wrote counts a write of so many packets, for endTurn.
func (w *worker) wrote(packets uint64) {
	w.writes++
	w.segments += min(packets, lane.MaxSegments) // a sender chooses them
}

func writeParts(q tun.Queue, parts [][]byte) error {
	if len(parts) == 1 {
		return q.Write(parts[0])
	}
	return q.WriteParts(parts)
}

// endLanes ends all lanes.
func (w *worker) endLanes() {
	for slot := range w.outlets {
		w.forgetSlow(slot)
	}
}

// forgetSlow begins anew with a receiver, as one that is not known to be slow.
func (w *worker) forgetSlow(to int) {
	if l := w.outlets[to].lane; l != nil {
		l.End()
	}
	w.outlets[to], w.suspects[to] = outlet{}, false
}
