package continuity

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack/slab"
)

// TestAJournalWithoutRoomIsToldOnce holds that nobody thinks that the next process finds everything.
func TestAJournalWithoutRoomIsToldOnce(t *testing.T) {
	s, err := Open(slab.New(nil, nil), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if s.journal, err = slab.NewJournal(make([]byte, 256)); err != nil {
		t.Fatal(err)
	}
	var told []error
	s.OnFailure(func(err error) { told = append(told, err) })
	for range 2 {
		s.SetCell(strings.Repeat("a long identity ", 20), 1)
	}
	if len(told) != 1 || !errors.Is(told[0], slab.ErrFull) {
		t.Errorf("told %v", told)
	}
	s.OnFailure(func(err error) { told = append(told, err) })
	if len(told) != 2 {
		t.Error("who hears later is not told")
	}
}

// TestTheMemoryOfAnImageGoesOnceItWasCopied counts this process's mappings of images.
func TestTheMemoryOfAnImageGoesOnceItWasCopied(t *testing.T) {
	mapped := func() int {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(maps), "memfd:nsgd:"+flowsName+".")
	}
	before := mapped() // by other tests
	s, err := Open(slab.New(nil, nil), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		images := s.Images()
		if _, err := images.Last(); err != nil {
			t.Fatal(err)
		}
		if _, err := images.Make(1 << 16); err != nil {
			t.Fatal(err)
		}
		if err := images.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if n := mapped() - before; n > 1 {
		t.Errorf("%d images are mapped", n)
	}
}
