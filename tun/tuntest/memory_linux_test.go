package tuntest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/tun"
)

func newMemory(t testing.TB, queues, capacity int, options ...MemoryOption) *Memory {
	t.Helper()
	m, err := NewMemory("mem0", queues, capacity, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// numbered is a frame that says which one it is.
func numbered(n int) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, tun.HeaderLen), uint64(n))
}

func TestMemoryDeliversWhatWasInjectedInOrder(t *testing.T) {
	m := newMemory(t, 2, 3)
	buf := make([]byte, tun.BufferLen)
	for round := range 5 { // the ring wraps
		for i := range 3 {
			if !m.Inject(1, numbered(round*3+i)) {
				t.Fatalf("inject %d: refused", i)
			}
		}
		if m.Inject(1, numbered(99)) {
			t.Fatal("a full queue took a packet")
		}
		for i := range 3 {
			n, err := m.Queues()[1].Read(buf)
			if err != nil || !bytes.Equal(buf[:n], numbered(round*3+i)) {
				t.Fatalf("read %d: got %x, %v", i, buf[:n], err)
			}
		}
		if _, err := m.Queues()[1].Read(buf); err != tun.ErrAgain {
			t.Fatalf("empty queue: got %v, want tun.ErrAgain", err)
		}
	}
	if s, ok := m.Stats(); !ok || s.TxPackets != 15 || s.TxDropped != 5 {
		t.Errorf("stats: %+v, %v", s, ok)
	}
}

func TestMemoryCollectsWhatWasWritten(t *testing.T) {
	m := newMemory(t, 2, 2)
	for i, q := range []int{1, 0, 1} {
		if err := m.Queues()[q].Write(numbered(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Queues()[1].Write(numbered(3)); err != tun.ErrAgain {
		t.Errorf("full queue: got %v, want tun.ErrAgain", err)
	}
	got := m.Collect()
	for i, n := range []int{1, 0, 2} { // queue by queue
		if len(got) != 3 || !bytes.Equal(got[i], numbered(n)) {
			t.Fatalf("collected %x", got)
		}
	}
	if n := m.Drain(1, nil); n != 0 {
		t.Errorf("%d frames left after Collect", n)
	}
}

func TestMemoryRefusesFramesThatAreNone(t *testing.T) {
	m := newMemory(t, 1, 2, WithSlotLen(64))
	q := m.Queues()[0]
	for _, n := range []int{0, tun.HeaderLen, 65} {
		if m.Inject(0, make([]byte, n)) {
			t.Errorf("inject of %d bytes: taken", n)
		}
		if err := q.Write(make([]byte, n)); err != tun.ErrFrame {
			t.Errorf("write of %d bytes: got %v, want tun.ErrFrame", n, err)
		}
	}
	if !m.Inject(0, make([]byte, 64)) || q.Write(make([]byte, 64)) != nil {
		t.Error("a frame that fills its slot was refused")
	}
	if _, err := NewMemory("m", 0, 1); !errors.Is(err, tun.ErrConfig) {
		t.Errorf("no queues: got %v, want tun.ErrConfig", err)
	}
}

func TestMemoryTakesSuperpacketsByDefault(t *testing.T) {
	m := newMemory(t, 1, 1)
	if !m.Inject(0, make([]byte, tun.BufferLen)) {
		t.Error("a frame of tun.BufferLen bytes was refused")
	}
}

func TestMemoryIsADevice(t *testing.T) {
	var d tun.Device = newMemory(t, 3, 1, WithMTU(9000))
	addresses := []netip.Prefix{netip.MustParsePrefix("10.0.0.4/24")}
	if err := d.SetAddresses(addresses); err != nil {
		t.Fatal(err)
	}
	if d.Name() != "mem0" || d.MTU() != 9000 || len(d.Queues()) != 3 || d.(*Memory).Addresses()[0] != addresses[0] {
		t.Errorf("%+v", d)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := d.Queues()[0].Read(make([]byte, 100))
	if err != os.ErrClosed || d.Queues()[0].Write(make([]byte, 100)) != os.ErrClosed || d.(*Memory).Inject(0, make([]byte, 100)) {
		t.Errorf("a closed device still works: %v", err)
	}
}

// The signal is given only when it isn't standing; a lost one would leave the worker
// asleep beside a full queue.
func TestNoPacketWaitsUnannouncedWhileOthersInject(t *testing.T) {
	const injectors, each = 4, 5000
	m := newMemory(t, 1, 8, WithSlotLen(64))
	p, err := tun.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	for i, q := range m.Queues() {
		if err := p.Add(i, q, nil); err != nil {
			t.Fatal(err)
		}
	}
	defer p.Close()
	var wait sync.WaitGroup
	room := make(chan struct{}, 8)
	for id := range injectors {
		wait.Go(func() {
			for i := range each {
				select {
				case room <- struct{}{}:
				case <-t.Context().Done(): // the test failed
					return
				}
				if !m.Inject(0, numbered(id<<32|i)) {
					t.Error("refused although there was room")
				}
			}
		})
	}
	t.Cleanup(wait.Wait)
	next := make([]int, injectors)
	buf, ready := make([]byte, 64), make([]int, 0, 1)
	for received := 0; received < injectors*each; {
		// Wait may return early, for a signal of the runtime's.
		for deadline := time.Now().Add(30 * time.Second); ; {
			if ready, _, err = p.Wait(time.Second, ready, nil); err != nil {
				t.Fatal(err)
			}
			if len(ready) > 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("a waiting packet was never announced")
			}
		}
		// A bounded burst: what stays must be announced again.
		for range 3 {
			n, err := m.Queues()[0].Read(buf)
			if err == tun.ErrAgain {
				break
			}
			v := int(binary.BigEndian.Uint64(buf[tun.HeaderLen:n]))
			if id := v >> 32; v&0xffff_ffff != next[id] {
				t.Fatalf("injector %d: got packet %d, want %d", id, v&0xffff_ffff, next[id])
			}
			next[v>>32]++
			received++
			<-room
		}
	}
}

// A packet may come while Read takes the signal back.
func TestAPacketThatComesWithTheEndOfTheSignalIsRead(t *testing.T) {
	m := newMemory(t, 1, 8, WithSlotLen(64))
	q := m.queues[0]
	clear, buf := q.ready.read, make([]byte, 64)
	injected := false
	q.ready.read = func(fd uintptr) {
		clear(fd)
		injected = m.Inject(0, numbered(2)) // the signal still counts as given: this one gives none
	}
	m.Inject(0, numbered(1))
	for want := 1; want <= 2; want++ {
		if n, err := q.Read(buf); err != nil || int(binary.BigEndian.Uint64(buf[tun.HeaderLen:n])) != want {
			t.Fatalf("packet %d: %d bytes, %v", want, n, err)
		}
	}
	if !injected {
		t.Error("the signal was not taken back")
	}
}

func TestReadWriteAndWaitAllocateNothing(t *testing.T) {
	m := newMemory(t, 2, 8, WithSlotLen(2048))
	p, err := tun.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	for i, q := range m.Queues() {
		if err := p.Add(i, q, nil); err != nil {
			t.Fatal(err)
		}
	}
	defer p.Close()
	q, frame, buf, ready := m.Queues()[1], make([]byte, 100), make([]byte, 2048), make([]int, 0, 2)
	sum := 0
	drain := func(b []byte) { sum += len(b) }
	n := testing.AllocsPerRun(200, func() {
		p.Wake()
		ready, _, _ = p.Wait(-1, ready, nil)
		ready, _, _ = p.Wait(0, ready, nil)
		if !m.Inject(1, frame) {
			t.Fatal("refused")
		}
		if ready, _, _ = p.Wait(-1, ready, nil); len(ready) != 1 {
			t.Fatal("not ready")
		}
		n, err := q.Read(buf)
		if err != nil || q.Write(buf[:n]) != nil || m.Drain(1, drain) != 1 {
			t.Fatal("not passed")
		}
		if _, err := q.Read(buf); err != tun.ErrAgain {
			t.Fatal("not empty")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

func BenchmarkMemoryReadAndWrite(b *testing.B) {
	for _, size := range []int{64, 1500, 65_000} {
		b.Run(fmt.Sprintf("%d bytes in bursts of 64", size), func(b *testing.B) {
			m := newMemory(b, 1, 64, WithSlotLen(tun.HeaderLen+size))
			q, frame, buf := m.Queues()[0], make([]byte, tun.HeaderLen+size), make([]byte, tun.BufferLen)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for done := 0; done < b.N; done += 64 {
				for range 64 {
					m.Inject(0, frame)
				}
				for {
					n, err := q.Read(buf)
					if err != nil {
						break
					}
					q.Write(buf[:n])
				}
				m.Drain(0, nil)
			}
		})
	}
}
