package flowlog

import (
	"context"
	"slices"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
)

const (
	// deniedEvents is how many denied packets wait for their rows, for each worker.
	deniedEvents = 1 << 14
	// deniedAtOnce is how many denied packets are read at a time.
	deniedAtOnce = 256
	// deniedPerLook bounds the denied packets of one look, so that a flood delays neither ended
	// flows nor a walk.
	deniedPerLook = 16 * deniedAtOnce
	// deniedOfQueue is the part of a sink's queue that rows of denied packets may take up: one
	// in so many bytes.
	deniedOfQueue = 4
	// deniedOfFolder is the part of a folder's size that they may add in an hour, deniedOfHour the part of that
	// in an interval: one in so many bytes. A flood needs 16 hours to fill a folder.
	deniedOfFolder, deniedOfHour = 16, 16
	// deniedOfOthers is what an NSG leaves of an interval's room to the others: it takes no more than one in so many
	// bytes of what is left.
	deniedOfOthers = 2
	// ownRows is how many denied packets of a source, to one address and port, have rows of their own in an interval.
	// Later ones share a row, and so do those without room.
	ownRows = 64
	// maxRepeated bounds the sources whose repeated denials are counted in an interval.
	maxRepeated = 1 << 14
)

// watchDenied subscribes to the packets that rules deny.
func (r *Recorder) watchDenied() (*watch.Subscription, error) {
	filter, err := watch.Parse("reason " + packet.DropRule.String() + " and (tcp or udp)")
	if err != nil {
		return nil, err
	}
	return r.options.Engine.Watch(watch.Options{Filter: filter, DroppedOnly: true, Events: deniedEvents})
}

// atOnce is a cancelled context, which makes Read return at once. Otherwise Read would look
// for more several hundred times a second.
var atOnce = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// takeDenied makes the rows of the denied packets that wait, of deniedPerLook at most. It
// reports whether more may wait.
func (r *Recorder) takeDenied() (more bool) {
	for range deniedPerLook / deniedAtOnce {
		n, err := r.denied.Read(atOnce, r.events)
		if err != nil {
			return false
		}
		r.deny(r.events[:n])
	}
	return true
}

func (r *Recorder) deny(events []watch.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.router.follow()
	for i := range events {
		e := &events[i]
		for _, slot := range slices.Backward(e.Rules[:e.N]) {
			if rule := r.router.ruleOf(slot, e.Generation); rule != nil && rule.access == ruleset.Deny {
				r.denyBy(e, slot, rule.direction)
				break
			}
		}
	}
}

// denyBy makes the row of a packet at the end with the rule that denied it.
func (r *Recorder) denyBy(e *watch.Event, slot uint32, d ruleset.Direction) {
	w := &row{time: e.Time / 1e6, state: stateDenied, tuple: e.Packet.Tuple}
	zone, address := e.From, e.Packet.Src
	if d == ruleset.Inbound {
		if e.Translated {
			w.tuple = e.Arrives
		}
		zone, address = e.To, w.tuple.Dst
	}
	if zone < 0 {
		return
	}
	end := r.router.endAt(r.router.viewOf(e.Generation), e.Generation, uint16(zone), address, d, slot)
	key := repeatedKey{end, w.tuple.Proto, w.tuple.Src, w.tuple.Dst, w.tuple.DstPort}
	again := r.repeated[key]
	room := r.hasRoomForDenied(end)
	if again != nil && (again.rows == ownRows || !room) {
		again.time = w.time
		again.packets[conntrack.Original] += uint64(e.Packet.Segments)
		again.bytes[conntrack.Original] += uint64(e.Packet.WireLen)
		return
	}
	if again == nil && len(r.repeated) >= maxRepeated || !room {
		r.deniedOut.Add(1)
		return
	}
	if again == nil {
		again = &repeated{row: row{state: stateDenied, tuple: w.tuple}}
		r.repeated[key] = again
	}
	again.rows++
	r.addRow(end, w)
	r.commit(noFlow, &flow{}, 0)
}

// repeated is the row of a source whose packets were denied again and again in an interval.
type repeated struct {
	row
	rows int // of single packets
}

// repeatedKey is what the denied packets of one row have in common: all but the source port.
type repeatedKey struct {
	end      uint32
	proto    uint8
	src, dst packet.Addr
	port     uint16
}

// addRepeated makes a row for each source whose packets were denied so often in this interval that some had no row of their
// own. It counts those. mu is held.
func (r *Recorder) addRepeated() {
	for key, w := range r.repeated {
		if w.packets[conntrack.Original] > 0 {
			r.addRow(key.end, &w.row)
			r.commit(noFlow, &flow{}, 0)
		}
	}
	clear(r.repeated)
}

// hasRoomForDenied reports whether every sink of a flow end takes one more row of a denied
// packet in this interval, and its NSG leaves the others room. mu is held, as for all below.
func (r *Recorder) hasRoomForDenied(end uint32) bool {
	for _, g := range r.router.ends[end].groups {
		if g != nil && slices.ContainsFunc(g.place.log.sinks, func(s *sink) bool {
			return s.deniedRoom <= g.share.denied*deniedOfOthers
		}) {
			return false
		}
	}
	return true
}

// tellDenied logs how many denied packets have no row, and how many rows had no room, since it last told.
func (r *Recorder) tellDenied() {
	if n := r.deniedLost(); n > r.deniedTold {
		r.log.Warn("flow logs: denied packets without a row, so that other rows have room", "packets", n-r.deniedTold)
		r.deniedTold = n
	}
	if n := r.leftOut(); n > r.leftTold {
		r.log.Warn("flow logs: rows left out, because the folder is full of this hour's", "rows", n-r.leftTold)
		r.leftTold = n
	}
}

// leftOut counts the rows that had no room in a folder. Safe for concurrent use.
func (r *Recorder) leftOut() (rows uint64) {
	for _, st := range r.stores {
		rows += st.leftOut.Load()
	}
	return rows
}

// deniedLost counts the denied packets without a row. Safe for concurrent use.
func (r *Recorder) deniedLost() uint64 { return r.denied.Lost() + r.deniedOut.Load() }
