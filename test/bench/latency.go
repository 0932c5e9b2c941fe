package main

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sys/unix"
)

const (
	// pingGap is between an answer and the next question: long enough for everybody to have
	// gone to sleep.
	pingGap = 250 * time.Microsecond
	// udpPatience is when a datagram counts as lost, and its round trip as that long.
	udpPatience = 100 * time.Millisecond
	// tcpPatience is when a connection counts as broken. TCP sends again what is lost.
	tcpPatience = 10 * time.Second
	// pingLook is how often an answering end looks whether it should stop.
	pingLook = 100 * time.Millisecond
	pingSize = 16
	// pingLoad is how many TCP streams fill the network under load.
	pingLoad = 8
)

// roundTrip is a question and its answer.
type roundTrip struct {
	asked, took time.Duration // asked counts from the first question
}

// measureLatency measures round trips of a small question, by UDP or TCP, through an idle
// network and through one that TCP fills.
func measureLatency(protocol string) func(t *trial) error {
	return func(t *trial) (err error) {
		p, err := newPinger(t.network, protocol)
		if err != nil {
			return fmt.Errorf("round trips: %w", err)
		}
		defer func() { err = errors.Join(err, p.close()) }()
		length := time.Duration(t.seconds) * time.Second
		idle, err := p.ask(length / 2)
		if err != nil {
			return err
		}
		t.roundTrips("rtt_"+protocol+"_idle", idle)

		transferred := make(chan error, 1)
		go func() {
			_, err := iperf(t.network, []string{"-P", fmt.Sprint(pingLoad)}, t.seconds)
			transferred <- err
		}()
		time.Sleep(length / 4) // the streams have opened their windows
		loaded, err := p.ask(length / 2)
		if failed := <-transferred; err == nil {
			err = failed
		}
		if err != nil {
			return err
		}
		t.roundTrips("rtt_"+protocol+"_load", loaded)
		t.series["rtt_"+protocol+"_load"] = overTime(loaded)
		return nil
	}
}

// percentiles are those that are noted, in tenths of a percent, by the ends of their figures' names.
var percentiles = []struct {
	name     string
	perMille int
}{{"p50", 500}, {"p90", 900}, {"p99", 990}, {"p99.9", 999}}

// roundTrips notes percentiles and the longest in microseconds. The steady p99 is that of questions which come every pingGap,
// answered or not: after a long trip come those that would have waited for its end too.
func (t *trial) roundTrips(name string, trips []roundTrip) {
	took := make([]time.Duration, len(trips))
	for i, trip := range trips {
		took[i] = trip.took
	}
	slices.Sort(took)
	for _, p := range percentiles {
		t.figure(name+"_"+p.name, microseconds(percentile(took, p.perMille)))
	}
	t.figure(name+"_longest", microseconds(took[len(took)-1]))
	t.figure(name+"_steady_p99", microseconds(percentile(steady(took), 990)))
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// percentile of sorted values: the smallest that so many in a thousand do not exceed.
func percentile(sorted []time.Duration, perMille int) time.Duration {
	return sorted[max((len(sorted)*perMille+999)/1000-1, 0)]
}

// steady adds the trips of questions that a trip kept from being asked, one each pingGap, and sorts them.
func steady(took []time.Duration) []time.Duration {
	all := slices.Clone(took)
	for _, d := range took {
		for d -= pingGap; d > 0; d -= pingGap {
			all = append(all, d)
		}
	}
	slices.Sort(all)
	return all
}

// seriesSlice is the span of time that a point of a series stands for.
const seriesSlice = 100 * time.Millisecond

// point is what happened in one slice of time, in milliseconds and microseconds.
type point struct {
	At      float64 `json:"atMs"` // the slice's beginning
	Asked   int     `json:"asked"`
	P50     float64 `json:"p50Us"`
	P99     float64 `json:"p99Us"`
	Longest float64 `json:"longestUs"`
}

// overTime sorts trips into slices by when they were asked. A slice in which nothing was asked has a point too: all of
// it passed in a trip that began before.
func overTime(trips []roundTrip) []point {
	var points []point
	var took []time.Duration
	end := func() {
		p := point{At: milliseconds(time.Duration(len(points)) * seriesSlice), Asked: len(took)}
		if len(took) > 0 {
			slices.Sort(took)
			p.P50, p.P99, p.Longest = microseconds(percentile(took, 500)), microseconds(percentile(took, 990)), microseconds(took[len(took)-1])
		}
		points, took = append(points, p), took[:0]
	}
	for _, trip := range trips {
		for trip.asked >= time.Duration(len(points)+1)*seriesSlice {
			end()
		}
		took = append(took, trip.took)
	}
	end()
	return points
}

// pinger asks and answers small questions over one socket at each end.
type pinger struct {
	client, server int
	patience       time.Duration
	stop           chan struct{}
	answered       chan error // why the answering end stopped
}

// newPinger connects both ends and has the server's answer.
func newPinger(n *network, protocol string) (_ *pinger, err error) {
	p := &pinger{client: -1, server: -1, stop: make(chan struct{}), answered: make(chan error, 1)}
	defer func() {
		if err != nil {
			p.closeSockets()
		}
	}()
	address := unix.SockaddrInet4{Port: pingPort, Addr: netip.MustParseAddr(n.address).As4()}
	if protocol == "tcp" {
		p.patience = tcpPatience
		err = p.connectTCP(n, &address)
	} else {
		p.patience = udpPatience
		err = p.connectUDP(n, &address)
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(setPatience(p.server, pingLook), setPatience(p.client, p.patience)); err != nil {
		return nil, err
	}
	go func() { p.answered <- echo(p.server, p.stop) }()
	return p, nil
}

func (p *pinger) connectUDP(n *network, address *unix.SockaddrInet4) (err error) {
	if p.server, err = pingSocket(n.server, unix.SOCK_DGRAM, func(fd int) error { return unix.Bind(fd, address) }); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if p.client, err = pingSocket(n.client, unix.SOCK_DGRAM, func(fd int) error { return unix.Connect(fd, address) }); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	return nil
}

// connectTCP has both ends send at once what they are given.
func (p *pinger) connectTCP(n *network, address *unix.SockaddrInet4) error {
	listener, err := pingSocket(n.server, unix.SOCK_STREAM, func(fd int) error {
		return cmp.Or(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, address), unix.Listen(fd, 1))
	})
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	defer unix.Close(listener)
	p.client, err = pingSocket(n.client, unix.SOCK_STREAM, func(fd int) error {
		patience := unix.NsecToTimeval(int64(tcpPatience))
		return cmp.Or(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience), unix.Connect(fd, address))
	})
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if p.server, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return errors.Join(unix.SetsockoptInt(p.client, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), unix.SetsockoptInt(p.server, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
}

// pingSocket makes a socket in a namespace.
func pingSocket(namespace string, kind int, prepare func(fd int) error) (fd int, err error) {
	err = tun.Do(namespace, func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = prepare(fd); err != nil {
			unix.Close(fd)
		}
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// setPatience ends a read of a socket after a while.
func setPatience(fd int, patience time.Duration) error {
	t := unix.NsecToTimeval(int64(patience))
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &t)
}

func (p *pinger) closeSockets() {
	for _, fd := range []int{p.client, p.server} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// close returns why the answering end failed, if it did.
func (p *pinger) close() error {
	close(p.stop)
	err := <-p.answered
	p.closeSockets()
	return err
}

// echo answers until stop, or until a connection ends.
func echo(fd int, stop <-chan struct{}) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buffer := make([]byte, pingSize)
	for {
		n, from, err := unix.Recvfrom(fd, buffer, unix.MSG_WAITALL)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("round trips: server: %w", err)
		case from != nil:
			if err := unix.Sendto(fd, buffer[:n], 0, from); err != nil && err != unix.ENOBUFS {
				return fmt.Errorf("round trips: server: %w", err)
			}
		case n == 0:
			return errors.New("round trips: server: the connection ended")
		default: // of a connection
			if _, err := unix.Write(fd, buffer[:n]); err != nil {
				return fmt.Errorf("round trips: server: %w", err)
			}
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

// ask sends numbered questions, each when the one before it is answered or lost, and returns all round trips.
func (p *pinger) ask(length time.Duration) (trips []roundTrip, err error) {
	done := make(chan struct{})
	go func() { // on a thread that ends with it
		defer close(done)
		runtime.LockOSThread()
		trips, err = p.askUntil(length)
	}()
	<-done
	return trips, err
}

func (p *pinger) askUntil(length time.Duration) ([]roundTrip, error) {
	trips := make([]roundTrip, 0, 64<<10)
	buffer, answer := make([]byte, pingSize), make([]byte, pingSize)
	gap := unix.NsecToTimespec(int64(pingGap))
	began := time.Now()
	for number := uint64(began.UnixNano()); time.Since(began) < length || len(trips) == 0; number++ {
		binary.LittleEndian.PutUint64(buffer, number)
		sent := time.Now()
		if _, err := unix.Write(p.client, buffer); err != nil && err != unix.ENOBUFS {
			return nil, fmt.Errorf("round trips: client: %w", err)
		}
		took, err := p.await(number, sent, answer)
		if err != nil {
			return nil, err
		}
		trips = append(trips, roundTrip{sent.Sub(began), took})
		unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &gap, nil)
	}
	return trips, nil
}

// await returns when a question was answered. A late answer to an earlier one is passed over.
func (p *pinger) await(number uint64, sent time.Time, answer []byte) (time.Duration, error) {
	for time.Since(sent) < p.patience {
		n, _, err := unix.Recvfrom(p.client, answer, unix.MSG_WAITALL)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("round trips: client: %w", err)
		case n == 0:
			return 0, errors.New("round trips: client: the connection ended")
		case n == pingSize && binary.LittleEndian.Uint64(answer) == number:
			return min(time.Since(sent), p.patience), nil
		}
	}
	if p.patience == tcpPatience {
		return 0, fmt.Errorf("round trips: client: no answer within %v", tcpPatience)
	}
	return p.patience, nil
}
