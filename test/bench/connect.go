package main

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// connectParallel is how many connections a thread opens at a time.
const connectParallel = 64

// measureConnects counts TCP connections that a thread for each CPU opens, many at a time, and closes
// with a reset as soon as they stand: four packets each, and no port waits to be used again.
func measureConnects(t *trial) error {
	if err := t.network.widen(); err != nil {
		return err
	}
	address := unix.SockaddrInet4{Port: connectPort, Addr: netip.MustParseAddr(t.network.address).As4()}
	var listener int
	err := tun.Do(t.network.server, func() (err error) {
		if listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Bind(listener, &address); err != nil {
			return err
		}
		return unix.Listen(listener, 4096)
	})
	if err != nil {
		return fmt.Errorf("connections: server: %w", err)
	}
	accepted := make(chan error, 1)
	go func() { accepted <- acceptAll(listener) }()
	defer func() {
		unix.Shutdown(listener, unix.SHUT_RDWR) // ends the accept that waits
		<-accepted
		unix.Close(listener)
	}()
	var group errgroup.Group
	var total atomic.Uint64
	length := time.Duration(t.seconds) * time.Second
	began := time.Now()
	for range runtime.NumCPU() {
		group.Go(func() error {
			return tun.Do(t.network.client, func() error {
				n, err := connectMany(&address, began.Add(length))
				total.Add(n)
				return err
			})
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("connections: client: %w", err)
	}
	if total.Load() == 0 {
		return fmt.Errorf("connections: none stood within %v", length)
	}
	t.figure("connects", float64(total.Load())/time.Since(began).Seconds())
	return nil
}

// acceptAll closes every connection as it comes, until the listener is shut down.
func acceptAll(listener int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			unix.Close(fd)
		case unix.EINTR, unix.ECONNABORTED:
		default:
			return err
		}
	}
}

// connectMany runs on a thread inside the client's namespace.
func connectMany(to *unix.SockaddrInet4, end time.Time) (done uint64, err error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return done, err
	}
	defer unix.Close(epoll)
	open := map[int]bool{}
	defer func() {
		for fd := range open {
			unix.Close(fd)
		}
	}()
	another := func() error {
		fd, err := connectOne(epoll, to)
		if err == nil {
			open[fd] = true
		}
		return err
	}
	for range connectParallel {
		if err := another(); err != nil {
			return done, err
		}
	}
	events := make([]unix.EpollEvent, connectParallel)
	for time.Now().Before(end) {
		n, err := unix.EpollWait(epoll, events, 100)
		if err != nil && err != unix.EINTR {
			return done, err
		}
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			if e.Events&(unix.EPOLLERR|unix.EPOLLHUP) == 0 {
				done++
			}
			delete(open, fd)
			unix.Close(fd)
			if err := another(); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

// connectOne begins a connection that epoll reports when it stands, and that closing resets.
func connectOne(epoll int, to *unix.SockaddrInet4) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		if err = unix.Connect(fd, to); err == unix.EINPROGRESS {
			err = nil
		}
	}
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd)})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
