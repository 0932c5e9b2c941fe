package flowlog

import (
	"cmp"
	"errors"
	"math"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
)

// flow is what a Recorder remembers of a live flow: what its rows have told already, and where
// they go. The zero value has had no row. With Options.Slabs it is the flow's note in the flow table, and a change of
// what a field means changes walMagic.
type flow struct {
	packets, bytes [2]uint64
	ends           [2]uint32 // the sender's and the receiver's, in router.ends
	walked         uint32    // the walk of the last row, or lastRow
	created        conntrack.Tick
}

// lastRow says that a flow that was cut has had its last row, though its record stays.
const lastRow = math.MaxUint32

// goesOn makes the row of a live flow when it is due. A flow that has counted no packet yet waits
// for the next walk, because it may still be withdrawn.
func (r *Recorder) goesOn(i *conntrack.FlowInfo) {
	if !r.known(i) && i.Packets == [2]uint64{} {
		return
	}
	f := r.flows[i.Flow]
	if !r.meet(i, &f) {
		return
	}
	switch {
	case f.walked == lastRow:
	case i.Class.Cut():
		r.count(i, &f, stateEnd)
		f.walked = lastRow
	case r.walked-f.walked >= continueEvery:
		f.walked = r.walked
		r.count(i, &f, stateContinue)
	}
	if f != r.flows[i.Flow] {
		r.commit(i.Flow, &f, 0)
	}
}

// fromRing takes the next flow of the ring.
func (r *Recorder) fromRing(i *conntrack.FlowInfo) { r.endAs(i, r.ring.head.Load()+1) }

// ended makes the last row of a flow, and its first row if it had none. A flow without packets
// was withdrawn: its first packet began another flow.
func (r *Recorder) ended(i *conntrack.FlowInfo) { r.endAs(i, 0) }

// endAs is ended for a flow whose place in the ring is before a position; 0: it is not from there.
func (r *Recorder) endAs(i *conntrack.FlowInfo, position uint64) {
	if int(i.Flow) >= len(r.flows) || !r.known(i) && i.Packets == [2]uint64{} { // the former in a ring that is damaged
		return
	}
	f := r.flows[i.Flow]
	if !r.meet(i, &f) {
		return
	}
	if f.walked != lastRow {
		r.count(i, &f, stateEnd)
	}
	r.commit(i.Flow, &flow{}, position)
}

// commit ends a change of a flow: its rows have gathered, and it is remembered as f from now on; noFlow: there is none.
// position is as for endAs. The write-ahead log has all of that before. mu is held.
func (r *Recorder) commit(n conntrack.Flow, f *flow, position uint64) {
	if r.wal != nil && !r.wal.addRows(n, f, position, r.rows, len(r.router.places)) && r.wal.left == uint64(len(r.rows)) {
		r.failed(errors.New("the log of rows that no file has yet is full: a crash would lose the rows that come now"))
	}
	if n != noFlow {
		r.flows[n] = *f
	}
	if r.wal != nil {
		if position > 0 {
			r.ring.head.Store(position)
		}
		r.wal.apply()
		r.rows = r.rows[:0]
	}
	if r.gathered > gatheredBytes {
		r.write()
	}
}

// known reports that a flow has had a row.
func (r *Recorder) known(i *conntrack.FlowInfo) bool {
	f := &r.flows[i.Flow]
	return f.walked != 0 && f.created == i.Created
}

// meet makes a flow's first row, if what is remembered is not of this flow. It is false for a flow that is not logged.
func (r *Recorder) meet(i *conntrack.FlowInfo, f *flow) bool {
	if !logged(i.Key.Proto) {
		return false
	}
	if r.known(i) {
		return true
	}
	// Anything else that is remembered belongs to a flow that was lost when it ended.
	*f = flow{created: i.Created, walked: max(r.walked, 1)}
	if topology.ServiceOfSlot(lastSlot(i.Slots)) == topology.NoService {
		decided := uint64(i.Generation)
		generation := cmp.Or(decided, r.router.first) // 0: the policy of another process decided
		v := r.router.viewOf(generation)
		for n, d := range [...]ruleset.Direction{ruleset.Outbound, ruleset.Inbound} {
			key := &i.Key
			if d == ruleset.Inbound {
				key = &i.ReplyKey
			}
			f.ends[n] = r.router.endAt(v, generation, key.Zone, key.Src, d, r.router.deciding(i.Slots, decided, d))
		}
	}
	r.addRows(i, f, &row{time: r.millis(i.Created), state: stateBegin})
	return true
}

// lastSlot is the slot of a platform service if the platform let the flow pass.
func lastSlot(s conntrack.Slots) (last uint32) {
	for ; s.More(); s = s.Rest() {
		last = s.First()
	}
	return last
}

// count makes a row with the packets and bytes since the flow's last row. A flow may have begun
// after the clocks were read; its row is then no earlier than its beginning.
func (r *Recorder) count(i *conntrack.FlowInfo, f *flow, s state) {
	w := &row{time: max(r.now.UnixMilli(), r.millis(i.Created)), state: s}
	for d := range w.packets {
		// A process that was killed may have lost a unit of a tally, see conntrack.
		w.packets[d] = max(i.Packets[d], f.packets[d]) - f.packets[d]
		w.bytes[d] = max(i.Bytes[d], f.bytes[d]) - f.bytes[d]
	}
	f.packets, f.bytes = i.Packets, i.Bytes
	r.addRows(i, f, w)
}

// addRows adds a flow's row at each of its ends, with the addresses that this end sees.
func (r *Recorder) addRows(i *conntrack.FlowInfo, f *flow, w *row) {
	w.tuple = i.Key.Tuple
	r.addRow(f.ends[0], w)
	w.tuple = i.ReplyKey.Reverse()
	r.addRow(f.ends[1], w)
}

func (r *Recorder) addRow(number uint32, w *row) {
	if int(number) >= len(r.router.ends) { // of a note that is damaged
		return
	}
	e := &r.router.ends[number]
	w.outbound = e.outbound
	for v, g := range e.groups {
		if g == nil {
			continue
		}
		grown := g.add(w)
		r.gathered += grown
		if r.wal != nil {
			to := len(g.tuples)
			if g.rows > 1 {
				grown-- // a comma
			}
			r.rows = append(r.rows, walRow{g, number, Version(v), w.state == stateDenied, to - grown, to})
		}
	}
}

func (r *Recorder) millis(t conntrack.Tick) int64 {
	return r.now.Add(-time.Duration(int32(r.tick-t)) * conntrack.TickLength).UnixMilli()
}
