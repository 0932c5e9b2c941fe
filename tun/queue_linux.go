package tun

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// After refusals sound superpackets of a kind in a row that the kernel refused, the next respite
// ones go in pieces. Fewer refusals mean little: kernel 6.6.44 refuses those with a short tail.
const (
	refusals = 16
	respite  = 1 << 16
)

// acceptance counts what the kernel did with one kind of superpackets.
type acceptance struct {
	refused  int // in a row
	inPieces int // sent in pieces since the last refusal
}

func (a *acceptance) over() bool { return a.refused >= refusals }

// offloadQueue is a queue of a device with the virtio-net header: the kernel's bytes are the
// Queue's bytes.
type offloadQueue struct {
	descriptor
	level   Offload // set once before the queue is used
	tcp     acceptance
	udp     acceptance
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

// isSuperpacket reports whether frame's header says so.
func isSuperpacket(frame []byte) bool { return frame[gsoTypeAt] != GSONone }

// kind returns the counts for superpackets like frame.
func (q *offloadQueue) kind(frame []byte) *acceptance {
	if frame[gsoTypeAt] == GSOUDPL4 {
		return &q.udp
	}
	return &q.tcp
}

func (q *offloadQueue) writeSuperpacket(buf []byte) error {
	a := q.kind(buf)
	if !a.over() {
		errno := q.write(buf)
		if errno != unix.EINVAL {
			a.refused = 0
			return queueError(errno)
		}
	}
	return q.writePieces(a, buf)
}

// writePieces sends the packets of a superpacket that the kernel refuses.
func (q *offloadQueue) writePieces(a *acceptance, frame []byte) error {
	err := q.pieces.write(frame, &q.descriptor, 0)
	switch {
	case err == ErrFrame: // rightly refused
	case !a.over():
		a.refused++
	default:
		if a.inPieces++; a.inPieces == respite {
			*a = acceptance{}
		}
	}
	return err
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
	super := isSuperpacket(parts[0])
	a := q.kind(parts[0])
	if super && a.over() {
		return q.writePieces(a, q.pieces.gather(parts))
	}
	v := q.vectors[:len(parts)]
	for i, p := range parts {
		v[i].Base = unsafe.SliceData(p)
		v[i].SetLen(len(p))
	}
	errno := q.writev(v)
	clear(v)
	if super {
		if errno == unix.EINVAL {
			return q.writePieces(a, q.pieces.gather(parts))
		}
		a.refused = 0
	}
	return queueError(errno)
}

// soundParts checks what WriteParts asks of parts.
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
	switch {
	case q.tcp.over():
		return Off
	case q.udp.over():
		return min(q.level, TSO)
	}
	return q.level
}

// FD implements Queue.
func (q *offloadQueue) FD() int { return q.fd }

// pieces sends superpackets as packets. The zero value is ready. The first use allocates the
// buffers: devices that take superpackets never need them.
type pieces struct {
	segmenter     segmenter
	whole, single []byte
}

// gather joins parts. The result is valid until the next call.
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

// plainQueue is a queue of a device without the header. Read puts a zero Header before the
// packet. Write takes it off and does what it asks for.
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

// queueError converts the errno of a read or write. It doesn't allocate: an Errno below 256
// becomes an interface without a copy on the heap.
func queueError(errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.EAGAIN:
		return ErrAgain
	case unix.EBADFD: // the interface was removed
		return os.ErrClosed
	}
	return errno
}
