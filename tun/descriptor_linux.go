package tun

import (
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// close adds closing to descriptor.users. From then on enter sees a negative number, and the
// last call that leaves sees exactly closing.
const closing = -1 << 30

// descriptor is a raw, non-blocking file descriptor outside Go's poller. Calls on it may race
// with close: the kernel gets the number back only when no call is inside. It may reuse the
// number at once, and packets would go into another file.
type descriptor struct {
	fd    int
	slow  bool // see Queue.SetSlow
	users atomic.Int32
	ended atomic.Bool // close was called
	freed atomic.Bool // the kernel has the number back
	// arrivals counts packets of sparse flows for the worker whose queue this is; nil: nothing counts this queue's.
	arrivals atomic.Pointer[atomic.Uint64]
}

// CountedBy implements Counted.
func (d *descriptor) CountedBy(arrivals *atomic.Uint64) { d.arrivals.Store(arrivals) }

// Arrivals implements Counted.
func (d *descriptor) Arrivals() *atomic.Uint64 { return d.arrivals.Load() }

// enter reserves the descriptor for one call. It reports false after close. Call leave after
// each enter, successful or not.
func (d *descriptor) enter() bool { return d.users.Add(1) > 0 }

func (d *descriptor) leave() {
	if d.users.Add(-1) == closing {
		d.free()
	}
}

func (d *descriptor) close() error {
	if d.ended.Swap(true) {
		return os.ErrClosed
	}
	if d.users.Add(closing) == closing {
		return d.free()
	}
	return nil
}

func (d *descriptor) free() error {
	if d.freed.Swap(true) {
		return nil
	}
	return unix.Close(d.fd)
}

// read and write are read(2) and write(2) of a descriptor that never blocks. b must not be
// empty. RawSyscall skips the scheduler's bookkeeping: with it around both calls, one worker
// between two devices carried 11 to 14 Gbit/s of TCP in place of 16 to 17.
func (d *descriptor) read(b []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

func (d *descriptor) write(b []byte) syscall.Errno {
	if d.slow {
		_, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(d.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		return errno
	}
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(d.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return errno
}

// SetSlow implements Queue. Whoever writes a slow queue writes one part.
func (d *descriptor) SetSlow(slow bool) { d.slow = slow }

func (d *descriptor) writev(v []unix.Iovec) syscall.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(d.fd), uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)))
	return errno
}

// event is an eventfd: readable from signal until clear. Neither allocates.
type event struct {
	descriptor
	_ [64]byte // keeps others off the cache line
}

func newEvent() (*event, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &event{descriptor: descriptor{fd: fd}}, nil
}

func (e *event) signal() {
	// A count above zero in either byte order. EAGAIN means a full counter, which is readable
	// as well.
	one := [8]byte{1}
	e.write(one[:])
}

func (e *event) clear() {
	var count [8]byte
	e.read(count[:])
}
