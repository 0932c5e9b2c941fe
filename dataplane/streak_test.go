package dataplane

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/tun"
)

// TestAStreakIsWhatItsPacketsAreOneByOne carries the same packets of a few flows in bursts, where consecutive ones of a flow
// share what is found and counted, and one by one, where none does. All that is counted, every flow, and what watchers are told
// must be the same.
func TestAStreakIsWhatItsPacketsAreOneByOne(t *testing.T) {
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 1))
		together := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
		apart := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
		var watchers []*watch.Subscription
		if seed%2 == 1 {
			watchers = append(watchers, together.watch(watch.Options{}, ""), apart.watch(watch.Options{}, ""))
		}
		for range 6 {
			var packets [][]byte
			from := []int{vm1, vm4}[random.IntN(2)]
			for range 1 + random.IntN(40) {
				packets = append(packets, streakPacket(random, from, packets)...)
			}
			for _, p := range packets {
				frame := append(make([]byte, tun.HeaderLen), p...)
				together.devices[from].Inject(0, frame)
				apart.devices[from].Inject(0, frame)
				apart.carryAll(from)
			}
			for range 2 {
				together.carryAll(from)
			}
			if len(watchers) > 0 {
				if got, want := together.told(watchers[0]), apart.told(watchers[1]); !reflect.DeepEqual(got, want) || len(got) == 0 {
					t.Fatalf("seed %d: %d packets from %d: told\n%v\nwant\n%v", seed, len(packets), from, got, want)
				}
			}
			if got, want := together.all(), apart.all(); !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: %d packets from %d: got\n%v\nwant\n%v", seed, len(packets), from, got, want)
			}
		}
	}
}

// streakPacket is a packet of one of a few flows, mostly of the flow that the last one was of: now and then a fragment, or
// one that begins or ends a connection.
func streakPacket(random *rand.Rand, from int, before [][]byte) [][]byte {
	if len(before) > 0 && random.IntN(3) > 0 {
		return before[len(before)-1:]
	}
	s := packettest.Spec{Src: addr1, Dst: addr4, SrcPort: uint16(2000 + random.IntN(2)), DstPort: 80, Payload: 8 * random.IntN(9), Seq: uint32(100 * random.IntN(3)), Ack: 1,
		Flags: []string{"A", "A", "A", "PA", "S", "SA", "FA", "R", "SF"}[random.IntN(9)]}
	if from == vm4 {
		s = back(s)
	}
	switch random.IntN(8) {
	case 0, 1:
		return [][]byte{packettest.UDP(s)}
	case 2:
		return [][]byte{echo(s.Src, s.Dst, 8*uint8(random.IntN(2)), s.SrcPort)}
	case 3:
		s.Payload = 64
		return packettest.Fragments(packettest.UDP(s), random.Uint32N(3), 32, 32)
	}
	return [][]byte{packettest.TCP(s)}
}

// carryAll carries what waits at an attachment's device.
func (r *rig) carryAll(from int) {
	r.t.Helper()
	if err := r.engine.workers[0].carryBurst(from); err != nil {
		r.t.Fatal(err)
	}
	for _, d := range r.devices {
		d.Drain(0, nil)
	}
}

// told is what a watcher was told.
func (r *rig) told(s *watch.Subscription) (list []string) {
	for _, e := range seen(r.t, s) {
		list = append(list, fmt.Sprint(e.Packet.Tuple, e.Drop, e.From, e.To, e.Standing, e.Direction, e.OutOfWindow, e.Length, r.rulesOf(&e)))
	}
	return list
}

// all is what the engine has counted, and its flows.
func (r *rig) all() []string {
	e := r.engine
	list := []string{fmt.Sprint(e.Drops()), fmt.Sprint(e.AttachmentCounts()), fmt.Sprint(e.Counters().Rules(len(e.Registry().Keys())))}
	flows := map[conntrack.Key]string{}
	e.Flows().Flows(func(f *conntrack.FlowInfo) bool {
		flows[f.Key] = fmt.Sprint(f.Class, f.Packets, f.Bytes, f.Seen, f.Slots)
		return true
	})
	return append(list, fmt.Sprint(flows), fmt.Sprint(e.Flows().Stats()))
}
