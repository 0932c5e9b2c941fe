package conntrack

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/nsgd/nsgd/dataplane/packet"
)

func TestARecordIsTwoCacheLinesWithoutPointers(t *testing.T) {
	if n := unsafe.Sizeof(record{}); n != 128 {
		t.Errorf("%d bytes", n)
	}
	if n := unsafe.Offsetof(record{}.tallies); n != 64 {
		t.Errorf("the counters begin at %d", n)
	}
	var pointers func(reflect.Type, string)
	pointers = func(x reflect.Type, path string) {
		switch x.Kind() {
		case reflect.Struct:
			for i := range x.NumField() {
				pointers(x.Field(i).Type, path+"."+x.Field(i).Name)
			}
		case reflect.Array:
			pointers(x.Elem(), path+"[]")
		case reflect.Pointer, reflect.Slice, reflect.Map, reflect.String, reflect.Interface, reflect.Chan, reflect.Func, reflect.UnsafePointer:
			t.Errorf("%s is a %s", path, x.Kind())
		}
	}
	pointers(reflect.TypeFor[record](), "record")
}

func TestAFlowCosts160BytesAtMost(t *testing.T) {
	for _, flows := range []int{1_000_000, 500_000, 1 << 20, 1<<20 + 1, 1_400_000} {
		const workers = 8
		heads := len(newIndex(flows).heads)
		total := heads*4 + (flows+workers*reserveMax)*int(unsafe.Sizeof(record{})) + maxLocks*8
		if each := float64(total) / float64(flows); each > 160 {
			t.Errorf("%d flows: %.1f bytes each", flows, each)
		} else {
			t.Logf("%d flows: %.1f bytes each", flows, each)
		}
	}
}

func TestTimeoutsByClass(t *testing.T) {
	esp := func() *packet.Packet { return newPacket(packet.ProtoESP, 1, 2, 0, 0) }
	for _, tt := range []struct {
		name           string
		request, reply *packet.Packet
		state          string
		timeout        time.Duration
	}{
		{"UDP without a reply", udp(1), nil, "one_way", 30 * time.Second},
		{"UDP with a reply", udp(1), reversed(udp(1)), "two_way", 4 * time.Minute},
		{"an echo request", echo(8, 5), nil, "one_way", 30 * time.Second},
		{"an answered echo request", echo(8, 5), reversed(echo(0, 5)), "two_way", 30 * time.Second},
		{"an answered timestamp request", echo(13, 5), reversed(echo(14, 5)), "two_way", 30 * time.Second},
		{"ESP one way", esp(), nil, "one_way", 4 * time.Minute},
		{"ESP both ways", esp(), reversed(esp()), "two_way", 4 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Options{})
			r.create(0, 1, tt.request)
			if tt.reply != nil {
				if _, d, created, drop := r.send(1, 0, tt.reply); d != Reply || created || drop != packet.NotDropped {
					t.Fatalf("reply: direction %s, created %t, drop %s", d, created, drop)
				}
			}
			r.wait(tt.timeout - TickLength)
			if got := r.state(0, tt.request); got != tt.state {
				t.Fatalf("a tick before its timeout: %s, want %s", got, tt.state)
			}
			r.wait(TickLength)
			if got := r.state(0, tt.request); got != "none" {
				t.Errorf("at its timeout, unswept: %s", got)
			}
			if n := r.Stats().Flows; n != 1 {
				t.Errorf("%d records before the sweep", n)
			}
			if n := r.Expire(r.now, 16); n != 1 || r.Stats().Flows != 0 || r.Stats().Ended[EndExpired] != 1 {
				t.Errorf("the sweep ended %d: %+v", n, r.Stats())
			}
		})
	}
}

func TestConfiguredTimeoutsHold(t *testing.T) {
	r := newRig(t, Options{Timeouts: Timeouts{UDPOneWay: 3 * time.Second, TCPEstablished: time.Minute}})
	r.create(0, 1, udp(1))
	r.wait(3 * time.Second)
	if got := r.state(0, udp(1)); got != "none" {
		t.Errorf("UDP: %s", got)
	}
	p := tcp("PA")
	k := Key{p.Tuple, 0}
	if _, _, created, _ := r.w.Insert(&k, &Init{ReplyZone: 1, Established: 10 * time.Minute}, p, r.now); !created {
		t.Fatal("not created")
	}
	r.step("<A")
	r.wait(9 * time.Minute)
	if got := r.state(0, p); got != "established" {
		t.Errorf("the flow's own timeout goes before the table's: %s", got)
	}
}

func TestTheNextPacketOfAnExpiredFlowBeginsAnother(t *testing.T) {
	r := newRig(t, Options{})
	r.create(0, 1, udp(1))
	r.wait(time.Minute)
	r.create(0, 1, udp(1))
	if s := r.Stats(); s.Flows != 1 || s.Ended[EndExpired] != 1 || s.Created != 2 {
		t.Errorf("%+v", s)
	}
	r.wait(time.Minute)
	r.create(1, 0, reversed(udp(1))) // the other side begins, on the reply key of what is over
	if s := r.Stats(); s.Flows != 1 || s.Ended[EndExpired] != 2 {
		t.Errorf("%+v", s)
	}
}

func TestICMPRepliesAndRequestsAreNeverMistaken(t *testing.T) {
	for _, tt := range []struct {
		name     string
		p        *packet.Packet
		reply    bool
		drop     string
		restarts bool
	}{
		{"a request repeats", echo(8, 0), false, "none", false},
		{"a reply answers", reversed(echo(0, 0)), true, "none", false},
		{"a reply in the request's direction is none", echo(0, 0), false, "icmp_no_flow", false},
		{"a timestamp reply does not answer an echo", reversed(echo(14, 0)), true, "icmp_no_flow", false},
		{"an error with identifier 0 is not the flow's", reversed(echo(3, 0)), true, "icmp_no_flow", false},
		{"a redirect with identifier 0 is not the flow's", reversed(echo(5, 0)), true, "icmp_no_flow", false},
		{"a request of the other side with identifier 0 is judged for itself", reversed(echo(8, 0)), true, "none", true},
		{"a timestamp request is judged for itself", echo(13, 0), false, "none", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Options{})
			r.create(0, 1, echo(8, 0))
			zone, peer := uint16(0), uint16(1)
			if tt.reply {
				zone, peer = 1, 0
			}
			_, _, created, drop := r.send(zone, peer, tt.p)
			if drop.String() != tt.drop || created != tt.restarts {
				t.Errorf("drop %s, created %t", drop, created)
			}
		})
	}
}

func TestEachDirectionIsCountedInWirePackets(t *testing.T) {
	r := newRig(t, Options{})
	p := tcp("S")
	r.create(0, 1, p)
	super := reversed(tcp("A"))
	super.Segments, super.WireLen = 44, 65000
	r.send(1, 0, super)
	r.send(0, 1, tcp("SF")) // dropped: not counted
	r.wait(time.Second)
	r.Expire(r.now, 0)
	n := 0
	for i := range r.Flows {
		n++
		if i.Packets != [2]uint64{1, 44} || i.Bytes != [2]uint64{packetLen, 65000} {
			t.Errorf("packets %v, bytes %v", i.Packets, i.Bytes)
		}
		if i.Key != (Key{p.Tuple, 0}) || i.ReplyKey != (Key{p.Reverse(), 1}) || i.State() != "syn_sent" || i.Class.Protocol() != "tcp" ||
			i.Slots != MakeSlots(1) || i.Generation != 7 ||
			i.Age != time.Second || i.Idle != time.Second || i.ExpiresIn != 29*time.Second {
			t.Errorf("%+v", *i)
		}
	}
	if n != 1 {
		t.Errorf("%d flows", n)
	}
}

func TestAHostThatTalksToItselfHasOneKey(t *testing.T) {
	r := newRig(t, Options{})
	land := newPacket(packet.ProtoTCP, 1, 1, 80, 80)
	land.TCPFlags = packet.SYN
	for range 3 {
		r.create(0, 0, land)
		if _, d, created, drop := r.send(0, 0, land); created || d != Original || drop != packet.NotDropped {
			t.Fatalf("direction %s, created %t, drop %s", d, created, drop)
		}
		r.wait(time.Minute)
		r.Expire(r.now, 16)
		r.recycle()
	}
	if s := r.Stats(); s.Flows != 0 || s.Created != 3 || r.ZoneFlows(0) != 0 {
		t.Errorf("%+v", s)
	}
	for i := range r.index.heads {
		if r.index.heads[i].Load() != 0 {
			t.Fatal("an entry was left in the index")
		}
	}
}

func TestRepliesThatWouldBelongToAnotherFlowRefuseTheNewOne(t *testing.T) {
	r := newRig(t, Options{})
	r.create(0, 2, tcp("S"))
	if _, _, created, drop := r.send(1, 2, tcp("S")); created || drop != packet.DropFlowConflict || r.Stats().Refused[RefusedConflict] != 1 {
		t.Errorf("created %t, drop %s, %+v", created, drop, r.Stats())
	}
	r.wait(30 * time.Second)
	r.create(1, 2, tcp("S")) // once it is over there is no conflict
	if s := r.Stats(); s.Flows != 1 || r.ZoneFlows(0) != 0 || r.ZoneFlows(1) != 1 {
		t.Errorf("%+v", s)
	}
}

func TestTheOperatorEndsAFlowByEitherKey(t *testing.T) {
	r := newRig(t, Options{})
	for zone, p := range []*packet.Packet{udp(1), reversed(udp(1))} {
		r.create(0, 1, udp(1))
		k := Key{p.Tuple, uint16(zone)}
		if !r.End(&k) || r.End(&k) {
			t.Errorf("zone %d: not ended exactly once", zone)
		}
	}
	if s := r.Stats(); s.Flows != 0 || s.Ended[EndFlushed] != 2 {
		t.Errorf("%+v", s)
	}
}

func TestAHeldFlowStaysItselfUntilTheBurstEnds(t *testing.T) {
	r := newRig(t, Options{Max: 1})
	held := r.create(0, 1, udp(1))
	want := r.w.OriginalKey(held)
	other := newRigWorker(r)
	for port := uint16(2); port < 200; port++ {
		k := Key{udp(port).Tuple, 0}
		other.Insert(&k, &Init{ReplyZone: 1}, udp(port), r.now)
		other.Quiesce()
		r.Expire(r.now, 8)
	}
	if got := r.w.OriginalKey(held); got != want {
		t.Errorf("the record became %v", got)
	}
	r.w.Park() // holds nothing: everything can be reused
	r.Expire(r.now, 8)
	r.Expire(r.now, 8)
	other.Quiesce()
	r.Expire(r.now, 8)
	other.Quiesce()
	r.Expire(r.now, 8)
	if n := r.waiting.Load(); n != 0 {
		t.Errorf("%d records still wait", n)
	}
}

// newRigWorker adds a worker before anything else uses the table.
func newRigWorker(r *rig) *Worker {
	w := newWorker(r.Table, 0)
	w.Unpark()
	r.workers = append(r.workers, w)
	return w
}

func TestWhatWasCountedOutlivesItsFlow(t *testing.T) {
	r := newRig(t, Options{})
	for port := uint16(0); port < 300; port++ {
		r.create(0, 1, udp(port))
		r.send(0, 1, udp(port))
	}
	r.wait(time.Minute)
	r.Expire(r.now, 1000)
	r.recycle()
	if s := r.Stats(); s.EndedPackets != 600 || s.EndedBytes != 600*packetLen || s.Live != [NumClasses]int64{} {
		t.Errorf("%+v", s)
	}
}

func TestAnInsertedFlowHasCountedNothing(t *testing.T) {
	r := newRig(t, Options{})
	var told []FlowInfo
	r.OnEnd(func(i *FlowInfo) { told = append(told, *i) })
	p := udp(1)
	f, _, created, drop := r.w.Insert(&Key{p.Tuple, 0}, &Init{ReplyZone: 1}, p, r.now)
	if !created {
		t.Fatal(drop)
	}
	r.send(0, 1, udp(1)) // another worker's packet, before the flow is withdrawn
	r.w.End(f, EndFlushed)
	r.recycle()
	if len(told) != 1 || told[0].Packets != [2]uint64{1, 0} || told[0].Bytes != [2]uint64{packetLen, 0} {
		t.Errorf("%+v", told)
	}
	if s := r.Stats(); s.EndedPackets != 1 || s.Flows != 0 || s.Ended[EndFlushed] != 1 {
		t.Errorf("%+v", s)
	}
}

func TestExpireLooksAtNoMoreThanItsBudget(t *testing.T) {
	r := newRig(t, Options{})
	for port := uint16(0); port < 100; port++ {
		r.create(0, 1, udp(port))
	}
	r.wait(time.Minute)
	for _, want := range []int{40, 40, 20} {
		if got := r.Expire(r.now, 40); got != want {
			t.Errorf("ended %d, want %d", got, want)
		}
	}
}

func TestOptionsOutOfRangeAreRefused(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{Max: -1}, "max"},
		{Options{Max: MaxFlows + 1}, "max"},
		{Options{MaxPerZone: -1}, "maxPerZone"},
		{Options{Zones: 1<<16 + 1}, "zones"},
		{Options{Workers: -1}, "workers"},
		{Options{Timeouts: Timeouts{UDPTwoWay: -1}}, "udpTwoWay"},
		{Options{Timeouts: Timeouts{TCPSyn: MaxTimeout + 1}}, "tcpSyn"},
	} {
		if _, err := New(tt.o); err == nil || !strings.Contains(err.Error(), tt.want+":") {
			t.Errorf("%+v: %v", tt.o, err)
		}
	}
}

func TestSeedsGiveDifferentHashes(t *testing.T) {
	k := Key{udp(1).Tuple, 0}
	seen := map[uint64]bool{}
	for _, seed := range [][2]uint64{{1, 0}, {0, 1}, {1, 1}, {}, {}} {
		s, err := newSecrets(seed)
		if err != nil {
			t.Fatal(err)
		}
		seen[s.hash(&k)] = true
	}
	if len(seen) != 5 {
		t.Errorf("%d different hashes of 5 seeds", len(seen))
	}
}

func TestChainsStayShortForSequentialKeys(t *testing.T) {
	r := newRig(t, Options{Max: 1 << 16})
	for i := range 1 << 16 {
		r.create(0, 1, newPacket(packet.ProtoUDP, 1, 2, uint16(i), 80))
		if i%64 == 0 {
			r.w.Quiesce()
		}
	}
	longest := 0
	for i := range r.index.heads {
		n := 0
		for e := ref(r.index.heads[i].Load()); e != 0; n++ {
			e = ref(r.records[e.flow()].links[e.direction()].Load())
		}
		longest = max(longest, n)
	}
	if longest > 10 {
		t.Errorf("a chain of %d", longest)
	}
}

func TestNothingAllocates(t *testing.T) {
	r := newRig(t, Options{Max: 512})
	p, reply := tcp("S"), reversed(tcp("A"))
	ports := uint16(0)
	for _, tt := range []struct {
		name string
		do   func()
	}{
		{"a packet of a live flow", func() { r.send(0, 1, p) }},
		{"a reply", func() { r.send(1, 0, reply) }},
		{"a new flow, in a full table by and by", func() {
			ports++
			q := newPacketValue(ports)
			r.send(0, 1, &q)
			r.w.Quiesce()
		}},
		{"an expiry step", func() { r.wait(time.Second); r.Expire(r.now, 64) }},
		{"statistics", func() { r.Stats() }},
	} {
		if n := testing.AllocsPerRun(2000, tt.do); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
}

func newPacketValue(port uint16) packet.Packet {
	return packet.Packet{Tuple: packet.Tuple{Src: host(1), Dst: host(2), SrcPort: port, DstPort: 9, Proto: packet.ProtoUDP}, Segments: 1, WireLen: packetLen}
}

func ExampleTable() {
	table, err := New(Options{Max: 1000, Zones: 2})
	if err != nil {
		panic(err)
	}
	w := table.Worker(0)
	request := packet.Packet{Tuple: packet.Tuple{Src: host(1), Dst: host(2), SrcPort: 40000, DstPort: 53, Proto: packet.ProtoUDP}, Segments: 1, WireLen: 60}
	k := Key{request.Tuple, 0}
	w.Insert(&k, &Init{ReplyZone: 1}, &request, 0)

	answer := Key{request.Reverse(), 1}
	f, d, ok := w.Lookup(&answer, 100)
	fmt.Println(ok, d, w.PeerZone(f, d))
	// Output: true reply 0
}

func TestSlotsComeOutAsTheyWereSet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for n := range MaxSlots + 1 {
		for range 100 {
			want := make([]uint32, n)
			for i := range want {
				want[i] = []uint32{0, SlotLimit - 1, random.Uint32N(SlotLimit)}[random.IntN(3)]
			}
			got := []uint32{}
			s := MakeSlots(want...)
			for ; s.More(); s = s.Rest() {
				got = append(got, s.First())
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%v came out of %v", got, want)
			}
		}
	}
}

func TestMemoryIsWhatTheDocumentationSays(t *testing.T) {
	for _, limit := range []int{1 << 16, 1_000_000} {
		table, err := New(Options{Max: limit, Zones: 16})
		if err != nil {
			t.Fatal(err)
		}
		if each := table.Memory() / uint64(limit); each < 224 || each > 276 {
			t.Errorf("%d bytes for each of %d flows", each, limit)
		}
	}
}

func TestZonesTellTheirLimit(t *testing.T) {
	table, err := New(Options{Max: 64, MaxPerZone: 10, Zones: 2, UnlimitedZones: func(zone uint16) bool { return zone == 1 }})
	if err != nil {
		t.Fatal(err)
	}
	for zone, want := range []bool{true, false} {
		if limit, limited := table.ZoneLimit(uint16(zone)); limited != want || limited && limit != 10 {
			t.Errorf("zone %d: %d, %t", zone, limit, limited)
		}
	}
}
