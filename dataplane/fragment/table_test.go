package fragment_test

import (
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// rig is a table with a clock that the test moves.
type rig struct {
	t     testing.TB
	table *fragment.Table
	now   time.Duration
}

func newRig(t testing.TB, o fragment.Options) *rig {
	t.Helper()
	table, err := fragment.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, table: table, now: time.Hour}
}

func key(id uint32) fragment.Key {
	return fragment.Key{Src: packet.AddrFrom4([4]byte{10, 0, 0, 1}), Dst: packet.AddrFrom4([4]byte{10, 0, 0, 2}), ID: id, Proto: 17}
}

func part(start, end uint16, more bool) *packet.Fragment {
	f := &packet.Fragment{Start: start, End: end, More: more, Proto: 17}
	if start == 0 {
		f.HeaderEnd = 8
	}
	return f
}

// first lets the first fragment of a datagram pass, or drops it under why.
func (r *rig) first(id uint32, end uint16, why packet.Drop) (fragment.Held, packet.Drop) {
	k := key(id)
	place, drop := r.table.Reserve(&k, part(0, end, true), r.now)
	if drop != packet.NotDropped {
		return fragment.Held{}, drop
	}
	return r.table.Decide(place, &fragment.Verdict{Drop: why, To: 7}), packet.NotDropped
}

// later is what becomes of a later fragment: its own drop reason or its verdict's.
func (r *rig) later(id uint32, start, end uint16, more bool) packet.Drop {
	k, v := key(id), fragment.Verdict{}
	drop, waits := r.table.Follow(&k, part(start, end, more), []byte{byte(start)}, r.now, &v)
	if waits {
		r.t.Error("waits")
	}
	if drop == packet.NotDropped {
		drop = v.Drop
	}
	return drop
}

func TestLaterFragmentsFollowTheFirst(t *testing.T) {
	type step struct {
		start, end uint16
		last       bool
		want       packet.Drop
	}
	tests := []struct {
		name  string
		first packet.Drop
		steps []step
	}{
		{"in order", 0, []step{{80, 160, false, 0}, {160, 200, true, 0}}},
		{"in reverse", 0, []step{{240, 250, true, 0}, {160, 240, false, 0}, {80, 160, false, 0}}},
		{"into the denial of the first", packet.DropRule, []step{{80, 160, false, packet.DropRule}, {160, 200, true, packet.DropRule}}},
		{"none after the last", 0, []step{{80, 100, true, 0}, {104, 112, false, packet.DropFragmentNoFirst}}},
		{"none twice, and nothing after an overlap", 0, []step{{80, 160, false, 0}, {80, 160, false, packet.DropFragmentOverlap}, {160, 200, true, packet.DropFragmentOverlap}}},
		{"not over the first one's end", 0, []step{{72, 160, false, packet.DropFragmentOverlap}, {160, 200, true, packet.DropFragmentOverlap}}},
		{"not over the beginning of one behind", 0, []step{{160, 240, false, 0}, {80, 168, false, packet.DropFragmentOverlap}}},
		{"not over all of one behind", 0, []step{{160, 168, false, 0}, {80, 240, false, packet.DropFragmentOverlap}}},
		{"not into the header", 0, []step{{4, 160, false, packet.DropFragmentHeader}, {80, 160, false, packet.DropFragmentHeader}}},
		{"not with a second end", 0, []step{{160, 200, true, 0}, {80, 100, true, packet.DropFragmentOverlap}}},
		{"not behind the end", 0, []step{{160, 200, true, 0}, {200, 208, false, packet.DropFragmentOverlap}}},
		{"not with an end before what is there", 0, []step{{160, 200, false, 0}, {80, 100, true, packet.DropFragmentOverlap}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, fragment.Options{})
			r.first(1, 80, tt.first)
			for _, s := range tt.steps {
				if got := r.later(1, s.start, s.end, !s.last); got != s.want {
					t.Errorf("%d to %d: %s, want %s", s.start, s.end, got, s.want)
				}
			}
		})
	}
}

func TestMoreGapsThanAreFollowedCostTheFragmentsThatMakeThem(t *testing.T) {
	r := newRig(t, fragment.Options{})
	r.first(1, 16, 0)
	for i := uint16(1); i < 8; i++ { // eight spans with the first
		if drop := r.later(1, 32*i, 32*i+16, true); drop != packet.NotDropped {
			t.Fatalf("gap %d: %s", i, drop)
		}
	}
	if drop := r.later(1, 1024, 1040, true); drop != packet.DropFragmentGaps {
		t.Errorf("a ninth span: %s", drop)
	}
	if drop := r.later(1, 16, 32, true); drop != packet.NotDropped {
		t.Errorf("a fragment that fills a gap: %s", drop)
	}
	if drop := r.later(1, 1024, 1040, true); drop != packet.NotDropped {
		t.Errorf("once more: %s", drop)
	}
}

func TestASecondFirstFragment(t *testing.T) {
	t.Run("poisons a datagram that is under way", func(t *testing.T) {
		r := newRig(t, fragment.Options{})
		r.first(1, 80, 0)
		if _, drop := r.first(1, 80, 0); drop != packet.DropFragmentOverlap {
			t.Errorf("got %s", drop)
		}
		if drop := r.later(1, 80, 160, false); drop != packet.DropFragmentOverlap {
			t.Errorf("the rest: %s", drop)
		}
	})
	t.Run("begins another when the last one is complete", func(t *testing.T) {
		r := newRig(t, fragment.Options{})
		r.first(1, 80, 0)
		r.later(1, 80, 160, false)
		if _, drop := r.first(1, 80, 0); drop != packet.NotDropped {
			t.Errorf("got %s", drop)
		}
	})
	t.Run("begins another when nothing of the last one has passed", func(t *testing.T) {
		r := newRig(t, fragment.Options{})
		r.first(1, 80, packet.DropRule)
		if _, drop := r.first(1, 80, 0); drop != packet.NotDropped {
			t.Errorf("got %s", drop)
		}
	})
	t.Run("poisons one that is being judged", func(t *testing.T) {
		r := newRig(t, fragment.Options{})
		k := key(1)
		place, _ := r.table.Reserve(&k, part(0, 80, true), r.now)
		if _, drop := r.first(1, 80, 0); drop != packet.DropFragmentOverlap {
			t.Errorf("got %s", drop)
		}
		r.table.Decide(place, &fragment.Verdict{})
		if drop := r.later(1, 80, 160, false); drop != packet.DropFragmentOverlap {
			t.Errorf("the rest: %s", drop)
		}
	})
}

func TestADatagramIsForgottenAndNothingExtendsItsLife(t *testing.T) {
	r := newRig(t, fragment.Options{Lifetime: time.Second})
	r.first(1, 80, 0)
	r.now += 999 * time.Millisecond
	if drop := r.later(1, 80, 160, true); drop != packet.NotDropped {
		t.Errorf("in time: %s", drop)
	}
	r.now += time.Millisecond
	if drop := r.later(1, 160, 240, true); drop != packet.DropFragmentNoFirst {
		t.Errorf("too late: %s", drop)
	}
	if n := r.table.Datagrams(); n != 0 {
		t.Errorf("%d datagrams are left", n)
	}
}

// A first fragment that is judged for longer than a datagram lives must not leave its
// verdict for another that took its place and is being judged itself.
func TestAVerdictThatComesTooLateIsForNobody(t *testing.T) {
	r := newRig(t, fragment.Options{Max: 16})
	late, other := key(1), key(100)
	place, _ := r.table.Reserve(&late, part(0, 80, true), r.now)
	r.now += time.Minute
	next, drop := r.table.Reserve(&other, part(0, 80, true), r.now)
	if drop != packet.NotDropped {
		t.Fatal(drop)
	}
	r.table.Decide(place, &fragment.Verdict{})
	if drop := r.later(100, 80, 160, true); drop != packet.DropFragmentNoFirst {
		t.Errorf("a fragment of a datagram that is being judged: %s", drop)
	}
	r.table.Decide(next, &fragment.Verdict{Drop: packet.DropRule})
	if drop := r.later(100, 80, 160, true); drop != packet.DropRule {
		t.Errorf("its next one: %s", drop)
	}
	if drop := r.later(1, 80, 160, true); drop == packet.NotDropped {
		t.Error("a fragment of the datagram that is over passed")
	}
}

// A datagram that found its bucket full counted in its zone's share for ever.
func TestARefusedDatagramTakesUpNoShare(t *testing.T) {
	r := newRig(t, fragment.Options{Max: 16, Zones: 3}) // one bucket
	for id := range uint32(48) {
		k := key(id)
		k.Zone = uint16(id % 3)
		if place, drop := r.table.Reserve(&k, part(0, 80, true), r.now); drop == packet.NotDropped {
			r.table.Decide(place, &fragment.Verdict{})
		}
	}
	if n := r.table.Datagrams(); n != 16 {
		t.Errorf("%d datagrams in 16 places", n)
	}
	r.now += time.Hour
	r.table.Expire(r.now, time.Hour)
	if n := r.table.Datagrams(); n != 0 {
		t.Errorf("%d datagrams are left", n)
	}
}

func TestADatagramThatIsOverGivesWayBeforeTheSweep(t *testing.T) {
	r := newRig(t, fragment.Options{Max: 16}) // one bucket
	for round := range uint32(3) {
		for id := range uint32(8) { // all that one zone may have
			if _, drop := r.first(round<<8|id, 80, 0); drop != packet.NotDropped {
				t.Fatalf("datagram %d: %s", id, drop)
			}
		}
		r.now += time.Hour
	}
}

// Datagrams that are over filled a zone's share until a sweep came by, which was the later the
// larger the table.
func TestDatagramsThatAreOverTakeUpNoShare(t *testing.T) {
	const interval = 100 * time.Millisecond
	r := newRig(t, fragment.Options{Max: 1 << 16, Zones: 2})
	refused, id := 0, uint32(0)
	for range 200 { // twice the share in all, a fifth of it at a time
		for range 300 {
			id++
			if _, drop := r.first(id, 80, 0); drop != packet.NotDropped {
				refused++
			}
		}
		r.now += interval
		r.table.Expire(r.now, interval)
	}
	if n := r.table.Datagrams(); refused > 0 || n > 300*25 {
		t.Errorf("%d refused; %d datagrams, of which no more than 6,000 can be live", refused, n)
	}
}

func TestWhatWaitsLeavesRoomForOtherZones(t *testing.T) {
	r := newRig(t, fragment.Options{Hold: 10, Zones: 2})
	waits := func(id uint32, zone uint16) bool {
		k, v := key(id), fragment.Verdict{}
		k.Zone = zone
		_, waits := r.table.Follow(&k, part(80, 88, true), []byte{1}, r.now, &v)
		return waits
	}
	for id := range uint32(20) {
		if got := waits(id, 0); got != (id < 5) {
			t.Errorf("fragment %d of one zone waits: %v", id, got)
		}
	}
	if !waits(1, 1) {
		t.Error("nothing is left for the other zone")
	}
}

func TestNoMoreOfOneDatagramWaitThanOnePacketMayCost(t *testing.T) {
	r := newRig(t, fragment.Options{Hold: 1000})
	k, v := key(1), fragment.Verdict{}
	for i := range uint16(200) {
		_, waits := r.table.Follow(&k, part(80+8*i, 88+8*i, true), []byte{1}, r.now, &v)
		if waits != (i < 64) {
			t.Fatalf("fragment %d waits: %v", i, waits)
		}
	}
}

func TestTheFloodOfOneZoneLeavesRoomForAnother(t *testing.T) {
	r := newRig(t, fragment.Options{Max: 1 << 14, Zones: 2})
	refused := 0
	for id := range uint32(50_000) {
		if _, drop := r.first(id, 80, 0); drop == packet.DropFragmentLimit {
			refused++
		}
	}
	if want := 50_000 - 1<<13; refused != want {
		t.Errorf("%d datagrams refused, want %d: half of the table is one zone's", refused, want)
	}
	if n := r.table.Datagrams(); n != 1<<13 {
		t.Errorf("%d datagrams take up room, %d were not refused", n, 1<<13)
	}
	// A bucket in a hundred may be full; without a share all would be.
	passed := 0
	for id := range uint32(100) {
		k := key(1<<20 + id)
		k.Zone = 1
		if place, drop := r.table.Reserve(&k, part(0, 80, true), r.now); drop == packet.NotDropped {
			r.table.Decide(place, &fragment.Verdict{})
			passed++
		}
	}
	if passed < 50 {
		t.Errorf("%d of 100 datagrams of the other zone got a place", passed)
	}
}

func TestCompleteAndRefusedDatagramsGiveWay(t *testing.T) {
	r := newRig(t, fragment.Options{Max: 16})
	for id := range uint32(1000) {
		why := packet.NotDropped
		if id%2 == 0 {
			why = packet.DropRule
		}
		if _, drop := r.first(id, 80, why); drop != packet.NotDropped {
			t.Fatalf("datagram %d: %s", id, drop)
		}
		r.later(id, 80, 160, false)
	}
	if n := r.table.Datagrams(); n != 0 {
		t.Errorf("%d datagrams are under way", n)
	}
}

func TestAnICMPErrorFindsADatagramAlsoWhenItIsComplete(t *testing.T) {
	r := newRig(t, fragment.Options{})
	k, v := key(1), fragment.Verdict{}
	if r.table.Quoted(&k, 7, r.now, &v) {
		t.Error("found before its first fragment")
	}
	r.first(1, 80, 0)
	r.later(1, 80, 160, false)
	if !r.table.Quoted(&k, 7, r.now, &v) || v.To != 7 {
		t.Errorf("found %+v", v)
	}
	if r.table.Quoted(&k, 8, r.now, &v) {
		t.Error("found for an error from where the datagram did not go")
	}
	if r.table.Quoted(&k, 7, r.now+time.Hour, &v) {
		t.Error("found when it is over")
	}
	r.first(2, 80, packet.DropRule)
	if k := key(2); r.table.Quoted(&k, 7, r.now, &v) {
		t.Error("found a datagram that was denied")
	}
}

// Where a quoted datagram came in is not known.
func TestOfSeveralDatagramsThatOfTheLowestZoneIsQuoted(t *testing.T) {
	for _, order := range [][]uint16{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}} {
		r := newRig(t, fragment.Options{Zones: 3})
		for _, zone := range order {
			k := key(1)
			k.Zone = zone
			place, _ := r.table.Reserve(&k, part(0, 80, true), r.now)
			r.table.Decide(place, &fragment.Verdict{To: 7, Generation: uint64(zone)})
		}
		k, v := key(1), fragment.Verdict{}
		if !r.table.Quoted(&k, 7, r.now, &v) || v.Generation != 0 {
			t.Errorf("%v: the datagram of zone %d is quoted", order, v.Generation)
		}
	}
}

func TestWhatIsThereForQuotesAloneTakesUpNoRoom(t *testing.T) {
	r := newRig(t, fragment.Options{})
	k, v := key(1), fragment.Verdict{To: 7}
	r.table.Also(&k, &v, r.now)
	if n := r.table.Datagrams(); n != 0 {
		t.Errorf("%d datagrams take up room", n)
	}
	if !r.table.Quoted(&k, 7, r.now, &v) {
		t.Error("not found")
	}
}

func TestTheFragmentsOfOneDatagramHaveTheZonesShareToo(t *testing.T) {
	r := newRig(t, fragment.Options{Hold: 10, Zones: 3})
	waits := func(zone uint16, n int, frame []byte) (waiting int) {
		k, v := key(1), fragment.Verdict{}
		k.Zone = zone
		for i := range uint16(n) {
			if _, waits := r.table.Follow(&k, part(80+8*i, 88+8*i, true), frame, r.now, &v); waits {
				waiting++
			}
		}
		return waiting
	}
	if n := waits(0, 1, make([]byte, 64<<10+1)); n != 0 {
		t.Error("a frame waits that is longer than its buffer")
	}
	if n := waits(0, 20, []byte{1}); n != 5 {
		t.Errorf("%d fragments of one datagram wait, want half of 10", n)
	}
	if n := waits(1, 20, []byte{1}); n != 5 {
		t.Errorf("%d of another zone wait", n)
	}
	if n := waits(2, 20, []byte{1}); n != 0 || r.table.Held() != 10 {
		t.Errorf("%d of a third zone wait, %d in all", n, r.table.Held())
	}
}

func TestFragmentsWaitForTheirFirst(t *testing.T) {
	r := newRig(t, fragment.Options{Hold: 3})
	wait := func(id uint32, start uint16) bool {
		k, v := key(id), fragment.Verdict{}
		drop, waits := r.table.Follow(&k, part(start, start+8, true), []byte{byte(start)}, r.now, &v)
		if waits == (drop == packet.DropFragmentNoFirst) {
			t.Errorf("waits %v, %s", waits, drop)
		}
		return waits
	}
	for i, want := range []bool{true, true, true, false} {
		if wait(1, uint16(80+8*i)) != want {
			t.Errorf("fragment %d waits: %v", i, !want)
		}
	}
	if n := r.table.Held(); n != 3 {
		t.Errorf("%d wait", n)
	}
	list, _ := r.first(1, 80, 0)
	var got []byte
	for b := r.table.Next(&list); b != nil; b = r.table.Next(&list) {
		got = append(got, b...)
	}
	if string(got) != string([]byte{80, 88, 96}) {
		t.Errorf("came back %v, want in their order", got)
	}
	if n := r.table.Held(); n != 0 {
		t.Errorf("%d still wait", n)
	}

	wait(2, 80)
	r.now += time.Hour
	r.table.Expire(r.now, time.Hour)
	if held, vain := r.table.Held(), r.table.WaitedInVain(); held != 0 || vain != 1 {
		t.Errorf("%d wait, %d have waited in vain", held, vain)
	}
	for id := uint32(3); id < 6; id++ { // every buffer is free again
		if !wait(id, 80) {
			t.Errorf("datagram %d has no room", id)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	r := newRig(t, fragment.Options{Max: 64, Hold: 8})
	id := uint32(0)
	v := fragment.Verdict{Slots: conntrack.MakeSlots(1, 2)}
	frame := make([]byte, 1500)
	n := testing.AllocsPerRun(1000, func() {
		id++
		r.now += time.Millisecond
		k := key(id)
		r.table.Follow(&k, part(160, 200, false), frame, r.now, &v)
		if place, drop := r.table.Reserve(&k, part(0, 80, true), r.now); drop == packet.NotDropped {
			list := r.table.Decide(place, &v)
			for b := r.table.Next(&list); b != nil; b = r.table.Next(&list) {
			}
		}
		r.table.Follow(&k, part(80, 160, true), frame, r.now, &v)
		r.table.Quoted(&k, 7, r.now, &v)
		r.table.Expire(r.now, 20*time.Millisecond)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOptionsOutOfRangeAreRefused(t *testing.T) {
	for _, o := range []fragment.Options{{Max: -1}, {Max: fragment.MaxDatagrams + 1}, {Hold: fragment.MaxHold + 1}, {Hold: -1}, {Lifetime: -1}} {
		if _, err := fragment.New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

func BenchmarkDatagram(b *testing.B) {
	r := newRig(b, fragment.Options{})
	v := fragment.Verdict{}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		k := key(uint32(i))
		place, _ := r.table.Reserve(&k, part(0, 80, true), r.now)
		r.table.Decide(place, &v)
		r.table.Follow(&k, part(80, 160, false), nil, r.now, &v)
	}
}
