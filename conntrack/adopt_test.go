package conntrack

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// memory keeps images as a killed process leaves them: who finds one gets a copy.
type memory struct{ last, next []byte }

func (m *memory) Last() ([]byte, error) {
	m.last = bytes.Clone(m.last)
	return m.last, nil
}

func (m *memory) Make(size int) ([]byte, error) {
	m.next = make([]byte, size)
	return m.next, nil
}

func (m *memory) Commit() error {
	m.last = m.next
	return nil
}

// fill begins flows of each kind.
func fill(r *rig, n int) {
	for i := range n {
		r.marks = Marks(0)
		p := newPacket([]uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP}[i%3], i, 1000, uint16(i), 80)
		switch p.Proto {
		case packet.ProtoTCP:
			number(p, packet.SYN)
		case packet.ProtoICMP:
			p.ICMPType, p.DstPort = packet.ICMPv4EchoRequest, 0
		case packet.ProtoUDP:
			r.marks, r.arrives = Translated, p.Tuple
			r.arrives.Src = host(2000 + i)
		}
		r.create(0, 1, p)
	}
	r.Expire(r.now, 0)
}

// listed are a table's flows, with what a restart must keep.
func listed(t *Table) map[Key]FlowInfo {
	list := map[Key]FlowInfo{}
	for i := range t.Flows {
		one := *i
		one.Flow, one.Generation = 0, 0
		list[one.Key] = one
	}
	return list
}

func TestFlowsOfAnotherLayoutAreCopied(t *testing.T) {
	images := &memory{}
	before := newRig(t, Options{Images: images, NotesPerFlow: 8})
	fill(before, 300)
	for f := range 300 {
		before.Notes()[8*f] = byte(f)
	}
	want := listed(before.Table)
	images.last = otherLayout(t, images.last)
	after := newRig(t, Options{Images: images, NotesPerFlow: 8})
	if a := after.Adoption(); a.Flows != 300 || !a.Copied || a.Refused != nil {
		t.Fatalf("%+v", a)
	}
	after.Expire(before.now, 0)
	got := listed(after.Table)
	for k, w := range want {
		if got[k] != w {
			t.Fatalf("%+v, want %+v", got[k], w)
		}
	}
	for i := range after.Flows {
		if n := byte(i.Key.Src.Lo); after.Notes()[8*i.Flow] != n {
			t.Fatalf("the notes of %v are those of %d", i.Key, after.Notes()[8*i.Flow])
		}
	}
	if s := after.Stats(); s.Created != 300 || s.Flows != 300 {
		t.Errorf("%+v", s)
	}
}

// otherLayout is an image as another version would have left it: its records are larger and their fields elsewhere.
func otherLayout(t *testing.T, last []byte) []byte {
	t.Helper()
	head, s, err := readShape(last, 0)
	if err != nil {
		t.Fatal(err)
	}
	other := s
	other.Record.Fields = nil
	other.Record.Size = s.Record.Size + 64
	for _, f := range s.Record.Fields {
		f.Offset = other.Record.Size - f.Offset - f.Size
		other.Record.Fields = append(other.Record.Fields, f)
	}
	number := int(head.number)
	memory := make([]byte, other.parts(number).end)
	copy(memory, last[:imageHeadSize])
	text, err := json.Marshal(other)
	if err != nil {
		t.Fatal(err)
	}
	next := (*imageHead)(unsafe.Pointer(&memory[0]))
	next.size = uint64(copy(next.shapes[:], text))
	from, to := s.parts(number), other.parts(number)
	copy(memory[to.counts:to.records], last[from.counts:from.records])
	copy(memory[to.translations:], last[from.translations:])
	c, _ := convert(&s.Record, &other.Record)
	for f := range number {
		c.copy(memory[to.records:], f, last[from.records:], f)
	}
	return memory
}

func TestAnImageThatIsOfNoUseIsNamedAndLeft(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*imageHead, *shape) int
		want  string
	}{
		"no head":         {func(*imageHead, *shape) int { return 100 }, "has no head"},
		"not an image":    {func(h *imageHead, _ *shape) int { h.magic[0] = 'x'; return 0 }, "begins with"},
		"too many used":   {func(h *imageHead, _ *shape) int { h.used.Store(1 << 30); return 0 }, "damaged"},
		"too many in all": {func(h *imageHead, _ *shape) int { h.number = 1 << 40; return 0 }, "damaged"},
		"cut":             {func(*imageHead, *shape) int { return imageHeadSize }, "damaged"},
		"shape too long":  {func(h *imageHead, _ *shape) int { h.size = 1 << 40; return 0 }, "shape"},
		"field outside":   {func(_ *imageHead, s *shape) int { s.Record.Fields[0].Offset = 4000; return 0 }, "not within"},
		"field lacks":     {func(_ *imageHead, s *shape) int { s.Record.Fields[0].Name = ".other"; return 0 }, "lacks .src"},
		"newer":           {func(_ *imageHead, s *shape) int { s.Meaning = meaning + 1; return 0 }, "newer"},
		"large structs":   {func(_ *imageHead, s *shape) int { s.Sides.Size = 1 << 40; return 0 }, "must be"},
	} {
		t.Run(name, func(t *testing.T) {
			images := &memory{}
			before := newRig(t, Options{Images: images})
			fill(before, 10)
			head, s, err := readShape(images.last, 0)
			if err != nil {
				t.Fatal(err)
			}
			n := tt.spoil(head, &s)
			if text, err := json.Marshal(s); err != nil {
				t.Fatal(err)
			} else if head.size <= uint64(len(head.shapes)) {
				head.size = uint64(copy(head.shapes[:], text))
			}
			if n > 0 {
				images.last = images.last[:n]
			}
			after := newRig(t, Options{Images: images})
			if a := after.Adoption(); a.Flows != 0 || a.Refused == nil || !strings.Contains(a.Refused.Error(), tt.want) {
				t.Errorf("%+v", a)
			}
			fill(after, 10)
		})
	}
}

func TestARecordThatCannotBeIsNoFlow(t *testing.T) {
	for name, spoil := range map[string]func(*Table){
		"class":    func(t *Table) { t.records[3].status.Store(statusLive | 15<<8) },
		"protocol": func(t *Table) { t.records[3].proto = 77 },
		"zone":     func(t *Table) { t.records[3].zone = 4000 },
		"slot":     func(t *Table) { s := MakeSlots(1, 4000); t.records[3].setSlots(&s) },
	} {
		t.Run(name, func(t *testing.T) {
			images := &memory{}
			o := Options{Images: images, Slot: func(slot uint32) bool { return slot < 100 }}
			before := newRig(t, o)
			fill(before, 10)
			spoil(before.Table)
			after := newRig(t, o)
			if a := after.Adoption(); a.Flows != 9 || a.Lost[LostDamaged] != 1 {
				t.Fatalf("%+v", a)
			}
			after.recycle()
			checkAtRest(t, after.Table, after.Stats(), 9)
		})
	}
}

func TestAFlowWhoseAttachmentIsGoneEnds(t *testing.T) {
	images := &memory{}
	before := newRig(t, Options{Images: images})
	fill(before, 6)
	slots := Slots{}
	before.w.Judged(before.create(2, 3, udp(1)), 57, &slots)
	after := newRig(t, Options{Images: images, OldZones: []uint16{0, 1, 2}})
	var told []Key
	after.OnEnd(func(i *FlowInfo) {
		if told = append(told, i.Key); i.Generation != 0 { // the zone may be another attachment's in this process
			t.Errorf("judged in generation %d", i.Generation)
		}
	})
	after.now = before.now
	after.recycle()
	if a := after.Adoption(); a.Flows != 6 || a.Lost[LostZone] != 1 || len(told) != 1 || told[0].Zone != 2 {
		t.Errorf("%+v, told %v", a, told)
	}
}

func TestOnEndHearsOfFlowsThatHadEndedBefore(t *testing.T) {
	images := &memory{}
	before := newRig(t, Options{Images: images})
	fill(before, 6)
	before.OnEnd(func(*FlowInfo) { t.Error("the last process has heard of it") })
	k := Key{udp(4).Tuple, 0}
	k.Src, k.Dst, k.SrcPort, k.DstPort = host(4), host(1000), 4, 80
	if f, _, ok := before.w.Lookup(&k, before.now); !ok || !before.w.End(f, EndFlushed) {
		t.Fatal("no such flow")
	}
	after := newRig(t, Options{Images: images})
	told := 0
	after.OnEnd(func(i *FlowInfo) {
		if told++; i.Key != k || i.Packets[0] != 1 {
			t.Errorf("%+v", i)
		}
	})
	after.now = before.now
	after.recycle()
	again := newRig(t, Options{Images: images})
	again.OnEnd(func(i *FlowInfo) { t.Errorf("told again: %+v", i) })
	again.recycle()
	if told != 1 || again.Adoption().Flows != 5 {
		t.Errorf("told %d times; %+v", told, again.Adoption())
	}
}

func TestOfTwoFlowsWithOneKeyTheLaterOneGoesOn(t *testing.T) {
	images := &memory{}
	before := newRig(t, Options{Images: images})
	old := before.create(0, 1, tcp("S"))
	for _, p := range []*packet.Packet{reversed(tcp("SA")), tcp("A")} {
		zone := uint16(0)
		if p.SrcPort == 80 {
			zone = 1
		}
		before.send(zone, 1-zone, p)
	}
	before.wait(TickLength)
	next := tcp("S")
	next.Seq = 1 << 30
	before.create(0, 1, next)
	before.records[old+1].status.Store(before.records[old+1].status.Load() &^ statusWaits) // killed within Accepts
	after := newRig(t, Options{Images: images})
	after.now = before.now
	if a := after.Adoption(); a.Flows != 1 || a.Lost[LostDouble] != 1 {
		t.Fatalf("%+v", a)
	}
	if s := after.state(0, next); s != "syn_sent" {
		t.Errorf("the older one goes on: %s", s)
	}
	after.recycle()
	checkAtRest(t, after.Table, after.Stats(), 1)
}

func TestFlowsMoveToTheZonesOfToday(t *testing.T) {
	images := &memory{}
	before := newRig(t, Options{Images: images})
	fill(before, 6)
	before.create(2, 3, udp(1))
	after := newRig(t, Options{Images: images, OldZones: []uint16{5, 4, 2, NoZone}})
	a := after.Adoption()
	if a.Flows != 6 || a.Lost[LostZone] != 1 || !a.Copied || after.ZoneFlows(5) != 6 || after.ZoneFlows(4) != 6 {
		t.Fatalf("%+v, %d and %d flows", a, after.ZoneFlows(5), after.ZoneFlows(4))
	}
	checkAtRest(t, after.Table, after.Stats(), 6)
	again := newRig(t, Options{Images: images, OldZones: []uint16{0, 1, 2, 3, 4, 5}})
	if a := again.Adoption(); a.Flows != 6 || a.Copied {
		t.Errorf("%+v", a)
	}
}

func TestFlowsOfAnotherClockHaveBeenIdleForAsLong(t *testing.T) {
	images := &memory{}
	before := newRig(t, Options{Images: images})
	fill(before, 6)
	before.wait(3 * time.Second)
	before.Expire(before.now, 0)
	want := listed(before.Table)
	const later = 1 << 30
	after := newRig(t, Options{Images: images, Later: later})
	after.Expire(before.now+later, 0)
	list := listed(after.Table)
	if len(list) != 6 {
		t.Errorf("%d flows", len(list))
	}
	for k, got := range list {
		got.Created -= later
		got.Seen -= later
		if got != want[k] {
			t.Errorf("%+v, want %+v", got, want[k])
		}
	}
	if a := after.Adoption(); a.Flows != 6 {
		t.Errorf("%+v", a)
	}
}

// copyRecord makes a record another one's double.
func (t *Table) copyRecord(from, to Flow) {
	bytes := func(r *record) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(r)), unsafe.Sizeof(*r)) }
	copy(bytes(&t.records[to]), bytes(&t.records[from]))
	t.translations[to] = t.translations[from]
}

func TestAdoptersBesideEachOtherKeepOneFlowOfEachKey(t *testing.T) {
	const flows, doubles = 4 * adoptShare, 500
	images := &memory{}
	options := Options{Images: images, Max: flows, MaxPerZone: flows}
	before := newRig(t, options)
	fill(before, flows)
	later := map[Flow]bool{}
	// Records of different shares get the same keys, so that adopters meet them at the same time.
	for i := range Flow(doubles) {
		before.copyRecord(i, i+flows/2)
		newer := i + flows/2*(i%2)
		before.records[newer].created++
		if before.records[i].marks&Translated != 0 { // they have one of their two keys in common
			before.translations[i+flows/2].srcPort++
		}
		later[newer] = true
	}
	// Some have ended, heard of or not.
	for f := Flow(flows - 100); f < flows; f++ {
		before.records[f].status.Store(uint32(f % 2 * (statusPicked)))
	}
	after := newRig(t, options)
	if a := after.Adoption(); a.Flows != flows-doubles-100 || a.Lost[LostDouble] != doubles || after.waiting.Load() != doubles+50 {
		t.Fatalf("%+v, %d wait", a, after.waiting.Load())
	}
	for i := range Flow(doubles) {
		for _, f := range []Flow{i, i + flows/2} {
			if live := status(after.records[f].status.Load()).live(); live != later[f] {
				t.Fatalf("record %d goes on: %t", f, live)
			}
		}
	}
	after.now = before.now
	after.recycle()
	checkAdopted(t, after.Table, flows-doubles-100)
	if n := after.ZoneFlows(0); n != flows-doubles-100 {
		t.Errorf("%d flows in the zone", n)
	}
}

func TestAdoptersThatMeetAtOneChainLoseNoFlow(t *testing.T) {
	const linkers, each, rounds = 4, 200, 20
	r := newRig(t, Options{Max: linkers * each, MaxPerZone: linkers * each})
	fill(r, linkers*each)
	for f := Flow(0); f < linkers*each; f += 4 {
		if i := f / each; i%2 == 1 { // it has the key of another linker's
			r.copyRecord(f-each, f)
		}
	}
	const hash = 1 << 63 // of all, so that they meet
	head := &r.index.heads[hash&r.index.mask]
	for round := range rounds {
		head.Store(0)
		var refused atomic.Int64
		start := make(chan struct{})
		var all sync.WaitGroup
		for i := range linkers {
			all.Go(func() {
				<-start
				for n := range each {
					f := Flow(i*each + n)
					original, _ := r.keys(f)
					if !r.linkNew(f, Original, &original, hash) {
						refused.Add(1)
					}
				}
			})
		}
		close(start)
		all.Wait()
		linked := 0
		for e := ref(head.Load()); e != 0 && linked <= linkers*each; linked++ {
			e = ref(r.records[e.flow()].links[Original].Load())
		}
		if both := linkers / 2 * each / 4; linked != linkers*each-both || refused.Load() != int64(both) {
			t.Fatalf("round %d: %d flows in the chain, %d refused, of %d", round, linked, refused.Load(), linkers*each)
		}
	}
}

func TestReservedMemoryIsOneTables(t *testing.T) {
	options := Options{Max: 512, Zones: 8}
	reserved, err := Reserve(options)
	if err != nil {
		t.Fatal(err)
	}
	first := &reserved.index.heads[0]
	options.Reserved = reserved
	other := options
	other.Zones = 16
	for _, tt := range []struct {
		name    string
		options Options
		takes   bool
	}{{"of other zones", other, false}, {"the first", options, true}, {"the second", options, false}} {
		table, err := New(tt.options)
		if err != nil {
			t.Fatal(err)
		}
		if takes := &table.index.heads[0] == first; takes != tt.takes || len(table.zones) != tt.options.Zones {
			t.Errorf("%s: takes it: %t, %d zones", tt.name, takes, len(table.zones))
		}
	}
	if _, err := Reserve(Options{Max: -1}); err == nil {
		t.Error("a table of -1 flows")
	}
}
