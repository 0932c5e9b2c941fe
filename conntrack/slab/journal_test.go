package slab

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
)

// open is what the next process finds in a journal's memory.
func open(t *testing.T, memory []byte) map[string]string {
	t.Helper()
	j, err := NewJournal(bytes.Clone(memory))
	if err != nil {
		t.Fatal(err)
	}
	values, err := j.Values()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for k, v := range values {
		found[k] = string(v)
	}
	return found
}

func TestTheNextProcessFindsWhatTheJournalHolds(t *testing.T) {
	memory := make([]byte, 4096)
	j, err := NewJournal(memory)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	want := map[string]string{}
	for n := range 10_000 {
		key := fmt.Sprint("key", random.IntN(20))
		if random.IntN(4) == 0 {
			err = j.Delete(key)
			delete(want, key)
		} else {
			want[key] = fmt.Sprint("value", n)
			err = j.Put(key, []byte(want[key]))
		}
		if err != nil {
			t.Fatal(err)
		}
		if n%97 == 0 {
			if got := open(t, memory); !maps.Equal(got, want) {
				t.Fatalf("after %d changes: %v, want %v", n, got, want)
			}
		}
	}
}

// The kernel backs what is written, and metrics are written at every scrape.
func TestAJournalTakesNoMoreMemoryThanItNeeds(t *testing.T) {
	memory := make([]byte, 64<<20)
	j, err := NewJournal(memory)
	if err != nil {
		t.Fatal(err)
	}
	value := bytes.Repeat([]byte("x"), 100<<10)
	for range 1000 {
		if err := j.Put("counters", value); err != nil {
			t.Fatal(err)
		}
	}
	if n := bytes.Count(memory, []byte("x")); n > 4<<20 {
		t.Errorf("%d bytes were written for a value of %d", n, len(value))
	}
	if got := open(t, memory); got["counters"] != string(value) {
		t.Errorf("%d bytes", len(got["counters"]))
	}
}

func TestAJournalWithoutRoomSaysSo(t *testing.T) {
	memory := make([]byte, 256)
	j, err := NewJournal(memory)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Put("a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := j.Put("b", make([]byte, 200)); !errors.Is(err, ErrFull) {
		t.Errorf("got %v", err)
	}
	if got := open(t, memory); got["a"] != "1" {
		t.Errorf("what was there is gone: %v", got)
	}
}

func TestADamagedJournalIsRefused(t *testing.T) {
	memory := make([]byte, 1024)
	j, err := NewJournal(memory)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Put("key", []byte("value")); err != nil {
		t.Fatal(err)
	}
	for i := range journalHeads + entryHead + 8 {
		broken := bytes.Clone(memory)
		broken[i] ^= 0x81
		if j, err := NewJournal(broken); err == nil {
			if _, err = j.Values(); err == nil && (i < 12 || i >= 16 && i < 24 || i >= journalHeads) {
				t.Errorf("byte %d: nobody noticed", i)
			}
		}
	}
}

func TestAClosedJournalStaysAsItIs(t *testing.T) {
	memory := make([]byte, 1024)
	j, err := NewJournal(memory)
	if err == nil {
		err = j.Put("a", []byte("1"))
	}
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	if put, deleted := j.Put("b", nil), j.Delete("a"); !errors.Is(put, ErrClosed) || !errors.Is(deleted, ErrClosed) {
		t.Errorf("%v, %v", put, deleted)
	}
	if got := open(t, memory); !maps.Equal(got, map[string]string{"a": "1"}) {
		t.Errorf("%v", got)
	}
}
