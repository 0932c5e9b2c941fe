package lane

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/tun"
)

func TestLanesTogetherWorkAQuarterOfTheTime(t *testing.T) {
	s := NewLanes(nil)
	l := s.idle()
	for n := 1; n <= MaxLanes; n++ {
		s.busy.Store(int32(n))
		const took = 100 * time.Microsecond
		work := float64(n) * float64(took) / float64(took+l.rest(took))
		if most := max(float64(runtime.GOMAXPROCS(0))/4, 0.5); work > most*1.5 {
			t.Errorf("%d lanes work on %.2f processors", n, work)
		}
	}
	if r := l.rest(time.Hour); r != longestRest {
		t.Errorf("a lane rests %v", r)
	}
}

// The ring of a lane holds packets in one piece, whatever their lengths.
func TestALaneHoldsPacketsInOnePiece(t *testing.T) {
	l := NewLanes(nil).idle()
	random := rand.New(rand.NewPCG(1, 2))
	next, expected := byte(0), byte(0)
	for range 10_000 {
		b := bytes.Repeat([]byte{next}, 1+random.IntN(tun.HeaderLen+65_535))
		cut := random.IntN(len(b))
		if l.Take([][]byte{b[:cut], b[cut:]}, 1, 1) {
			next++
			continue
		}
		f := <-l.ready
		if got := l.ring[f.at : f.at+f.length]; bytes.Count(got, []byte{expected}) != len(got) {
			t.Fatal("the bytes of a packet that waits have changed")
		}
		expected++
		l.free(f)
	}
	if next == expected {
		t.Error("nothing waits")
	}
}

// faulty is a queue whose first write panics.
type faulty struct {
	tun.Queue
	writes int
	wrote  chan struct{}
}

func (q *faulty) SetSlow(bool) {}

func (q *faulty) Write([]byte) error {
	if q.writes++; q.writes == 1 {
		panic("a fault for a test")
	}
	q.wrote <- struct{}{}
	return nil
}

// A lane has one turn of all lanes while it writes, and must give it back.
func TestAPanicCostsALaneOnePacket(t *testing.T) {
	clock := func() time.Duration { return 0 }
	log := fault.NewLog(slog.New(slog.DiscardHandler), clock)
	s, q, counters := NewLanes(log), &faulty{wrote: make(chan struct{})}, counter.New(time.Now)
	s.turns = make(chan struct{}, 1)
	l := s.Make(q, counter.Sets{counters}.NewTally(0).Cells[0], counters, clock)
	for range 3 {
		if !l.Take([][]byte{make([]byte, 100)}, 1, 100) {
			t.Fatal("the lane is full")
		}
	}
	for range 2 {
		<-q.wrote
	}
	l.End()
	if n := log.Counts()[fault.Lane]; n != 1 {
		t.Errorf("%d faults", n)
	}
	if n := (counter.Sets{counters}).Drops()[packet.DropPanic]; n != 1 {
		t.Errorf("%d packets are counted as dropped by a panic", n)
	}
}
