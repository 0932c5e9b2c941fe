package watch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

func newSubscription(t testing.TB, workers int, o Options) *Subscription {
	t.Helper()
	s, err := New(workers, o, names, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// packetOf is a packet whose bytes tell its worker and its number.
func packetOf(worker int, number uint64, length int) []byte {
	b := make([]byte, 16+length)
	binary.BigEndian.PutUint64(b, uint64(worker))
	binary.BigEndian.PutUint64(b[8:], number)
	for i := 16; i < len(b); i++ {
		b[i] = byte(number) + byte(i)
	}
	return b
}

// TestEachEventIsReadOnceInItsOrderOrCountedAsLost lets workers write as quickly as they can while a
// reader takes its time. It is for the race detector, too.
func TestEachEventIsReadOnceInItsOrderOrCountedAsLost(t *testing.T) {
	const workers, each = 3, 5_000
	s := newSubscription(t, workers, Options{Snap: 4096, Events: 64, Bytes: minBytes})
	var writers sync.WaitGroup
	for w := range workers {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for i := range uint64(each) {
				b := packetOf(w, i, r.IntN(8000))
				cut := r.IntN(len(b) + 1)
				s.Put(w, &Event{Time: int64(i), Length: uint32(len(b)), Generation: i}, b[:cut], b[cut:])
			}
		})
	}
	ended, end := context.WithCancel(t.Context())
	go func() {
		writers.Wait()
		end()
	}()
	next, read := [workers]uint64{}, uint64(0)
	events := make([]Event, 50)
	for {
		n, err := s.Read(ended, events)
		if n == 0 {
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			break
		}
		for i := range events[:n] {
			e, b := &events[i], s.Bytes(&events[i])
			if len(b) != min(int(e.Length), 4096) {
				t.Fatalf("%d bytes of %d", len(b), e.Length)
			}
			w, number := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
			if want := packetOf(int(w), number, int(e.Length)-16); !bytes.Equal(b, want[:len(b)]) || number != e.Generation || number < next[w] {
				t.Fatalf("worker %d's packet %d, after %d, as event %d", w, number, next[w], e.Generation)
			}
			next[w] = number + 1
			read++
		}
	}
	if read+s.Lost() != workers*each || read == 0 || s.Lost() == 0 {
		t.Errorf("%d read and %d lost of %d", read, s.Lost(), workers*each)
	}
}

func TestWhatTheReaderHoldsIsNotWrittenTo(t *testing.T) {
	s := newSubscription(t, 1, Options{Snap: MaxSnap, Events: 1024, Bytes: minBytes})
	b := packetOf(0, 1, 60_000)
	put := func(number byte) {
		b[8] = number
		s.Put(0, &Event{Length: uint32(len(b))}, b, nil)
	}
	put(1)
	events := make([]Event, 1)
	if n, err := s.Read(t.Context(), events); n != 1 {
		t.Fatal(n, err)
	}
	for i := range byte(20) {
		put(i)
	}
	if s.Bytes(&events[0])[8] != 1 || s.Lost() == 0 {
		t.Errorf("the reader holds packet %d, %d lost", s.Bytes(&events[0])[8], s.Lost())
	}
	lost := s.Lost()
	for s.Read(t.Context(), events); ; {
		if n, err := s.Read(canceled(), events); n == 0 {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			break
		}
	}
	if put(9); s.Lost() != lost {
		t.Error("there is no room in an empty ring")
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestEarlierEventsOfOtherWorkersComeFirst(t *testing.T) {
	s := newSubscription(t, 2, Options{})
	for _, e := range []struct {
		worker int
		time   int64
	}{{0, 10}, {0, 30}, {1, 20}, {1, 40}} {
		s.Put(e.worker, &Event{Time: e.time}, nil, nil)
	}
	events := make([]Event, 4)
	n, err := s.Read(t.Context(), events)
	if n != 4 || err != nil {
		t.Fatal(n, err)
	}
	for i, want := range []int64{10, 20, 30, 40} {
		if events[i].Time != want {
			t.Errorf("event %d is of %d, want %d", i, events[i].Time, want)
		}
	}
}

func TestSamplesAreSpreadOverTheSecond(t *testing.T) {
	const perSecond = 100
	s := newSubscription(t, 1, Options{PerSecond: perSecond, Events: 1 << 16})
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	inTenth := map[int]int{}
	const seconds, each = 10, 10_000 // events a second
	for i := range seconds * each {
		at := start.Add(time.Duration(i) * time.Second / each)
		before := s.Skipped()
		s.Put(0, &Event{Time: at.UnixNano()}, nil, nil)
		if s.Skipped() == before {
			inTenth[i*10/each]++
		}
	}
	taken := uint64(seconds*each) - s.Skipped()
	if taken < seconds*perSecond || taken > seconds*perSecond+perSecond/10+1 {
		t.Errorf("%d taken in %d seconds", taken, seconds)
	}
	for tenth := range seconds * 10 {
		if n := inTenth[tenth]; n < perSecond/10-1 || n > 2*perSecond/10+1 {
			t.Errorf("%d taken in tenth %d", n, tenth)
		}
	}
	// A clock that is set back must not end it.
	before := s.Skipped()
	s.Put(0, &Event{Time: start.Add(-time.Hour).UnixNano()}, nil, nil)
	if s.Skipped() != before {
		t.Error("nothing is taken before the clock has caught up")
	}
}

func TestOneOfSoManyIsTaken(t *testing.T) {
	s := newSubscription(t, 1, Options{Every: 10})
	for range 95 {
		s.Put(0, &Event{}, nil, nil)
	}
	if s.Skipped() != 85 {
		t.Errorf("%d skipped of 95", s.Skipped())
	}
}

func TestOptionsOutOfRangeAreRefused(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{Snap: MaxSnap + 1}, "snap 65536: allowed are 0 to 65535"}, {Options{PerSecond: -1}, "per second -1"}, {Options{Every: -1}, "every -1"},
		{Options{Events: maxEvents + 1}, "events 1048577: allowed are"}, {Options{Bytes: minBytes - 1}, "bytes 262143: allowed are 0 and 262144 to"},
	} {
		if _, err := New(1, tt.o, names, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt.o, err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	for _, filter := range []string{"", "tcp port 80 and not net 10.0.0.0/8", "nsg NSG1 and verdict deny"} {
		b.Run(filter, func(b *testing.B) {
			f, _ := Parse(filter)
			s := newSubscription(b, 1, Options{Filter: f})
			e := request()
			events := make([]Event, 4096)
			for i := range b.N {
				if i%4096 == 0 {
					s.Read(canceled(), events)
				}
				s.Put(0, e, nil, nil)
			}
		})
	}
}

// A worker that is slow to tell of a packet must not be overtaken by the one that has the answer to it.
func TestAnEventWaitsForEarlierOnesThatAnotherWorkerHasBegun(t *testing.T) {
	s := newSubscription(t, 2, Options{})
	now := time.Now().UnixNano()
	events := make([]Event, 4)
	s.Begin(0)
	for step, told := range []func(){func() {}, func() { s.Since(0, now-2) }} {
		told()
		s.Put(1, &Event{Time: now - 1, Generation: 2}, nil, nil)
		now, settled := s.settled()
		if n := s.collect(events, now, settled); n != 0 {
			t.Fatalf("step %d: %d events came before an earlier one", step, n)
		}
	}
	s.Put(0, &Event{Time: now - 2, Generation: 1}, nil, nil)
	s.End(0)
	n, err := s.Read(t.Context(), events)
	if err != nil || n != 3 || events[0].Generation != 1 || events[1].Generation != 2 {
		t.Errorf("%d events, %v: %+v", n, err, events[:n])
	}
}

// A clock that was set back keeps no event for as long as that.
func TestAnEventFromTheFutureDoesNotWaitForIt(t *testing.T) {
	s := newSubscription(t, 1, Options{})
	s.Put(0, &Event{Time: time.Now().Add(time.Hour).UnixNano()}, nil, nil)
	if n, err := s.Read(t.Context(), make([]Event, 1)); n != 1 || err != nil {
		t.Errorf("%d events, %v", n, err)
	}
}

// An event that nobody gets is not made: its second is counted as skipped by all who would have it.
func TestAnEventIsSpentWhenPerSecondLeavesItOutForAll(t *testing.T) {
	const now = int64(1_000_000_000)
	watching := func(options ...Options) (*WatcherList, []*Subscription) {
		var w Watchers
		var list []*Subscription
		for _, o := range options {
			s, err := w.Watch(1, o, func() *Names { return names })
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			e := Event{Time: now, Drop: packet.DropRule}
			e.Packet.Proto, e.Packet.Dst = packet.ProtoTCP, packet.AddrFrom4([4]byte{10, 0, 0, 4})
			for range 1000 { // more than a tenth of a second has room for
				s.Put(0, &e, nil, nil)
			}
			list = append(list, s)
		}
		return w.Now(), list
	}
	bounded, dropped := Options{DecidedOnly: true, PerSecond: 1000}, Options{DroppedOnly: true, PerSecond: 1000}
	filter, err := Parse("tcp")
	if err != nil {
		t.Fatal(err)
	}
	empty, err := Parse("")
	if err != nil {
		t.Fatal(err)
	}
	filtered, every, unbounded, unfiltered := bounded, bounded, bounded, bounded
	unfiltered.Filter = empty
	filtered.Filter, every.Every, unbounded.PerSecond = filter, 2, 0
	for _, tt := range []struct {
		name    string
		options []Options
		dropped bool
		want    bool
	}{
		{"one whose second is used up", []Options{bounded}, false, true},
		{"two of them", []Options{bounded, bounded}, true, true},
		{"one that takes all", []Options{bounded, unbounded}, false, false},
		{"a filter, which may not take it", []Options{filtered}, true, false},
		{"a filter that takes every packet", []Options{unfiltered}, true, true},
		{"one of so many", []Options{every}, true, false},
		{"who wants what is dropped is not asked about what began", []Options{bounded, {DroppedOnly: true}}, false, true},
		{"but about what was dropped", []Options{bounded, {DroppedOnly: true}}, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all, list := watching(tt.options...)
			before := list[0].Skipped()
			if got := all.Spent(now, tt.dropped); got != tt.want || list[0].Skipped()-before != map[bool]uint64{true: 1}[got] {
				t.Errorf("spent %v, %d more skipped", got, list[0].Skipped()-before)
			}
		})
	}
	all, list := watching(bounded, dropped)
	if all.Spent(now+int64(time.Second), true) {
		t.Error("a later second is spent too")
	}
	if n := list[1].Skipped(); !all.Spent(now, false) || list[1].Skipped() != n {
		t.Error("who wants what is dropped alone has skipped what began a flow")
	}
}
