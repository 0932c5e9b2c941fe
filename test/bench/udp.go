package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// udpBatch is how many datagrams one system call sends at most, and receives.
	udpBatch, udpReceiveBatch = 64, 256
	// udpTick is the time between two batches at rates that a batch can serve.
	udpTick = 100 * time.Microsecond
	// udpLook is the time between two looks of the receiver: it is not woken, since the
	// machine's CPUs are for what is measured.
	udpLook = time.Millisecond
	// udpTrial is the length of one trial of a search, udpFlood of the one before it.
	udpTrial, udpFlood = 250 * time.Millisecond, 300 * time.Millisecond
	// udpCostRate is the rate at which the cost of a packet is measured in every setup alike: it
	// depends on how many packets a wake-up serves.
	udpCostRate = 100_000
	// udpReceiveBuffer holds what arrives in a trial, so that the receiver's turn on a
	// CPU is no part of the loss.
	udpReceiveBuffer = 512 << 20
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// messages are n buffers of length bytes for one call of sendmmsg or recvmmsg.
func messages(n, length int) (list []mmsghdr, buffers [][]byte) {
	list, buffers = make([]mmsghdr, n), make([][]byte, n)
	vectors := make([]unix.Iovec, n)
	for i := range list {
		buffers[i] = make([]byte, length)
		vectors[i].Base = &buffers[i][0]
		vectors[i].SetLen(length)
		list[i].header.Iov = &vectors[i]
		list[i].header.SetIovlen(1)
	}
	return list, buffers
}

// exchange is sendmmsg(2) or recvmmsg(2) without blocking: how many messages it took. Go's
// scheduler is not told, nor by nap: what it would do about a thread that sleeps costs more CPU
// time than the datagrams.
func exchange(call uintptr, fd int, list []mmsghdr, flags int) (int, error) {
	n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&list[0])), uintptr(len(list)), uintptr(flags|unix.MSG_DONTWAIT), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	case unix.ENOBUFS, unix.ECONNREFUSED:
		return 0, nil
	}
	return 0, errno
}

// nap sleeps for milliseconds at most; a signal may end it.
func nap(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&t)), 0, 0, 0)
}

// udpRig sends datagrams of one size through a network and counts those that arrive.
type udpRig struct {
	size     int
	senders  []int // sockets, one a flow
	receiver int
	trial    uint64 // number of the trial, which each of its datagrams begins with
}

func newUDPRig(n *network, size, flows int) (_ *udpRig, err error) {
	r := &udpRig{size: size, receiver: -1}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	server := netip.MustParseAddr(n.address).As4()
	err = tun.Do(n.server, func() (err error) {
		if r.receiver, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(r.receiver, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpReceiveBuffer); err != nil {
			return err
		}
		return unix.Bind(r.receiver, &unix.SockaddrInet4{Port: udpPort, Addr: server})
	})
	if err != nil {
		return nil, fmt.Errorf("UDP receiver: %w", err)
	}
	err = tun.Do(n.client, func() error {
		for range flows {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			r.senders = append(r.senders, fd)
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20); err != nil {
				return err
			}
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: udpPort, Addr: server}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("UDP sender: %w", err)
	}
	return r, nil
}

func (r *udpRig) close() {
	for _, fd := range append(r.senders, r.receiver) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// run sends at a rate for a while; math.Inf(1) is as fast as can be.
func (r *udpRig) run(rate float64, length time.Duration) (outcome, error) {
	r.trial++
	var arrived atomic.Uint64
	stop := make(chan struct{})
	received := make(chan error, 1)
	go func() { received <- r.receive(r.trial, &arrived, stop) }()
	sent, took, err := r.sendAll(rate, length)
	// What is under way arrives, and the queues are empty before the next trial.
	for last, quiet := arrived.Load(), 0; quiet < 3; quiet++ {
		time.Sleep(10 * time.Millisecond)
		if now := arrived.Load(); now != last {
			last, quiet = now, -1
		}
	}
	close(stop)
	if failed := <-received; err == nil {
		err = failed
	}
	return outcome{float64(sent) / took.Seconds(), float64(arrived.Load()) / took.Seconds()}, err
}

// sendAll sends every flow from a thread of its own.
func (r *udpRig) sendAll(rate float64, length time.Duration) (sent uint64, took time.Duration, err error) {
	var group errgroup.Group
	var total atomic.Uint64
	began := time.Now()
	for _, fd := range r.senders {
		group.Go(func() error {
			n, err := r.send(fd, rate/float64(len(r.senders)), length)
			total.Add(n)
			return err
		})
	}
	err = group.Wait()
	return total.Load(), time.Since(began), err
}

// send paces batches. A sender that was held up does not make up for it: what it would send
// then in one go is no rate that the network was asked for.
func (r *udpRig) send(fd int, rate float64, length time.Duration) (sent uint64, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Sleeps of less than the 50 us by which the kernel may prolong them.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	list, buffers := messages(udpBatch, r.size)
	for _, b := range buffers {
		binary.LittleEndian.PutUint64(b, r.trial)
	}
	batch := udpBatch
	if each := rate * udpTick.Seconds(); each < udpBatch {
		batch = max(int(each), 1)
	}
	began := time.Now()
	next := began // when the next batch is due
	for {
		now := time.Now()
		if now.Sub(began) >= length {
			return sent, nil
		}
		if wait := next.Sub(now); wait > 0 {
			nap(wait)
			continue
		}
		n, err := exchange(unix.SYS_SENDMMSG, fd, list[:batch], 0)
		if err != nil {
			return sent, fmt.Errorf("UDP sender: %w", err)
		}
		sent += uint64(n)
		if math.IsInf(rate, 1) {
			continue
		}
		next = next.Add(time.Duration(float64(n) / rate * float64(time.Second)))
		if late := now.Sub(next); late > 2*udpTick {
			next = now
		}
	}
}

// receive counts the datagrams of a trial until stop.
func (r *udpRig) receive(trial uint64, arrived *atomic.Uint64, stop <-chan struct{}) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	list, buffers := messages(udpReceiveBatch, 8)
	for {
		n, err := exchange(unix.SYS_RECVMMSG, r.receiver, list, unix.MSG_TRUNC)
		if err != nil {
			return fmt.Errorf("UDP receiver: %w", err)
		}
		count := uint64(0)
		for i := range n {
			if int(list[i].length) == r.size && binary.LittleEndian.Uint64(buffers[i]) == trial {
				count++
			}
		}
		arrived.Add(count)
		if n > udpReceiveBatch/2 {
			continue
		}
		select {
		case <-stop:
			return nil
		default:
			nap(udpLook)
		}
	}
}

// measureUDP finds the highest rate of datagrams of some size, all of one flow or of one
// flow a CPU, and, of the small ones, what they cost. A kernel does its own work on the sender's
// CPU, so that one sender alone can't ask for all that it can do.
func measureUDP(name string, size, flows int) func(t *trial) error {
	return func(t *trial) error {
		r, err := newUDPRig(t.network, size, flows)
		if err != nil {
			return err
		}
		defer r.close()
		if size == smallDatagram && flows == 1 {
			if err := r.cost(t); err != nil {
				return err
			}
		}
		flooded, err := r.run(math.Inf(1), udpFlood)
		if err != nil {
			return err
		}
		best, err := search(flooded, func(rate float64) (outcome, error) { return r.run(rate, udpTrial) })
		if err != nil {
			return err
		}
		t.figure(name, best.received)
		t.figure(name+"_flooded", flooded.received)
		return nil
	}
}

// The sizes of datagrams in bytes of payload.
const smallDatagram, largeDatagram = 64, 1400

// cost measures CPU time at one rate.
func (r *udpRig) cost(t *trial) error {
	before, err := readUsage(t.network.pid)
	if err != nil {
		return err
	}
	o, err := r.run(udpCostRate, time.Second)
	if err != nil {
		return err
	}
	after, err := readUsage(t.network.pid)
	if err != nil {
		return err
	}
	// The sender's second is over before the wait for stragglers is.
	t.cost("million", after.since(before), o.received/1e6)
	return nil
}
