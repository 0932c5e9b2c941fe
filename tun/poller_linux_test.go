package tun

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"
)

func newPoller(t testing.TB, queues []Queue) *Poller {
	t.Helper()
	p, err := NewPoller(queues)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestWaitReportsReadableQueuesUntilTheyAreEmpty(t *testing.T) {
	m := newMemory(t, 3, 4)
	p := newPoller(t, m.Queues())
	want := func(indexes ...int) {
		t.Helper()
		ready, err := p.Wait(0, nil)
		slices.Sort(ready)
		if err != nil || !slices.Equal(ready, indexes) {
			t.Fatalf("got %v, %v; want %v", ready, err, indexes)
		}
	}
	want()
	m.Inject(2, numbered(1))
	m.Inject(2, numbered(2))
	m.Inject(0, numbered(3))
	want(0, 2)
	buf := make([]byte, 100)
	m.Queues()[0].Read(buf)
	m.Queues()[0].Read(buf) // ErrAgain
	m.Queues()[2].Read(buf)
	want(2) // one packet left
	m.Queues()[2].Read(buf)
	m.Queues()[2].Read(buf)
	want()
	m.Inject(1, numbered(4))
	want(1)
	if err := p.Remove(1); err != nil {
		t.Fatal(err)
	}
	want()
}

func TestWaitEndsAfterItsTimeout(t *testing.T) {
	p := newPoller(t, newMemory(t, 1, 1).Queues())
	for _, timeout := range []time.Duration{0, 1, time.Millisecond} {
		if ready, err := p.Wait(timeout, nil); err != nil || len(ready) != 0 {
			t.Errorf("timeout %v: got %v, %v", timeout, ready, err)
		}
	}
}

func TestWakeEndsAWait(t *testing.T) {
	p := newPoller(t, newMemory(t, 1, 1).Queues())
	p.Wake() // before the wait, and twice: remembered once
	p.Wake()
	if ready, err := p.Wait(-1, nil); err != nil || len(ready) != 0 {
		t.Fatalf("woken before: got %v, %v", ready, err)
	}
	for range 100 {
		go p.Wake()
		if _, err := p.Wait(-1, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// Closing the eventfd while a Wait blocks would take its wake-up away: close may free it
// only after the Wait.
func TestCloseEndsAWait(t *testing.T) {
	for range 200 {
		p := newPoller(t, newMemory(t, 1, 1).Queues())
		done := make(chan error)
		go func() {
			for {
				if _, err := p.Wait(-1, nil); err != nil {
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
	m := newMemory(t, 1, 1)
	m.Close()
	if _, err := NewPoller(m.Queues()); err == nil {
		t.Error("a closed descriptor was accepted")
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
