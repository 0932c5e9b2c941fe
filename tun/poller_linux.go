package tun

import (
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wakeMark stands for the poller's own eventfd among the indexes of queues.
const wakeMark = -1

// Poller waits for the queues of one worker. Wait, Add and Remove belong to that worker;
// Wake and Close may come from any goroutine.
type Poller struct {
	epoll  descriptor
	wake   *event
	queues []Queue
	events []unix.EpollEvent
}

// NewPoller watches queues. Their order gives the indexes that Wait reports. A nil queue is left out.
func NewPoller(queues []Queue) (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("tun: poller: %w", os.NewSyscallError("epoll_create1", err))
	}
	p := &Poller{
		epoll:  descriptor{fd: fd},
		queues: append([]Queue(nil), queues...),
		events: make([]unix.EpollEvent, len(queues)+1),
	}
	if p.wake, err = newEvent(); err != nil {
		return nil, errors.Join(fmt.Errorf("tun: poller: %w", err), p.epoll.close())
	}
	err = p.watch(p.wake.fd, wakeMark)
	for i, q := range queues {
		if err != nil {
			break
		}
		if q != nil {
			err = p.watch(q.FD(), int32(i))
		}
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// watch registers fd level-triggered: a queue that still has packets is reported again, so a
// bounded burst loses nothing.
func (p *Poller) watch(fd int, index int32) error {
	// Fd is free to use: the kernel hands it back with the event.
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: index}
	if err := unix.EpollCtl(p.epoll.fd, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("tun: poller: queue %d: %w", index, os.NewSyscallError("epoll_ctl", err))
	}
	return nil
}

// Wait returns the indexes of the queues that have something to read or that ended, in ready's
// memory. It returns none when timeout has passed, after Wake and, rarely, for no reason. A
// timeout is rounded up to a millisecond; 0 doesn't block, a negative one waits for ever. After
// Close it returns os.ErrClosed.
func (p *Poller) Wait(timeout time.Duration, ready []int) ([]int, error) {
	ready = ready[:0]
	// Both are held: if Close freed the eventfd meanwhile, its wake-up would be lost.
	open, awake := p.epoll.enter(), p.wake.enter()
	defer p.epoll.leave()
	defer p.wake.leave()
	if !open || !awake {
		return ready, os.ErrClosed
	}
	// A busy worker mostly finds packets waiting. A look without blocking keeps its goroutine on
	// the processor, which a blocking call may lose.
	n, errno := p.poll(0)
	if n == 0 && errno == 0 && timeout != 0 {
		n, errno = p.block(timeout)
	}
	if errno != 0 && errno != unix.EINTR {
		return ready, os.NewSyscallError("epoll_pwait", errno)
	}
	for i := range p.events[:max(n, 0)] {
		index := p.events[i].Fd
		if index != wakeMark {
			ready = append(ready, int(index))
			continue
		}
		p.wake.clear()
		if p.epoll.ended.Load() {
			return ready[:0], os.ErrClosed
		}
	}
	return ready, nil
}

func (p *Poller) poll(milliseconds int) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll.fd),
		uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(milliseconds), 0, 0)
	return int(n), errno
}

// wholeMilliseconds rounds up; -1 is for ever.
func wholeMilliseconds(timeout time.Duration) int {
	if timeout < 0 {
		return -1
	}
	return int(min((timeout+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
}

func (p *Poller) block(timeout time.Duration) (int, syscall.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll.fd),
		uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(wholeMilliseconds(timeout)), 0, 0)
	return int(n), errno
}

// Add watches a queue at an index that watches none. Indexes may be left out.
func (p *Poller) Add(index int, q Queue) error {
	for index >= len(p.queues) {
		p.queues = append(p.queues, nil)
		p.events = append(p.events, unix.EpollEvent{})
	}
	if err := p.watch(q.FD(), int32(index)); err != nil {
		return err
	}
	p.queues[index] = q
	return nil
}

// Remove stops watching queue index, if it is watched. The queue of a removed device would be reported for ever.
// Remove a queue before its device is closed: the kernel may give its descriptor's number to another queue.
func (p *Poller) Remove(index int) error {
	if index >= len(p.queues) || p.queues[index] == nil {
		return nil
	}
	err := unix.EpollCtl(p.epoll.fd, unix.EPOLL_CTL_DEL, p.queues[index].FD(), nil)
	p.queues[index] = nil
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
	return errors.Join(err, p.wake.close())
}
