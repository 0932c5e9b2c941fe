package history

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/dataplane/watch"
)

// engine is one without packets: its events, flows and counters are the test's.
type engine struct {
	registry     *topology.Registry
	subscription *watch.Subscription
	flows        *conntrack.Table
	set          *counter.Set
	drops        [packet.NumDrops]uint64
}

func (e *engine) Watch(o watch.Options) (s *watch.Subscription, err error) {
	e.subscription, err = watch.New(1, o, &watch.Names{}, nil)
	return e.subscription, err
}
func (e *engine) Registry() *topology.Registry   { return e.registry }
func (e *engine) Snapshot() *topology.Snapshot   { return &topology.Snapshot{Generation: 1} }
func (e *engine) Counters() counter.Sets         { return counter.Sets{e.set} }
func (e *engine) Drops() [packet.NumDrops]uint64 { return e.drops }
func (e *engine) Flows() *conntrack.Table        { return e.flows }
func (e *engine) Room() verdict.Room             { return 100 }

// rig is a history whose clock the test moves on.
type rig struct {
	*History
	t      testing.TB
	engine *engine
	clock  time.Time
}

func newRig(t testing.TB, keep time.Duration) *rig {
	t.Helper()
	rules := make([]topology.RuleKey, 2*MaxHits)
	for i := range rules {
		rules[i].Rule = string(rune('a'+i%26)) + time.Duration(i).String()
	}
	r := &rig{t: t, clock: time.Unix(1_000_000, 0), engine: &engine{registry: topology.ResumeRegistry(rules, nil), set: counter.New(time.Now)}}
	r.engine.set.Reserve(len(rules))
	var err error
	if r.engine.flows, err = conntrack.New(conntrack.Options{Max: 64, Zones: 8, Workers: 1}); err != nil {
		t.Fatal(err)
	}
	if r.History, err = New(Options{Engine: r.engine, Keep: keep, Now: func() time.Time { return r.clock }}); err != nil {
		t.Fatal(err)
	}
	return r
}

// dropped is a packet that was dropped.
func dropped(from int32, source uint32, port uint16) watch.Event {
	a := netip.AddrFrom4([4]byte{byte(source >> 24), byte(source >> 16), byte(source >> 8), byte(source)})
	e := watch.Event{From: from, To: 1, Drop: packet.DropNoRoute, Generation: 1}
	e.Packet.Tuple = packet.Tuple{Src: packet.AddrFrom(a), Dst: packet.AddrFrom(netip.MustParseAddr("10.0.1.4")), DstPort: port, Proto: packet.ProtoTCP}
	e.Packet.Segments, e.Packet.WireLen = 1, 40
	return e
}

// denied are the pairs since the beginning, and the packets of all of them and of the others.
func (r *rig) denied() (pairs int, all, others uint64) {
	r.Since(time.Time{}).Denied(func(p *Pair) {
		if all += p.Count; p.From == Others {
			others += p.Count
		} else {
			pairs++
		}
	})
	return pairs, all, others
}

func TestPairsOfOneBucketAreAddedUp(t *testing.T) {
	r := newRig(t, time.Minute)
	r.take([]watch.Event{dropped(0, 1, 22), dropped(0, 1, 22), dropped(0, 1, 23)})
	if pairs, all, others := r.denied(); pairs != 2 || all != 3 || others != 0 {
		t.Errorf("%d pairs, %d packets, %d others", pairs, all, others)
	}
}

func TestASenderWhoMakesUpPairsFillsHalfOfABucketAndNoMore(t *testing.T) {
	r := newRig(t, time.Minute)
	for i := range uint32(4 * MaxPairs) {
		r.take([]watch.Event{dropped(0, i, 22)})
	}
	if pairs, all, others := r.denied(); pairs != MaxPairs/2 || all != 4*MaxPairs || others != all-MaxPairs/2 {
		t.Errorf("%d pairs, %d packets, %d others", pairs, all, others)
	}
	r.take([]watch.Event{dropped(1, 7, 22)})
	if pairs, _, _ := r.denied(); pairs != MaxPairs/2+1 {
		t.Errorf("another sender has no room: %d pairs", pairs)
	}
}

func TestABucketIsBoundedWhoeverSends(t *testing.T) {
	r := newRig(t, time.Minute)
	const senders, each = 50, 2 * maxOthers
	for from := range int32(senders) {
		for i := range uint32(each) {
			e := dropped(from, i, 22)
			e.Generation = uint64(i) // as if each were another policy
			r.take([]watch.Event{e})
		}
	}
	if pairs, all, others := r.denied(); pairs != MaxPairs || all != senders*each || others != all-MaxPairs {
		t.Errorf("%d pairs, %d packets, %d others", pairs, all, others)
	}
	entries := 0
	r.Since(time.Time{}).Denied(func(*Pair) { entries++ })
	if entries > MaxPairs+maxOthers+1 {
		t.Errorf("%d entries", entries)
	}
}

func TestWhatIsOlderIsForgotten(t *testing.T) {
	r := newRig(t, time.Minute)
	r.take([]watch.Event{dropped(0, 1, 22)})
	for i := range 20 {
		if _, all, _ := r.denied(); (all == 1) != (i <= 4) {
			t.Fatalf("after %v there are %d packets", time.Duration(i)*BucketLength, all)
		}
		r.clock = r.clock.Add(BucketLength)
		r.take(nil)
	}
	if len(r.past) != 4 {
		t.Errorf("%d buckets", len(r.past))
	}
}

func TestAClockThatIsSetBackEndsTheBucket(t *testing.T) {
	r := newRig(t, time.Minute)
	r.take([]watch.Event{dropped(0, 1, 22)})
	r.clock = r.clock.Add(-time.Hour)
	r.take([]watch.Event{dropped(0, 1, 22)})
	if len(r.past) != 1 {
		t.Errorf("%d buckets", len(r.past))
	}
}

func TestSinceBeginsWithTheBucketOfItsTime(t *testing.T) {
	r := newRig(t, time.Minute)
	start := r.clock
	for range 3 {
		r.take([]watch.Event{dropped(0, 1, 22)})
		r.clock = r.clock.Add(BucketLength)
		r.take(nil)
	}
	for _, tt := range []struct {
		name  string
		since time.Time
		want  uint64
	}{{"before all", start.Add(-time.Hour), 3}, {"within the first bucket", start.Add(time.Second), 3},
		{"at the second's begin", start.Add(BucketLength), 2}, {"now", r.clock, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			var all uint64
			s := r.Since(tt.since)
			if s.Denied(func(p *Pair) { all += p.Count }); all != tt.want || s.To != r.clock {
				t.Errorf("%d packets from %v to %v", all, s.From, s.To)
			}
		})
	}
}

func TestHitsAreThoseOfTheTime(t *testing.T) {
	r := newRig(t, time.Minute)
	p := packet.Packet{Segments: 2, WireLen: 100}
	hit := func(slot uint32) {
		r.engine.set.Add(slot, 1, uint64(p.Segments), uint64(p.WireLen))
		r.engine.set.Flush()
	}
	hits := func(since time.Time) map[uint32]uint64 {
		sums := map[uint32]uint64{}
		r.Since(since).Hits(func(_ time.Time, _ uint64, h *Hit) { sums[h.Slot] += h.Hits })
		return sums
	}
	hit(3)
	r.clock = r.clock.Add(BucketLength)
	r.take(nil)
	hit(3)
	hit(4)
	if now, all := hits(r.clock), hits(time.Time{}); now[3] != 1 || now[4] != 1 || all[3] != 2 {
		t.Errorf("now %v, in all %v", now, all)
	}
	r.engine.set.Forget(3)
	r.clock = r.clock.Add(BucketLength)
	r.take(nil)
	hit(3)
	if now, all := hits(r.clock), hits(time.Time{}); now[3] != 1 || all[3] != 2 { // what its last bucket counted is forgotten too
		t.Errorf("after the slot was forgotten: now %v, in all %v", now, all)
	}
}

func TestHitsOfABucketAreBounded(t *testing.T) {
	r := newRig(t, time.Minute)
	p := packet.Packet{Segments: 1, WireLen: 40}
	for slot := range uint32(2 * MaxHits) {
		r.engine.set.Add(slot, 1+uint64(slot%2), uint64(p.Segments), uint64(p.WireLen))
	}
	r.engine.set.Flush()
	s, listed := r.Since(time.Time{}), 0
	s.Hits(func(_ time.Time, _ uint64, h *Hit) {
		if listed++; h.Hits != 2 {
			t.Errorf("slot %d with %d hits is among the first", h.Slot, h.Hits)
		}
	})
	if listed != MaxHits || s.OtherHits.Hits != MaxHits {
		t.Errorf("%d rules, and %d hits of others", listed, s.OtherHits.Hits)
	}
}

func TestAllDropsAreCountedAlsoThoseThatWereNotSeen(t *testing.T) {
	r := newRig(t, time.Minute)
	r.engine.drops[packet.DropNoRoute] = 5
	for i := range waitingEvents + 100 {
		e := dropped(0, 1, 22)
		e.Time = int64(i) * int64(time.Second) // as slowly as may be
		r.engine.subscription.Put(0, &e, nil, nil)
	}
	if s := r.Since(time.Time{}); s.Drops[packet.DropNoRoute] != 5 || s.Unseen != 100 {
		t.Errorf("%d dropped, %d not seen", s.Drops[packet.DropNoRoute], s.Unseen)
	}
}

// flow is one that has ended.
func flow(port uint16) *conntrack.FlowInfo {
	f := &conntrack.FlowInfo{Packets: [2]uint64{2, 1}, Bytes: [2]uint64{200, 100}}
	f.Key.Tuple = dropped(0, 1, port).Packet.Tuple
	f.Key.Zone, f.ReplyKey.Zone = 3, 104
	f.Slots.Set(0, 5)
	f.Slots.Set(1, 6)
	return f
}

func TestAnEndedFlowIsRememberedAndSummedUp(t *testing.T) {
	r := newRig(t, time.Minute)
	r.ended.push(flow(80))
	r.ended.push(flow(80))
	var sums []Pair
	r.Since(time.Time{}).Ended(func(p *Pair) { sums = append(sums, *p) })
	if len(sums) != 1 || sums[0].Count != 2 || sums[0].Packets != [2]uint64{4, 2} || sums[0].Bytes != [2]uint64{400, 200} ||
		sums[0].Slot != 6 || sums[0].From != 3 || sums[0].To != -1 || sums[0].Port != 80 {
		t.Errorf("%+v", sums)
	}
	seen := 0
	next, missed := r.EndedSince(0, func(e *Ended) {
		if seen++; e.Flow.Key.DstPort != 80 || e.From != 3 || e.To != -1 || e.At != r.clock.UnixNano() {
			t.Errorf("%+v", e)
		}
	})
	if seen != 2 || next != 2 || missed != 0 {
		t.Errorf("%d seen, %d next, %d missed", seen, next, missed)
	}
}

func TestARingOfEndedFlowsThatIsFullLosesAndCounts(t *testing.T) {
	r := newRig(t, time.Minute)
	for i := range waitingEnded + 7 {
		r.ended.push(flow(uint16(i)))
	}
	s, all := r.Since(time.Time{}), uint64(0)
	if s.Ended(func(p *Pair) { all += p.Count }); all != waitingEnded || s.Lost != 7 {
		t.Errorf("%d flows, %d lost", all, s.Lost)
	}
	seen := 0
	if _, missed := r.EndedSince(0, func(*Ended) { seen++ }); seen != newestEnded || missed != waitingEnded-newestEnded {
		t.Errorf("%d seen, %d missed", seen, missed)
	}
	if next, missed := r.EndedSince(r.Cursor(), func(*Ended) { t.Error("told again") }); next != waitingEnded || missed != 0 {
		t.Errorf("%d next, %d missed", next, missed)
	}
}

func TestWhatCanNotBeKeptIsRefused(t *testing.T) {
	for _, keep := range []time.Duration{-time.Second, MinKeep - 1, MaxKeep + 1} {
		if _, err := New(Options{Engine: &engine{}, Keep: keep}); err == nil {
			t.Errorf("%v is taken", keep)
		}
	}
}

// BenchmarkAnHour is the memory that an hour takes: of silence, and of a flood of distinct pairs of dropped packets and ended
// flows from two attachments, with every rule hit. The size of the rest is not counted.
func BenchmarkAnHour(b *testing.B) {
	for _, flood := range []bool{false, true} {
		b.Run(map[bool]string{false: "silence", true: "flood"}[flood], func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				r := newRig(b, time.Hour)
				for bucket := range uint32(time.Hour / BucketLength) {
					var events []watch.Event
					for i := range uint32(4 * MaxPairs) {
						if !flood {
							break
						}
						events = append(events, dropped(int32(i%2), bucket<<16|i, uint16(i)))
						f := conntrack.FlowInfo{}
						f.Key.Tuple, f.Key.Zone = events[i].Packet.Tuple, uint16(i%2)
						r.ended.push(&f)
						r.engine.set.Add(i, 1, uint64(events[i].Packet.Segments), uint64(events[i].Packet.WireLen))
					}
					r.clock = r.clock.Add(BucketLength)
					r.take(events)
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MB")
				runtime.KeepAlive(r.History)
			}
		})
	}
}
