package conntrack

import (
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// colliding returns n UDP packets from zone 0 to zone 1 whose keys of a direction all belong to
// one chain.
func colliding(r *rig, d Direction, n int) []*packet.Packet {
	var found []*packet.Packet
	for i := 0; len(found) < n; i++ {
		p := newPacket(packet.ProtoUDP, 1, 2+i>>16, uint16(i), 53)
		k := Key{p.Tuple, 0}
		if d == Reply {
			k = Key{p.Reverse(), 1}
		}
		if r.w.Hash(&k)&r.index.mask == 0 {
			found = append(found, p)
		}
	}
	return found
}

// Whoever knows the seed could make one chain as long as the table.
func TestAChainGrowsNoLongerThanItsBound(t *testing.T) {
	for _, d := range []Direction{Original, Reply} {
		t.Run(d.String(), func(t *testing.T) { growChain(t, d) })
	}
}

func growChain(t *testing.T, d Direction) {
	r := newRig(t, Options{Max: 1024})
	created := 0
	for _, p := range colliding(r, d, maxChain+50) {
		_, _, ok, drop := r.send(0, 1, p)
		switch {
		case ok:
			created++
		case drop != packet.DropFlowLimit:
			t.Fatalf("refused under %s", drop)
		}
	}
	// The last entry may be passed over unread, so one more fits now and then.
	if created < maxChain || created > maxChain+1 {
		t.Errorf("%d flows in one chain, the bound is %d", created, maxChain)
	}
	if n := r.Stats().Refused[RefusedTable]; n != uint64(maxChain+50-created) {
		t.Errorf("%d refusals are counted of %d", n, maxChain+50-created)
	}
	if s := r.Stats(); s.Flows != int64(created) || r.ZoneFlows(0) != int64(created) {
		t.Errorf("refused flows take up room: %+v, zone %d", s, r.ZoneFlows(0))
	}
}

// Another worker's clock may be behind.
func TestLastSeenNeverGoesBack(t *testing.T) {
	r := newRig(t, Options{})
	f := r.create(0, 1, udp(1))
	late := r.now + 500
	r.w.Pass(f, Original, udp(1), late)
	r.w.Pass(f, Original, udp(1), r.now)
	k := Key{udp(1).Tuple, 0}
	if i := r.w.Info(f, late); i.Seen != late || i.Idle != 0 {
		t.Errorf("last seen %v before the latest packet", i.Idle)
	}
	if _, _, ok := r.w.Lookup(&k, late-1000); !ok {
		t.Error("a clock that is behind takes the flow for expired")
	}
}

// Both orders are tried: a lock order shows only where the second lock is taken.
func TestTheLocksOfTwoChainsAreTakenInOneOrder(t *testing.T) {
	x := newIndex(1024)
	for _, tt := range []struct {
		name string
		a, b uint64
	}{{"ascending", 3, 7}, {"descending", 7, 3}} {
		t.Run(tt.name, func(t *testing.T) {
			x.locks[7].Lock()
			done := make(chan struct{})
			go func() {
				x.lock(tt.a, tt.b)
				x.unlock(tt.a, tt.b)
				close(done)
			}()
			for deadline := time.Now().Add(20 * time.Second); ; {
				if !x.locks[3].TryLock() { // the first of the order is held, and waits for the second
					break
				}
				x.locks[3].Unlock()
				if time.Now().After(deadline) {
					t.Error("the second lock was waited for without the first")
					break
				}
			}
			x.locks[7].Unlock()
			<-done
			if !x.locks[3].TryLock() || !x.locks[7].TryLock() {
				t.Fatal("a lock was left")
			}
			x.locks[3].Unlock()
			x.locks[7].Unlock()
		})
	}
}

func TestOneLockOfBothChainsIsTakenOnce(t *testing.T) {
	x := newIndex(maxLocks * 4) // more chains than locks
	a, b := uint64(5), uint64(5+len(x.locks))
	x.lock(a, b)
	x.unlock(a, b)
}

func TestARefundIsNeverMoreThanASecondsWorth(t *testing.T) {
	r := newRates(&Options{NewPerSecond: 5, Zones: 2})
	r.take(0, 1, 1)
	for range 3 {
		r.give(0, 1)
	}
	taken := 0
	for r.take(0, 1, 1) {
		taken++
	}
	if taken != 5 {
		t.Errorf("%d taken at once, want 5", taken)
	}
	for range 5 {
		r.give(0, 1)
	}
	for _, zone := range []uint16{0, 1} {
		for taken = 0; r.takeOne(zone, 1); {
			taken++
		}
		if taken != 5 {
			t.Errorf("zone %d got %d of 5 back", zone, taken)
		}
	}
}

// A flow within one zone takes one token, and gives one back.
func TestAFlowWithinOneZoneTakesOneToken(t *testing.T) {
	r := newRates(&Options{NewPerSecond: 2, Zones: 1})
	first, second, third := r.take(0, 0, 1), r.take(0, 0, 1), r.take(0, 0, 1)
	if !first || !second || third {
		t.Error("two of two were not taken one by one")
	}
	r.give(0, 0)
	if !r.take(0, 0, 1) || r.take(0, 0, 1) {
		t.Error("one that was given back is not one")
	}
}

// See TestABucketOutlivesTheTicksRange: Expire is what refreshes buckets.
func TestExpireKeepsBucketsUpToDate(t *testing.T) {
	r := newRig(t, Options{NewPerSecond: 1, Zones: 2})
	r.create(0, 1, udp(1))
	for range 300 { // beyond half of the ticks' range
		r.wait(24 * time.Hour)
		r.Expire(r.now, 1024)
		r.Expire(r.now, 1024)
	}
	if _, _, created, drop := r.send(0, 1, udp(2)); !created {
		t.Errorf("after 300 days: %s", drop)
	}
}

// Rates must be at rest for a reservation that a refused flow made in the table.
func TestARefusedFlowTakesUpNoRoom(t *testing.T) {
	r := translated(t, Options{MaxPerZone: 8})
	r.create(0, 1, udp(5000))
	for port := uint16(5001); port < 5020; port++ {
		if _, _, created, drop := r.send(0, 1, udp(port)); created || drop != packet.DropFlowConflict {
			t.Fatalf("created %t, %s", created, drop)
		}
	}
	if s := r.Stats(); s.Flows != 1 || s.Refused[RefusedConflict] != 19 || s.Translated != 1 || r.ZoneFlows(0) != 1 || r.ZoneFlows(1) != 1 {
		t.Errorf("%+v, zones %d %d", s, r.ZoneFlows(0), r.ZoneFlows(1))
	}
	if used := r.used.Load(); used > 2 {
		t.Errorf("%d records were used for one flow and refused ones", used)
	}
}

func TestInsertOfAFlowThatIsThereLeavesNothing(t *testing.T) {
	for _, tt := range []struct {
		name string
		full bool
	}{{"in a table with room", false}, {"in a full one", true}} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Options{Max: 4})
			answered := func(port uint16) Flow {
				f := r.create(0, 1, udp(port))
				r.send(1, 0, reversed(udp(port)))
				r.send(0, 1, udp(port))
				return f
			}
			f := answered(1)
			for port := uint16(2); tt.full && port <= 4; port++ {
				answered(port)
			}
			before, used := r.Stats(), r.used.Load()
			for range 10 {
				k := Key{udp(1).Tuple, 0}
				got, d, created, drop := r.w.Insert(&k, &Init{ReplyZone: 1}, udp(1), r.now)
				if got != f || d != Original || created || drop != packet.NotDropped {
					t.Fatalf("flow %d, %s, created %t, %s", got, d, created, drop)
				}
			}
			if s := r.Stats(); s != before || r.ZoneFlows(0) != s.Flows || r.used.Load() > used+1 {
				t.Errorf("%+v and %d records, before %+v and %d", s, r.used.Load(), before, used)
			}
			if i := r.w.Info(f, r.now); i.Packets[Original] != 12 {
				t.Errorf("%d packets passed, want 12", i.Packets[Original])
			}
		})
	}
}

func TestASearchWithoutAVictimIsNotRepeated(t *testing.T) {
	for _, o := range []Options{{MaxPerZone: 4}, {Max: 4}} {
		r := newRig(t, o)
		for port := uint16(1); port <= 4; port++ {
			r.create(0, 1, udp(port))
			r.send(1, 0, reversed(udp(port)))
			r.send(0, 1, udp(port))
		}
		refused := func(port uint16) bool {
			_, _, _, drop := r.send(0, 1, udp(port))
			return drop == packet.DropFlowLimit
		}
		if !refused(5) {
			t.Fatal("not refused")
		}
		r.records[0].status.Store(uint32(liveStatus(ClassUDPOneWay)))
		if !refused(6) {
			t.Errorf("%+v: searched again in one tick", o)
		}
		if r.now++; refused(7) {
			t.Errorf("%+v: not searched in the next tick", o)
		}
	}
}

func TestTheSearchForAVictimIsBounded(t *testing.T) {
	// answered fills zones 2 and 3 with flows that nothing evicts.
	answered := func(r *rig, n int) {
		for i := range n {
			p := newPacket(packet.ProtoUDP, i, 2, 1, 1)
			r.create(2, 3, p)
			r.send(3, 2, reversed(p))
			r.send(2, 3, p)
		}
	}
	t.Run("flows that nobody misses may lie beyond the look", func(t *testing.T) {
		r := newRig(t, Options{Max: 4096})
		answered(r, 4096)
		r.w.random = 0
		first := r.w.pick(r.used.Load())
		r.w.random = 0
		// The only flow to evict lies within the records that are gone through, behind those that are looked at.
		victim := Flow((first + evictLook) % 4096)
		r.records[victim].status.Store(uint32(liveStatus(ClassUDPOneWay)))
		if r.w.evictFor(2, 3, r.now) {
			t.Errorf("more than %d flows were looked at", evictLook)
		}
	})
	t.Run("flows of a zone may lie beyond the records that are gone through", func(t *testing.T) {
		r := newRig(t, Options{Max: 4096})
		answered(r, 4000)
		r.create(0, 1, udp(1))
		f := r.used.Load() - 1
		for seed := uint64(0); ; seed++ { // a place from where the zone's flow is far
			r.w.random = seed
			first := r.w.pick(r.used.Load())
			if (f-first)%r.used.Load() > evictScan {
				r.w.random = seed
				break
			}
		}
		if r.w.evictIn(0, r.now) {
			t.Error("the whole table was searched for the zone's flow")
		}
	})
}

func TestATimeoutRoundsUpAndIsBounded(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		1: 1, TickLength: 1, TickLength + 1: 2, time.Second: 100, MaxTimeout: uint32(MaxTimeout / TickLength), 1 << 62: uint32(MaxTimeout / TickLength),
	} {
		if got := ticks(d); got != want {
			t.Errorf("%v: %d ticks, want %d", d, got, want)
		}
	}
}

func TestOnlyTheWorkersAskedForAreGiven(t *testing.T) {
	table, err := New(Options{Max: 64, Zones: 1, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{-1, 2} { // 2 is the sweeper
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("worker %d of 2 was given", i)
				}
			}()
			table.Worker(i)
		}()
	}
}

// An entry of the index that is zero would be the end of its chain.
func TestNoEntryOfTheIndexIsZero(t *testing.T) {
	if e := newRef(0, Original, 1<<58-1); e == 0 {
		t.Error("record 0 under a hash without upper bits")
	}
}

// Between its end and its removal from the index a flow is still in its chains.
func TestAFlowThatIsClaimedIsFoundNoMore(t *testing.T) {
	r := newRig(t, Options{})
	f := r.create(0, 1, udp(1))
	if !r.w.claim(f, EndFlushed) {
		t.Fatal("not claimed")
	}
	k := Key{udp(1).Tuple, 0}
	if _, _, ok := r.w.Lookup(&k, r.now); ok {
		t.Error("found")
	}
	r.w.bury(f)
}

func TestAFlowEndsOnce(t *testing.T) {
	r := newRig(t, Options{})
	f := r.create(0, 1, udp(1))
	if !r.w.End(f, EndFlushed) || r.w.End(f, EndDenied) {
		t.Error("a flow did not end once")
	}
	if s := r.Stats(); s.Flows != 0 || r.ZoneFlows(0) != 0 || s.Ended[EndFlushed] != 1 || s.Ended[EndDenied] != 0 {
		t.Errorf("%+v", s)
	}
}

// A worker may hold a flow that another one ends: its packets still pass, and bring nothing back.
func TestAFlowThatHasEndedStaysEnded(t *testing.T) {
	r := newRig(t, Options{})
	for _, p := range []*packet.Packet{tcp("S"), udp(1)} {
		f := r.create(0, 1, p)
		answer := reversed(p)
		if p.Proto == packet.ProtoTCP {
			answer = reversed(tcp("SA"))
		}
		r.w.End(f, EndFlushed)
		before := r.records[f].status.Load()
		if drop := r.w.Pass(f, Reply, answer, r.now); drop != packet.NotDropped {
			t.Errorf("%v: %s", answer.Tuple, drop)
		}
		if got := r.records[f].status.Load(); got != before {
			t.Errorf("%v: state %#x became %#x", answer.Tuple, before, got)
		}
	}
	for class, n := range r.Stats().Live {
		if n != 0 {
			t.Errorf("%d flows of class %d are counted", n, class)
		}
	}
}

func TestReclaimPutsBackNoMoreThanItsBudget(t *testing.T) {
	r := newRig(t, Options{})
	for port := range uint16(20) {
		r.w.End(r.create(0, 1, udp(port)), EndFlushed)
	}
	r.w.Park()
	for range 3 { // one moves the epoch on
		before := r.waiting.Load()
		r.reclaim(5)
		if n := before - r.waiting.Load(); n > 5 {
			t.Errorf("%d records were put back, the budget is 5", n)
		}
	}
	if n := r.waiting.Load(); n == 20 {
		t.Error("nothing was put back")
	}
}

func TestRefreshTakesNothing(t *testing.T) {
	r := newRates(&Options{NewPerSecond: 3, Zones: 1})
	for range 10 {
		r.refresh(1)
	}
	taken := 0
	for r.takeOne(0, 1) {
		taken++
	}
	if taken != 3 {
		t.Errorf("%d of 3 are left", taken)
	}
}

func TestAPlaceWithoutARecordIsGivenBack(t *testing.T) {
	r := newRig(t, Options{Max: 8})
	for i := range 1000 { // without a burst's end the records run out
		r.send(0, 1, newPacket(packet.ProtoUDP, i, 2, 1, 1))
	}
	live := int64(0)
	for i := range r.records {
		if status(r.records[i].status.Load()).live() {
			live++
		}
	}
	if s := r.Stats(); s.Flows != live || r.ZoneFlows(0) != live || r.ZoneFlows(1) != live || s.Refused[RefusedTable] == 0 {
		t.Errorf("%d live records, zones %d and %d: %+v", live, r.ZoneFlows(0), r.ZoneFlows(1), s)
	}
}

func TestAnUnlimitedZoneHasNoRate(t *testing.T) {
	r := newRates(&Options{NewPerSecond: 3, Zones: 2, UnlimitedZones: func(zone uint16) bool { return zone == 1 }})
	for range 100 {
		if !r.take(1, 1, 1) {
			t.Fatal("limited")
		}
		r.give(1, 1)
	}
}

func TestExpireLeavesWhatIsNotOver(t *testing.T) {
	r := newRig(t, Options{})
	r.create(0, 1, udp(1))
	r.create(0, 1, tcp("S"))
	r.wait(30*time.Second - TickLength)
	if n := r.Expire(r.now, 1024); n != 0 {
		t.Errorf("%d flows ended a tick before their time", n)
	}
	r.wait(TickLength)
	if n := r.Expire(r.now, 1024); n != 2 {
		t.Errorf("%d flows ended in time, want 2", n)
	}
}

// A worker may hold a flow that has ended. An old connection's answer to its SYN leaves it ended.
func TestAnOldConnectionsAnswerBringsNoFlowBack(t *testing.T) {
	r := newRig(t, Options{})
	syn := newPacket(packet.ProtoTCP, 1, 2, 1000, 80)
	syn.TCPFlags, syn.Seq, syn.Window = packet.SYN, 1000, 1000
	f := r.create(0, 1, syn)
	r.w.End(f, EndFlushed)
	ack := reversed(syn)
	ack.TCPFlags, ack.Seq, ack.Ack, ack.Window = packet.ACK, 7, 7, 1000
	r.w.Pass(f, Reply, ack, r.now)
	if s := status(r.records[f].status.Load()); s.live() {
		t.Errorf("the flow lives again: %#x", uint32(s))
	}
}
