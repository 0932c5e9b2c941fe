package conntrack

import (
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

func TestAFullTableEvictsWhatIsLeastMissed(t *testing.T) {
	const limit = 16 // within one sample
	answered := func(r *rig, port uint16) {
		r.create(0, 1, udp(port))
		r.send(1, 0, reversed(udp(port)))
		r.send(0, 1, udp(port))
	}
	for _, tt := range []struct {
		name   string
		fill   func(r *rig)
		cause  EndCause
		victim uint16 // its port
	}{
		{"one that is over already", func(r *rig) { r.create(0, 1, udp(99)); r.wait(40 * time.Second) }, EndExpired, 99},
		{"one that was never answered", func(r *rig) { r.create(0, 1, udp(99)) }, EndEvicted, 99},
		{"the longest idle of those", func(r *rig) { r.create(0, 1, udp(99)); r.wait(time.Second); r.create(0, 1, udp(98)) }, EndEvicted, 99},
		{"none when all are answered", func(r *rig) { answered(r, 99) }, NumEndCauses, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Options{Max: limit})
			tt.fill(r)
			for port := uint16(1); r.Stats().Flows < limit; port++ {
				answered(r, port)
			}
			_, _, created, drop := r.send(0, 1, udp(1000))
			s := r.Stats()
			if tt.cause == NumEndCauses {
				if drop != packet.DropFlowLimit || s.Refused[RefusedTable] != 1 || s.Flows != limit {
					t.Errorf("drop %s, %+v", drop, s)
				}
				return
			}
			if !created || s.Ended[tt.cause] != 1 || s.Flows != limit || r.state(0, udp(tt.victim)) != "none" {
				t.Errorf("created %t, drop %s, victim %s, %+v", created, drop, r.state(0, udp(tt.victim)), s)
			}
		})
	}
}

func TestAFloodOfNewFlowsNeverExceedsTheLimitNorRunsOutOfRecords(t *testing.T) {
	r := newRig(t, Options{Max: 64})
	for i := range 20_000 {
		r.create(0, 1, newPacket(packet.ProtoUDP, i, 2, 1, 1))
		if i%64 == 63 {
			r.w.Quiesce()
		}
	}
	if s := r.Stats(); s.Flows != 64 || s.Created != 20_000 || s.Ended[EndEvicted] != 20_000-64 {
		t.Errorf("%+v", s)
	}
}

func TestWithoutABurstBoundaryAFloodIsRefusedRatherThanRecordsReused(t *testing.T) {
	r := newRig(t, Options{Max: 64})
	refused := 0
	for i := range 2_000 {
		if _, _, _, drop := r.send(0, 1, newPacket(packet.ProtoUDP, i, 2, 1, 1)); drop == packet.DropFlowLimit {
			refused++
		}
	}
	if s := r.Stats(); refused != 2_000-64-reserveMin || s.Refused[RefusedTable] != uint64(refused) {
		t.Errorf("%d refused, %+v", refused, s)
	}
}

func TestZoneLimitsHoldForBothEnds(t *testing.T) {
	r := newRig(t, Options{MaxPerZone: 4, UnlimitedZones: func(zone uint16) bool { return zone == 7 }})
	answered := func(zone, peer uint16, port uint16) packet.Drop {
		_, _, created, drop := r.send(zone, peer, udp(port))
		if created {
			r.send(peer, zone, reversed(udp(port)))
			r.send(zone, peer, udp(port))
		}
		return drop
	}
	for port := uint16(1); port <= 4; port++ {
		if drop := answered(7, 1, port); drop != packet.NotDropped {
			t.Fatal(drop)
		}
	}
	if drop := answered(7, 1, 5); drop != packet.DropFlowLimit {
		t.Errorf("the destination's zone is full: %s", drop)
	}
	if drop := answered(1, 2, 6); drop != packet.DropFlowLimit {
		t.Errorf("the source's zone is full: %s", drop)
	}
	if drop := answered(7, 2, 7); drop != packet.NotDropped {
		t.Errorf("the unlimited zone has no limit: %s", drop)
	}
	if drop := answered(3, 3, 8); drop != packet.NotDropped || r.ZoneFlows(3) != 1 {
		t.Errorf("within one zone a flow counts once: %s, %d", drop, r.ZoneFlows(3))
	}
	if r.Stats().Flows != 6 || r.Stats().Refused[RefusedZone] != 2 || r.ZoneFlows(1) != 4 || r.ZoneFlows(2) != 1 || r.ZoneFlows(7) != 5 {
		t.Errorf("%+v, zones %d %d %d", r.Stats(), r.ZoneFlows(1), r.ZoneFlows(2), r.ZoneFlows(7))
	}
	if r.Flush() != 6 || r.ZoneFlows(1)+r.ZoneFlows(2)+r.ZoneFlows(3)+r.ZoneFlows(7)+r.busyZones.Load() != 0 {
		t.Error("a flush leaves flows in zones")
	}
}

func TestAFullZoneEvictsOnlyItsOwnFlows(t *testing.T) {
	r := newRig(t, Options{MaxPerZone: 4})
	r.create(2, 3, udp(1)) // unanswered and the longest idle, but elsewhere
	r.wait(time.Second)
	for port := uint16(2); port < 6; port++ {
		r.create(0, 1, udp(port))
	}
	r.create(0, 1, udp(6))
	if r.state(2, udp(1)) != "one_way" || r.Stats().Ended[EndEvicted] != 1 {
		t.Errorf("%s, %+v", r.state(2, udp(1)), r.Stats())
	}
}

// A denial that is remembered outlasts a flood, whoever sends it: the one whose flow was cut, or others.
func TestHostile05AFloodLiftsNoDenial(t *testing.T) {
	const limit = 64
	for _, tt := range []struct {
		name     string
		zone     uint16
		answered bool
	}{
		{"questions of the one that was cut", 0, false}, {"questions of others", 2, false},
		{"answered questions of the one that was cut", 0, true}, {"answered questions of others", 2, true},
	} {
		for _, o := range []Options{{Max: limit}, {Max: 4 * limit, MaxPerZone: limit}} {
			t.Run(tt.name, func(t *testing.T) {
				r := newRig(t, o)
				f := r.create(0, 1, udp(1))
				r.send(1, 0, reversed(udp(1)))
				r.w.Cut(f, r.now)
				for i := range 5000 {
					p := newPacket(packet.ProtoUDP, 10+i, 2, 1, 1)
					r.send(tt.zone, 3, p)
					if tt.answered {
						r.send(3, tt.zone, reversed(p))
						r.send(tt.zone, 3, p)
					}
					if r.w.Quiesce(); i%16 == 0 {
						r.now++
					}
				}
				if _, _, created, drop := r.send(1, 0, reversed(udp(1))); created || drop != packet.DropFlowCut {
					t.Errorf("created %t, %s", created, drop)
				}
			})
		}
	}
}

// A denial of many leaves room for what the rules allow.
func TestFlowsThatWereCutFillNoZone(t *testing.T) {
	const limit = 64
	for _, o := range []Options{{Max: limit}, {Max: 4 * limit, MaxPerZone: limit}} {
		r := newRig(t, o)
		for port := range uint16(limit) {
			r.w.Cut(r.create(0, 1, udp(port)), r.now)
		}
		began := 0
		for port := uint16(1000); port < 1000+limit; port++ {
			if _, _, created, _ := r.send(0, 1, udp(port)); created {
				r.send(1, 0, reversed(udp(port)))
				r.send(0, 1, udp(port))
				began++
			}
			r.now++
		}
		if kept := r.Stats().Live[ClassUDPCut]; began != limit-limit/cutPart || kept != limit/cutPart || r.zoneCuts[0].Load() != kept || r.cuts.Load() != kept {
			t.Errorf("%d flows began, %d that were cut are kept", began, kept)
		}
		if r.Flush(); r.zoneCuts[0].Load() != 0 || r.zoneCuts[1].Load() != 0 {
			t.Error("a flush leaves some that were cut")
		}
	}
}

// Who has less than a share gets room, though it be that of flows that were cut: those come last.
func TestRoomForAZoneBelowItsShare(t *testing.T) {
	const limit, cut = 256, 63
	for seed := range uint64(30) {
		r := newRig(t, Options{Max: limit, Seed: [2]uint64{seed, 1}})
		for port := range uint16(limit) {
			f := r.create(0, 1, udp(port))
			r.send(1, 0, reversed(udp(port)))
			if r.send(0, 1, udp(port)); port < cut {
				r.w.Cut(f, r.now)
			} else if port == cut {
				r.now++
			}
		}
		for i := range uint16(4) {
			r.create(2, 3, udp(2000+i))
		}
		if n := r.Stats().Live[ClassUDPCut]; n != cut {
			t.Fatalf("%d flows that were cut are left of %d", n, cut)
		}
	}
}
