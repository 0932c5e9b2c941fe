package lane

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/nsgd/nsgd/tun"
)

func TestLanesTogetherWorkAQuarterOfTheTime(t *testing.T) {
	s := NewLanes()
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
	l := NewLanes().idle()
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
