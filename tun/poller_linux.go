package tun

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wakeMark stands for the poller's own eventfd among the indexes of queues. At and below sparseMark are those of sparse
// flows, downwards.
const wakeMark, sparseMark = -1, -2

// MaxSparse bounds the queues of sparse flows that one call of Sparse reports, so that whoever floods many of them leaves
// bulk flows their turn. The kernel reports the others first the next time.
const MaxSparse = 4

// Poller waits for the queues of one worker. Wait, Sparse, Add and Remove belong to that worker;
// Wake and Close may come from any goroutine.
type Poller struct {
	epoll   descriptor
	sparse  descriptor // watches the queues of sparse flows, which epoll watches too
	wake    *event
	watched []entry
	sparseCount
	events       []unix.EpollEvent
	blocked      bool // the last Wait
	sparseEvents [MaxSparse]unix.EpollEvent
}

// entry is what is watched at an index.
type entry struct{ queue, sparse Queue }

// sparseCount says whether queues of sparse flows may hold something, without a call of the kernel. It helps where one count
// is of all of them; an adopted device's may come later. A packet is counted shortly before it can be read.
type sparseCount struct {
	arrivals *atomic.Uint64 // packets; nil: the kernel is asked each time
	seen     uint64         // arrivals, when Expected looked last
	carried  uint64         // packets of arrivals that were read, or had no room
	empty    uint64         // arrivals, when the kernel last knew of none
	skipped  int            // how often the kernel was not asked, since it last was
	asked    int            // how often the kernel was asked for want of arrivals
}

const (
	// recountEvery is after how many questions a count is looked for again.
	recountEvery = 1024
	// askEvery is how often the kernel is asked at least, whatever the count: whoever controls a sender's network namespace can
	// send packets that are not counted, or counted long before they come.
	askEvery = 8
)

// none counts nothing: where no queue is of sparse flows, none of these ever arrives.
var none atomic.Uint64

// find finds the one count of all queues.
func (c *sparseCount) find(watched []entry) {
	*c = sparseCount{arrivals: &none}
	for _, e := range watched {
		if e.sparse == nil {
			continue
		}
		q, ok := e.sparse.(Counted)
		if !ok || q.Arrivals() == nil || c.arrivals != &none && q.Arrivals() != c.arrivals {
			c.arrivals = nil
			return
		}
		c.arrivals = q.Arrivals()
	}
}

// NewPoller watches nothing yet.
func NewPoller() (*Poller, error) {
	p := &Poller{epoll: descriptor{fd: -1}, sparse: descriptor{fd: -1}, events: make([]unix.EpollEvent, 1)}
	var err error
	if p.wake, err = newEvent(); err != nil {
		return nil, fmt.Errorf("tun: poller: %w", err)
	}
	for _, d := range []*descriptor{&p.epoll, &p.sparse} {
		if d.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			return nil, errors.Join(fmt.Errorf("tun: poller: %w", os.NewSyscallError("epoll_create1", err)), p.free())
		}
	}
	err = watch(&p.epoll, p.wake.fd, wakeMark)
	if err != nil {
		return nil, errors.Join(err, p.free())
	}
	return p, nil
}

// free closes the descriptors that there are.
func (p *Poller) free() error {
	errs := []error{p.wake.close()}
	for _, d := range []*descriptor{&p.epoll, &p.sparse} {
		if d.fd >= 0 {
			errs = append(errs, d.close())
		}
	}
	return errors.Join(errs...)
}

// watch registers fd level-triggered: a queue that still has packets is reported again, so a
// bounded burst loses nothing.
func watch(epoll *descriptor, fd int, index int32) error {
	// Fd is free to use: the kernel hands it back with the event.
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: index}
	if err := unix.EpollCtl(epoll.fd, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("tun: poller: queue %d: %w", index, os.NewSyscallError("epoll_ctl", err))
	}
	return nil
}

// Wait returns the indexes of the queues that have something to read or that ended, in ready's memory, and
// those at which queues of sparse flows do, in sparse's. It returns none when timeout has passed, after Wake and, rarely, for no reason. A
// timeout is rounded up to a millisecond; 0 doesn't block, a negative one waits for ever. After
// Close it returns os.ErrClosed.
func (p *Poller) Wait(timeout time.Duration, ready, sparse []int) ([]int, []int, error) {
	ready, sparse = ready[:0], sparse[:0]
	// Both are held: if Close freed the eventfd meanwhile, its wake-up would be lost.
	open, awake := p.epoll.enter(), p.wake.enter()
	defer p.epoll.leave()
	defer p.wake.leave()
	if !open || !awake {
		return ready, sparse, os.ErrClosed
	}
	// A busy worker mostly finds packets waiting. A look without blocking keeps its goroutine on
	// the processor, which a blocking call may lose.
	n, errno := poll(&p.epoll, p.events)
	if p.blocked = n == 0 && errno == 0 && timeout != 0; p.blocked {
		n, errno = p.block(timeout)
	}
	if errno != 0 && errno != unix.EINTR {
		return ready, sparse, os.NewSyscallError("epoll_pwait", errno)
	}
	for i := range p.events[:max(n, 0)] {
		index := p.events[i].Fd
		if index >= 0 {
			ready = append(ready, int(index))
			continue
		}
		if index <= sparseMark {
			sparse = append(sparse, int(sparseMark-index))
			continue
		}
		p.wake.clear()
		if p.epoll.ended.Load() {
			return ready[:0], sparse[:0], os.ErrClosed
		}
	}
	return ready, sparse, nil
}

// Sparse returns the indexes at which queues of sparse flows have something to read or ended, at most MaxSparse of them,
// in ready's memory. It does not block. Call Expected before something is read from them, and tell Took what was.
func (p *Poller) Sparse(ready []int) []int {
	ready = ready[:0]
	if p.arrivals == nil {
		if p.asked++; p.asked >= recountEvery {
			p.find(p.watched)
		}
	}
	if p.Expected() == 0 {
		if p.skipped++; p.skipped < askEvery {
			return ready
		}
	}
	p.skipped = 0
	defer p.sparse.leave()
	if !p.sparse.enter() {
		return ready
	}
	n, _ := poll(&p.sparse, p.sparseEvents[:])
	if n == 0 { // what had no room was counted too; what is not in its queue yet is, when the next question finds none
		p.carried, p.empty = max(p.carried, p.empty), p.seen
	}
	for i := range p.sparseEvents[:max(n, 0)] {
		ready = append(ready, int(p.sparseEvents[i].Fd))
	}
	return ready
}

// Took says that so many packets were read from queues of sparse flows since Expected. Those that came meanwhile stay expected:
// that costs a question, and hides none.
func (p *Poller) Took(packets int) {
	if p.arrivals != nil {
		p.carried = max(p.carried, min(p.carried+uint64(packets), p.seen)) // those of an earlier process were not counted here
	}
}

// Counts reports whether packets of sparse flows are counted, at all queues that there are for them.
func (p *Poller) Counts() bool { return p.arrivals != nil && p.arrivals != &none }

// Expected is how many packets Took was not told of. Fewer may come, if some had no room, and more, which are not counted. It is
// math.MaxInt where nothing counts them.
func (p *Poller) Expected() int {
	if p.arrivals == nil {
		return math.MaxInt
	}
	p.seen = p.arrivals.Load()
	return int(p.seen - p.carried)
}

// poll does not block.
func poll(epoll *descriptor, events []unix.EpollEvent) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll.fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	return int(n), errno
}

// wholeMilliseconds rounds up; -1 is for ever.
func wholeMilliseconds(timeout time.Duration) int {
	if timeout < 0 {
		return -1
	}
	return int(min((timeout+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
}

// Blocked reports whether the last Wait had nothing to return at first, so that whoever else waited for the processor could have it.
func (p *Poller) Blocked() bool { return p.blocked }

func (p *Poller) block(timeout time.Duration) (int, syscall.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll.fd),
		uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(wholeMilliseconds(timeout)), 0, 0)
	return int(n), errno
}

// Add watches a queue, and that of its sparse flows where there is one, at an index that watches none. Indexes may be
// left out.
func (p *Poller) Add(index int, q, sparse Queue) error {
	for index >= len(p.watched) {
		p.watched = append(p.watched, entry{})
		p.events = append(p.events, unix.EpollEvent{}, unix.EpollEvent{})
	}
	if err := watch(&p.epoll, q.FD(), int32(index)); err != nil {
		return err
	}
	p.watched[index].queue = q
	if sparse == nil {
		return nil
	}
	p.watched[index].sparse = sparse
	p.sparseCount = sparseCount{asked: recountEvery}
	err := watch(&p.epoll, sparse.FD(), sparseMark-int32(index))
	if err == nil {
		err = watch(&p.sparse, sparse.FD(), int32(index))
	}
	if err != nil {
		err = errors.Join(err, p.Remove(index))
	}
	return err
}

// Remove stops watching what is watched at an index. The queue of a removed device would be reported for ever.
// Remove a queue before its device is closed: the kernel may give its descriptor's number to another queue.
func (p *Poller) Remove(index int) error {
	if index >= len(p.watched) {
		return nil
	}
	was := p.watched[index]
	p.watched[index] = entry{}
	p.sparseCount = sparseCount{asked: recountEvery}
	return errors.Join(unwatch(&p.epoll, was.queue, index), unwatch(&p.epoll, was.sparse, index), unwatch(&p.sparse, was.sparse, index))
}

// unwatch undoes watch; nil: nothing is watched.
func unwatch(epoll *descriptor, q Queue, index int) error {
	if q == nil {
		return nil
	}
	err := unix.EpollCtl(epoll.fd, unix.EPOLL_CTL_DEL, q.FD(), nil)
	// The kernel drops closed descriptors by itself.
	if err != nil && err != unix.ENOENT && err != unix.EBADF {
		return fmt.Errorf("tun: poller: queue %d: %w", index, os.NewSyscallError("epoll_ctl", err))
	}
	return nil
}

// Wake makes the current Wait return, or else the next one.
func (p *Poller) Wake() {
	defer p.wake.leave()
	if p.wake.enter() {
		p.wake.signal()
	}
}

// Close ends the poller and a Wait under way. The queues stay open.
func (p *Poller) Close() error {
	// A blocked Wait holds both descriptors until the signal ends it.
	err := p.epoll.close()
	if errors.Is(err, os.ErrClosed) {
		return os.ErrClosed
	}
	p.Wake()
	return errors.Join(err, p.sparse.close(), p.wake.close())
}

// Yield lets another thread have the processor if one waits for it, and returns when it is this one's turn again. Go's
// scheduler is not told, as it is not when the kernel preempts a thread: the goroutine keeps its place.
func Yield() { syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// ThreadTime is the processor time that the calling thread has had since it began. It costs a system call. Between two calls
// a goroutine may change its thread, unless it is locked to it: the difference says nothing then.
func ThreadTime() time.Duration {
	var t unix.Timespec
	syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano())
}
