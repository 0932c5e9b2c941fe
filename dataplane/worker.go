package dataplane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/errand"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/virtio"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/tun"
)

const (
	// burstPackets bounds how many packets a worker takes from one queue before it
	// looks at those of sparse flows, and maxBursts how often before it looks at the next; turnBursts bounds
	// those of a turn where many are ready.
	burstPackets, maxBursts, turnBursts = 64, 4, 16
	// yieldBytes are what a worker carries before whoever else waits for its processor may run: the receivers, perhaps.
	// Less costs throughput where all processors are busy, more costs those who wait: see test/bench/README.md.
	yieldBytes = 1 << 20
	// bufferLen holds the largest packet that a TUN can give.
	bufferLen = tun.HeaderLen + 65_535
	// groupPackets bounds a group, the packets that are read before the first of them is
	// decided: enough for their flows' cache misses to overlap. waitingBytes bounds a group
	// and what waits in trains, so that it is in the cache still when it is written: a
	// large superpacket ends both, and the burst.
	groupPackets = 16
	waitingBytes = 32 << 10
	// aheadPackets bounds those of sparse flows of an attachment that are carried in a burst of its bulk flows.
	aheadPackets = 256
)

// slot is one packet of a group.
type slot struct {
	frame  []byte // virtio-net header and packet, in the worker's buffer
	packet packet.Packet
	drop   packet.Drop // of decode
	// key is that of the packet's own flow, and hash the key's; valid when drop is packet.NotDropped.
	key  conntrack.Key
	hash uint64
	// follows says that the packet before it in its group has the same key. It is said of whole packets behind whole ones.
	follows bool
}

// worker owns queue number index of every device, and everything below it in
// this struct: no other goroutine touches it, except for the counters' published
// sums and wake.
type worker struct {
	engine   *Engine
	index    int
	queues   []tun.Queue // by slot
	sparse   []tun.Queue // by slot: what is read first, the queue of sparse flows; nil: there is none
	flows    *conntrack.Worker
	counters *counter.Set
	strict   bool
	poller   *tun.Poller
	errands  errand.Desk

	time   time.Duration  // the engine's clock, of the burst
	now    conntrack.Tick // the same in ticks
	fenced bool           // nothing of the burst may be carried
	buffer [2 * (waitingBytes + bufferLen)]byte
	used   int // bytes of buffer that hold packets
	group  [groupPackets]slot
	ahead  [groupPackets]slot // of sparse flows, carried before group
	// For survive: where the group under way came from, its packets, which one is carried (-1: they are prepared), and
	// those of an attachment that come behind it.
	from          int
	under, behind []slot
	at            int
	behindFrom    int
	hashes        [groupPackets]uint64
	decoder       packet.Decoder
	streak        streak

	passage  passage // of the packet that is carried
	held     passage // of a fragment that has waited for that packet
	heldSlot slot

	watchers  *watch.WatcherList // of the burst; nil: nobody watches
	decisions *watch.Decisions   // of the burst; nil: nobody judges again
	// watched is the wall clock of the group, or of the burst where only drops are told; 0: not taken yet.
	watched int64

	likely  int   // the attachment whose queue of sparse flows was the only one that had something; -1: not known
	few     []int // attachments whose queues of sparse flows are ready
	lone    lone
	carried int // bytes since others could last have the processor

	trains   trains
	takes    []tun.Offload   // by attachment: of its queue, as it was after the last superpacket
	refusals []time.Duration // by attachment: when a write failure was last logged; 0: never
	panicked time.Duration   // when a panic was last logged; 0: never

	// By attachment: writes are timed, or the receiver is slow.
	suspects []bool
	outlets  []outlet
	timed    int // turns with timed writes that are left
	doubts   int // turns that are left whose processor time is asked for
	// Of this turn: writes, and packets in them.
	writes, segments uint64
	one              [1][]byte
}

func newWorker(e *Engine, index int) *worker {
	w := &worker{
		engine:   e,
		index:    index,
		flows:    e.flows.Worker(index),
		counters: e.counters[index],
		strict:   e.options.Flows.TCPStrict,
	}
	w.passage.w, w.held.w, w.errands.Wake, w.likely = w, w, w.wake, -1
	w.passage.decision.Here = true // held decides nothing
	for slot, p := range e.setting.Load().ports {
		w.counters.Attach(slot, p.Cells[index])
	}
	return w
}

// attach makes room for the next slot, whose queue is closed.
func (w *worker) attach() {
	w.queues, w.sparse, w.takes, w.refusals = append(w.queues, tun.ClosedQueue{}), append(w.sparse, nil), append(w.takes, tun.Off), append(w.refusals, 0)
	w.suspects, w.outlets = append(w.suspects, false), append(w.outlets, outlet{})
}

// open watches all queues.
func (w *worker) open() (err error) {
	w.errands.Change(func() bool {
		if w.poller, err = tun.NewPoller(); err != nil {
			return false
		}
		for slot, q := range w.queues {
			if err == nil && q != (tun.ClosedQueue{}) {
				err = w.poller.Add(slot, q, w.sparse[slot])
			}
		}
		if err != nil {
			err = errors.Join(err, w.poller.Close())
			w.poller = nil
		}
		return err == nil
	})
	return err
}

func (w *worker) wake() {
	if w.poller != nil {
		w.poller.Wake()
	}
}

func (w *worker) close() {
	w.errands.Change(func() bool {
		w.endLanes()
		if w.poller != nil {
			w.poller.Close()
			w.poller = nil
		}
		return false
	})
}

// run carries bursts until ctx ends; whoever ends it wakes the worker.
func (w *worker) run(ctx context.Context) error {
	ready := make([]int, 0, len(w.queues))
	defer w.flows.Park() // ended flows of others are not to wait for a worker that is gone
	defer w.errands.Stop()
	for {
		if w.errands.Asked() {
			w.errands.Do()
		}
		var err error
		w.flows.Park()
		ready, w.few, err = w.poller.Wait(-1, ready, w.few)
		w.flows.Unpark()
		if err != nil {
			return fmt.Errorf("dataplane: worker %d: %w", w.index, err)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := w.turn(ready); err != nil {
			return fmt.Errorf("dataplane: worker %d: %w", w.index, err)
		}
	}
}

// turn carries bursts from each attachment that is ready, and what sparse flows have sent between any two, beside a lone flow more
// rarely. After a panic the others go on.
func (w *worker) turn(ready []int) error {
	t := w.beginTurn()
	if w.poller.Blocked() {
		w.carried = 0
	}
	if w.index == resetter && len(w.engine.silent) > 0 {
		w.sendResets()
	}
	var err error
	w.poller.Expected()
	for _, attachment := range w.few {
		_, failed := w.serve(attachment, w.sparse[attachment], false)
		err = errors.Join(err, failed)
	}
	w.poller.Took(int(w.counters.Packets() - t.packets))
	bursts := max(1, min(maxBursts, turnBursts/max(1, len(ready))))
	for _, attachment := range ready {
		for n, more := 0, true; more && (n < bursts || n < loneBursts && len(ready) == 1 && w.lone.goesOn(w.time-t.woken)); n++ {
			var failed error
			more, failed = w.serve(attachment, w.queues[attachment], true)
			err = errors.Join(err, failed)
			if w.carried >= yieldBytes {
				w.carried = 0
				if !w.lone.is() {
					w.engine.yield()
				}
			}
		}
	}
	w.endTurn(t)
	return err
}

// serve carries a burst from a queue of an attachment, or stops watching a device that went away, with its namespace
// perhaps. The others go on, also after a panic.
func (w *worker) serve(attachment int, queue tun.Queue, bulk bool) (more bool, err error) {
	defer w.survive()
	more, err = w.burst(attachment, queue, bulk)
	if err == nil {
		return more, nil
	}
	w.engine.log.Error("attachment lost", "attachment", w.engine.attachmentName(attachment), "worker", w.index, "error", err)
	return false, w.poller.Remove(attachment)
}

// burst carries what waits on a queue of an attachment, up to burstPackets or until the worker's memory is full, in groups. The
// clock is taken once. bulk: what sparse flows have sent comes before each group, beside a lone flow once in loneLook.
func (w *worker) burst(attachment int, queue tun.Queue, bulk bool) (more bool, err error) {
	w.time = w.engine.clock()
	w.now = ticks(w.time)
	w.fenced = w.engine.isFenced(w.time)
	w.beginWatch()
	took, ahead, beside := 0, 0, 0
	for full := false; !full && err == nil; {
		var n int
		n, err = w.read(queue, w.group[:min(burstPackets-took, groupPackets)], waitingBytes)
		took += n
		if bulk && n > 0 && w.looks(attachment, w.group[:n]) {
			own, others := w.carryAhead(attachment, w.group[:n], aheadPackets-ahead)
			ahead, beside = ahead+own, beside+others
		}
		w.carryGroup(attachment, w.group[:n])
		full = took == burstPackets || w.used > waitingBytes
	}
	w.sendTrains()
	w.carried, w.used = w.carried+w.used, 0
	w.endWatch()
	w.counters.Took(took + ahead + beside)
	w.counters.Flush()
	w.flows.Quiesce()
	if errors.Is(err, tun.ErrAgain) {
		return false, nil
	}
	return err == nil, err
}

// carryAhead carries what sparse flows have sent before group was read from an attachment, as far as it is counted: see
// tun.Poller. What a flow sent before it became a bulk flow waits there: it takes up to most packets of the attachment's, so
// that a flood of sparse flows may swap such, and a group of each other attachment's, two of the likely one's. It returns how
// many packets there were of it, and of others.
func (w *worker) carryAhead(attachment int, group []slot, most int) (own, others int) {
	w.behindFrom, w.behind = attachment, group
	if expected := w.poller.Expected(); 0 < expected && expected < groupPackets && w.likely >= 0 && w.sparse[w.likely] != nil {
		// Answers to bulk flows mostly come one by one from the same place: the kernel is not asked where they are.
		n := w.carryFew(w.likely, min(most, expected))
		if w.likely == attachment {
			own = n
		} else {
			others = n
		}
		if n == 0 {
			w.likely = -1
		}
	}
	if w.few = w.poller.Sparse(w.few); len(w.few) == 1 {
		w.likely = w.few[0]
	}
	// The poller reports so many at a time: if there may be more, this one's may be among them.
	if slices.Contains(w.few, attachment) || len(w.few) == tun.MaxSparse && w.sparse[attachment] != nil {
		own += w.carryFew(attachment, most-own)
	}
	for _, other := range w.few {
		if other != attachment {
			others += w.carryFew(other, groupPackets)
		}
	}
	w.behind = nil
	return own, others
}

// carryFew carries up to most packets of an attachment's sparse flows, and returns how many there were. It leaves the buffer
// as it is.
func (w *worker) carryFew(attachment, most int) (took int) {
	used := w.used
	for took < most {
		w.poller.Expected()
		n, err := w.read(w.sparse[attachment], w.ahead[:min(most-took, groupPackets)], used+waitingBytes)
		if n > 0 { // else trains go on
			w.carryGroup(attachment, w.ahead[:n])
			w.sendTrains()
		}
		took, w.carried, w.used = took+n, w.carried+w.used-used, used
		if w.poller.Took(n); err != nil {
			break // it is empty, or whoever serves it finds the same
		}
	}
	return took
}

// carryGroup carries packets that were read from an attachment. The snapshot is taken behind their reading: whoever sends a
// packet after a reload has returned must not meet the old policy.
func (w *worker) carryGroup(attachment int, group []slot) {
	if len(group) == 0 {
		return
	}
	s := w.engine.snapshot.Load()
	from := s.Attachments[attachment]
	w.watchGroup()
	w.from, w.under, w.at = attachment, group, -1
	w.prepare(from, group)
	for i := range group {
		w.at = i
		w.passage.carry(s, from, &group[i])
	}
	w.endStreak()
	w.under = nil
}

// read fills the first slots of a group, until more than limit bytes of the buffer are used.
func (w *worker) read(queue tun.Queue, group []slot, limit int) (n int, err error) {
	for ; n < len(group) && w.used <= limit; n++ {
		length, err := queue.Read(w.buffer[w.used : w.used+bufferLen])
		if err != nil {
			return n, err
		}
		group[n].frame = w.buffer[w.used : w.used+length]
		w.used += length
	}
	return n, nil
}

// prepare decodes the group, counts it as received, and prefetches its flow-table entries.
func (w *worker) prepare(from *topology.Attachment, group []slot) {
	hashes := w.hashes[:0]
	fabric := from.FromFabric()
	var packets, bytes uint64
	var last *slot // the packet before, if it has a key
	for i := range group {
		g := &group[i]
		g.follows = false
		if g.drop = virtio.Decode(&w.decoder, g.frame, &g.packet); g.drop == packet.NotDropped {
			zone := uint16(from.Index)
			if fabric {
				zone = w.engine.room.ZoneOf(from, g.packet.Dst)
			}
			g.key.Set(&g.packet.Tuple, zone)
			if last != nil && g.key.Equal(&last.key) {
				g.hash, g.follows = last.hash, !g.packet.Fragment.IsFragment() && !last.packet.Fragment.IsFragment()
			} else {
				g.hash = w.flows.Hash(&g.key)
				hashes = append(hashes, g.hash)
			}
			last = g
		} else {
			last = nil
			if g.packet.Segments == 0 { // not decoded far enough to know
				g.packet.Segments, g.packet.WireLen = 1, uint32(len(g.frame)-tun.HeaderLen)
			}
		}
		packets += uint64(g.packet.Segments)
		bytes += uint64(g.packet.WireLen)
	}
	w.counters.Receive(from.Index, packets, bytes)
	if len(hashes) > 1 {
		w.flows.Warm(hashes)
	}
}
