package flowlog

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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

// sendDenied sends packets to as many hosts, which the subnet's NSG denies.
func (r *rig) sendDenied(n int) {
	r.t.Helper()
	for i := range n {
		to := fmt.Sprintf("9.0.%d.%d", i>>8, i&255)
		r.queued[vmA] = append(r.queued[vmA], packettest.UDP(packettest.Spec{Src: addrA, Dst: to, SrcPort: 1, DstPort: 666}))
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
	if s := r.recorder.Stats(); s.Size > limit/deniedOfFolder || s.Rows[NSG] == 0 || s.Rows[NSG]+s.DeniedLost != 20_000 {
		t.Errorf("denied packets of four minutes take up %d bytes of %d: %+v", s.Size, limit, s)
	}
}

// Whoever is outside can choose what is denied, and how often. It must not take what the log has told before.
func TestHostile10FlowLogWipe(t *testing.T) {
	folder := t.TempDir()
	r := newRig(t, midnight, Log{Version: NSG, Folder: folder, MaxSize: MinMaxSize}, Log{Version: VNet, Folder: folder, MaxSize: MinMaxSize})
	denied := func(from string, sport uint16) []byte {
		return packettest.TCP(packettest.Spec{Src: from, Dst: addrA, SrcPort: sport, DstPort: 3389, Flags: "S"})
	}
	r.send(internet, denied(world, 1))
	r.minute()
	const minutes, many = 10, 5000
	for m := range minutes {
		for i := range many { // one source, and as many sources
			r.queued[internet] = append(r.queued[internet], denied("198.51.100.1", uint16(i)), denied(fmt.Sprintf("9.%d.%d.%d", m, i>>8, i&255), 1))
		}
		r.flush()
		for r.recorder.takeDenied() {
		}
		r.wait(time.Minute)
		r.minute()
	}
	r.end()
	rows, err := flowlogtest.ReadFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	probe, one := 0, uint64(0)
	for i := range rows {
		switch row := &rows[i]; {
		case row.Src.String() == world:
			probe++
		case row.Version == 4 && row.Src.String() == "198.51.100.1":
			one += max(row.Counters[0], 1)
		}
	}
	s := r.recorder.Stats()
	if probe != 2 || s.Deleted != 0 {
		t.Errorf("%d rows of the probe before the flood, %d files deleted", probe, s.Deleted)
	}
	if one+s.DeniedLost < minutes*many || one < minutes*many*9/10 {
		t.Errorf("rows count %d packets of one source, of %d", one, minutes*many)
	}
	if told := s.DeniedLost + s.Rows[VNet]; told < minutes*many || s.DeniedLost == 0 || s.Size > MinMaxSize/deniedOfFolder*9/8 {
		t.Errorf("%d packets and rows of %d sources, %d bytes: %+v", told, minutes*many, s.Size, s)
	}
}

func TestTheFilesOfTheHourStay(t *testing.T) {
	s := &store{folder: t.TempDir(), limit: 100_000}
	l := &flowLog{}
	for n := range 50 {
		err := s.append(blockOf(l, midnight, n, 5000))
		if full := n >= 19; (err == errLeftOut) != full {
			t.Errorf("record %d: %v", n, err)
		}
	}
	path := filepath.Join(s.folder, blockOf(l, midnight, 0, 0).path)
	if list := records(t, path); len(list) != 19 || !bytes.HasPrefix(list[0], []byte(`{"n":0,`)) || s.leftOut.Load() != 31 {
		t.Errorf("%d records, %d left out", len(list), s.leftOut.Load())
	}
	if err := s.append(blockOf(l, midnight.Add(time.Hour), 50, 5000)); err != nil || s.deleted.Load() != 1 {
		t.Errorf("the next hour: %v, %d files deleted", err, s.deleted.Load())
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the past hour: %v", err)
	}
}

// Another NSG that found nothing to delete kept it from deleting its own past hours.
func TestAnNSGMakesRoomInItsOwnShare(t *testing.T) {
	s := &store{folder: t.TempDir(), limit: 100_000}
	put := func(nsg string, hour int) error {
		b := blockOf(&flowLog{}, midnight.Add(time.Duration(hour)*time.Hour), hour, 5000)
		b.path = strings.Replace(b.path, "/N/", "/"+nsg+"/", 1)
		return s.append(b)
	}
	for hour := range 8 {
		if err := put("quiet", hour); err != nil {
			t.Fatal(err)
		}
	}
	for put("loud", 8) == nil {
	}
	for n := range 6 {
		if err := put("quiet", 8); err != nil {
			t.Errorf("record %d: %v", n, err)
		}
	}
}

// One NSG of many network interfaces has one share of the rows of denied packets.
func TestTheShareOfDeniedPacketsIsAnNSGs(t *testing.T) {
	r, nsg, vnet := newRouter(nil, nil, nil), &flowLog{}, &flowLog{}
	group := func(l *flowLog, folder, mac, acl string) *group {
		return r.groupOf(r.placeOf(l, folder, mac, func(string) string { return "" }), acl, "rule "+mac)
	}
	one := group(nsg, "a", "1", "")
	if one.share != group(nsg, "a", "2", "").share || one.share == group(nsg, "b", "1", "").share {
		t.Error("NSG flow logs: the share is not the NSG's")
	}
	one = group(vnet, "net", "1", "a")
	if one.share != group(vnet, "net", "2", "a").share || one.share == group(vnet, "net", "1", "b").share {
		t.Error("virtual network flow logs: the share is not the NSG's")
	}
}

func TestAnNSGThatLogsMuchTakesNoOthersShare(t *testing.T) {
	s := &store{folder: t.TempDir(), limit: 100_000}
	l := &flowLog{}
	put := func(nsg string, hour, size int) error {
		b := blockOf(l, midnight.Add(time.Duration(hour)*time.Hour), hour, size)
		b.path = strings.Replace(b.path, "/N/", "/"+nsg+"/", 1)
		return s.append(b)
	}
	for hour := range 8 {
		if err := put("quiet", hour, 5000); err != nil {
			t.Fatal(err)
		}
	}
	for hour := range 20 {
		for range 3 {
			if err := put("loud", hour, 5000); err != nil && err != errLeftOut {
				t.Fatal(err)
			}
		}
	}
	hours := map[string]int{}
	if err := s.list(func(h hourly) error { hours[filepath.Base(ownerOf(h.path))]++; return nil }); err != nil {
		t.Fatal(err)
	}
	if hours["quiet"] != 8 || hours["loud"] < 2 {
		t.Errorf("hours left: %v", hours)
	}
	for n := range 100 { // of the hour, until there is no room for it
		put("loud", 20, 5000+n)
	}
	if err := put("quiet", 20, 5000); err != nil || s.leftOut.Load() == 0 {
		t.Errorf("a record of the quiet one: %v, %d of the loud one left out", err, s.leftOut.Load())
	}
}
