package tun

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// offloadQueue is a queue of a device with the virtio-net header: the kernel's bytes
// are the Queue's bytes.
type offloadQueue struct{ descriptor }

// Read implements Queue.
func (q *offloadQueue) Read(buf []byte) (int, error) {
	defer q.leave()
	if !q.enter() {
		return 0, os.ErrClosed
	}
	if len(buf) <= HeaderLen {
		return 0, ErrFrame
	}
	n, errno := q.read(buf)
	if errno != 0 {
		return 0, queueError(errno)
	}
	return n, nil
}

// Write implements Queue.
func (q *offloadQueue) Write(buf []byte) error {
	defer q.leave()
	if !q.enter() {
		return os.ErrClosed
	}
	if len(buf) <= HeaderLen || len(buf) > BufferLen {
		return ErrFrame
	}
	if errno := q.write(buf); errno != 0 {
		return queueError(errno)
	}
	return nil
}

// FD implements Queue.
func (q *offloadQueue) FD() int { return q.fd }

// plainQueue is a queue of a device without the header: Read puts a zero one before
// the packet, Write takes it off and does what it asks for, short of segmentation.
type plainQueue struct{ descriptor }

// Read implements Queue.
func (q *plainQueue) Read(buf []byte) (int, error) {
	defer q.leave()
	if !q.enter() {
		return 0, os.ErrClosed
	}
	if len(buf) <= HeaderLen {
		return 0, ErrFrame
	}
	n, errno := q.read(buf[HeaderLen:])
	if errno != 0 {
		return 0, queueError(errno)
	}
	clear(buf[:HeaderLen])
	return n + HeaderLen, nil
}

// Write implements Queue.
func (q *plainQueue) Write(buf []byte) error {
	defer q.leave()
	if !q.enter() {
		return os.ErrClosed
	}
	if len(buf) <= HeaderLen || len(buf) > BufferLen {
		return ErrFrame
	}
	packet := buf[HeaderLen:]
	var h Header
	h.Decode((*[HeaderLen]byte)(buf))
	if h.GSOType != GSONone {
		return ErrOffload
	}
	if h.Flags&FlagNeedsCsum != 0 && !completeChecksum(packet, &h) {
		return ErrFrame
	}
	if errno := q.write(packet); errno != 0 {
		return queueError(errno)
	}
	return nil
}

// FD implements Queue.
func (q *plainQueue) FD() int { return q.fd }

// queueError is the error for a failed read or write. It doesn't allocate: an Errno
// below 256 becomes an interface without a copy on the heap.
func queueError(errno syscall.Errno) error {
	switch errno {
	case unix.EAGAIN:
		return ErrAgain
	case unix.EBADFD: // somebody removed the interface: the file is open and of no device
		return os.ErrClosed
	}
	return errno
}
