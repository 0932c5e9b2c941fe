package port

import "github.com/nsgd/nsgd/tun"

// Sink is a device for what is only counted: it gives nothing, and notes that something was written. It has one queue without
// offload, and no trains are gathered for it, so that packets are written one by one. It is owned by one goroutine.
type Sink struct {
	tun.Device
	queue sinkQueue
}

// NewSink makes the device of a slot. to gets the slot with each write.
func NewSink(slot int, to *int) *Sink { return &Sink{queue: sinkQueue{slot: slot, to: to}} }

// Queues implements tun.Device.
func (s *Sink) Queues() []tun.Queue { return []tun.Queue{&s.queue} }

// Stats implements tun.Device; there are none.
func (s *Sink) Stats() (tun.Stats, bool) { return tun.Stats{}, false }

type sinkQueue struct {
	tun.ClosedQueue
	slot int
	to   *int
}

// Read implements tun.Queue; there is never anything.
func (*sinkQueue) Read([]byte) (int, error) { return 0, tun.ErrAgain }

// Write implements tun.Queue.
func (q *sinkQueue) Write([]byte) error {
	*q.to = q.slot
	return nil
}

// WriteParts implements tun.Queue.
func (q *sinkQueue) WriteParts(parts [][]byte) error { return q.Write(parts[0]) }
