package dataplane

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// gatherRig is a rig whose devices take superpackets of a level.
func gatherRig(t testing.TB, level tun.Offload, capacity int) *rig {
	t.Helper()
	return gatherRigFor(t, figureOfTheSeed(), level, capacity)
}

func gatherRigFor(t testing.TB, policy *policy.Set, level tun.Offload, capacity int) *rig {
	t.Helper()
	r := newRig(t, policy, conntrack.Options{Max: 1024})
	var devices []tun.Device
	for i := range r.devices {
		d, err := tuntest.NewMemory("mem", 1, capacity, tuntest.WithOffload(level))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		r.devices[i] = d
		devices = append(devices, d)
	}
	if err := r.engine.Attach(devices); err != nil {
		t.Fatal(err)
	}
	return r
}

// burst sends frames from an attachment at once and returns what came out, by attachment.
func (r *rig) burst(from int, frames [][]byte) (out [][][]byte) {
	r.t.Helper()
	for _, f := range frames {
		if !r.devices[from].Inject(0, f) {
			r.t.Fatal("memory device is full")
		}
	}
	if err := r.engine.workers[0].carryBurst(from); err != nil {
		r.t.Fatal(err)
	}
	for _, d := range r.devices {
		out = append(out, d.Collect())
	}
	return out
}

// wirePackets takes superpackets apart, slowly.
func wirePackets(frames [][]byte) (packets [][]byte) {
	for _, f := range frames {
		var h tun.Header
		h.Decode((*[tun.HeaderLen]byte)(f))
		if h.GSOType == tun.GSONone {
			packets = append(packets, f[tun.HeaderLen:])
			continue
		}
		packets = append(packets, packettest.Segments(f[tun.HeaderLen:], int(h.GSOSize))...)
	}
	return packets
}

// byFlow keeps the order within each flow.
func byFlow(t *testing.T, packets [][]byte) map[string][][]byte {
	flows := map[string][][]byte{}
	for _, b := range packets {
		var p packet.Packet
		if drop := new(packet.Decoder).Decode(b, 0, &p); drop != packet.NotDropped {
			t.Fatalf("%v came out: %x", drop, b)
		}
		key := fmt.Sprint(p.Src, p.SrcPort, p.Dst, p.DstPort, p.Proto)
		flows[key] = append(flows[key], b)
	}
	return flows
}

// talker sends the packets of one flow: mostly data that continues it, at times something else.
type talker struct {
	build func(packettest.Spec) []byte
	spec  packettest.Spec
}

func (s *talker) next(r *rand.Rand) []byte {
	p := s.spec
	p.Payload = 200
	switch r.IntN(12) {
	case 0:
		p.Payload = r.IntN(400)
	case 1:
		p.Flags = []string{"PA", "FA", "RA"}[r.IntN(3)]
	case 2:
		p.TTL = 9
	case 3:
		s.spec.Ack++
	case 4:
		if s.spec.Src[0] == '1' && p.Flags == "" {
			p.MoreFragments, p.Payload = true, 200
		}
	}
	b := s.build(p)
	s.spec.Seq += uint32(p.Payload)
	if s.spec.Src[0] == '1' {
		s.spec.ID++
	}
	return b
}

func TestGatheredPacketsAreThoseThatSingleOnesWouldBe(t *testing.T) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		random := rand.New(rand.NewPCG(seed, 5))
		plain, gathering := gatherRig(t, tun.Off, 128), gatherRig(t, tun.USO, 128)
		var talkers []*talker
		for i := range 1 + random.IntN(12) { // more flows than trains at times
			s := packettest.Spec{Src: addr1, Dst: []string{addr3, addr4, world, addr2}[random.IntN(4)], SrcPort: uint16(1000 + i), DstPort: 80}
			k := &talker{packettest.UDP, s}
			if random.IntN(2) == 0 {
				k.build, k.spec.Flags = packettest.TCP, "A"
			}
			talkers = append(talkers, k)
		}
		supers := 0
		for range 6 {
			var frames [][]byte
			for range 1 + random.IntN(64) {
				s := talkers[min(random.IntN(len(talkers)), random.IntN(len(talkers)))]
				for range 1 + random.IntN(5) {
					if len(frames) < 64 {
						frames = append(frames, frameOf(tun.Header{}, s.next(random)))
					}
				}
			}
			want, got := plain.burst(vm1, frames), gathering.burst(vm1, frames)
			for to := range want {
				supers += len(want[to]) - len(got[to])
				a, b := byFlow(t, wirePackets(want[to])), byFlow(t, wirePackets(got[to]))
				if len(a) != len(b) {
					t.Fatalf("seed %d: at %d: flows of %d, want of %d", seed, to, len(b), len(a))
				}
				for key := range a {
					if !equalPackets(a[key], b[key]) {
						t.Fatalf("seed %d: at %d: %s: other packets, or in another order", seed, to, key)
					}
				}
			}
		}
		if a, b := plain.engine.AttachmentCounts(), gathering.engine.AttachmentCounts(); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("seed %d: attachments count %v, want %v", seed, b, a)
		}
		if a, b := plain.engine.Drops(), gathering.engine.Drops(); a != b {
			t.Fatalf("seed %d: drops %v, want %v", seed, b, a)
		}
		n := len(plain.engine.Registry().Keys())
		if a, b := plain.engine.Counters().Rules(n), gathering.engine.Counters().Rules(n); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("seed %d: rules count otherwise", seed)
		}
		if supers == 0 && seed < 3 {
			t.Errorf("seed %d: nothing was gathered", seed)
		}
	}
}

func equalPackets(a, b [][]byte) bool {
	return len(a) == len(b) && bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil))
}

func datagrams(n int) (frames [][]byte) {
	for i := range n {
		frames = append(frames, frameOf(tun.Header{}, packettest.UDP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1, DstPort: 2, Payload: 64, ID: uint16(i)})))
	}
	return frames
}

func TestABurstOfOneFlowLeavesAsOneSuperpacket(t *testing.T) {
	for _, test := range []struct {
		name   string
		level  tun.Offload
		leaves int
	}{{"where the device takes it", tun.USO, 1}, {"not where it knows TCP alone", tun.TSO, 40}, {"not where it takes none", tun.Off, 40}} {
		t.Run(test.name, func(t *testing.T) {
			r := gatherRig(t, test.level, 128)
			if got := len(r.burst(vm1, datagrams(40))[vm4]); got != test.leaves {
				t.Errorf("%d frames left, want %d", got, test.leaves)
			}
			if c := r.engine.AttachmentCounts()[vm4]; c.TransmitPackets != 40 || c.TransmitBytes != 40*92 {
				t.Errorf("counted %d packets of %d bytes", c.TransmitPackets, c.TransmitBytes)
			}
		})
	}
}

func TestPacketsOfATrainThatHasNoRoomAreDroppedEachByItself(t *testing.T) {
	r := gatherRig(t, tun.USO, 64)
	others := datagrams(64)
	for i := range others { // fill vm4's queue with packets of flows of their own
		p := packettest.UDP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: uint16(100 + i), DstPort: 2})
		others[i] = frameOf(tun.Header{}, p)
	}
	for _, f := range others {
		r.devices[vm1].Inject(0, f)
	}
	r.engine.workers[0].carryBurst(vm1)
	for _, f := range datagrams(30) {
		r.devices[vm1].Inject(0, f)
	}
	r.engine.workers[0].carryBurst(vm1)
	if got := r.engine.Drops()[packet.DropTransmit]; got != 30 {
		t.Errorf("%d drops, want 30", got)
	}
	if c := r.engine.AttachmentCounts()[vm4]; c.TransmitPackets != 64 {
		t.Errorf("%d packets transmitted, want 64", c.TransmitPackets)
	}
	if got := r.count("NSG1", ruleset.Outbound, "AllowVnetOutBound").Packets; got != 94 {
		t.Errorf("the rule counted %d packets, want 94", got)
	}
}

func TestGatheringAllocatesNothing(t *testing.T) {
	r := gatherRig(t, tun.USO, 128)
	frames := datagrams(60)
	carry := func() {
		for _, f := range frames {
			r.devices[vm1].Inject(0, f)
		}
		r.engine.workers[0].carryBurst(vm1)
		for _, d := range r.devices {
			d.Drain(0, nil)
		}
	}
	carry()
	if n := testing.AllocsPerRun(100, carry); n != 0 {
		t.Errorf("%v allocations a burst", n)
	}
}

// BenchmarkGather carries bursts of one flow's datagrams, memory devices included.
func BenchmarkGather(b *testing.B) {
	for _, level := range []tun.Offload{tun.Off, tun.USO} {
		b.Run(level.String(), func(b *testing.B) {
			r := gatherRig(b, level, 128)
			frames := datagrams(64)
			r.burst(vm1, frames)
			b.ReportAllocs()
			for b.Loop() {
				for _, f := range frames {
					r.devices[vm1].Inject(0, f)
				}
				r.engine.workers[0].carryBurst(vm1)
				r.devices[vm4].Drain(0, nil)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(frames)), "ns/packet")
		})
	}
}

// Whoever completes a checksum writes where the header says, after the verdict.
func TestAChecksumThatWouldChangeWhatIsJudgedIsDropped(t *testing.T) {
	udp := packettest.UDP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 5000, DstPort: 53, Payload: 1000})
	tcp := packettest.TCP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 5000, DstPort: 53, Flags: "S", Payload: 0})
	ping := packettest.ICMP(packettest.Spec{Src: addr1, Dst: addr4, ICMPType: 8, ICMPID: 7, Payload: 10})
	gre := packettest.Raw(packettest.Spec{Src: addr1, Dst: addr4, Payload: 30}, packet.ProtoGRE)
	for _, test := range []struct {
		name   string
		packet []byte
		header tun.Header
		passes bool
	}{
		{"UDP's own", udp, tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: 20, CsumOffset: 6}, true},
		{"over UDP's destination port", udp, tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: 20, CsumOffset: 2}, false},
		{"over the IP header", udp, tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: 8, CsumOffset: 8}, false},
		{"from another start", udp, tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: 22, CsumOffset: 4}, false},
		{"of what a UDP tunnel carries", udp, tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: 64, CsumOffset: 16}, true},
		{"TCP's own", tcp, tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: 20, CsumOffset: 16}, true},
		{"over TCP's flags", tcp, tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: 20, CsumOffset: 12}, false},
		{"ICMP's own", ping, tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: 20, CsumOffset: 2}, true},
		{"over ICMP's type", ping, tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: 20, CsumOffset: 0}, false},
		{"GRE's own", gre, tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: 20, CsumOffset: 4}, true},
		{"over the address of GRE", gre, tun.Header{Flags: tun.FlagNeedsCsum, CsumStart: 12, CsumOffset: 4}, false},
		{"no checksum to complete", udp, tun.Header{CsumStart: 20, CsumOffset: 2}, true},
		{"of a superpacket, its own", udp, tun.Header{Flags: tun.FlagNeedsCsum, GSOType: tun.GSOUDPL4, GSOSize: 100, CsumStart: 20, CsumOffset: 6}, true},
		{"of a superpacket, over the port", udp, tun.Header{Flags: tun.FlagNeedsCsum, GSOType: tun.GSOUDPL4, GSOSize: 100, CsumStart: 20, CsumOffset: 2}, false},
		{"of a superpacket, in its payload", udp, tun.Header{Flags: tun.FlagNeedsCsum, GSOType: tun.GSOUDPL4, GSOSize: 100, CsumStart: 64, CsumOffset: 6}, false},
		{"a superpacket with bytes behind its end", append(bytes.Clone(udp), 1, 2, 3),
			tun.Header{Flags: tun.FlagNeedsCsum, GSOType: tun.GSOUDPL4, GSOSize: 100, CsumStart: 20, CsumOffset: 6}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := gatherRig(t, tun.USO, 8)
			came := len(r.burst(vm1, [][]byte{frameOf(test.header, test.packet)})[vm4]) == 1
			if came != test.passes || came == (r.engine.Drops()[packet.DropOffload] == 1) {
				t.Errorf("came out: %v, drops %v", came, r.engine.Drops())
			}
		})
	}
}
