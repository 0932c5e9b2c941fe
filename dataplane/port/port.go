// Package port holds the places that an engine has for attachments: a port for each slot, with its device and counters, and
// the plan by which attachments come to slots and leave them.
package port

import (
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/tun"
)

// Port is a slot of an engine: an attachment, or a vacant place. It is not safe for concurrent use; a List is, once nobody
// changes it any more.
type Port struct {
	Device   tun.Device // nil: none
	Identity string     // of the attachment
	counter.Tally
}

// List has the ports by slot.
type List []Port

// drops are what the kernel has dropped at the port's device.
func drops(d tun.Device) counter.KernelDrops {
	if d == nil {
		return counter.KernelDrops{}
	}
	s, ok := d.Stats() // the namespace transmits what the daemon reads
	return counter.KernelDrops{Receive: s.TxDropped, Transmit: s.RxDropped + s.RxErrors, Known: ok}
}

// KernelDrops are those of each attachment.
func (l List) KernelDrops() []counter.KernelDrops {
	all := make([]counter.KernelDrops, len(l))
	for slot := range l {
		all[slot] = l[slot].All(drops(l[slot].Device))
	}
	return all
}

// Counts sums the traffic of each attachment.
func (l List) Counts() []counter.Attachment {
	sums := make([]counter.Attachment, len(l))
	for slot := range l {
		sums[slot] = counter.Sum(l[slot].Cells)
	}
	return sums
}

// Devices are those of the attachments, nil where there is none. If no port has one, the list is empty.
func (l List) Devices() (devices []tun.Device) {
	attached := false
	for _, p := range l {
		devices, attached = append(devices, p.Device), attached || p.Device != nil
	}
	if !attached {
		return nil
	}
	return devices
}

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
