package flowlog

import (
	"context"
	"slices"

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
	// deniedOfFolder is the part of a folder's size that they may add in an interval. A flood
	// needs more than four hours of minutes to fill a folder.
	deniedOfFolder = 256
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
			if rule := r.router.ruleOf(slot); rule != nil && rule.access == ruleset.Deny {
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
	end := r.router.endAt(r.router.viewOf(e.Generation), uint16(zone), address, d, slot)
	if !r.hasRoomForDenied(end) {
		r.deniedOut.Add(1)
		return
	}
	r.addRow(end, w)
}

// hasRoomForDenied reports whether every sink of a flow end takes one more row of a denied
// packet in this interval. mu is held, as for all below.
func (r *Recorder) hasRoomForDenied(end uint32) bool {
	for _, g := range r.router.ends[end].groups {
		if g != nil && slices.ContainsFunc(g.place.log.sinks, func(s *sink) bool { return s.deniedRoom <= 0 }) {
			return false
		}
	}
	return true
}

// tellDenied logs how many denied packets have no row since it last told.
func (r *Recorder) tellDenied() {
	if n := r.deniedLost(); n > r.deniedTold {
		r.log.Warn("flow logs: denied packets without a row, so that other rows have room", "packets", n-r.deniedTold)
		r.deniedTold = n
	}
}

// deniedLost counts the denied packets without a row. Safe for concurrent use.
func (r *Recorder) deniedLost() uint64 { return r.denied.Lost() + r.deniedOut.Load() }
