package conntrack

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// exported are the images of all flows of a table in a zone.
func exported(t *testing.T, r *rig, zone uint16) (images [][]byte) {
	t.Helper()
	err := r.Export(func(i *FlowInfo) bool { return i.Key.Zone == zone || i.ReplyKey.Zone == zone }, func(image []byte) error {
		images = append(images, bytes.Clone(image))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return images
}

func TestFlowsGoOnInAnotherTable(t *testing.T) {
	for _, tt := range []struct {
		name string
		of   func(*testing.T, []byte) []byte
	}{
		{"of the same version", func(_ *testing.T, image []byte) []byte { return image }},
		{"of another version", otherLayout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const flows = transferFlows + 500
			from, to := newRig(t, Options{Max: 8192, NotesPerFlow: 8}), newRig(t, Options{Max: 8192, NotesPerFlow: 4, Seed: [2]uint64{5, 6}})
			fill(from, flows)
			to.now = from.now + 77_000 // another clock
			to.Expire(to.now, 0)
			want := listed(from.Table)
			images := exported(t, from, 0)
			if len(images) != 2 {
				t.Fatalf("%d images", len(images))
			}
			for _, image := range images {
				a, err := to.Import(tt.of(t, image), &Arrivals{Now: to.now, Later: 77_000, Place: func(i *FlowInfo) (Placing, bool) {
					return Placing{Zone: i.Key.Zone + 2, ReplyZone: i.ReplyKey.Zone + 2, Slots: i.Slots, Generation: 9}, true
				}})
				if err != nil || a.Lost != [NumLosses]int{} {
					t.Fatalf("%+v, %v", a, err)
				}
			}
			if left := from.Leave(func(i *FlowInfo) bool { return i.Key.Zone == 0 }); left != flows {
				t.Fatalf("%d have left", left)
			}
			if s := from.Stats(); s.Flows != 0 || s.Ended[EndMoved] != flows {
				t.Errorf("where they were: %+v", s)
			}
			if s := to.Stats(); s.Flows != flows || s.Created != 0 {
				t.Errorf("where they are: %+v", s)
			}
			for i := range to.Flows {
				w := want[Key{i.Key.Tuple, i.Key.Zone - 2}]
				w.Key.Zone, w.ReplyKey.Zone, w.Flow, w.Generation = w.Key.Zone+2, w.ReplyKey.Zone+2, i.Flow, 9
				w.Packets, w.Bytes = [2]uint64{}, [2]uint64{} // counted there
				w.Created, w.Seen = w.Created+77_000, w.Seen+77_000
				if *i != w {
					t.Fatalf("%+v, want %+v", *i, w)
				}
			}
			to.recycle()
			checkAdopted(t, to.Table, flows)
		})
	}
}

// A connection goes on where its numbers are: a segment that fits passes, and one far out of the windows does not count.
func TestWindowsAndStateGoOnInAnotherTable(t *testing.T) {
	from, to := newRig(t, Options{}), newRig(t, Options{})
	established(t, from)
	c := tcp("A")
	for _, image := range exported(t, from, 0) {
		if a, err := to.Import(image, &Arrivals{Now: to.now}); err != nil || a.Flows != 1 {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	k := Key{c.Tuple, 0}
	f, d, ok := to.w.Lookup(&k, to.now)
	if !ok || d != Original || to.w.Class(f) != ClassTCPEstablished {
		t.Fatal("the connection is not established here")
	}
	far := *c
	far.Seq += 1 << 28
	to.w.Pass(f, d, &far, to.now)
	if to.w.OutOfWindow() != 1 {
		t.Error("a segment far out of the windows fits")
	}
	to.w.Pass(f, d, c, to.now)
	if to.w.OutOfWindow() != 1 {
		t.Error("a segment that fits does not")
	}
}

func TestAnArrivingFlowWhoseKeyIsTakenIsLostUnlessTheOtherEnds(t *testing.T) {
	p := newPacket(packet.ProtoUDP, 1, 2, 1000, 53)
	for _, ends := range []bool{false, true} {
		from, to := newRig(t, Options{}), newRig(t, Options{})
		from.create(0, 1, p)
		f := to.create(3, 1, p) // the same flow: this table has its receiver's end
		a, err := to.Import(exported(t, from, 0)[0], &Arrivals{Now: to.now, Place: func(i *FlowInfo) (Placing, bool) {
			here, ok := to.Find(&i.ReplyKey)
			if !ok || here.Flow != f || here.Key.Zone != 3 {
				t.Errorf("found %v, %+v", ok, here)
			}
			if ends && to.Leave(func(i *FlowInfo) bool { return i.Flow == f }) != 1 {
				t.Error("it does not end")
			}
			return Placing{Zone: 0, ReplyZone: 1, Slots: MakeSlots(4, 5)}, true
		}})
		if err != nil {
			t.Fatal(err)
		}
		var flows []FlowInfo
		for i := range to.Flows {
			flows = append(flows, *i)
		}
		if len(flows) != 1 {
			t.Fatalf("%d flows", len(flows))
		}
		if ends && (a.Flows != 1 || flows[0].Key.Zone != 0 || flows[0].Slots != MakeSlots(4, 5)) || !ends && (a.Lost[LostDouble] != 1 || flows[0].Key.Zone != 3 || flows[0].Slots != MakeSlots(1)) {
			t.Errorf("%v: %+v, %+v", ends, a, flows[0])
		}
	}
}

// A translated flow goes on as one that another host translates.
func TestATranslatedFlowGoesOnPlain(t *testing.T) {
	for _, here := range []bool{false, true} {
		from, to := newRig(t, Options{}), newRig(t, Options{})
		k := Key{udp(1).Tuple, 0}
		arrives := packet.Tuple{Src: udp(9).Src, Dst: udp(1).Dst, SrcPort: 7, DstPort: udp(1).DstPort, Proto: packet.ProtoUDP}
		f, _, created, _ := from.w.Insert(&k, &Init{ReplyZone: 1, Slots: MakeSlots(3), Marks: Translated, Arrives: &arrives}, udp(1), from.now)
		if !created {
			t.Fatal("no flow")
		}
		table := from.Table
		place := Placing{Zone: 2, ReplyZone: 3, Slots: MakeSlots(8), Plain: &arrives}
		if here {
			i := from.w.Info(f, from.now)
			if !from.Rezone(&i, &place) {
				t.Fatal("it does not go on")
			}
		} else {
			table = to.Table
			if a, err := to.Import(exported(t, from, 0)[0], &Arrivals{Now: to.now, Place: func(*FlowInfo) (Placing, bool) { return place, true }}); err != nil || a.Flows != 1 {
				t.Fatalf("%+v, %v", a, err)
			}
		}
		i, ok := table.Find(&Key{arrives.Reverse(), 3})
		if !ok || i.Key != (Key{arrives, 2}) || i.Marks != 0 || i.Receiver != arrives.Dst || i.Slots != MakeSlots(8) {
			t.Errorf("here: %v, %v %+v", here, ok, i)
		}
		if s := table.Stats(); s.Flows != 1 || s.Translated != 0 {
			t.Errorf("here: %v, %+v", here, s)
		}
	}
}

func TestAFlowGoesOnInOtherZones(t *testing.T) {
	r := newRig(t, Options{})
	f := established(t, r)
	before := listed(r.Table)[r.w.OriginalKey(f)]
	before.Flow = f
	taken := r.create(2, 5, udp(7))
	if r.Rezone(&FlowInfo{Flow: f, Key: Key{udp(1).Tuple, 0}}, &Placing{Zone: 3, ReplyZone: 1}) {
		t.Error("a flow that is not there has moved")
	}
	if !r.Rezone(&before, &Placing{Zone: 3, ReplyZone: 1, Slots: MakeSlots(6), Generation: 8}) {
		t.Fatal("the flow has not moved")
	}
	r.recycle()
	if r.state(0, tcp("A")) != "none" || r.state(3, tcp("A")) != "established" {
		t.Errorf("%s where it was, %s where it is", r.state(0, tcp("A")), r.state(3, tcp("A")))
	}
	if f, d, ok := r.w.Lookup(&Key{tcp("A").Reverse(), 1}, r.now); !ok || d != Reply || r.w.Slots(f) != MakeSlots(6) || r.w.Generation(f) != 8 {
		t.Error("no reply finds it, or its rules are others")
	}
	if s := r.Stats(); s.Flows != 2 || s.Ended[EndMoved] != 1 || r.ZoneFlows(0) != 0 || r.ZoneFlows(3) != 1 {
		t.Errorf("%+v, %d and %d", s, r.ZoneFlows(0), r.ZoneFlows(3))
	}
	checkAdopted(t, r.Table, 2)

	// Another flow has the keys.
	r.create(4, 6, udp(7))
	i := r.w.Info(taken, r.now)
	if r.Rezone(&i, &Placing{Zone: 4, ReplyZone: 6}) {
		t.Error("a flow has taken another one's key")
	}
	r.recycle()
	checkAdopted(t, r.Table, 2)
}

func TestAnArrivingFlowWithoutAPlaceOrRoomIsLost(t *testing.T) {
	from := newRig(t, Options{})
	fill(from, 30)
	image := exported(t, from, 0)[0]
	for _, tt := range []struct {
		name string
		o    Options
		at   Arrivals
		want Loss
		lost int
	}{
		{"no place", Options{}, Arrivals{Place: func(*FlowInfo) (Placing, bool) { return Placing{}, false }}, LostZone, 30},
		{"a zone that is none", Options{}, Arrivals{Place: func(*FlowInfo) (Placing, bool) { return Placing{Zone: 99}, true }}, LostZone, 30},
		{"idle for its timeout", Options{}, Arrivals{Later: ^Tick(100_000_000)}, LostZone, 30},
	} {
		to := newRig(t, tt.o)
		tt.at.Now = to.now
		a, err := to.Import(image, &tt.at)
		if err != nil || a.Lost[tt.want] != tt.lost || a.Flows != 30-tt.lost || to.Stats().Flows != int64(30-tt.lost) {
			t.Errorf("%s: %+v, %v", tt.name, a, err)
		}
	}
}

func TestAnArrivingRecordThatCannotBeIsNoFlow(t *testing.T) {
	for name, damage := range map[string]func(*record){
		"a class that is none":        func(r *record) { r.status.Store(statusLive | 0xf<<8) },
		"a class of another protocol": func(r *record) { r.proto = packet.ProtoICMP },
		"it does not live":            func(r *record) { r.status.Store(r.status.Load() &^ statusLive) },
		"it waits":                    func(r *record) { r.status.Store(r.status.Load() | statusWaits) },
	} {
		from, to := newRig(t, Options{}), newRig(t, Options{})
		from.create(0, 1, udp(1000))
		image := exported(t, from, 0)[0]
		s := shapeNow(0)
		damage(&cutImage(image, &s, 1).records[0])
		if a, err := to.Import(image, &Arrivals{Now: to.now}); err != nil || a.Lost[LostDamaged] != 1 || to.Stats().Flows != 0 {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

// Whoever sends a flow can't have it live for longer than one that this table has just seen, and that has the longest timeout.
func TestAnArrivingFlowOutlivesNoOther(t *testing.T) {
	for name, change := range map[string]func(*record){
		"seen in the future":        func(r *record) { r.lastSeen.Add(1 << 30) },
		"with a timeout of its own": func(r *record) { r.established.Store(1 << 31) },
	} {
		from, to := newRig(t, Options{}), newRig(t, Options{})
		established(t, from)
		image := exported(t, from, 0)[0]
		s := shapeNow(0)
		change(&cutImage(image, &s, 1).records[0])
		if a, err := to.Import(image, &Arrivals{Now: to.now}); err != nil || a.Flows != 1 {
			t.Fatalf("%s: %+v, %v", name, a, err)
		}
		for i := range to.Flows {
			if i.ExpiresIn > MaxTimeout || to.now.since(i.Seen) == 0 && i.Seen != to.now {
				t.Errorf("%s: it lives for %v, seen at %d by %d", name, i.ExpiresIn, i.Seen, to.now)
			}
		}
	}
}

// Whoever sends an image can't break the table.
func TestADamagedTransferBreaksNothing(t *testing.T) {
	from := newRig(t, Options{NotesPerFlow: 8})
	fill(from, 60)
	image := exported(t, from, 0)[0]
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		damaged := bytes.Clone(image)
		for range 1 + random.IntN(40) {
			at := random.IntN(len(damaged))
			if random.IntN(2) == 0 {
				at = imageHeadSize + random.IntN(len(damaged)-imageHeadSize)
			}
			damaged[at] = byte(random.Uint32())
		}
		to := newRig(t, Options{NotesPerFlow: 8})
		a, err := to.Import(damaged[:len(damaged)-random.IntN(2)*random.IntN(len(damaged))], &Arrivals{Now: to.now})
		if err == nil && a.Flows != int(to.Stats().Flows) {
			t.Fatalf("%+v, %+v", a, to.Stats())
		}
		to.recycle()
		checkAdopted(t, to.Table, to.Stats().Flows)
	}
}
