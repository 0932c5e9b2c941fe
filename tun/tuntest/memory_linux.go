// Package tuntest has a device without a kernel, for tests and benchmarks of what carries packets.
package tuntest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sys/unix"
)

// Memory is a tun.Device of rings of preallocated slots that tests and benchmarks fill
// and empty. A tun.Poller waits for its queues as for those of any device. Inject, Drain
// and Collect may be called from any goroutine.
type Memory struct {
	name   string
	queues []*memoryQueue
	public []tun.Queue

	mu        sync.Mutex
	mtu       int            // guarded by mu
	routes    []netip.Prefix // guarded by mu
	addresses []netip.Prefix // guarded by mu
}

// MemoryOption changes what NewMemory makes.
type MemoryOption func(*memoryOptions)

type memoryOptions struct {
	slotLen, mtu int
	offload      tun.Offload
}

// WithSlotLen bounds what one slot holds, header included. The default, tun.BufferLen,
// takes superpackets; 2048 keeps benchmarks of small packets in the cache.
func WithSlotLen(n int) MemoryOption { return func(o *memoryOptions) { o.slotLen = n } }

// WithMTU sets what Memory.MTU says; tun.DefaultMTU without it.
func WithMTU(n int) MemoryOption { return func(o *memoryOptions) { o.mtu = n } }

// WithOffload sets what the queues' Offload says; tun.Off without it. The device takes any
// frame as it stands, whatever the level.
func WithOffload(level tun.Offload) MemoryOption { return func(o *memoryOptions) { o.offload = level } }

// NewMemory returns a device with that many queues. Each queue holds up to capacity
// injected packets and as many written ones.
func NewMemory(name string, queues, capacity int, options ...MemoryOption) (*Memory, error) {
	o := memoryOptions{slotLen: tun.BufferLen, mtu: tun.DefaultMTU, offload: tun.Off}
	for _, set := range options {
		set(&o)
	}
	if queues < 1 || capacity < 1 || o.slotLen <= tun.HeaderLen {
		return nil, fmt.Errorf("tuntest: device %q: %w: %d queues of %d slots of %d bytes", name, tun.ErrConfig, queues, capacity, o.slotLen)
	}
	m := &Memory{name: name, mtu: o.mtu}
	for range queues {
		ready, err := newEvent()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("tuntest: device %q: %w", name, err), m.Close())
		}
		q := &memoryQueue{ready: ready, offload: o.offload, in: newRing(capacity, o.slotLen), out: newRing(capacity, o.slotLen)}
		m.queues = append(m.queues, q)
		m.public = append(m.public, q)
	}
	return m, nil
}

// Inject puts a frame, a tun.Header and a packet, where Read of that queue finds it. It
// reports false when the queue is closed. It also counts a drop when the queue is full or
// the frame doesn't fit a slot.
func (m *Memory) Inject(queue int, frame []byte) bool { return m.queues[queue].inject(frame) }

// CountArrivals has what Inject puts into the queues from first on counted, as the kernel counts packets of sparse flows.
func (m *Memory) CountArrivals(first int, arrivals *atomic.Uint64) {
	for _, q := range m.queues[first:] {
		q.CountedBy(arrivals)
	}
}

// Drain hands every frame written to that queue to f, oldest first, and returns how many
// there were. f may be nil. The slice is borrowed until f returns.
func (m *Memory) Drain(queue int, f func(frame []byte)) int { return m.queues[queue].drain(f) }

// Collect returns copies of all frames written so far, queue by queue.
func (m *Memory) Collect() [][]byte {
	var frames [][]byte
	for _, q := range m.queues {
		q.drain(func(frame []byte) { frames = append(frames, slices.Clone(frame)) })
	}
	return frames
}

// Name is the name given to NewMemory.
func (m *Memory) Name() string { return m.name }

// Queues are the device's queues.
func (m *Memory) Queues() []tun.Queue { return m.public }

// MTU is tun.DefaultMTU, or what WithMTU or SetMTU said.
func (m *Memory) MTU() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mtu
}

// SetAddresses remembers addresses for Addresses.
func (m *Memory) SetAddresses(addresses []netip.Prefix) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.addresses = slices.Clone(addresses)
	return nil
}

// Addresses are those of the last SetAddresses.
func (m *Memory) Addresses() []netip.Prefix {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.addresses)
}

// SetMTU sets what MTU says.
func (m *Memory) SetMTU(mtu int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mtu = mtu
	return nil
}

// SetRoutes remembers routes for Routes.
func (m *Memory) SetRoutes(routes []netip.Prefix) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.routes = slices.Clone(routes)
	return nil
}

// Routes are those of the last SetRoutes.
func (m *Memory) Routes() []netip.Prefix {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.routes)
}

// Stats counts injected packets as transmitted and written ones as received, as the
// kernel of a namespace behind the device would.
func (m *Memory) Stats() (tun.Stats, bool) {
	var s tun.Stats
	for _, q := range m.queues {
		s.TxPackets += q.in.tail.Load()
		s.TxDropped += q.in.refused.Load()
		s.RxPackets += q.out.tail.Load()
		s.RxDropped += q.out.refused.Load()
	}
	return s, true
}

// Close ends the device. Written frames can still be collected.
func (m *Memory) Close() error {
	var errs []error
	for _, q := range m.queues {
		errs = append(errs, q.ready.close())
	}
	return errors.Join(errs...)
}

// memoryQueue is one queue: the worker reads from in and writes to out, without a
// lock; the locks keep several injectors or drainers of one test apart.
type memoryQueue struct {
	ready    *event
	offload  tun.Offload
	signaled atomic.Bool // ready was signaled and not cleared since
	in, out  *ring
	arrivals atomic.Pointer[atomic.Uint64]

	injectMu, drainMu sync.Mutex

	_ [64]byte // keeps the next queue off the line
}

// Read implements tun.Queue.
func (q *memoryQueue) Read(buf []byte) (int, error) {
	if q.ready.closed.Load() {
		return 0, os.ErrClosed
	}
	n, ok := q.in.pop(buf)
	if ok {
		return n, nil
	}
	if !q.signaled.Load() {
		return 0, tun.ErrAgain
	}
	// Empty: take the signal back and look again. An Inject between the two looks has
	// seen the signal standing and gave none.
	q.ready.clear()
	q.signaled.Store(false)
	if n, ok = q.in.pop(buf); !ok {
		return 0, tun.ErrAgain
	}
	q.signal() // that Inject may have left more
	return n, nil
}

func (q *memoryQueue) signal() {
	if !q.signaled.Swap(true) {
		q.ready.signal()
	}
}

// Write implements tun.Queue.
func (q *memoryQueue) Write(buf []byte) error { return q.write(len(buf), buf) }

// WriteParts implements tun.Queue.
func (q *memoryQueue) WriteParts(parts [][]byte) error {
	total := 0
	for _, p := range parts {
		total += len(p)
	}
	return q.write(total, parts...)
}

// write is WriteParts of parts with total bytes.
func (q *memoryQueue) write(total int, parts ...[]byte) error {
	switch {
	case q.ready.closed.Load():
		return os.ErrClosed
	case total <= tun.HeaderLen || total > q.out.slotLen:
		return tun.ErrFrame
	case !q.out.push(parts...):
		return tun.ErrAgain
	}
	return nil
}

// CountedBy implements tun.Counted.
func (q *memoryQueue) CountedBy(arrivals *atomic.Uint64) { q.arrivals.Store(arrivals) }

// Arrivals implements tun.Counted.
func (q *memoryQueue) Arrivals() *atomic.Uint64 { return q.arrivals.Load() }

// SetSlow implements tun.Queue: no write takes long.
func (q *memoryQueue) SetSlow(bool) {}

// Offload implements tun.Queue.
func (q *memoryQueue) Offload() tun.Offload { return q.offload }

// FD implements tun.Queue.
func (q *memoryQueue) FD() int { return q.ready.fd }

func (q *memoryQueue) inject(frame []byte) bool {
	q.injectMu.Lock()
	defer q.injectMu.Unlock()
	if q.ready.closed.Load() {
		return false
	}
	if len(frame) <= tun.HeaderLen || len(frame) > q.in.slotLen {
		q.in.refused.Add(1)
		return false
	}
	if arrivals := q.arrivals.Load(); arrivals != nil { // also what has no room, as the kernel does
		arrivals.Add(1)
	}
	if !q.in.push(frame) {
		return false
	}
	q.signal()
	return true
}

func (q *memoryQueue) drain(f func(frame []byte)) int {
	q.drainMu.Lock()
	defer q.drainMu.Unlock()
	count := 0
	for frame := q.out.peek(); frame != nil; frame = q.out.peek() {
		if f != nil {
			f(frame)
		}
		q.out.advance()
		count++
	}
	return count
}

// event is an eventfd: readable from signal until clear. Both are free of allocation, and
// harmless after close.
type event struct {
	fd     int
	file   *os.File // keeps the number from other uses while a call is inside
	raw    syscall.RawConn
	closed atomic.Bool

	// What signal and clear run inside raw; fields, because a closure would be allocated.
	write, read func(fd uintptr)
}

func newEvent() (*event, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	// Go's own poller takes only what is non-blocking from the start.
	e := &event{fd: fd, file: os.NewFile(uintptr(fd), "eventfd")}
	if e.raw, err = e.file.SyscallConn(); err == nil {
		err = unix.SetNonblock(fd, true)
	}
	one, count := []byte{1, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 8) // above zero in either byte order
	e.write = func(fd uintptr) { unix.Write(int(fd), one) }
	e.read = func(fd uintptr) { unix.Read(int(fd), count) }
	if err != nil {
		return nil, errors.Join(err, e.file.Close())
	}
	return e, nil
}

func (e *event) signal() { e.raw.Control(e.write) }

func (e *event) clear() { e.raw.Control(e.read) }

func (e *event) close() error {
	if e.closed.Swap(true) {
		return os.ErrClosed
	}
	return e.file.Close()
}

// ring is a bounded queue of slots between one pushing and one popping goroutine.
type ring struct {
	slotLen int // longest frame
	stride  int // distance of slots
	slots   []byte
	lengths []int

	// What the two sides write lies on cache lines of their own.
	_        [64]byte
	tail     atomic.Uint64 // frames ever pushed
	refused  atomic.Uint64 // frames that found the ring full, or didn't fit a slot
	pushSlot int           // slot of the next push; the pusher's
	_        [64]byte
	head     atomic.Uint64 // frames ever popped
	popSlot  int           // slot of the next pop; the popper's
	_        [64]byte
}

func newRing(capacity, slotLen int) *ring {
	// An odd number of cache lines: headers at the same power of two would all want the
	// same few places in the cache.
	stride := ((slotLen+63)/64 | 1) * 64
	return &ring{slotLen: slotLen, stride: stride, slots: make([]byte, capacity*stride), lengths: make([]int, capacity)}
}

// push copies a frame's parts, which fit a slot together, and reports whether there was room.
func (r *ring) push(parts ...[]byte) bool {
	tail := r.tail.Load()
	if tail-r.head.Load() == uint64(len(r.lengths)) {
		r.refused.Add(1)
		return false
	}
	n, slot := 0, r.slots[r.pushSlot*r.stride:][:r.slotLen]
	for _, p := range parts {
		n += copy(slot[n:], p)
	}
	r.lengths[r.pushSlot] = n
	r.pushSlot = r.next(r.pushSlot)
	r.tail.Store(tail + 1)
	return true
}

// peek is the oldest frame, valid until advance; nil when there is none.
func (r *ring) peek() []byte {
	if r.head.Load() == r.tail.Load() {
		return nil
	}
	return r.slots[r.popSlot*r.stride:][:r.lengths[r.popSlot]]
}

// advance gives the slot of the oldest frame back.
func (r *ring) advance() {
	r.popSlot = r.next(r.popSlot)
	r.head.Store(r.head.Load() + 1)
}

// pop copies the oldest frame; a short buf gets its beginning, as from the kernel.
func (r *ring) pop(buf []byte) (int, bool) {
	frame := r.peek()
	if frame == nil {
		return 0, false
	}
	n := copy(buf, frame)
	r.advance()
	return n, true
}

func (r *ring) next(slot int) int {
	if slot++; slot == len(r.lengths) {
		return 0
	}
	return slot
}
