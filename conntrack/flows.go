package conntrack

import (
	"time"
)

// FlowInfo describes a flow to people. Times are as of the table's last Expire.
type FlowInfo struct {
	Flow     Flow // its record, another flow's once this one has ended
	Key      Key  // of the packets in the original direction
	ReplyKey Key
	Class    Class
	// Packets and Bytes by Direction, those of every wire segment.
	Packets, Bytes       [2]uint64
	Age, Idle, ExpiresIn time.Duration
	Created, Seen        Tick // of the first packet and the last
	Slots                Slots
	Generation           uint32
	// Established is the lifetime in ClassTCPEstablished and ClassTCPTwoWay.
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

// Slice describes the live flows among some records from first on, behind those of batch, and
// says where the next slice begins; 0: nowhere. Until held has returned, none of those records is
// used for another flow, nor has OnEnd been told of a flow that is listed. It should be quick:
// reloads and questions wait for it.
func (t *Table) Slice(first Flow, batch []FlowInfo, held func([]FlowInfo)) (next Flow) {
	used := t.used.Load()
	end := min(uint32(first)+sweepStep, used)
	t.control.mu.Lock()
	defer t.control.mu.Unlock()
	t.control.worker.Unpark()
	defer t.control.worker.Park()
	held(t.append(uint32(first), end, batch))
	if end == used {
		return 0
	}
	return Flow(end)
}

// Records is how many records there are; every Flow is below.
func (t *Table) Records() int { return len(t.records) }

// describe is Slice without anybody to hold the records for.
func (t *Table) describe(first, end uint32, batch []FlowInfo) []FlowInfo {
	t.control.mu.Lock()
	defer t.control.mu.Unlock()
	t.control.worker.Unpark()
	defer t.control.worker.Park()
	return t.append(first, end, batch)
}

// append adds the live flows among records first to end-1. The records can't be used
// again as long as the control worker, whose lock the caller has, is not parked, so each stays
// what it is.
func (t *Table) append(first, end uint32, batch []FlowInfo) []FlowInfo {
	now := Tick(t.now.Load())
	for f := first; f < end; f++ {
		r := &t.records[f]
		s := word(r.state.Load())
		if s.live() && t.expiresIn(r, s, now) > 0 {
			batch = append(batch, FlowInfo{})
			t.info(Flow(f), s, now, &batch[len(batch)-1])
		}
	}
	return batch
}

// info fills in all of a FlowInfo.
func (t *Table) info(f Flow, s word, now Tick, i *FlowInfo) {
	r := &t.records[f]
	seen := Tick(r.lastSeen.Load())
	*i = FlowInfo{
		Flow: f, Class: s.class(), Created: r.created, Seen: seen,
		Age:        time.Duration(now.since(r.created)) * TickLength,
		Idle:       time.Duration(now.since(seen)) * TickLength,
		ExpiresIn:  time.Duration(t.expiresIn(r, s, now)) * TickLength,
		Slots:      r.loadSlots(),
		Generation: r.generation.Load(),

		Established: time.Duration(r.established.Load()) * TickLength,
	}
	i.Key, i.ReplyKey = r.keys()
	for d := range i.Packets {
		i.Packets[d], i.Bytes[d] = r.packets[d].Load(), r.bytes[d].Load()
	}
}

// OnEnd has f told of every flow that ended, once no worker can hold it any more: its counters
// are final. f may be called by a worker between two bursts and must be quick; calls never
// overlap, what they are given is valid until they return, and the record is used for no other flow
// before that. OnEnd itself must be called before the table is used.
func (t *Table) OnEnd(f func(*FlowInfo)) { t.onEnd = f }
