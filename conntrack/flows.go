package conntrack

import (
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// FlowInfo describes a flow to people. Times are as of the table's last Expire.
type FlowInfo struct {
	// Key is of the packets in the original direction as their sender sends them, ReplyKey of
	// the replies: with Translated not the reverse.
	Key, ReplyKey Key
	// Receiver is the address of the end that packets of the original direction reach.
	Receiver packet.Addr
	Marks    Marks
	Class    Class
	// Packets and Bytes by Direction, those of every wire segment.
	Packets, Bytes       [2]uint64
	Age, Idle, ExpiresIn time.Duration
	Slots                Slots
	Generation           uint32
	// Established is the lifetime that Init.Established gave.
	Established time.Duration
}

// State is the class's state, such as "established".
func (i *FlowInfo) State() string { return i.Class.State() }

// Flows yields every live flow. Each is one flow for certain, with all that does
// not change and counters that are at most a packet apart; the walk as a whole is not
// a moment's picture: a flow that begins or ends meanwhile may be in it or not.
// Yield may take its time and may call the table; it must not keep the pointer.
func (t *Table) Flows(yield func(*FlowInfo) bool) {
	batch := make([]FlowInfo, 0, sweepStep)
	used := t.used.Load()
	for first := uint32(0); first < used; first += sweepStep {
		batch = t.describe(first, min(first+sweepStep, used), batch[:0])
		for i := range batch {
			if !yield(&batch[i]) {
				return
			}
		}
	}
}

// describe adds the live flows among records first to end-1. The records can't be used
// again as long as the control worker is not parked, so each stays what it is.
func (t *Table) describe(first, end uint32, batch []FlowInfo) []FlowInfo {
	t.control.mu.Lock()
	defer t.control.mu.Unlock()
	w := t.control.worker
	w.Unpark()
	defer w.Park()
	now := Tick(t.now.Load())
	for f := first; f < end; f++ {
		r := &t.records[f]
		s := word(r.state.Load())
		if !s.live() {
			continue
		}
		left := t.expiresIn(r, s, now)
		if left == 0 {
			continue
		}
		info := FlowInfo{
			Class:      s.class(),
			Age:        time.Duration(now.since(r.created)) * TickLength,
			Idle:       time.Duration(now.since(Tick(r.lastSeen.Load()))) * TickLength,
			ExpiresIn:  time.Duration(left) * TickLength,
			Slots:      r.loadSlots(),
			Generation: r.generation.Load(),
			Marks:      r.marks,
			Receiver:   r.dst,

			Established: time.Duration(r.established.Load()) * TickLength,
		}
		info.Key, info.ReplyKey = t.keys(Flow(f))
		if r.marks != 0 {
			info.Receiver = t.translations[f].receiver
		}
		for d := range info.Packets {
			info.Packets[d], info.Bytes[d] = r.packets[d].Load(), r.bytes[d].Load()
		}
		batch = append(batch, info)
	}
	return batch
}
