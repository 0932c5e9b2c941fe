package dataplane

import (
	"errors"
	"math/bits"

	"github.com/nsgd/nsgd/dataplane/coalesce"
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

// write hands the packet to its destination's queue, unchanged: by itself and at once, or with
// others of its flow and of the burst.
func (w *worker) write(to int, b []byte, p *packet.Packet) packet.Drop {
	if w.sight.to = to; w.gather(to, b, p) {
		return packet.NotDropped
	}
	err := w.queues[to].Write(b)
	if p.Segments > 1 {
		w.takes[to] = w.queues[to].Offload()
	}
	if err != nil {
		return w.refused(to, err)
	}
	w.counters.transmit(to, uint64(p.Segments), uint64(p.WireLen))
	return packet.NotDropped
}

// gather puts the packet, one of the flow with w.hash, into a train, and reports
// whether it did. When it didn't, no packet that came before it waits in one.
func (w *worker) gather(to int, b []byte, p *packet.Packet) bool {
	if p.Fragment.IsFragment() { // has no ports: whose train it would overtake is not known
		w.sendTrains()
		return false
	}
	for open := w.trains.open; open != 0; open &= open - 1 {
		i := bits.TrailingZeros8(open)
		if t := &w.trains.slots[i]; t.hash == w.hash {
			if t.to == to && t.Append(b, p) {
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
	if !t.Start(b, p) {
		return false
	}
	t.to, t.hash = to, w.hash
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

// sendTrains ends the waiting.
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
	var err error
	if packets == 1 {
		err = w.queues[t.to].Write(parts[0])
	} else {
		err = w.queues[t.to].WriteParts(parts)
		w.takes[t.to] = w.queues[t.to].Offload()
	}
	if err == nil {
		w.counters.transmit(t.to, uint64(packets), uint64(bytes))
		return
	}
	drop := w.refused(t.to, err)
	for range packets {
		w.counters.drop(drop)
	}
}

// refused is the reason for what a queue did not take.
func (w *worker) refused(to int, err error) packet.Drop {
	if !errors.Is(err, tun.ErrAgain) {
		w.reportWrite(to, err)
	}
	return packet.DropTransmit
}
