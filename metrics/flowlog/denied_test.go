package flowlog

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/metrics/flowlog/flowlogtest"
)

// gate is a writer that blocks until it is opened.
type gate struct {
	open chan struct{}
	mu   sync.Mutex
	text bytes.Buffer
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.Write(b)
}

// sendDenied sends packets that the subnet's NSG denies.
func (r *rig) sendDenied(n int) {
	r.t.Helper()
	for i := range n {
		r.queued[vmA] = append(r.queued[vmA], packettest.UDP(packettest.Spec{Src: addrA, Dst: world, SrcPort: uint16(i), DstPort: 666}))
	}
	r.flush()
}

// Denied packets filled the queue of a slow reader, and the rows of flows were the oldest in it.
func TestAFloodOfDeniedPacketsLeavesRoomForOtherRows(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	var told bytes.Buffer
	r := newRigWith(t, midnight, Options{Logs: []Log{{Version: NSG, Stdout: true}}, Stdout: g, QueueBytes: 64 << 10, Log: slog.New(slog.NewTextHandler(&told, nil))})
	const minutes, flows, denied = 5, 20, 1000
	for m := range minutes {
		for f := range flows {
			r.send(vmA, packettest.UDP(packettest.Spec{Src: addrA, Dst: world, SrcPort: uint16(1000 + m*flows + f), DstPort: 123}))
		}
		r.sendDenied(denied)
		r.wait(time.Minute)
		r.minute()
	}
	close(g.open)
	r.end()
	rows, err := flowlogtest.ReadLines(g.text.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]uint64{}
	for i := range rows {
		count[rows[i].State]++
	}
	s := r.recorder.Stats()
	if count["B"] != minutes*flows || count["E"] != minutes*flows || s.WaitingLost != 0 || s.EndedLost != 0 {
		t.Errorf("rows %v, want %d of B and E; %+v", count, minutes*flows, s)
	}
	if count["D"] == 0 || s.DeniedLost == 0 || count["D"]+s.DeniedLost != minutes*denied {
		t.Errorf("%d rows of denied packets and %d left out, of %d", count["D"], s.DeniedLost, minutes*denied)
	}
	if !strings.Contains(told.String(), "denied packets without a row") {
		t.Errorf("the log says nothing of what was left out: %s", told.String())
	}
}

// As long as denied packets came, no ended flow was logged and no walk began.
func TestAFloodOfDeniedPacketsHoldsNothingElseUp(t *testing.T) {
	r := newRig(t, midnight, Log{Version: NSG, Folder: t.TempDir()})
	const denied = 10_000
	r.sendDenied(denied)
	r.recorder.takeDenied()
	first := r.recorder.gathered
	r.recorder.takeDenied()
	if second := r.recorder.gathered; first == 0 || second == first {
		t.Errorf("%d bytes of rows at the first look, and %d at the second", first, second-first)
	}
	r.end()
	if s := r.recorder.Stats(); s.Rows[NSG]+s.DeniedLost != denied || s.DeniedLost != 0 {
		t.Errorf("%d rows and %d left out, of %d", s.Rows[NSG], s.DeniedLost, denied)
	}
}

// The rows of denied packets filled a folder, and its oldest files were deleted for them.
func TestAFloodOfDeniedPacketsLeavesAFolderToOtherRows(t *testing.T) {
	const limit = 4 << 20
	r := newRig(t, midnight, Log{Version: NSG, Folder: t.TempDir(), MaxSize: limit})
	for range 4 {
		r.sendDenied(5000)
		r.wait(time.Minute)
		r.minute()
	}
	r.end()
	if s := r.recorder.Stats(); s.Size > limit/32 || s.Rows[NSG] == 0 || s.Rows[NSG]+s.DeniedLost != 20_000 {
		t.Errorf("denied packets of four minutes take up %d bytes of %d: %+v", s.Size, limit, s)
	}
}
