package main

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sys/unix"
)

// stream sends numbered datagrams at a rate, and sees which of them arrive and when.
type stream struct {
	sender, receiver *net.UDPConn
	sent             atomic.Uint64 // the number of the next one
	longest          atomic.Int64  // nanoseconds between two that arrived, since it was asked for last
	stop             chan struct{}
	running          sync.WaitGroup

	mu      sync.Mutex
	arrived arrivals
}

// arrivals are the numbers of the datagrams that have come.
type arrivals struct {
	seen        []uint64 // a bit for each number
	twice, late uint64   // that had come before; that came after a later one
	highest     uint64
}

func (a *arrivals) add(n uint64) {
	word, bit := n/64, uint64(1)<<(n%64)
	if missing := int(word) + 1 - len(a.seen); missing > 0 {
		a.seen = append(a.seen, make([]uint64, missing)...)
	}
	switch {
	case a.seen[word]&bit != 0:
		a.twice++
	case n < a.highest:
		a.late++
	default:
		a.highest = n
	}
	a.seen[word] |= bit
}

// missing is how many of the numbers from first on, before end, have not come.
func (a *arrivals) missing(first, end uint64) (missing uint64) {
	for n := first; n < end; n++ {
		if n/64 >= uint64(len(a.seen)) || a.seen[n/64]&(1<<(n%64)) == 0 {
			missing++
		}
	}
	return missing
}

const (
	streamBuffer = 64 << 20
	streamTick   = time.Millisecond
	streamSize   = 64
)

func newStream(from, to, address string, rate int) (*stream, error) {
	s := &stream{stop: make(chan struct{})}
	target, err := net.ResolveUDPAddr("udp4", address)
	if err != nil {
		return nil, err
	}
	err = tun.Do(to, func() (err error) {
		s.receiver, err = net.ListenUDP("udp4", target)
		return err
	})
	if err == nil {
		err = tun.Do(from, func() (err error) {
			s.sender, err = net.DialUDP("udp4", nil, target)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	raw, err := s.receiver.SyscallConn()
	if err != nil {
		return nil, err
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, streamBuffer)
	}); err != nil || set != nil {
		return nil, errors.Join(err, set)
	}
	s.running.Go(s.receive)
	s.running.Go(func() { s.send(rate) })
	return s, nil
}

// send sends what is due at each tick.
func (s *stream) send(rate int) {
	began := time.Now()
	tick := time.NewTicker(streamTick)
	defer tick.Stop()
	buffer := make([]byte, streamSize)
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		// Who was held up by the machine does not make up for more than a little.
		due := uint64(float64(rate) * time.Since(began).Seconds())
		if most := s.sent.Load() + uint64(rate/50); due > most {
			due = most
			began = time.Now().Add(-time.Duration(float64(due) / float64(rate) * float64(time.Second)))
		}
		for n := s.sent.Load(); n < due; n++ {
			binary.BigEndian.PutUint64(buffer, n)
			if _, err := s.sender.Write(buffer); err != nil {
				break
			}
			s.sent.Add(1)
		}
	}
}

func (s *stream) receive() {
	buffer := make([]byte, streamSize)
	var last time.Time
	for {
		if _, err := s.receiver.Read(buffer); err != nil {
			return
		}
		s.mu.Lock()
		s.arrived.add(binary.BigEndian.Uint64(buffer))
		s.mu.Unlock()
		now := time.Now()
		if gap := now.Sub(last); !last.IsZero() && int64(gap) > s.longest.Load() {
			s.longest.Store(int64(gap))
		}
		last = now
	}
}

// gap is the longest time without a datagram since the last call.
func (s *stream) gap() time.Duration { return time.Duration(s.longest.Swap(0)) }

// row is what became of the datagrams since a number.
type row struct{ sent, lost, twice, late uint64 }

// since waits until those that were sent have come, as later ones have, and tells of them. before is what twice and late
// were at the number.
func (s *stream) since(first uint64, before *row) (row, error) {
	end := s.sent.Load()
	err := poll(lostAfter, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.arrived.highest < end {
			return errors.New("the datagrams have stopped")
		}
		return nil
	})
	time.Sleep(restartPause) // those of another queue
	s.mu.Lock()
	defer s.mu.Unlock()
	return row{end - first, s.arrived.missing(first, end), s.arrived.twice - before.twice, s.arrived.late - before.late}, err
}

func (s *stream) close() {
	close(s.stop)
	time.Sleep(100 * time.Millisecond)
	s.sender.Close()
	s.receiver.Close()
	s.running.Wait()
}
