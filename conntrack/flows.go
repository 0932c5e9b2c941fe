package conntrack

import (
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// FlowInfo describes a flow to people. Times are as of the table's last Expire.
type FlowInfo struct {
	Flow Flow // its record; once this flow has ended, it may be another's
	// Key is that of packets in the original direction, as their sender sends them. ReplyKey
	// is that of the replies; with Translated it is not the reverse.
	Key, ReplyKey Key
	// Receiver is the address of the end that packets of the original direction reach.
	Receiver packet.Addr
	Marks    Marks
	Class    Class
	// Waits says that the flow waits to take another one's place, see Worker.Insert.
	Waits bool
	// Answered says that the side that did not begin the flow has been heard.
	Answered bool
	// Packets and Bytes of all wire segments, by Direction.
	Packets, Bytes       [2]uint64
	Age, Idle, ExpiresIn time.Duration
	Created, Seen        Tick // of the first packet and the last
	Slots                Slots
	Generation           uint32
	// Established is the lifetime that Init.Established gave.
	Established time.Duration
}

// State is the class's state, such as "established".
func (i *FlowInfo) State() string { return i.Class.State() }

// Flows yields every live flow. What is yielded is one flow for certain, with counters
// that are at most a packet apart. A flow that begins or ends during the walk may be missing.
// Yield may take its time and may call the table; it must not keep the pointer.
func (t *Table) Flows(yield func(*FlowInfo) bool) { t.walk(nil, yield) }

// Ends says where the ends of a flow are. Its sender addresses Dst, who is not the Receiver of some translated flows.
type Ends struct {
	Src, Dst, Receiver packet.Addr
	Zone, ReplyZone    uint16
}

// FlowsOf is Flows for those whose ends concern the caller. It reads one cache line of each other flow, and a second one
// of a translated flow. concerned must be quick, and must not call the table.
func (t *Table) FlowsOf(concerned func(*Ends) bool, yield func(*FlowInfo) bool) {
	t.walk(concerned, yield)
}

// walk yields the flows whose ends concern the caller; nil: all do.
func (t *Table) walk(concerned func(*Ends) bool, yield func(*FlowInfo) bool) {
	batch := make([]FlowInfo, 0, sweepStep)
	used := t.used.Load()
	for first := uint32(0); first < used; first += sweepStep {
		batch = t.describe(first, min(first+sweepStep, used), concerned, batch[:0])
		for i := range batch {
			if !yield(&batch[i]) {
				return
			}
		}
	}
}

// Slice appends the live flows among some records from first on to batch and hands that to held.
// It returns where the next slice begins; 0: there is none. Until held returns, no listed
// record is used for another flow, and OnEnd hears of no listed flow. held should be quick:
// reloads and questions wait for it.
func (t *Table) Slice(first Flow, batch []FlowInfo, held func([]FlowInfo)) (next Flow) {
	used := t.used.Load()
	end := min(uint32(first)+sweepStep, used)
	t.control.mu.Lock()
	defer t.control.mu.Unlock()
	t.control.worker.Unpark()
	defer t.control.worker.Park()
	held(t.appendLive(uint32(first), end, nil, batch))
	if end == used {
		return 0
	}
	return Flow(end)
}

// Records is the number of records; every Flow is below it.
func (t *Table) Records() int { return len(t.records) }

// Notes are Options.NotesPerFlow bytes for each record, in the order of records, which stay with a flow as long as it
// lives, in later processes too. They are the caller's; a record's begin as whatever the last flow has left.
func (t *Table) Notes() []byte { return t.notes }

// Adoption says what became of the last process's flows.
func (t *Table) Adoption() Adoption { return t.adoption }

// describe appends the live flows among records first to end-1 to batch whose ends concern the caller.
func (t *Table) describe(first, end uint32, concerned func(*Ends) bool, batch []FlowInfo) []FlowInfo {
	t.control.mu.Lock()
	defer t.control.mu.Unlock()
	t.control.worker.Unpark()
	defer t.control.worker.Park()
	return t.appendLive(first, end, concerned, batch)
}

// appendLive is describe for a caller that holds the control worker and has it unparked: no
// record is used again meanwhile.
func (t *Table) appendLive(first, end uint32, concerned func(*Ends) bool, batch []FlowInfo) []FlowInfo {
	now := Tick(t.now.Load())
	var ends Ends // outside the loop, because a pointer to it escapes
	for f := first; f < end; f++ {
		r := &t.records[f]
		s := status(r.status.Load())
		if s.live() && t.expiresIn(r, s, now) > 0 {
			if concerned != nil {
				if ends = (Ends{r.src, r.dst, r.dst, r.zone, r.replyZone}); r.marks != 0 {
					ends.Receiver = t.translations[f].receiver
				}
				if !concerned(&ends) {
					continue
				}
			}
			batch = append(batch, FlowInfo{})
			t.info(Flow(f), s, now, &batch[len(batch)-1])
		}
	}
	return batch
}

// info fills in all of a FlowInfo.
func (t *Table) info(f Flow, s status, now Tick, i *FlowInfo) {
	t.infoOf(&t.records[f], &t.translations[f], s, now, i)
	i.Flow = f
}

// infoOf fills in all but the number of a record.
func (t *Table) infoOf(r *record, x *translation, s status, now Tick, i *FlowInfo) {
	seen := Tick(r.lastSeen.Load())
	*i = FlowInfo{
		Class: s.class(), Waits: s&statusWaits != 0, Answered: s.answered(), Created: r.created, Seen: seen,
		Age:        time.Duration(now.since(r.created)) * TickLength,
		Idle:       time.Duration(now.since(seen)) * TickLength,
		ExpiresIn:  time.Duration(t.expiresIn(r, s, now)) * TickLength,
		Slots:      r.loadSlots(),
		Generation: r.generation.Load(),
		Marks:      r.marks,
		Receiver:   r.dst,

		Established: time.Duration(r.established.Load()) * TickLength,
	}
	i.Key, i.ReplyKey = Key{r.tuple(), r.zone}, Key{replyTuple(r, x), r.replyZone}
	if r.marks != 0 {
		i.Receiver = x.receiver
	}
	for d := range i.Packets {
		i.Packets[d], i.Bytes[d] = r.tallies[d].sum()
	}
}

// OnEnd makes f hear of every flow that ended, once no worker holds it: its counters are final.
// A worker may call f between two bursts, so f must be quick. Calls never overlap. What f gets
// is valid until it returns, and the record is not used again before. Call OnEnd before the
// table is used, once for each listener; they hear of a flow in the order of these calls.
func (t *Table) OnEnd(f func(*FlowInfo)) { t.onEnd = append(t.onEnd, f) }

// Info describes a flow that the worker holds, as of now.
func (w *Worker) Info(f Flow, now Tick) (i FlowInfo) {
	w.table.info(f, status(w.table.records[f].status.Load()), now, &i)
	return i
}

// Bytes is the sum of both directions of a flow that the worker holds.
func (w *Worker) Bytes(f Flow) uint64 {
	_, bytes := w.table.records[f].counted()
	return bytes
}

// OutOfWindow counts the segments that the worker has passed out of their window.
func (w *Worker) OutOfWindow() uint64 { return w.counts.outOfWindow.Load() }

// Created counts the flows that the worker has begun.
func (w *Worker) Created() uint64 { return w.counts.created.Load() }
