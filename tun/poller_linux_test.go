package tun

import (
	"errors"
	"math"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

func newPoller(t testing.TB, queues []Queue) *Poller {
	t.Helper()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	for i, q := range queues {
		if err := p.Add(i, q, nil); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// eventQueue is a queue that says when it has packets and holds none.
type eventQueue struct {
	*event
	waiting int
}

func (q *eventQueue) FD() int                   { return q.fd }
func (q *eventQueue) Write([]byte) error        { return nil }
func (q *eventQueue) WriteParts([][]byte) error { return nil }
func (q *eventQueue) Offload() Offload          { return Off }

func (q *eventQueue) Read([]byte) (int, error) {
	if q.waiting == 0 {
		q.clear()
		return 0, ErrAgain
	}
	q.waiting--
	return HeaderLen + 1, nil
}

func (q *eventQueue) inject() {
	q.waiting++
	q.signal()
}

func newEventQueues(t testing.TB, n int) []*eventQueue {
	t.Helper()
	queues := make([]*eventQueue, n)
	for i := range queues {
		e, err := newEvent()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.close() })
		queues[i] = &eventQueue{event: e}
	}
	return queues
}

func asQueues(list []*eventQueue) []Queue {
	queues := make([]Queue, len(list))
	for i, q := range list {
		queues[i] = q
	}
	return queues
}

func TestWaitReportsReadableQueuesUntilTheyAreEmpty(t *testing.T) {
	queues := newEventQueues(t, 3)
	p := newPoller(t, asQueues(queues))
	want := func(indexes ...int) {
		t.Helper()
		ready, _, err := p.Wait(0, nil, nil)
		slices.Sort(ready)
		if err != nil || !slices.Equal(ready, indexes) {
			t.Fatalf("got %v, %v; want %v", ready, err, indexes)
		}
	}
	want()
	queues[2].inject()
	queues[2].inject()
	queues[0].inject()
	want(0, 2)
	queues[0].Read(nil)
	queues[0].Read(nil) // ErrAgain
	queues[2].Read(nil)
	want(2) // one packet left
	queues[2].Read(nil)
	queues[2].Read(nil)
	want()
	queues[1].inject()
	want(1)
	if err := p.Remove(1); err != nil {
		t.Fatal(err)
	}
	want()
}

func TestQueuesOfSparseFlowsAreReportedApart(t *testing.T) {
	const pairs = 100
	queues, sparse := newEventQueues(t, pairs), newEventQueues(t, pairs)
	p := newPoller(t, nil)
	for i := range queues {
		if err := p.Add(i, queues[i], sparse[i]); err != nil {
			t.Fatal(err)
		}
	}
	queues[1].inject()
	sparse[1].inject()
	sparse[3].inject()
	ready, read, err := p.Wait(-1, nil, nil)
	slices.Sort(read)
	if err != nil || !slices.Equal(ready, []int{1}) || !slices.Equal(read, []int{1, 3}) {
		t.Fatalf("%v, %v, %v", ready, read, err)
	}
	read = p.Sparse(read)
	slices.Sort(read)
	if !slices.Equal(read, []int{1, 3}) {
		t.Fatalf("%v", read)
	}
	if err := p.Remove(1); err != nil {
		t.Fatal(err)
	}
	if ready, read, err := p.Wait(0, nil, nil); err != nil || len(ready) != 0 || !slices.Equal(read, []int{3}) {
		t.Fatalf("%v, %v, %v", ready, read, err)
	}
	seen := map[int]bool{}
	for i := range sparse {
		sparse[i].inject()
	}
	for range pairs { // more are ready than one call reports: none is forgotten
		for _, i := range p.Sparse(nil) {
			seen[i] = true
		}
	}
	if len(seen) != pairs-1 {
		t.Errorf("%d of %d were reported", len(seen), pairs-1)
	}
	p.Close()
	if read := p.Sparse(nil); len(read) != 0 {
		t.Errorf("a closed poller reports %v", read)
	}
}

// What counts packets of sparse flows spares the question whether there are any, and says how many to read.
func TestPacketsThatAreCountedAreLookedForOnlyThen(t *testing.T) {
	sparse := newEventQueues(t, 3)
	p := newPoller(t, nil)
	var arrivals, other atomic.Uint64
	for i, q := range sparse {
		q.CountedBy(&arrivals)
		if err := p.Add(i, newEventQueues(t, 1)[0], q); err != nil {
			t.Fatal(err)
		}
	}
	want := func(expected int, indexes ...int) {
		t.Helper()
		p.skipped = 0 // the next question is not one that comes whatever the count
		got := p.Sparse(nil)
		slices.Sort(got)
		if !slices.Equal(got, indexes) || p.Expected() != expected {
			t.Fatalf("%v are reported and %d expected, want %v and %d", got, p.Expected(), indexes, expected)
		}
	}
	want(0)
	sparse[1].inject() // not counted: the kernel is not asked
	want(0)
	arrivals.Add(3)
	sparse[2].inject()
	want(3, 1, 2)
	sparse[1].Read(nil)
	sparse[1].Read(nil) // ErrAgain
	p.Took(1)
	want(2, 2)
	sparse[2].Read(nil)
	sparse[2].Read(nil)
	p.Took(1)
	want(1) // the third one may not be there yet
	want(0) // it had no room
	arrivals.Add(1)
	want(1) // is not there yet
	sparse[0].inject()
	want(1, 0)
	arrivals.Add(1)
	p.Took(5) // these were not counted, and the one that has just come stays expected
	if n := p.Expected(); n != 1 {
		t.Errorf("%d are expected", n)
	}
	sparse[0].Read(nil)
	sparse[0].Read(nil)
	want(1)
	want(0)
	sparse[0].inject() // not counted, and found all the same
	found := false
	for range askEvery {
		found = found || len(p.Sparse(nil)) == 1
	}
	if !found {
		t.Error("what is not counted is never found")
	}

	sparse[2].CountedBy(&other)
	if err := errors.Join(p.Remove(1), p.Add(1, newEventQueues(t, 1)[0], sparse[1])); err != nil {
		t.Fatal(err)
	}
	arrivals.Store(0)
	want(math.MaxInt, 0) // two counts: it is asked each time
	p.Took(1)
	sparse[2].CountedBy(&arrivals)
	for range recountEvery {
		p.Sparse(nil)
	}
	want(0)
	if err := errors.Join(p.Remove(0), p.Remove(1), p.Remove(2)); err != nil {
		t.Fatal(err)
	}
	want(0)
}

func TestWaitEndsAfterItsTimeout(t *testing.T) {
	p := newPoller(t, asQueues(newEventQueues(t, 1)))
	for _, timeout := range []time.Duration{0, 1, time.Millisecond} {
		if ready, _, err := p.Wait(timeout, nil, nil); err != nil || len(ready) != 0 {
			t.Errorf("timeout %v: got %v, %v", timeout, ready, err)
		}
	}
}

func TestWakeEndsAWait(t *testing.T) {
	p := newPoller(t, asQueues(newEventQueues(t, 1)))
	p.Wake() // before the wait, and twice: remembered once
	p.Wake()
	if ready, _, err := p.Wait(-1, nil, nil); err != nil || len(ready) != 0 {
		t.Fatalf("woken before: got %v, %v", ready, err)
	}
	for range 100 {
		go p.Wake()
		if _, _, err := p.Wait(-1, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// Closing the eventfd while a Wait blocks would take its wake-up away: close may free it
// only after the Wait.
func TestCloseEndsAWait(t *testing.T) {
	for range 200 {
		p := newPoller(t, asQueues(newEventQueues(t, 1)))
		done := make(chan error)
		go func() {
			for {
				if _, _, err := p.Wait(-1, nil, nil); err != nil {
					done <- err
					return
				}
			}
		}()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != os.ErrClosed {
			t.Fatalf("got %v, want os.ErrClosed", err)
		}
		p.Wake() // harmless afterwards
		if err := p.Close(); err != os.ErrClosed {
			t.Fatalf("second close: got %v", err)
		}
	}
}

func TestPollerRefusesAClosedQueue(t *testing.T) {
	queues := newEventQueues(t, 1)
	queues[0].close()
	p := newPoller(t, nil)
	if err := p.Add(0, queues[0], nil); err == nil {
		t.Error("a closed descriptor was accepted")
	}
	open := newEventQueues(t, 1)[0]
	if err := p.Add(0, open, queues[0]); err == nil {
		t.Error("a closed descriptor was accepted for sparse flows")
	}
	open.inject()
	if ready, sparse, err := p.Wait(0, nil, nil); len(ready)+len(sparse) != 0 || err != nil {
		t.Errorf("what was not added is watched: %v, %v, %v", ready, sparse, err)
	}
}

// A number that the kernel hands out again at once must not be read through the old queue.
func TestADescriptorIsFreedOnceAndOnlyWhenNobodyIsInside(t *testing.T) {
	e, err := newEvent()
	if err != nil {
		t.Fatal(err)
	}
	if !e.enter() {
		t.Fatal("an open descriptor can't be entered")
	}
	if err := e.close(); err != nil {
		t.Fatal(err)
	}
	if e.freed.Load() {
		t.Error("freed while somebody was inside")
	}
	if e.enter() {
		t.Error("a closed descriptor was entered")
	}
	e.leave()
	e.leave()
	if !e.freed.Load() {
		t.Error("not freed by the last one out")
	}
	if err := e.close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second close: got %v, want os.ErrClosed", err)
	}
}
