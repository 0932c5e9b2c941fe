package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"github.com/nsgd/nsgd/tun/steer"
	"golang.org/x/sys/unix"
)

// Handover says what the descriptors of a device are good for, in the process that gets them.
type Handover struct {
	// Level is the offload of the queues; Plain says that they have no virtio-net header.
	Level Offload
	Plain bool
	// Index is the interface's, in its namespace.
	Index int
	// MTU is the interface's.
	MTU int
	// Arrivals is the number of what counts packets of sparse flows; 0: nothing does.
	Arrivals uint32
}

// Remote changes a device for a process that only holds its descriptors.
type Remote interface {
	SetAddresses([]netip.Prefix) error
	SetMTU(int) error
	SetRoutes([]netip.Prefix) error
	Close() error
}

// HandOver gives away the descriptors of a device that Open made: one of each queue, then that of its counters, and where there
// is one that of steer.Arrivals. The caller closes them. The device itself carries nothing afterwards. It is changed and closed as before.
func HandOver(device Device) (descriptors []int, h Handover, err error) {
	d, ours := device.(*kernelDevice)
	if !ours {
		return nil, h, fmt.Errorf("tun: device %q: %w: a %T has no descriptors", device.Name(), ErrConfig, device)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.stats == nil {
		return nil, h, d.config.errorf("%w", os.ErrClosed)
	}
	h = Handover{Index: d.link.Attrs().Index, MTU: d.config.MTU}
	for _, q := range d.queues {
		_, h.Plain = q.(*plainQueue)
		h.Level = q.Offload()
		fd, err := unix.FcntlInt(uintptr(q.FD()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, h, errors.Join(os.NewSyscallError("fcntl", err), closeAll(descriptors))
		}
		descriptors = append(descriptors, fd)
	}
	if d.arrivals != nil {
		fd, number, err := d.arrivals.Descriptor()
		if err != nil {
			return nil, h, errors.Join(err, closeAll(descriptors))
		}
		defer func() { descriptors = append(descriptors, fd) }()
		h.Arrivals = number
	}
	descriptors = append(descriptors, d.stats.fd)
	err = closeQueues(d.queues)
	d.queues, d.stats = nil, nil
	return descriptors, h, err
}

func closeAll(descriptors []int) error {
	var errs []error
	for _, fd := range descriptors {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

// TakeOver makes a device of descriptors that HandOver gave, also if that was in another process. It closes them with
// the device, or on an error.
func TakeOver(c Config, h Handover, descriptors []int, remote Remote) (Device, error) {
	c, err := c.withDefaults()
	if err == nil && c.Steer != 0 && len(descriptors) == c.Queues/2+1 { // the kernel can't steer
		c.Queues, c.Steer = c.Queues/2, 0
	}
	var arrivals *steer.Arrivals
	if err == nil && h.Arrivals != 0 && len(descriptors) == c.Queues+2 {
		arrivals, err = steer.ReceiveArrivals(descriptors[c.Queues+1], h.Arrivals)
		descriptors = descriptors[:c.Queues+1]
	}
	if err == nil && len(descriptors) != c.Queues+1 {
		err = c.errorf("%w: %d descriptors for %d queues and the counters", ErrConfig, len(descriptors), c.Queues)
	}
	if err != nil {
		return nil, errors.Join(err, closeAll(descriptors))
	}
	c.MTU = h.MTU
	d := &heldDevice{config: c, index: h.Index, remote: remote, stats: &statsSocket{fd: descriptors[c.Queues]}}
	for _, fd := range descriptors[:c.Queues] {
		if h.Plain {
			d.queues = append(d.queues, &plainQueue{descriptor: descriptor{fd: fd}})
		} else {
			d.queues = append(d.queues, &offloadQueue{descriptor: descriptor{fd: fd}, level: h.Level})
		}
	}
	countSparse(d.queues, arrivals)
	return d, nil
}

// heldDevice is a device whose descriptors this process has. Another process configures it.
type heldDevice struct {
	config Config
	queues []Queue
	level  Offload // before Configure: that of the queues as they came; workers own the queues, and may have lowered it since
	index  int
	remote Remote                                // nil before Configure
	open   func(Config) (Device, Offload, error) // for Configure; nil: it is not needed

	mu     sync.Mutex
	stats  *statsSocket // nil before Configure
	closed bool
}

// Name implements Device.
func (d *heldDevice) Name() string { return d.config.Name }

// Queues implements Device.
func (d *heldDevice) Queues() []Queue { return d.queues }

// MTU implements Device.
func (d *heldDevice) MTU() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config.MTU
}

// SetAddresses implements Device.
func (d *heldDevice) SetAddresses(addresses []netip.Prefix) error {
	return d.remote.SetAddresses(addresses)
}

// SetMTU implements Device.
func (d *heldDevice) SetMTU(mtu int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.remote.SetMTU(mtu); err != nil {
		return err
	}
	d.config.MTU = mtu
	return nil
}

// configure is Configure: whoever may do it opens the same queues, and its device is this one's from then on.
func (d *heldDevice) configure(c Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.open == nil {
		return c.errorf("%w", os.ErrClosed)
	}
	if len(d.queues) < c.Queues {
		c.Steer = 0 // the kernel could not, when the device was new
	}
	c.Queues, c.Adopt = len(d.queues), nil
	for _, q := range d.queues {
		fd, err := unix.FcntlInt(uintptr(q.FD()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return errors.Join(os.NewSyscallError("fcntl", err), closeFiles(c.Adopt))
		}
		c.Adopt = append(c.Adopt, os.NewFile(uintptr(fd), c.Name))
	}
	opened, level, err := d.open(c)
	if err != nil {
		return err
	}
	is, ours := opened.(*heldDevice)
	if !ours || level != d.level {
		return errors.Join(c.errorf("%w: offload %v was asked for, a %T with %v came", ErrConfig, d.level, opened, level), opened.Close())
	}
	for i, q := range is.queues { // workers have d's queues already
		d.queues[i].(Counted).CountedBy(q.(Counted).Arrivals())
	}
	d.config.MTU, d.index, d.remote, d.stats, d.open = is.config.MTU, is.index, is.remote, is.stats, nil
	return closeQueues(is.queues)
}

func closeFiles(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// SetRoutes implements Device.
func (d *heldDevice) SetRoutes(routes []netip.Prefix) error { return d.remote.SetRoutes(routes) }

// Stats implements Device.
func (d *heldDevice) Stats() (Stats, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.stats == nil {
		return Stats{}, false
	}
	return d.stats.read(d.index)
}

// Close implements Device. The descriptors close first: the interface goes with the last of them.
func (d *heldDevice) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return os.ErrClosed
	}
	d.closed = true
	errs := []error{closeQueues(d.queues)}
	if d.remote != nil {
		errs = append(errs, d.stats.close(), d.remote.Close())
	}
	return errors.Join(errs...)
}
