package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"time"

	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// httpConnections are open at a time, each for one request.
	httpConnections = 1000
	httpAnswer      = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
)

// measureHTTP has wrk make a request by each of many connections at a time, and notes how many are answered and how long that takes.
func measureHTTP(t *trial) error {
	if err := t.network.widen(); err != nil {
		return err
	}
	s, err := newHTTPServer(t.network)
	if err != nil {
		return fmt.Errorf("HTTP server: %w", err)
	}
	var group errgroup.Group
	for range runtime.NumCPU() {
		group.Go(s.serve)
	}
	out, err := exec.Command("ip", "netns", "exec", t.network.client, "wrk", "-t", fmt.Sprint(runtime.NumCPU()), "-c", fmt.Sprint(httpConnections),
		"-d", fmt.Sprint(t.seconds, "s"), "--timeout", "10s", "--latency", "-H", "Connection: close", fmt.Sprintf("http://%s:%d/", t.network.address, httpPort)).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("wrk: %w: %s", err, out)
	}
	if err := errors.Join(err, s.stop(&group)); err != nil {
		return err
	}
	figures, err := parseWrk(string(out))
	for name, v := range figures {
		t.figure("http_"+name, v)
	}
	return err
}

// httpServer answers each connection's first request, whatever it asks for, and closes it. One thread a CPU serves: what a
// server of more features costs would hide what the network does.
type httpServer struct{ listener, epoll, ending int }

func newHTTPServer(n *network) (s *httpServer, err error) {
	s = &httpServer{-1, -1, -1}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	err = tun.Do(n.server, func() (err error) {
		if s.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(s.listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		if err := unix.Bind(s.listener, &unix.SockaddrInet4{Port: httpPort, Addr: netip.MustParseAddr(n.address).As4()}); err != nil {
			return err
		}
		return unix.Listen(s.listener, 4096)
	})
	if err != nil {
		return s, err
	}
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return s, err
	}
	if s.ending, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return s, err
	}
	for fd, events := range map[int]uint32{s.listener: unix.EPOLLIN | unix.EPOLLEXCLUSIVE, s.ending: unix.EPOLLIN} {
		if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
			return s, err
		}
	}
	return s, nil
}

// serve ends when ending can be read. A connection is one thread's at a time: epoll reports it once.
func (s *httpServer) serve() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	events, request := make([]unix.EpollEvent, 256), make([]byte, 4096)
	for {
		n, err := unix.EpollWait(s.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("HTTP server: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			switch fd := int(e.Fd); fd {
			case s.ending:
				return nil
			case s.listener:
				if err := s.accept(); err != nil {
					return fmt.Errorf("HTTP server: %w", err)
				}
			default:
				// wrk's request fits a segment. A client that has gone away needs no answer.
				if n, err := unix.Read(fd, request); err == nil && n > 0 {
					unix.Write(fd, []byte(httpAnswer))
				}
				unix.Close(fd)
			}
		}
	}
}

func (s *httpServer) accept() error {
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EAGAIN:
			return nil
		case unix.EINTR, unix.ECONNABORTED:
			continue
		default:
			return err
		}
		if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(fd)}); err != nil {
			return err
		}
	}
}

// stop ends the threads. Connections that nobody answered end with this process.
func (s *httpServer) stop(group *errgroup.Group) error {
	_, err := unix.Write(s.ending, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return errors.Join(err, group.Wait(), s.close())
}

func (s *httpServer) close() error {
	for _, fd := range []int{s.listener, s.epoll, s.ending} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	return nil
}

var (
	wrkRate    = regexp.MustCompile(`(?m)^Requests/sec:\s+([0-9.]+)`)
	wrkLatency = regexp.MustCompile(`(?m)^\s+(50|90|99)%\s+([0-9.]+)(us|ms|s|m) *$`)
	wrkErrors  = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	wrkStatus  = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
)

// parseWrk reads the answer of wrk --latency: the rate, percentiles in microseconds, and how many requests failed.
func parseWrk(out string) (map[string]float64, error) {
	rate := wrkRate.FindStringSubmatch(out)
	latencies := wrkLatency.FindAllStringSubmatch(out, -1)
	if rate == nil || len(latencies) != 3 {
		return nil, fmt.Errorf("wrk's answer: %q", out)
	}
	figures := map[string]float64{}
	var err error
	if figures["requests"], err = strconv.ParseFloat(rate[1], 64); err != nil || figures["requests"] == 0 {
		return nil, fmt.Errorf("wrk: no request was answered: %q", out)
	}
	for _, l := range latencies {
		d, err := time.ParseDuration(l[2] + l[3])
		if err != nil {
			return nil, fmt.Errorf("wrk's answer: %w", err)
		}
		figures["p"+l[1]] = microseconds(d)
	}
	figures["failed"] = 0
	for _, found := range [][]string{wrkErrors.FindStringSubmatch(out), wrkStatus.FindStringSubmatch(out)} {
		for _, number := range found[min(1, len(found)):] {
			n, err := strconv.ParseFloat(number, 64)
			if err != nil {
				return nil, fmt.Errorf("wrk's answer: %w", err)
			}
			figures["failed"] += n
		}
	}
	return figures, nil
}
