package flowlog

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/metrics/flowlog/flowlogtest"
)

func TestASinkThatIsFullDropsTheOldestAndCountsThem(t *testing.T) {
	var mu sync.Mutex
	broken, got := true, []uint64{}
	failures := make(chan error, 100)
	s := newSink(sinkFolder, 1000, func(b *block) error {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			return errors.New("no room")
		}
		got = append(got, b.rows)
		return nil
	}, func(err error) { failures <- err })
	go s.run()
	l := &flowLog{}
	put := func(rows uint64) { s.put(&block{log: l, rows: rows, record: make([]byte, 300)}) }
	put(1)
	<-failures // the sink has tried the first, which comes back as the oldest
	eventually(t, "it waits again", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.waiting) == 1 })
	for n := uint64(2); n <= 6; n++ {
		put(n)
	}
	if lost := s.lost.Load(); lost != 1+2+3 {
		t.Errorf("%d rows lost, want 6", lost)
	}
	if s.crowded() {
		t.Error("asks to wait, though nothing is written")
	}
	mu.Lock()
	broken = false
	mu.Unlock()
	eventually(t, "the rest is written", func() bool { return l.rows.Load() == 4+5+6 })
	s.close(context.Background(), false)
	if len(got) != 3 || got[0] != 4 || got[2] != 6 || s.lost.Load() != 6 {
		t.Errorf("written %v, %d lost", got, s.lost.Load())
	}
}

func TestWhatCannotBeWrittenBeforeTheEndIsLostAndCounted(t *testing.T) {
	s := newSink(sinkFolder, 1000, func(*block) error { return errors.New("no room") }, func(error) {})
	go s.run()
	s.put(&block{rows: 7})
	s.put(&block{rows: 2})
	s.close(context.Background(), false)
	if lost := s.lost.Load(); lost != 9 {
		t.Errorf("%d rows lost, want 9", lost)
	}
}

const fullDisk = "NSGD_FLOWLOG_FULL_DISK"

// Something else fills a disk of 256 KiB. The rows of each minute wait until the queue is full too;
// then the oldest are dropped. Every row is either in the file or counted as lost.
func TestAFullDiskLosesTheOldestRowsAndCountsThem(t *testing.T) {
	folder := os.Getenv(fullDisk)
	if folder == "" {
		inMountNamespace(t, fullDisk)
		return
	}
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	r := newRigWith(t, midnight, Options{Logs: []Log{{Version: NSG, Folder: folder}}, QueueBytes: 64 << 10})
	flows, port := 0, uint16(1000)
	minutes := func(n int) {
		for range n {
			for range 50 {
				port++
				flows++
				r.send(vmA, packettest.UDP(packettest.Spec{Src: addrA, Dst: world, SrcPort: port, DstPort: 123}))
			}
			r.wait(time.Minute)
			r.minute()
		}
	}
	stats := r.recorder.Stats
	minutes(5)
	eventually(t, "the first rows are written", func() bool { return stats().Rows[NSG] >= 5*50 })
	ballast := filepath.Join(folder, "ballast")
	fill(t, ballast)
	minutes(60)
	eventually(t, "rows are lost", func() bool { return stats().WaitingLost > 0 && stats().Errors > 0 })
	whole := func(h hourly) error { records(t, filepath.Join(folder, h.path)); return nil } // in the middle of it, too
	if err := (&store{root: openRoot(t, folder)}).list(whole); err != nil {
		t.Error(err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	minutes(1)
	eventually(t, "what waited is written", func() bool { return !r.recorder.sinks[0].failing.Load() })
	r.end()

	rows, err := flowlogtest.ReadFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	s := stats()
	if got := uint64(len(rows)); got != s.Rows[NSG] || got+s.WaitingLost != 2*uint64(flows) {
		t.Errorf("%d rows, told %d, and %d lost of %d", got, s.Rows[NSG], s.WaitingLost, 2*flows)
	}
	if first, last := rows[0].SrcPort, rows[len(rows)-1].SrcPort; first != 1001 || last != port {
		t.Errorf("rows from port %d to %d, want 1001 to %d", first, last, port)
	}
}

// fill writes a file until nothing more fits.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 4096; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// inMountNamespace runs the test again in a mount namespace of its own. The variable names a folder
// to mount on.
func inMountNamespace(t *testing.T, variable string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
	command.Env = append(os.Environ(), variable+"="+t.TempDir())
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	if os.Getuid() == 0 {
		command.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	out, err := command.CombinedOutput()
	if command.ProcessState == nil {
		t.Fatalf("no mount namespace of its own, as root or in a user namespace: %v", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
