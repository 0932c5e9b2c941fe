package fragment_test

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// model is the slow and obvious memory of one datagram: a flag for every byte.
type model struct {
	expires   time.Duration
	seen      map[int]bool
	end       int // 0: not known
	first     packet.Drop
	poison    packet.Drop
	headerEnd int
}

func (m *model) spans() (n int) {
	for i := range m.seen {
		if !m.seen[i-1] {
			n++
		}
	}
	return n
}

func (m *model) complete() bool { return m.end > 0 && len(m.seen) == m.end }

// add is what becomes of a fragment that has the header behind it.
func (m *model) add(f *packet.Fragment) packet.Drop {
	for i := int(f.Start); i < int(f.End); i++ {
		if m.seen[i] {
			return packet.DropFragmentOverlap
		}
	}
	if m.end > 0 && (!f.More || int(f.End) > m.end) {
		return packet.DropFragmentOverlap
	}
	if !f.More {
		for i := range m.seen {
			if i >= int(f.End) {
				return packet.DropFragmentOverlap
			}
		}
	}
	for i := int(f.Start); i < int(f.End); i++ {
		m.seen[i] = true
	}
	if m.spans() > 8 {
		for i := int(f.Start); i < int(f.End); i++ {
			delete(m.seen, i)
		}
		return packet.DropFragmentGaps
	}
	if !f.More {
		m.end = int(f.End)
	}
	return packet.NotDropped
}

// memory is the model of a table that is never full.
type memory struct {
	lifetime  time.Duration
	datagrams map[uint32]*model
}

func (m *memory) find(id uint32, now time.Duration) *model {
	d := m.datagrams[id]
	if d != nil && now >= d.expires {
		delete(m.datagrams, id)
		return nil
	}
	return d
}

func (m *memory) first(id uint32, f *packet.Fragment, verdict packet.Drop, now time.Duration) packet.Drop {
	d := m.find(id, now)
	if d != nil && !d.complete() && (d.poison != 0 || d.first == 0) {
		d.poison = packet.DropFragmentOverlap
		return packet.DropFragmentOverlap
	}
	d = &model{expires: now + m.lifetime, seen: map[int]bool{}, first: verdict, headerEnd: int(f.HeaderEnd)}
	m.datagrams[id] = d
	d.add(f)
	return packet.NotDropped
}

func (m *memory) later(id uint32, f *packet.Fragment, now time.Duration) packet.Drop {
	d := m.find(id, now)
	switch {
	case d == nil || d.poison == 0 && d.complete():
		return packet.DropFragmentNoFirst
	case d.poison != 0:
		return d.poison
	case d.first != 0:
		return d.first
	}
	drop := packet.DropFragmentHeader
	if int(f.Start) >= d.headerEnd {
		drop = d.add(f)
	}
	if drop == packet.DropFragmentHeader || drop == packet.DropFragmentOverlap {
		d.poison = drop
	}
	return drop
}

// play runs a script against table and model. Six bytes are a step: what, which
// datagram, where, how long, and how far the clock moves.
func play(t *testing.T, script []byte) {
	t.Helper()
	r := newRig(t, fragment.Options{Max: 4096, Lifetime: time.Second})
	m := memory{lifetime: time.Second, datagrams: map[uint32]*model{}}
	for step := 0; len(script) >= 6; step++ {
		s := script[:6]
		script = script[6:]
		id := uint32(s[1] % 8)
		r.now += time.Duration(s[5]) * time.Millisecond
		start := uint16(s[2]%40) * 8
		end := start + uint16(s[3]%6+1)*8
		more := s[0]&1 == 0
		if s[0]&6 == 0 {
			verdict := packet.NotDropped
			if s[0]&8 != 0 {
				verdict = packet.DropRule
			}
			end -= start
			_, got := r.first(id, end, verdict)
			if want := m.first(id, part(0, end, true), verdict, r.now); got != want {
				t.Fatalf("step %d: first fragment of %d to %d: %s, want %s", step, id, end, got, want)
			}
			continue
		}
		start = max(start, 1) // 1: within the header
		if !more {
			end -= uint16(s[4] % 8)
		}
		if end <= start {
			continue
		}
		got, want := r.later(id, start, end, more), m.later(id, part(start, end, more), r.now)
		if got != want {
			t.Fatalf("step %d: fragment of %d, %d to %d: %s, want %s", step, id, start, end, got, want)
		}
	}
}

func TestTheTableDoesWhatTheModelDoes(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		script := make([]byte, 6*200)
		for i := 0; i < len(script); i += 4 {
			binary.LittleEndian.PutUint32(script[i:], random.Uint32())
		}
		for i := 5; i < len(script); i += 6 {
			script[i] %= 40
		}
		play(t, script)
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 0, 0, 2, 1, 3, 2, 0, 1, 3, 1, 6, 1, 5, 0})
	f.Add([]byte{8, 1, 0, 2, 0, 0, 2, 1, 3, 2, 0, 1, 0, 1, 0, 1, 5, 255})
	f.Fuzz(play)
}

// TestWorkersShareTheTable lets several goroutines begin, follow, quote and expire the same
// datagrams. Whatever they do, nothing is lost of what waits, and every place comes back.
func TestWorkersShareTheTable(t *testing.T) {
	const workers, rounds = 4, 4000
	r := newRig(t, fragment.Options{Max: 64, Zones: 2, Hold: 16})
	var waited, returned [workers]uint64
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 5))
			for i := range rounds {
				now := r.now + time.Duration(i)*time.Millisecond
				k := key(random.Uint32N(40))
				k.Zone = uint16(k.ID % 2)
				v := fragment.Verdict{}
				switch random.IntN(4) {
				case 0:
					place, drop := r.table.Reserve(&k, part(0, 80, true), now)
					if drop != packet.NotDropped {
						continue
					}
					list := r.table.Decide(place, &v)
					for b := r.table.Next(&list); b != nil; b = r.table.Next(&list) {
						returned[w]++
					}
				case 1:
					r.table.Expire(now, time.Millisecond)
				case 2:
					r.table.Quoted(&k, 0, now, &v)
				default:
					start := 80 * uint16(1+random.IntN(4))
					if _, waits := r.table.Follow(&k, part(start, start+80, start < 320), make([]byte, 100), now, &v); waits {
						waited[w]++
					}
				}
			}
		})
	}
	group.Wait()
	r.table.Expire(r.now+time.Hour, time.Hour)
	var in, out uint64
	for w := range workers {
		in, out = in+waited[w], out+returned[w]
	}
	if vain := r.table.WaitedInVain(); in != out+vain || r.table.Held() != 0 {
		t.Errorf("%d waited, %d came back, %d in vain, %d still wait", in, out, vain, r.table.Held())
	}
	if n := r.table.Datagrams(); n != 0 {
		t.Errorf("%d datagrams are left", n)
	}
}
