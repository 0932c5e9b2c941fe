package main

import (
	"encoding/binary"
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
	// pingPatience is when an answer counts as lost, and its round trip as that long.
	pingPatience = 100 * time.Millisecond
	pingSize     = 16
	// pingLoad is how many TCP streams fill the network under load.
	pingLoad = 8
)

// measureLatency measures round trips of a small datagram through an idle network and
// through one that TCP fills.
func measureLatency(t *trial) error {
	length := time.Duration(t.seconds) * time.Second
	idle, err := pings(t.network, length/2)
	if err != nil {
		return err
	}
	t.roundTrips("idle", idle)

	transferred := make(chan error, 1)
	go func() {
		_, err := iperf(t.network, []string{"-P", fmt.Sprint(pingLoad)}, t.seconds)
		transferred <- err
	}()
	time.Sleep(length / 4) // the streams have opened their windows
	loaded, err := pings(t.network, length/2)
	if failed := <-transferred; err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	t.roundTrips("load", loaded)
	return nil
}

// roundTrips notes percentiles in microseconds.
func (t *trial) roundTrips(name string, trips []time.Duration) {
	slices.Sort(trips)
	for _, percent := range []int{50, 99} {
		t.figure(fmt.Sprintf("rtt_%s_p%d", name, percent), float64(percentile(trips, percent))/float64(time.Microsecond))
	}
}

// percentile of sorted values: the smallest that so many in a hundred do not exceed.
func percentile(sorted []time.Duration, percent int) time.Duration {
	return sorted[max((len(sorted)*percent+99)/100-1, 0)]
}

// pings sends one datagram after the other and returns all round trips.
func pings(n *network, length time.Duration) (trips []time.Duration, err error) {
	address := unix.SockaddrInet4{Port: pingPort, Addr: netip.MustParseAddr(n.address).As4()}
	server, err := pingSocket(n.server, func(fd int) error { return unix.Bind(fd, &address) })
	if err != nil {
		return nil, fmt.Errorf("round trips: server: %w", err)
	}
	defer unix.Close(server)
	client, err := pingSocket(n.client, func(fd int) error { return unix.Connect(fd, &address) })
	if err != nil {
		return nil, fmt.Errorf("round trips: client: %w", err)
	}
	defer unix.Close(client)
	stop := make(chan struct{})
	echoed := make(chan error, 1)
	go func() { echoed <- echo(server, stop) }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		trips, err = ask(client, length)
	}()
	<-done
	close(stop)
	if failed := <-echoed; err == nil {
		err = failed
	}
	return trips, err
}

// pingSocket makes a socket whose reading ends after pingPatience.
func pingSocket(namespace string, prepare func(fd int) error) (fd int, err error) {
	err = tun.Do(namespace, func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		patience := unix.NsecToTimeval(int64(pingPatience))
		if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err == nil {
			err = prepare(fd)
		}
		if err != nil {
			unix.Close(fd)
		}
		return err
	})
	return fd, err
}

// echo answers until stop.
func echo(fd int, stop <-chan struct{}) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buffer := make([]byte, pingSize)
	for {
		n, from, err := unix.Recvfrom(fd, buffer, 0)
		switch err {
		case nil:
			if err := unix.Sendto(fd, buffer[:n], 0, from); err != nil && err != unix.ENOBUFS {
				return fmt.Errorf("round trips: server: %w", err)
			}
		case unix.EAGAIN, unix.EINTR:
		default:
			return fmt.Errorf("round trips: server: %w", err)
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

// ask sends numbered datagrams. A late answer to an earlier one is passed over.
func ask(fd int, length time.Duration) ([]time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	trips := make([]time.Duration, 0, 64<<10)
	buffer, answer := make([]byte, pingSize), make([]byte, pingSize)
	gap := unix.NsecToTimespec(int64(pingGap))
	began := time.Now()
	for number := uint64(1); time.Since(began) < length || len(trips) == 0; number++ {
		binary.LittleEndian.PutUint64(buffer, number)
		sent := time.Now()
		if _, err := unix.Write(fd, buffer); err != nil && err != unix.ENOBUFS {
			return nil, fmt.Errorf("round trips: client: %w", err)
		}
		trip := pingPatience
		for time.Since(sent) < pingPatience {
			_, err := unix.Read(fd, answer)
			if err == nil && binary.LittleEndian.Uint64(answer) == number {
				trip = time.Since(sent)
				break
			}
			if err != nil && err != unix.EAGAIN && err != unix.EINTR {
				return nil, fmt.Errorf("round trips: client: %w", err)
			}
		}
		trips = append(trips, min(trip, pingPatience))
		unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &gap, nil)
	}
	return trips, nil
}
