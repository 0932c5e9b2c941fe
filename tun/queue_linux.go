package tun

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refusals is how many superpackets in a row a kernel may refuse before no more are
// offered to it. Some kernels take most and refuse a few: 6.6.44 those with a short tail.
const refusals = 16

// offloadQueue is a queue of a device with the virtio-net header: the kernel's bytes
// are the Queue's bytes.
type offloadQueue struct {
	descriptor
	level   Offload // set once before the queue is used
	refused int     // superpackets in a row
	pieces  pieces
	vectors [MaxParts]unix.Iovec
}

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
	if isSuperpacket(buf) {
		return q.writeSuperpacket(buf)
	}
	if errno := q.write(buf); errno != 0 {
		return queueError(errno)
	}
	return nil
}

// isSuperpacket reads frame's header.
func isSuperpacket(frame []byte) bool { return frame[gsoTypeAt] != GSONone }

func (q *offloadQueue) writeSuperpacket(buf []byte) error {
	if q.refused < refusals {
		if errno := q.write(buf); !q.refuses(errno) {
			return queueError(errno)
		}
	}
	return q.pieces.write(buf, &q.descriptor, 0)
}

// refuses reports whether errno says that the kernel doesn't want this superpacket,
// rather than any packet, and counts.
func (q *offloadQueue) refuses(errno syscall.Errno) bool {
	switch errno {
	case 0:
		q.refused = 0
	case unix.EINVAL:
		q.refused++
		return true
	}
	return false
}

// WriteParts implements Queue.
func (q *offloadQueue) WriteParts(parts [][]byte) error {
	defer q.leave()
	if !q.enter() {
		return os.ErrClosed
	}
	if !soundParts(parts) {
		return ErrFrame
	}
	if q.refused >= refusals {
		return q.writeSuperpacket(q.pieces.gather(parts))
	}
	v := q.vectors[:len(parts)]
	for i, p := range parts {
		v[i].Base = unsafe.SliceData(p)
		v[i].SetLen(len(p))
	}
	errno := q.writev(v)
	clear(v)
	if isSuperpacket(parts[0]) && q.refuses(errno) {
		return q.pieces.write(q.pieces.gather(parts), &q.descriptor, 0)
	}
	return queueError(errno)
}

// soundParts holds parts to what WriteParts says of them.
func soundParts(parts [][]byte) bool {
	if len(parts) == 0 || len(parts) > MaxParts || len(parts[0]) <= HeaderLen {
		return false
	}
	total := 0
	for _, p := range parts {
		total += len(p)
	}
	return total <= BufferLen
}

// Offload implements Queue.
func (q *offloadQueue) Offload() Offload {
	if q.refused >= refusals {
		return Off
	}
	return q.level
}

// FD implements Queue.
func (q *offloadQueue) FD() int { return q.fd }

// pieces sends superpackets as packets. The zero value is ready; what it needs is
// allocated by the first use, for devices that take superpackets never need it.
type pieces struct {
	segmenter     segmenter
	whole, single []byte
}

// gather puts parts together. The result is valid until the next call.
func (s *pieces) gather(parts [][]byte) []byte {
	s.whole = s.whole[:0]
	for _, p := range parts {
		s.whole = append(s.whole, p...)
	}
	return s.whole
}

// write sends frame's packets, each from its byte skip on.
func (s *pieces) write(frame []byte, to *descriptor, skip int) error {
	if !s.segmenter.begin(frame) {
		return ErrFrame
	}
	if s.single == nil {
		s.single = make([]byte, BufferLen)
	}
	for s.segmenter.more() {
		n := s.segmenter.next(s.single)
		if errno := to.write(s.single[skip:n]); errno != 0 {
			return queueError(errno)
		}
	}
	return nil
}

// plainQueue is a queue of a device without the header: Read puts a zero one before
// the packet, Write takes it off and does what it asks for.
type plainQueue struct {
	descriptor
	pieces pieces
}

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
	if isSuperpacket(buf) {
		return q.pieces.write(buf, &q.descriptor, HeaderLen)
	}
	packet := buf[HeaderLen:]
	var h Header
	h.Decode((*[HeaderLen]byte)(buf))
	if h.Flags&FlagNeedsCsum != 0 && !completeChecksum(packet, &h) {
		return ErrFrame
	}
	if errno := q.write(packet); errno != 0 {
		return queueError(errno)
	}
	return nil
}

// WriteParts implements Queue.
func (q *plainQueue) WriteParts(parts [][]byte) error {
	if !soundParts(parts) {
		return ErrFrame
	}
	return q.Write(q.pieces.gather(parts))
}

// Offload implements Queue.
func (q *plainQueue) Offload() Offload { return Off }

// FD implements Queue.
func (q *plainQueue) FD() int { return q.fd }

// queueError is the error for a failed read or write. It doesn't allocate: an Errno
// below 256 becomes an interface without a copy on the heap.
func queueError(errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.EAGAIN:
		return ErrAgain
	case unix.EBADFD: // somebody removed the interface: the file is open and of no device
		return os.ErrClosed
	}
	return errno
}
