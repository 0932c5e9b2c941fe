package dataplane

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// Expire runs on a goroutine of its own, and nothing comes in that would wake the worker.
func TestARunningEngineResetsSilentConnections(t *testing.T) {
	var clock atomic.Int64
	clock.Store(int64(time.Hour))
	e, err := New(translatedFigure(), Options{Attachments: figureSpecs, Workers: 1, Flows: conntrack.Options{Max: 1024},
		Clock: func() time.Duration { return time.Duration(clock.Load()) }})
	if err != nil {
		t.Fatal(err)
	}
	var devices []tun.Device
	var memory []*tuntest.Memory
	for range numAttachments {
		d := newMemory(t, 1, 64)
		devices, memory = append(devices, d), append(memory, d)
	}
	if err := e.Attach(devices); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()

	// next is what comes out next, and where.
	next := func() (at int, p packet.Packet) {
		t.Helper()
		eventually(t, "a packet came out", func() bool {
			for i, d := range memory {
				if d.Drain(0, func(frame []byte) { at, p = i, decoded(t, frame) }) > 0 {
					return true
				}
			}
			return false
		})
		return at, p
	}
	s := spec{Flags: "S", Seq: 99}
	memory[internet].Inject(0, framed(packettest.TCP(with(s, world, 40000, balanced, 80))))
	at, p := next()
	s = spec{Flags: "SA", Seq: 499, Ack: 100}
	memory[at].Inject(0, framed(packettest.TCP(with(s, p.Dst.String(), p.DstPort, world, 40000))))
	next()
	s = spec{Flags: "A", Seq: 100, Ack: 500}
	memory[internet].Inject(0, framed(packettest.TCP(with(s, world, 40000, balanced, 80))))
	next()
	clock.Add(int64(5 * time.Minute))
	ends := map[int]bool{}
	for range 2 {
		end, p := next()
		if ends[end] = true; p.TCPFlags != packet.RST|packet.ACK {
			t.Errorf("at %d came out flags %#x", end, p.TCPFlags)
		}
	}
	if !ends[internet] || !ends[at] {
		t.Errorf("reset were %v", ends)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
