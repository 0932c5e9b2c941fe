package flowlog

import (
	"context"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
)

// deniedEvents is how many denied packets wait for their rows, for each worker.
const deniedEvents = 1 << 14

// deniedAtOnce is how many are taken at a time.
const deniedAtOnce = 256

// watchDenied subscribes to the packets that rules deny.
func (r *Recorder) watchDenied() (*watch.Subscription, error) {
	filter, err := watch.Parse("reason " + packet.DropRule.String() + " and (tcp or udp)")
	if err != nil {
		return nil, err
	}
	return r.options.Engine.Watch(watch.Options{Filter: filter, DroppedOnly: true, Events: deniedEvents})
}

// atOnce is a context that is over: Read then takes what is there and does not wait for more, for which
// it would look several hundred times a second.
var atOnce = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// takeDenied makes the rows of the denied packets that there are.
func (r *Recorder) takeDenied() {
	for {
		n, err := r.denied.Read(atOnce, r.events)
		if err != nil {
			return
		}
		r.deny(r.events[:n])
	}
}

func (r *Recorder) deny(events []watch.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.book.follow()
	for i := range events {
		e := &events[i]
		for _, slot := range slices.Backward(e.Rules[:e.N]) {
			if int(slot) < len(r.book.rules) && r.book.rules[slot] != nil && r.book.rules[slot].access == ruleset.Deny {
				r.denyBy(e, slot)
				break
			}
		}
	}
}

// denyBy makes the row of a packet at the end whose rule has denied it.
func (r *Recorder) denyBy(e *watch.Event, slot uint32) {
	w := &row{time: e.Time / 1e6, state: stateDenied, tuple: e.Packet.Tuple}
	zone, address, d := e.From, e.Packet.Src, r.book.rules[slot].direction
	if d == ruleset.Inbound {
		if e.Translated {
			w.tuple = e.Arrives
		}
		zone, address = e.To, w.tuple.Dst
	}
	if zone < 0 {
		return
	}
	r.addRow(r.book.end(r.book.viewOf(e.Generation), uint16(zone), address, d, slot), w)
}
