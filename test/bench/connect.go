package main

import (
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sys/unix"
)

// connectParallel is how many connections are being opened at a time.
const connectParallel = 128

// measureConnects counts TCP connections that one thread opens, many at a time, and closes
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
	var a second
	err = tun.Do(t.network.client, func() (err error) {
		a, err = connectMany(&address, time.Duration(t.seconds)*time.Second)
		return err
	})
	if err != nil {
		return fmt.Errorf("connections: client: %w", err)
	}
	t.figure("connects", a.rate())
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

// second is a number of events in some time.
type second struct {
	events int
	took   time.Duration
}

func (s second) rate() float64 { return float64(s.events) / s.took.Seconds() }

// connectMany runs on a thread inside the client's namespace.
func connectMany(to *unix.SockaddrInet4, length time.Duration) (second, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return second{}, err
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
			return second{}, err
		}
	}
	events := make([]unix.EpollEvent, connectParallel)
	began, done := time.Now(), 0
	for {
		took := time.Since(began)
		if took >= length {
			if done == 0 {
				return second{}, fmt.Errorf("no connection stood within %v", length)
			}
			return second{done, took}, nil
		}
		n, err := unix.EpollWait(epoll, events, 100)
		if err != nil && err != unix.EINTR {
			return second{}, err
		}
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			if e.Events&(unix.EPOLLERR|unix.EPOLLHUP) == 0 {
				done++
			}
			delete(open, fd)
			unix.Close(fd)
			if err := another(); err != nil {
				return second{}, err
			}
		}
	}
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
