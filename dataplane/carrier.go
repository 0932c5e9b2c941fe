package dataplane

import (
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/port"
	"github.com/nsgd/nsgd/dataplane/sweep"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// Carrier is an engine without devices: packets are handed to it one by one, each with the time,
// and what the engine would have written is only counted. All else is the engine's own. It is
// owned by one goroutine.
type Carrier struct {
	engine *Engine
	worker *worker
	clock  sweep.Clock // since 1970
	slots  []uint32
	to     int // where the last write went
}

// Carried is what became of a packet.
type Carried struct {
	// Packet is what decoding found; with a drop of decoding, as far as it came.
	Packet packet.Packet
	// Drop is why the packet was not carried, or packet.NotDropped.
	Drop packet.Drop
	// Waits says that it is a fragment whose datagram's first one has not come: it is neither
	// carried nor dropped yet.
	Waits bool
	// To is the attachment that it went to; valid when it was carried.
	To int
	// Slots are the rules that it was counted on, in the order of evaluation; borrowed until the
	// next Carry.
	Slots []uint32
	// InFlow says that it is a packet of Flow, valid until the next Carry, which Began with it.
	InFlow, Began bool
	Flow          conntrack.Flow
}

// NewCarrier makes a carrier for a policy; of the options, workers and clock are its own.
func NewCarrier(policy *policy.Set, o Options) (*Carrier, error) {
	c := &Carrier{}
	o.Workers, o.Clock = 1, func() time.Duration { return c.clock.Now }
	var err error
	if c.engine, err = New(policy, o); err != nil {
		return nil, err
	}
	c.worker = c.engine.workers[0]
	c.worker.counters.Slots = &c.slots
	for i := range o.Attachments {
		c.worker.attach()
		c.worker.give(i, port.NewSink(i, &c.to))
	}
	return c, nil
}

// Advance is Carry of nothing: the clock moves on.
func (c *Carrier) Advance(at time.Time) {
	c.worker.flows.Quiesce()
	c.advance(at)
}

// Rearrange gives the engine other attachments. flows, which may be nil, takes flows along: see Arrangement.Flows. It returns
// the slots of the attachments, in their order.
func (c *Carrier) Rearrange(w *Wanted, flows func(*topology.Snapshot)) ([]int, error) {
	a, err := c.engine.Arrange(w)
	if err != nil {
		return nil, err
	}
	if flows != nil {
		a.Flows = func() { flows(a.Snapshot) }
	}
	devices := make([]tun.Device, len(a.Slots))
	for i, slot := range a.Slots {
		devices[i] = port.NewSink(slot, &c.to)
	}
	err = c.engine.Rearrange(a, func(*topology.Snapshot) ([]tun.Device, error) { return devices, nil }, nil)
	return a.Slots, err
}

// Engine is the engine, which has no devices and must not be run.
func (c *Carrier) Engine() *Engine { return c.engine }

// Carry takes a frame, a virtio-net header and a packet, through the steps that a worker would, as
// received from an attachment at a time. Time never goes back: a packet from before the last one
// is carried at the last one's.
func (c *Carrier) Carry(at time.Time, from int, frame []byte, r *Carried) {
	w := c.worker
	w.flows.Quiesce()
	c.advance(at)
	w.time, w.now = c.clock.Now, ticks(c.clock.Now)
	c.slots, c.to = c.slots[:0], -1
	created := w.flows.Created()
	s := c.engine.Snapshot()
	a, group := s.Attachments[from], w.group[:1]
	group[0].frame = frame
	w.prepare(a, group)
	drop := w.passage.carry(s, a, &group[0])
	w.counters.Flush()
	*r = Carried{Packet: group[0].packet, Drop: drop, To: c.to, Slots: c.slots}
	if drop != packet.NotDropped {
		return
	}
	if r.Waits = c.to < 0; r.Waits {
		return
	}
	r.Began = w.flows.Created() > created
	r.Flow, r.InFlow = c.flowOf(&r.Packet)
}

// flowOf finds the flow of a packet that has been carried.
func (c *Carrier) flowOf(p *packet.Packet) (conntrack.Flow, bool) {
	w, x := c.worker, &c.worker.passage
	key := &x.key
	switch {
	case p.Fragment.IsLater():
		if !x.datagram.InFlow || x.datagram.Related {
			return 0, false
		}
		key = &x.datagram.Flow
	case x.relation != inFlow:
		return 0, false
	}
	f, _, ok := w.flows.Lookup(key, w.now)
	return f, ok
}

// Bytes is how much the flow has carried, both ways.
func (c *Carrier) Bytes(f conntrack.Flow) uint64 { return c.worker.flows.Bytes(f) }

// Info describes the flow.
func (c *Carrier) Info(f conntrack.Flow) conntrack.FlowInfo {
	return c.worker.flows.Info(f, c.worker.now)
}

// Finish drops the fragments that still wait for their datagram's first one. What is carried
// after it finds no datagram's beginning.
func (c *Carrier) Finish() {
	const ever = 24 * time.Hour
	c.worker.flows.Quiesce()
	c.engine.fragments.Expire(c.clock.Now+ever, ever)
}

// advance moves the clock and frees what is over, as a running engine does.
func (c *Carrier) advance(at time.Time) {
	c.clock.Advance(time.Duration(at.UnixNano()), c.engine.flows, c.engine.fragments)
}
