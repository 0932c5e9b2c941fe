package flowlog

import (
	"bytes"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
)

func TestARingThatIsFullCountsTheFlowAndKeepsTheOthers(t *testing.T) {
	r := newRing(4)
	push := func(n conntrack.Flow) {
		i := &conntrack.FlowInfo{Flow: n}
		i.Key.Proto = packet.ProtoUDP
		r.push(i)
	}
	for n := range conntrack.Flow(6) {
		push(n)
	}
	var got []conntrack.Flow
	take := func() { r.drain(func(i *conntrack.FlowInfo) { got = append(got, i.Flow) }) }
	take()
	push(6)
	take()
	if len(got) != 5 || got[3] != 3 || got[4] != 6 || r.lost.Load() != 2 {
		t.Errorf("%v, %d lost", got, r.lost.Load())
	}
	if len(r.wake) != 1 {
		t.Error("a ring that fills wakes no one")
	}
}

// Reloads without a walk between them would keep every policy.
func TestTheRouterKeepsFewPolicies(t *testing.T) {
	r := newRig(t, midnight, Log{Version: NSG, Folder: t.TempDir()})
	for range 3 * keptViews {
		r.reload(testPolicy("web", "no-evil"))
		r.recorder.drain()
	}
	if n := len(r.recorder.router.views); n != keptViews {
		t.Errorf("%d policies, want %d", n, keptViews)
	}
	r.minute()
	if n := len(r.recorder.router.views); n != keptViews {
		t.Errorf("%d policies after the first walk, which may still meet their flows; want %d", n, keptViews)
	}
	r.minute()
	if n := len(r.recorder.router.views); n != 1 {
		t.Errorf("%d policies after the second walk, want 1", n)
	}
	r.end()
}

func TestErrorsAreLoggedOnceAMinute(t *testing.T) {
	now := midnight
	var told bytes.Buffer
	r := &Recorder{options: Options{Now: func() time.Time { return now }}, log: slog.New(slog.NewTextHandler(&told, nil))}
	for _, after := range []time.Duration{0, time.Second, 59 * time.Second, 60 * time.Second, 61 * time.Second, 10 * time.Second} {
		now = midnight.Add(after)
		r.failed(errors.New("no room"))
	}
	// At 0 and 60 seconds, and when the clock was set back.
	if n := strings.Count(told.String(), "no room"); n != 3 || r.errors.Load() != 6 {
		t.Errorf("%d lines and %d errors:\n%s", n, r.errors.Load(), told.String())
	}
}

func TestManyRowsBecomeRecordsEarly(t *testing.T) {
	r := newRig(t, midnight, Log{Version: NSG, Folder: t.TempDir()})
	info := oneFlow(t, r)
	rows := 0
	for n := uint32(0); rows < 3*gatheredBytes; n++ {
		info.Flow = conntrack.Flow(n % 4096)
		r.recorder.ring.push(&info)
		r.recorder.drain()
		rows += 100 // two rows of a flow take up more
		if r.recorder.gathered > gatheredBytes {
			t.Fatalf("%d bytes of rows wait for the end of the interval", r.recorder.gathered)
		}
	}
	r.stopped()
	if err := r.recorder.Close(); err != nil {
		t.Error(err)
	}
}

// The flow table withdraws a flow if its first packet began another one.
func TestAWithdrawnFlowHasNoRow(t *testing.T) {
	r := newRig(t, midnight, Log{Version: NSG, Folder: t.TempDir()})
	info := oneFlow(t, r)
	info.Packets, info.Flow = [2]uint64{}, 7
	r.recorder.ring.push(&info)
	r.recorder.drain()
	if r.recorder.gathered != 0 {
		t.Error("a flow that carried nothing has a row")
	}
	r.end()
}

// A flow counts its first packet once it is certain that it stays.
func TestAFlowWithoutPacketsWaitsForItsFirstRow(t *testing.T) {
	r := newRig(t, midnight, Log{Version: NSG, Folder: t.TempDir()})
	info := oneFlow(t, r)
	info.Packets, info.Flow = [2]uint64{}, 7
	r.recorder.goesOn(&info)
	if r.recorder.gathered != 0 {
		t.Error("a flow that may still be withdrawn has a row")
	}
	r.end()
}

func TestARowIsNoEarlierThanItsFlow(t *testing.T) {
	r := newRig(t, midnight, Log{Version: VNet, Folder: t.TempDir()})
	r.recorder.lookAtClocks()
	r.wait(10 * time.Second)
	info := oneFlow(t, r)
	info.Flow = 7
	r.recorder.ended(&info)
	var begun, over int
	for _, g := range r.recorder.router.groups {
		for _, row := range strings.Split(string(g.tuples), "\"") {
			at, _, _ := strings.Cut(row, ",")
			switch millis, _ := strconv.Atoi(at); {
			case strings.Contains(row, ",B,"):
				begun = millis
			case strings.Contains(row, ",E,"):
				over = millis
			}
		}
	}
	if begun == 0 || over < begun {
		t.Errorf("the flow begins at %d and ends at %d", begun, over)
	}
	r.end()
}

// A flow that finds the ring full has no last row, and another flow gets its record of the flow table.
func TestAFlowWhoseEndWasLostLeavesNothingToTheNext(t *testing.T) {
	r := newRig(t, midnight, Log{Version: NSG, Folder: t.TempDir()})
	first := oneFlow(t, r)
	r.minute()
	second := first
	second.Created, second.Packets, second.Bytes = first.Created+10, [2]uint64{1, 0}, [2]uint64{50, 0}
	r.recorder.ring.push(&second)
	r.recorder.drain()
	text := ""
	for _, g := range r.recorder.router.groups {
		text += string(g.tuples)
	}
	if !strings.Contains(text, ",A,B,,,,") || !strings.Contains(text, ",A,E,1,50,0,0") {
		t.Errorf("rows of the second flow: %s", text)
	}
	r.end()
}

func TestDeniedRoomComesBackWhenRecordsAreWritten(t *testing.T) {
	s := newSink(sinkFolder, 1000, func(*block) error { return nil }, func(error) {})
	s.put(&block{log: &flowLog{}, record: make([]byte, 240), denied: 200})
	if s.renewDenied("h"); s.deniedRoom != 1000/deniedOfQueue-200 {
		t.Errorf("room %d with a record that waits", s.deniedRoom)
	}
	s.finish(s.take(), true)
	if s.renewDenied("h"); s.deniedRoom != 1000/deniedOfQueue || s.bytes != 0 {
		t.Errorf("room %d and %d bytes when it is written", s.deniedRoom, s.bytes)
	}
}

func TestASinkTriesTheOldestRecordAgainFirst(t *testing.T) {
	s := newSink(sinkFolder, 1000, func(*block) error { return nil }, func(error) {})
	s.put(&block{rows: 1})
	s.put(&block{rows: 2})
	s.finish(s.take(), false)
	if b := s.take(); b.rows != 1 {
		t.Errorf("record %d comes before the one that could not be written", b.rows)
	}
}

// The record of a flow that a denial has cut stays for a while. Its log does not wait for that.
func TestAFlowThatWasCutEndsInTheLogOnce(t *testing.T) {
	r := newRig(t, midnight, Log{Version: NSG, Folder: t.TempDir()})
	info := oneFlow(t, r)
	r.recorder.mu.Lock()
	r.recorder.walked = 1
	r.recorder.goesOn(&info)
	info.Class = conntrack.ClassUDPCut
	for range 3 {
		r.recorder.walked += continueEvery
		r.recorder.goesOn(&info)
	}
	r.recorder.ended(&info)
	text := ""
	for _, g := range r.recorder.router.groups {
		text += string(g.tuples)
	}
	r.recorder.mu.Unlock()
	if b, c, e := strings.Count(text, ",B,"), strings.Count(text, ",C,"), strings.Count(text, ",E,"); b != 1 || c != 0 || e != 1 {
		t.Errorf("%d rows of a beginning, %d that go on, %d of an end: %s", b, c, e, text)
	}
	r.end()
}
