package slab

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// store is a keeper in memory.
type store map[string]*os.File

func (s store) Keep(name string, f *os.File) error {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	s[name] = os.NewFile(uintptr(fd), name)
	return err
}

func (s store) Forget(name string) error {
	delete(s, name)
	return nil
}

func TestASlabIsFoundAgain(t *testing.T) {
	kept := store{}
	first, err := New(nil, kept).Make("flows", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	copy(first, "what was written")
	next := New(kept, kept)
	again, err := next.Find("flows")
	if err != nil || len(again) != 1<<20 || string(again[:16]) != "what was written" {
		t.Fatalf("%d bytes, %q, %v", len(again), again[:min(16, len(again))], err)
	}
	if other, err := next.Find("counters"); other != nil || err != nil {
		t.Errorf("%v %v", other, err)
	}
	if fresh, err := next.Make("flows", 4096); err != nil || len(fresh) != 4096 || fresh[0] != 0 || again[0] != 'w' {
		t.Errorf("%d bytes, %v", len(fresh), err)
	}
	if err := next.Drop("flows"); err != nil || len(kept) != 0 || len(next.Names()) != 0 {
		t.Errorf("%v is kept: %v", kept, err)
	}
}

func TestAFileOfAnotherIsNoSlab(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := New(map[string]*os.File{"a": f}, nil).Find("a"); err == nil {
		t.Errorf("%d bytes of a file were mapped", len(m))
	}
	fd, err := unix.MemfdCreate("open", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	open := os.NewFile(uintptr(fd), "a")
	if err := open.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	if m, err := New(map[string]*os.File{"a": open}, nil).Find("a"); err == nil {
		t.Errorf("%d bytes without seals were mapped", len(m))
	}
}
