package continuity

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack/slab"
)

// reopen is the next process, which reads a state file.
func reopen(t *testing.T, path string, now time.Time) *Store {
	t.Helper()
	slabs := slab.New(nil, nil)
	if found, err := Load(slabs, path); err != nil || !found {
		t.Fatalf("found %v: %v", found, err)
	}
	s, err := Open(slabs, now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A start may fail after it has read the file, and before it has moved the records on.
func TestAStateFileThatNobodyUsedIsAsOldAsBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows.state")
	s, err := Open(slab.New(nil, nil), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	saved := time.Unix(1_000_000, 0)
	if err := s.Save(path, saved); err != nil {
		t.Fatal(err)
	}
	failed := reopen(t, path, saved.Add(time.Hour))
	if err := failed.Save(path, saved.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	next := reopen(t, path, saved.Add(2*time.Hour))
	if away := -next.Later().Round(time.Minute); away != 2*time.Hour {
		t.Errorf("the records have been idle for %v, want 2h", away)
	}
	next.SetZones(Zones{}) // the engine has moved them on
	if err := next.Save(path, saved.Add(3*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if away := -reopen(t, path, saved.Add(4*time.Hour)).Later().Round(time.Minute); away != time.Hour {
		t.Errorf("the records have been idle for %v, want 1h", away)
	}
}
