package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sys/unix"
)

const (
	nearAddress, farAddress           = "10.0.1.4", "10.0.2.4"
	allowedPort, deniedPort, pipePort = 7000, 7009, 7100
	// pipeRate is what a TCP stream writes, in bytes a second, and pipeLost when one that stands still is lost.
	pipeRate, pipeLost = 8 << 20, 30 * time.Second
	// deniedShare of the datagrams also go to the port that nothing may reach, one in so many.
	deniedShare = 10
)

// traffic is what flows between vm1 and vm3, wherever that is.
type traffic struct {
	run    uint16  // in each datagram: one of an earlier run may have waited
	ways   [2]*way // to vm3, and to vm1
	pipes  [2]*pipe
	denied atomic.Uint64 // datagrams that arrived where nothing may

	closing []io.Closer
	stop    chan struct{}
	running sync.WaitGroup
}

// way is numbered datagrams in one direction.
type way struct {
	sent, received atomic.Uint64

	mu      sync.Mutex
	seen    map[uint64]int           // how often each number arrived; guarded by mu
	last    time.Time                // that one arrived; guarded by mu
	longest time.Duration            // between two; guarded by mu
	holders map[string]*[2]time.Time // the first and the last time, by where vm3 was; guarded by mu
}

// newTraffic has datagrams flow to and from every place where vm3 may be, and TCP streams where it is.
func newTraffic(c *clusterRig, holder *clusterHost, rate int) (t *traffic, err error) {
	t = &traffic{run: uint16(time.Now().UnixMilli()), stop: make(chan struct{})}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	for i := range t.ways {
		t.ways[i], t.pipes[i] = &way{seen: map[uint64]int{}, holders: map[string]*[2]time.Time{}}, &pipe{}
	}
	vm1 := c.hosts[0].guest
	for n, h := range c.hosts {
		if n > 1 && c.shared {
			break // the same machine
		}
		in, out, to := t.ways[0], t.ways[1], nearAddress
		if n == 0 {
			in, out, to = out, in, farAddress
		}
		if err := errors.Join(t.receive(h.guest, in), t.refuse(h.guest), t.send(h.guest, n, out, to, rate)); err != nil {
			return t, err
		}
	}
	return t, errors.Join(t.connect(t.pipes[0], vm1, holder.guest, farAddress), t.connect(t.pipes[1], holder.guest, vm1, nearAddress))
}

// close ends everything.
func (t *traffic) close() {
	close(t.stop)
	time.Sleep(200 * time.Millisecond) // what is under way
	for _, c := range t.closing {
		c.Close()
	}
	t.running.Wait()
}

// listen has a socket in a namespace, whatever addresses it has.
func (t *traffic) listen(namespace string, port int) (socket *net.UDPConn, err error) {
	err = tun.Do(namespace, func() (err error) {
		socket, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", namespace, err)
	}
	t.closing = append(t.closing, socket)
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, streamBuffer)
	})
	return socket, errors.Join(err, set)
}

// receive notes what arrives. Who was vm3 is where it arrived, or, at vm1, where it came from.
func (t *traffic) receive(namespace string, w *way) error {
	socket, err := t.listen(namespace, allowedPort)
	if err != nil {
		return err
	}
	t.running.Go(func() {
		buffer := make([]byte, streamSize)
		for {
			n, err := socket.Read(buffer)
			if err != nil {
				return
			}
			if n == streamSize && binary.BigEndian.Uint16(buffer[1:]) == t.run {
				number := binary.BigEndian.Uint64(buffer)
				w.note(number, fmt.Sprint(namespace, number>>56))
			}
		}
	})
	return nil
}

func (w *way) note(number uint64, holder string) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[number]++
	if !w.last.IsZero() {
		w.longest = max(w.longest, now.Sub(w.last))
	}
	w.last = now
	if h := w.holders[holder]; h != nil {
		h[1] = now
	} else {
		w.holders[holder] = &[2]time.Time{now, now}
	}
	w.received.Add(1)
}

// refuse counts what arrives where nothing may.
func (t *traffic) refuse(namespace string) error {
	socket, err := t.listen(namespace, deniedPort)
	if err != nil {
		return err
	}
	t.running.Go(func() {
		buffer := make([]byte, streamSize)
		for {
			if _, err := socket.Read(buffer); err != nil {
				return
			}
			t.denied.Add(1)
		}
	})
	return nil
}

// send sends what is due. Where nothing is attached nothing is sent.
func (t *traffic) send(namespace string, n int, w *way, address string, rate int) error {
	socket, err := t.listen(namespace, 0)
	if err != nil {
		return err
	}
	allowed, denied := &net.UDPAddr{IP: net.ParseIP(address), Port: allowedPort}, &net.UDPAddr{IP: net.ParseIP(address), Port: deniedPort}
	t.running.Go(func() {
		buffer := make([]byte, streamSize)
		began, number := time.Now(), uint64(0)
		tick := time.NewTicker(streamTick)
		defer tick.Stop()
		for {
			select {
			case <-t.stop:
				return
			case <-tick.C:
			}
			due := uint64(float64(rate) * time.Since(began).Seconds())
			for ; number < due; number++ {
				binary.BigEndian.PutUint64(buffer, uint64(n)<<56|uint64(t.run)<<40|number)
				if _, err := socket.WriteTo(buffer, allowed); err == nil {
					w.sent.Add(1)
				}
				if number%deniedShare == 0 {
					socket.WriteTo(buffer, denied)
				}
			}
		}
	})
	return nil
}

func (w *way) lost() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent.Load() - uint64(len(w.seen))
}

func (w *way) silence() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.longest
}

// doubled counts datagrams that arrived twice, and holders of vm3 that carried beside each other.
func (w *way) doubled() (n uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, times := range w.seen {
		if times > 1 {
			n++
		}
	}
	for a, one := range w.holders {
		for b, other := range w.holders {
			if a < b && one[0].Before(other[1]) && other[0].Before(one[1]) {
				n++
			}
		}
	}
	return n
}

// pipe is a TCP stream at a rate.
type pipe struct {
	read          atomic.Int64
	last, longest atomic.Int64 // by the wall clock, and between two reads, in nanoseconds
	lost          atomic.Bool
}

func (p *pipe) silence() time.Duration { return time.Duration(p.longest.Load()) }

func (t *traffic) connect(p *pipe, from, to, address string) error {
	var listener net.Listener
	err := tun.Do(to, func() (err error) {
		listener, err = net.Listen("tcp4", fmt.Sprint(":", pipePort))
		return err
	})
	if err != nil {
		return err
	}
	defer listener.Close()
	var near net.Conn
	err = tun.Do(from, func() (err error) {
		near, err = net.DialTimeout("tcp4", fmt.Sprint(address, ":", pipePort), 5*time.Second)
		return err
	})
	if err != nil {
		return err
	}
	far, err := listener.Accept()
	if err != nil {
		near.Close()
		return err
	}
	t.closing = append(t.closing, near, far)
	t.running.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-t.stop:
				return
			case <-tick.C:
			}
			if _, err := near.Write(make([]byte, pipeRate/100)); err != nil {
				return
			}
		}
	})
	t.running.Go(func() {
		buffer := make([]byte, 256<<10)
		for {
			n, err := far.Read(buffer)
			if err != nil {
				return
			}
			now := time.Now().UnixNano()
			if last := p.last.Swap(now); last != 0 && now-last > p.longest.Load() {
				p.longest.Store(now - last)
			}
			p.read.Add(int64(n))
		}
	})
	return nil
}

// awaitPipes waits until bytes arrive by each stream, and notes those by which none do.
func (t *traffic) awaitPipes() {
	for _, p := range t.pipes {
		known := p.read.Load()
		err := poll(pipeLost, func() error {
			if p.read.Load() == known {
				return errors.New("nothing arrives")
			}
			return nil
		})
		p.lost.Store(err != nil)
	}
}
