//go:build !race

// One goroutine does all of this: under the race detector it would only take time.

package dataplane

import (
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// sendAll lets a VM send UDP from source ports 1 to last to a destination. It returns how many of
// the packets that it has ever sent arrived on the internet.
func (r *rig) sendAll(vm int, src, dst string, last int) uint64 {
	r.t.Helper()
	for sport := 1; sport <= last; sport++ {
		frame := append(make([]byte, tun.HeaderLen), packettest.UDP(packettest.Spec{Src: src, Dst: dst, SrcPort: uint16(sport), DstPort: 53, Payload: 8})...)
		if !r.devices[vm].Inject(0, frame) {
			r.t.Fatal("memory device is full")
		}
		if sport%burstPackets == 0 || sport == last {
			if err := r.engine.workers[0].carryBurst(vm); err != nil {
				r.t.Fatal(err)
			}
			r.devices[internet].Drain(0, nil)
		}
	}
	return r.engine.AttachmentCounts()[internet].TransmitPackets
}

// One VM behind a NAT gateway takes every port towards two destinations. What it asks for beyond that is
// refused without a search: see BenchmarkFreePort.
func TestHostile03SNATSearch(t *testing.T) {
	r := newRigWith(t, translatedFigure(), Options{Flows: conntrack.Options{Max: 200_000, MaxPerZone: 200_000}})
	const ports = 65536 - sharedLow
	sent := uint64(0)
	for _, dst := range []string{world, world2} {
		if sent += ports; r.sendAll(vm4, addr4, dst, 65535) != sent {
			t.Fatalf("towards %s %d arrived, want all %d ports used", dst, r.engine.AttachmentCounts()[internet].TransmitPackets, sent)
		}
	}
	if n := r.engine.Drops()[packet.DropSNATExhausted]; n != 2*(65535-ports) {
		t.Errorf("%d refused", n)
	}
}

// Of two VMs behind a NAT gateway, one cannot take all ports.
func TestHostile03APortIsLeftForTheOther(t *testing.T) {
	p := translatedFigure()
	p.VirtualNetworks[0].Subnets[1].NATGateway = p.VirtualNetworks[0].Subnets[2].NATGateway
	r := newRigWith(t, p, Options{Flows: conntrack.Options{Max: 200_000, MaxPerZone: 200_000}})
	first := r.sendAll(vm4, addr4, world, 65535)
	second := r.sendAll(vm3, addr3, world, 65535) - first
	if first < 45_000 || first > 60_000 || second < 4_000 {
		t.Errorf("the first VM has %d ports, the second %d", first, second)
	}
}
