package watch

import (
	"sync"
	"testing"
)

// Workers write as quickly as they can while a reader takes its time. It is for the race detector, too.
func TestEachDecisionIsReadOnceInItsOrderOrCountedAsLost(t *testing.T) {
	const workers, each, burst = 3, 5_000, 7
	d := newDecisions(workers, 50) // 64
	var writers sync.WaitGroup
	for w := range workers {
		writers.Go(func() {
			for i := range uint64(each) {
				if e := d.Put(w); e != nil {
					*e = Decided{From: int32(w), Generation: i}
				}
				if i%burst == 0 || i == each-1 {
					d.Publish(w)
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		writers.Wait()
		close(ended)
	}()
	next, read := [workers]uint64{}, uint64(0)
	decided := make([]Decided, 50)
	for over := false; ; {
		n := d.Read(decided)
		for _, e := range decided[:n] {
			if e.Generation < next[e.From] {
				t.Fatalf("worker %d: %d comes behind %d", e.From, e.Generation, next[e.From])
			}
			next[e.From] = e.Generation + 1
		}
		if read += uint64(n); n == 0 && over {
			break
		}
		select {
		case <-ended:
			over = true
		default:
		}
	}
	if read < 64 || read+d.Lost() != workers*each {
		t.Errorf("%d read and %d lost of %d", read, d.Lost(), workers*each)
	}
}

func TestDecisionsAreForOneReaderAtATime(t *testing.T) {
	var w Watchers
	first, err := w.Judge(1, 4)
	if err != nil || w.Decisions() != first {
		t.Fatal(err)
	}
	if _, err := w.Judge(1, 4); err != ErrDecisions {
		t.Errorf("got %v", err)
	}
	first.Close()
	if w.Decisions() != nil {
		t.Error("there are some still")
	}
	second, err := w.Judge(1, 4)
	if first.Close(); err != nil || w.Decisions() != second {
		t.Error("the first has closed the second", err)
	}
}

// A worker that fills every Read, as one of a flood does, kept the others' packets out.
func TestEachWorkersDecisionsAreRead(t *testing.T) {
	var w Watchers
	d, err := w.Judge(2, 4)
	if err != nil {
		t.Fatal(err)
	}
	d.Put(1).From = 1
	d.Publish(1)
	into := make([]Decided, 1)
	for range 2 {
		d.Put(0).From = 0
		d.Publish(0)
		if d.Read(into) == 1 && into[0].From == 1 {
			return
		}
	}
	t.Error("the second worker's packet is not read")
}
