package continuity

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack/slab"
)

// succeed is the store of the next process.
func succeed(t *testing.T, s *slab.Slabs) *Store {
	t.Helper()
	next, err := Open(slab.New(s.Files(), nil), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestBackendsOutliveTheProcess(t *testing.T) {
	slabs := slab.New(nil, nil)
	s, err := Open(slabs, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, known := s.Backends().Find("web1"); known {
		t.Error("a backend is known that nobody has asked")
	}
	since := time.Unix(1_700_000_000, 5)
	s.Backends().Set("web1", true, since)
	s.Backends().Set("web2", true, since)
	s.Backends().Set("web2", false, since.Add(time.Second))
	s.Backends().Set("web3", false, since)
	next := succeed(t, slabs)
	for name, up := range map[string]bool{"web1": true, "web2": false} {
		if got, at, known := next.Backends().Find(name); !known || got != up || at.Before(since) {
			t.Errorf("%s: up %v since %v, known %v", name, got, at, known)
		}
	}
	next.Backends().Keep([]string{"web1", "web2"})
	for _, store := range []*Store{next, succeed(t, slabs)} {
		_, _, first := store.Backends().Find("web1")
		if _, _, third := store.Backends().Find("web3"); third || !first {
			t.Errorf("web1 %v, web3 %v", first, third)
		}
	}
}

func TestBackendsOfAStateFileAreAskedAgain(t *testing.T) {
	slabs := slab.New(nil, nil)
	s, err := Open(slabs, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.Backends().Set("web1", true, time.Now())
	path := filepath.Join(t.TempDir(), "state")
	if err := s.Save(path, time.Now()); err != nil {
		t.Fatal(err)
	}
	later := slab.New(nil, nil)
	if found, err := Load(later, path); !found || err != nil {
		t.Fatal(found, err)
	}
	if _, _, known := succeed(t, later).Backends().Find("web1"); known {
		t.Error("what was up before the machine was off counts as up")
	}
}

func TestADamagedBackendIsNotKnown(t *testing.T) {
	slabs := slab.New(nil, nil)
	s, err := Open(slabs, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"empty": "", "word": "up", "state": "sideways 5", "time": "down 5x", "more": "up 5 5"} {
		s.put(backendOf+name, text)
	}
	next := succeed(t, slabs)
	for _, name := range []string{"empty", "word", "state", "time", "more"} {
		if up, _, known := next.Backends().Find(name); up || known {
			t.Errorf("%s: up %v, known %v", name, up, known)
		}
	}
}
