package flowlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/conntrack/slab"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/metrics/flowlog/flowlogtest"
	"golang.org/x/sys/unix"
)

// killed is what a process leaves that is killed now, while its engine and its sinks have nothing to do.
func (r *rig) killed() *slab.Slabs {
	r.t.Helper()
	r.stopped()
	for _, s := range r.recorder.sinks {
		eventually(r.t, "all is written", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.bytes == 0
		})
	}
	clockOf(r.t, r.recorder.options.Slabs).Store(r.clock.Load())
	left := cloneSlabs(r.t, r.recorder.options.Slabs)
	if err := r.recorder.closeSinks(true); err != nil {
		r.t.Error(err)
	}
	return left
}

// walkPartly goes on with so many flows of the table, as far as a walk has come that writes nothing yet.
func (r *rig) walkPartly(flows int) {
	rec := r.recorder
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.walked += continueEvery
	rec.wal.head.walks.Store(rec.walked)
	rec.lookAtClocks()
	r.engine.Flows().Slice(0, nil, func(batch []conntrack.FlowInfo) {
		rec.ring.drain(rec.fromRing)
		for i := range batch[:min(flows, len(batch))] {
			rec.goesOn(&batch[i])
		}
	})
}

// cloneSlabs copies all slabs, without their holes.
func cloneSlabs(t testing.TB, slabs *slab.Slabs) *slab.Slabs {
	t.Helper()
	clone := slab.New(nil, nil)
	for name, f := range slabs.Files() {
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		memory, err := clone.Make(name, int(info.Size()))
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(0); ; {
			if at, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
				break
			}
			hole := int64(0)
			if err == nil {
				hole, err = unix.Seek(int(f.Fd()), at, unix.SEEK_HOLE)
			}
			if err == nil {
				_, err = f.ReadAt(memory[at:hole], at)
			}
			if err != nil {
				t.Fatal(err)
			}
			at = hole
		}
	}
	return clone
}

// last is the last entry of a kind in the log, and the half that it is in.
func (w *wal) last(t testing.TB, kind byte) (half uint32, at uint64, entry []byte) {
	t.Helper()
	now := w.head.half.Load()
	for _, h := range []uint32{1 - now, now} {
		if err := w.each(h, func(where uint64, e []byte) error {
			if e[4] == kind {
				half, at, entry = h, where, e
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return half, at, entry
}

// beforeApply makes the log one whose process was killed after it had made the last entry, while it wrote the flow's
// note: half of that is there. It is false if no entry of rows is the last.
func beforeApply(t testing.TB, left *slab.Slabs, notes func() []byte) bool {
	w, ring := openLeft(t, left)
	half, at, entry := w.last(t, kindRows)
	if entry == nil || half != w.head.half.Load() || at+uint64(len(entry)) != w.head.length[half].Load() {
		return false
	}
	w.head.applied[half].Store(at)
	if position := binary.LittleEndian.Uint64(entry[entryHead+8:]); position > 0 && position == ring.head.Load() {
		ring.head.Store(position - 1)
	}
	if n := conntrack.Flow(binary.LittleEndian.Uint64(entry[entryHead:])); n != noFlow {
		clear(notes()[int(n)*NotesPerFlow:][:NotesPerFlow/2])
	}
	return true
}

func openLeft(t testing.TB, left *slab.Slabs) (*wal, *ring) {
	t.Helper()
	var found [2][]byte
	for i, name := range []string{slabRows, slabEnded} {
		memory, err := left.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		found[i] = memory
	}
	w, err := openWAL(found[0])
	if err != nil {
		t.Fatal(err)
	}
	r, err := openRing(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return w, r
}

// beforeFinished makes the log one whose process was killed before it said that the last block is in its file. Some
// of that may not be in the file. It is false without a block.
func beforeFinished(t testing.TB, left *slab.Slabs, r *rig, cut int) bool {
	w, _ := openLeft(t, left)
	_, _, entry := w.last(t, kindBlock)
	if entry == nil {
		return false
	}
	entry[blockDone+sinkFolder] = 0
	if cut == 0 {
		return true
	}
	g := r.recorder.router.groupAt(binary.LittleEndian.Uint32(entry[8:]), Version(entry[5]))
	at := time.Unix(0, int64(binary.LittleEndian.Uint64(entry[24:])))
	path := filepath.Join(g.place.log.Folder, g.place.folder, hourPath(at), "macAddress="+g.place.mac, hourFile)
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()-int64(len("\n"+closing))-int64(cut%int(binary.LittleEndian.Uint32(entry[12:]))))
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// A process is killed at random moments between its steps, and within those where a kill could lose a row or tell it
// twice, or it leaves in good order. The rows are the same as those of a process that lives on.
func TestRowsAreToldOnceWhereverTheProcessIsKilled(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 12
	}
	random := rand.New(rand.NewPCG(3, 4))
	folder, slabs := t.TempDir(), slab.New(nil, nil)
	clockOf(t, slabs)
	talks, applies, finishes := map[uint16]*talk{}, 0, 0
	r := newRigWith(t, midnight, Options{Logs: roundLogs(folder), Slabs: slabs})
	for round := range rounds {
		web := "web"
		if random.IntN(2) == 0 { // a rule that the next process's policy does not have
			web = fmt.Sprint("web-", round)
			r.reload(testPolicy(web, "no-evil"))
		}
		roundTraffic(round, web, talks, r)
		r.recorder.takeDenied()
		for range max(0, random.IntN(6)-2) {
			r.wait(time.Duration(random.IntN(100)) * time.Second)
			r.minute()
		}
		switch random.IntN(3) {
		case 0: // flows end, and nothing is written yet
			r.wait(time.Duration(random.IntN(300)) * time.Second)
			for range 2 { // the table needs a while until it tells
				r.engine.Flows().Expire(r.engine.Now(), 1<<20)
			}
			r.recorder.drain()
		case 1: // the ring has them
			r.wait(time.Duration(random.IntN(300)) * time.Second)
			r.engine.Flows().Expire(r.engine.Now(), 1<<20)
		case 2:
			r.walkPartly(random.IntN(20))
		}
		if random.IntN(4) == 0 {
			left := r.recorder.options.Slabs
			clockOf(t, left).Store(r.clock.Load())
			r.leave()
			r = newRigWith(t, midnight, Options{Logs: roundLogs(folder), Slabs: left})
			continue
		}
		left := r.killed()
		if random.IntN(2) == 0 && beforeApply(t, left, func() []byte { return notesOf(t, left, r) }) {
			applies++
		}
		if random.IntN(2) == 0 && beforeFinished(t, left, r, random.IntN(2)*(1+random.IntN(10_000))) {
			finishes++
		}
		r = newRigWith(t, midnight, Options{Logs: roundLogs(folder), Slabs: left})
	}
	r.wait(time.Hour)
	r.end()
	rows, err := flowlogtest.ReadFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	checkTalks(t, rows, talks)
	checkDenied(t, slices.DeleteFunc(rows, func(r flowlogtest.Row) bool { return r.State == "D" && r.DstPort != 666 }), rounds, 666)
	if applies == 0 || finishes == 0 {
		t.Errorf("killed %d times before a note, %d times before the end of a block", applies, finishes)
	}
}

// notesOf are the notes of the flow table in a clone of a rig's slabs.
func notesOf(t testing.TB, left *slab.Slabs, r *rig) []byte {
	t.Helper()
	for _, name := range left.Names() {
		if strings.HasPrefix(name, "flows.") {
			memory, err := left.Find(name)
			if err != nil {
				t.Fatal(err)
			}
			return memory[len(memory)-(len(r.recorder.flows)*NotesPerFlow+4095)&^4095:]
		}
	}
	t.Fatal("no image of the flow table")
	return nil
}

func TestAFlowThatTheLastProcessHasToldOfIsNotToldAgain(t *testing.T) {
	memory := make([]byte, ringSize)
	one := &conntrack.FlowInfo{Flow: 7, Created: 3, Packets: [2]uint64{1, 2}}
	one.Key.Proto = packet.ProtoUDP
	ringOf(memory).push(one)
	next, err := openRing(memory)
	if err != nil {
		t.Fatal(err)
	}
	other := *one
	other.Flow = 8
	for _, i := range []*conntrack.FlowInfo{one, &other, one} {
		next.push(i)
	}
	var got []conntrack.Flow
	next.drain(func(i *conntrack.FlowInfo) { got = append(got, i.Flow) })
	if !slices.Equal(got, []conntrack.Flow{7, 8, 7}) { // the last is a flow of this process
		t.Errorf("%v", got)
	}
}

// Another size of the flow table, as another version, has other records for the same flows.
func TestFlowsThatAreCopiedGoOnInTheLogs(t *testing.T) {
	folder, slabs, talks := t.TempDir(), slab.New(nil, nil), map[uint16]*talk{}
	clockOf(t, slabs)
	for round, flows := range []int{4096, 8192, 2048, 4096, 4096, 8192} {
		r := newRigOf(t, midnight, Options{Logs: roundLogs(folder), Slabs: slabs}, flows)
		if a := r.engine.Flows().Adoption(); a.Refused != nil || a.Copied != (round != 0 && round != 4) {
			t.Fatalf("%+v", a)
		}
		roundTraffic(round, "web", talks, r)
		r.wait(50 * time.Second)
		r.minute()
		r.wait(50 * time.Second)
		r.walkPartly(10)
		if round == 5 {
			r.wait(time.Hour)
			r.end()
			break
		}
		clockOf(t, slabs).Store(r.clock.Load())
		if round%2 == 0 {
			r.leave()
		} else {
			slabs = r.killed()
		}
	}
	rows, err := flowlogtest.ReadFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	checkTalks(t, rows, talks)
}

// A last entry that note and ring don't follow was never made, where the flows were copied: its note is elsewhere.
func TestTheLastEntryOfFlowsThatAreCopiedIsMadeAnew(t *testing.T) {
	folder, talks := t.TempDir(), map[uint16]*talk{}
	r := newRigWith(t, midnight, Options{Logs: roundLogs(folder), Slabs: slab.New(nil, nil)})
	first := &talk{from: vmA, to: internet, sport: 900, dport: 123}
	talks[900] = first
	first.say(r, "", false, 0)
	r.wait(2 * time.Minute)
	roundTraffic(0, "web", talks, r)
	r.wait(2 * time.Minute) // the first flow ends: those behind it will have other records
	r.minute()
	r.minute()
	flow := conntrack.Flow(0)
	for i := range r.engine.Flows().Flows {
		flow = i.Flow
		break
	}
	before := r.recorder.flows[flow]
	r.walkPartly(1)
	left := r.killed()
	w, _ := openLeft(t, left)
	half, at, entry := w.last(t, kindRows)
	if number := binary.LittleEndian.Uint64(entry[entryHead:]); number != uint64(flow) || flow == 0 {
		t.Fatalf("the last entry is of flow %d, not of %d", number, flow)
	}
	w.head.applied[half].Store(at)
	notes := notesOf(t, left, r)[int(flow)*NotesPerFlow:]
	copy(notes[:NotesPerFlow], unsafe.Slice((*byte)(unsafe.Pointer(&before)), NotesPerFlow))
	next := newRigOf(t, midnight, Options{Logs: roundLogs(folder), Slabs: left}, 8192)
	next.wait(time.Hour)
	next.end()
	rows, err := flowlogtest.ReadFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	checkTalks(t, rows, talks)
}

func TestALogOfRowsKeepsRoomForItsBlocks(t *testing.T) {
	const left, places = 8 << 10, 20
	w := newWAL(make([]byte, walSize))
	w.begin()
	binary.LittleEndian.PutUint32(w.halves[0], walHalf-left)
	w.halves[0][4] = kindVoid
	w.head.length[0].Store(walHalf - left)
	s := newSink(sinkFolder, 1, nil, nil)
	var all []*place
	for n := range places {
		all = append(all, &place{log: &flowLog{sinks: []*sink{s}}, end: uint32(n + 1)})
	}
	logged, unlogged := 0, uint64(0)
	for n := 0; unlogged < 3; n++ {
		g := &group{place: all[n%places], tuples: make([]byte, 100)}
		if w.addRows(noFlow, &flow{}, 0, []walRow{{group: g, end: 1, to: 100}}, places) {
			logged++
		} else {
			unlogged++
		}
	}
	if logged < places || logged > left/100 {
		t.Errorf("%d rows in %d bytes", logged, left)
	}
	for _, p := range all {
		b := &block{rows: 1}
		if w.addBlock(b, p, 0); b.wal == nil {
			t.Fatal("a block without room: its rows would be told again")
		}
		defer b.finished(sinkFolder)
	}
	if got := w.turn(); got != unlogged || w.head.half.Load() != 1 {
		t.Errorf("%d rows were told of, want %d", got, unlogged)
	}
	if w.addRows(noFlow, &flow{}, 0, nil, places); w.turn() != 0 || w.head.half.Load() != 1 {
		t.Error("a half is used again while its blocks wait")
	}
}

// What the last process has left may be damaged: it is dropped, and said so. Nothing panics.
func TestALogOfRowsThatIsDamagedIsDropped(t *testing.T) {
	r := newRigWith(t, midnight, Options{Logs: roundLogs(t.TempDir()), Slabs: slab.New(nil, nil)})
	roundTraffic(1, "web", map[uint16]*talk{}, r)
	r.recorder.walk(false, func() {})
	r.walkPartly(10)
	left := r.killed()
	random := rand.New(rand.NewPCG(5, 6))
	for n := range 30 {
		damaged := cloneSlabs(t, left)
		w, _ := openLeft(t, damaged)
		half, at, entry := w.last(t, kindRows)
		switch n {
		case 0:
			binary.LittleEndian.PutUint32(entry, 4) // its size
		case 1:
			entry[5] = 200 // rows
		case 2:
			binary.LittleEndian.PutUint64(entry[entryHead+8:], 1<<40) // position in the ring
		case 3:
			w.head.applied[half].Store(at)
			binary.LittleEndian.PutUint64(entry[entryHead:], 1<<40) // flow
		case 4:
			entry[rowsHead+4] = 9 // version
		case 5:
			entry[4] = 77 // kind
		default:
			w.halves[half][random.IntN(int(w.head.length[half].Load()))] ^= byte(1 + random.IntN(255))
		}
		var told bytes.Buffer
		next := newRigWith(t, midnight, Options{Logs: roundLogs(t.TempDir()), Slabs: damaged, Log: slog.New(slog.NewTextHandler(&told, nil))})
		if dropped := strings.Contains(told.String(), "is dropped"); n < 6 && !dropped {
			t.Errorf("damage %d: nobody noticed", n)
		}
		next.minute()
		next.wait(time.Hour)
		next.end()
	}
}
