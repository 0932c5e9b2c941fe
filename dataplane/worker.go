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
	"github.com/nsgd/nsgd/tun"
)

const (
	// burstPackets bounds how many packets a worker takes from one queue before it
	// looks at the next.
	burstPackets = 64
	// bufferLen holds the largest packet that a TUN can give.
	bufferLen = tun.HeaderLen + 65_535
)

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

	time    time.Duration  // the engine's clock, of the burst
	now     conntrack.Tick // the same in ticks
	buffer  [bufferLen]byte
	decoder packet.Decoder
	packet  packet.Packet
	key     conntrack.Key
	verdict Verdict
	init    conntrack.Init

	belongs belonging        // of the packet to the flow of key, see place
	first   fragment.Verdict // of a fragment's datagram

	restarts  bool           // the packet asks for a new flow in place of restarted
	restarted conntrack.Flow // valid when restarts

	reported time.Duration // when a write failure was last logged
}

func newWorker(e *Engine, index int) *worker {
	return &worker{
		engine:   e,
		index:    index,
		flows:    e.flows.Worker(index),
		counters: newCounters(len(e.options.Attachments)),
		strict:   e.options.Flows.TCPStrict,
	}
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
		for _, attachment := range ready {
			if err := w.burst(attachment); err != nil {
				// The device went away, with its namespace perhaps. The others go on.
				w.engine.log.Error("attachment lost", "attachment", w.engine.attachmentName(attachment), "worker", w.index, "error", err)
				if err := w.poller.Remove(attachment); err != nil {
					return fmt.Errorf("dataplane: worker %d: %w", w.index, err)
				}
			}
		}
	}
}

// burst carries what waits on an attachment's queue, up to burstPackets. Each
// packet is written from the buffer that it was read into before the next is
// read: with superpackets of 64 KB, a burst of buffers would not stay in the
// cache. The clock and the snapshot are taken once; commit looks for a newer one.
func (w *worker) burst(attachment int) error {
	w.time = w.engine.clock()
	w.now = ticks(w.time)
	s := w.engine.snapshot.Load()
	from := s.Attachments[attachment]
	queue := w.queues[attachment]
	var err error
	for range burstPackets {
		var n int
		if n, err = queue.Read(w.buffer[:]); err != nil {
			break
		}
		if drop := w.carry(s, from, w.buffer[:n]); drop != packet.NotDropped {
			w.counters.drop(drop)
		}
	}
	w.counters.flush()
	w.flows.Quiesce()
	if err == nil || errors.Is(err, tun.ErrAgain) {
		return nil
	}
	return err
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
