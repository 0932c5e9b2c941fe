package dataplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/tun"
)

const (
	// burstPackets bounds how many packets a worker takes from one queue before it
	// looks at the next.
	burstPackets = 64
	// bufferLen holds the largest packet that a TUN can give.
	bufferLen = tun.HeaderLen + 65_535
	// groupPackets bounds a group, the packets that are read before the first of them is
	// decided: enough for their flows' cache misses to overlap. waitingBytes bounds a group
	// and what waits in trains, so that it is in the cache still when it is written: a
	// large superpacket ends both.
	groupPackets = 16
	waitingBytes = 32 << 10
)

// slot is one packet of a group.
type slot struct {
	frame  []byte // virtio-net header and packet, in the worker's buffer
	packet packet.Packet
	drop   packet.Drop // of decode
	// key is that of the packet's own flow, and hash the key's; valid when drop is packet.NotDropped.
	key  conntrack.Key
	hash uint64
}

// worker owns queue number index of every device, and everything below it in
// this struct: no other goroutine touches it, except for the counters' published
// sums and wake.
type worker struct {
	engine   *Engine
	index    int
	queues   []tun.Queue // by attachment
	flows    *conntrack.Worker
	counters *counters
	strict   bool
	poller   *tun.Poller

	time     time.Duration  // the engine's clock, of the burst
	now      conntrack.Tick // the same in ticks
	buffer   [waitingBytes + bufferLen]byte
	used     int // bytes of buffer that hold packets
	group    [groupPackets]slot
	hashes   [groupPackets]uint64
	decoder  packet.Decoder
	packet   packet.Packet  // of a fragment that has waited
	key      *conntrack.Key // of the flow that the packet belongs to: its own, or &quoted
	hash     uint64         // of the packet's own flow key
	quoted   conntrack.Key  // of the flow that an ICMP error quotes
	quote    packet.Quote   // what it quotes; valid with toQuotedFlow
	answer   conntrack.Key  // of what would answer a packet, at its receiver's end
	joined   packet.Packet  // the packet as seenBy has it
	decision verdict.Decision
	init     conntrack.Init

	belongs belonging        // of the packet to the flow of key, see place
	first   fragment.Verdict // of a fragment's datagram

	marks     conntrack.Marks // of the flow of key, which is marked; with none it is not set
	marked    conntrack.Flow
	direction conntrack.Direction // of the packet in that flow
	exhausted pools

	restarts  bool           // the packet asks for a new flow in place of restarted
	restarted conntrack.Flow // valid when restarts

	sight    sight
	trains   trains
	takes    []tun.Offload // by attachment: of its queue, as it was after the last superpacket
	reported time.Duration // when a write failure was last logged
}

func newWorker(e *Engine, index int) *worker {
	return &worker{
		engine:   e,
		index:    index,
		flows:    e.flows.Worker(index),
		counters: newCounters(len(e.options.Attachments), e.options.Now),
		strict:   e.options.Flows.TCPStrict,
	}
}

// attach gives the worker the next attachment's queue.
func (w *worker) attach(q tun.Queue) {
	w.queues, w.takes = append(w.queues, q), append(w.takes, q.Offload())
}

func (w *worker) open() (err error) {
	w.poller, err = tun.NewPoller(w.queues)
	return err
}

func (w *worker) wake() {
	if w.poller != nil {
		w.poller.Wake()
	}
}

func (w *worker) close() {
	if w.poller != nil {
		w.poller.Close()
		w.poller = nil
	}
}

// run carries bursts until ctx ends; whoever ends it wakes the worker.
func (w *worker) run(ctx context.Context) error {
	ready := make([]int, 0, len(w.queues))
	defer w.flows.Park() // ended flows of others are not to wait for a worker that is gone
	for {
		var err error
		w.flows.Park()
		ready, err = w.poller.Wait(-1, ready[:0])
		w.flows.Unpark()
		if err != nil {
			return fmt.Errorf("dataplane: worker %d: %w", w.index, err)
		}
		if ctx.Err() != nil {
			return nil
		}
		woken := w.engine.clock()
		if w.index == resetter && len(w.engine.silent) > 0 {
			w.sendResets()
		}
		for _, attachment := range ready {
			if err := w.burst(attachment); err != nil {
				// The device went away, with its namespace perhaps. The others go on.
				w.engine.log.Error("attachment lost", "attachment", w.engine.attachmentName(attachment), "worker", w.index, "error", err)
				if err := w.poller.Remove(attachment); err != nil {
					return fmt.Errorf("dataplane: worker %d: %w", w.index, err)
				}
			}
		}
		w.counters.worked.Add(int64(w.engine.clock() - woken))
	}
}

// burst carries what waits on an attachment's queue, up to burstPackets, in groups. The
// clock is taken once. The snapshot is taken behind each group's reading: whoever sends a packet
// after a reload has returned must not meet the old policy.
func (w *worker) burst(attachment int) error {
	w.time = w.engine.clock()
	w.now = ticks(w.time)
	w.look()
	queue := w.queues[attachment]
	var err error
	left := burstPackets
	for left > 0 && err == nil {
		var n int
		n, err = w.read(queue, min(left, groupPackets))
		left -= n
		s := w.engine.snapshot.Load()
		from := s.Attachments[attachment]
		group := w.group[:n]
		w.lookAtGroup()
		w.prepare(from, group)
		for i := range group {
			if drop := w.carryAndTell(s, from, &group[i]); drop != packet.NotDropped {
				w.counters.drop(drop)
			}
		}
		if w.used > waitingBytes || left == 0 || err != nil {
			w.sendTrains()
			w.used = 0
		}
	}
	w.lookAway()
	w.counters.took(burstPackets - left)
	w.counters.flush()
	w.flows.Quiesce()
	if err == nil || errors.Is(err, tun.ErrAgain) {
		return nil
	}
	return err
}

// read fills the first slots of the group with up to most packets.
func (w *worker) read(queue tun.Queue, most int) (n int, err error) {
	for ; n < most && w.used <= waitingBytes; n++ {
		length, err := queue.Read(w.buffer[w.used : w.used+bufferLen])
		if err != nil {
			return n, err
		}
		w.group[n].frame = w.buffer[w.used : w.used+length]
		w.used += length
	}
	return n, nil
}

// prepare decodes a group and has the flow table's memory at hand for all of it.
func (w *worker) prepare(from *topology.Attachment, group []slot) {
	hashes := w.hashes[:0]
	for i := range group {
		g := &group[i]
		if g.drop = w.decode(g.frame, &g.packet); g.drop == packet.NotDropped {
			g.key.Set(&g.packet.Tuple, uint16(from.Index))
			g.hash = w.flows.Hash(&g.key)
			hashes = append(hashes, g.hash)
		}
	}
	if len(hashes) > 1 {
		w.flows.Warm(hashes)
	}
}

// reportWrite logs a device's refusal, at most once a minute for each worker: a
// hostile sender must not fill the log.
func (w *worker) reportWrite(attachment int, err error) {
	now := w.engine.clock()
	if w.reported != 0 && now-w.reported < time.Minute {
		return
	}
	w.reported = now
	if errors.Is(err, os.ErrClosed) {
		return
	}
	w.engine.log.Warn("write refused", "attachment", w.engine.attachmentName(attachment), "error", err)
}
