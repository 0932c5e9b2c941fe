package dataplane

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// FuzzPipeline holds an engine against the oracle: arbitrary policies, and scripts
// of packets, errors, time and reloads. Whatever the bytes are, each frame is carried
// unchanged to where the oracle says or dropped under the reason that it says, and
// every counter follows.
func FuzzPipeline(f *testing.F) {
	spec := packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1, DstPort: 80, Flags: "S", Payload: 9, ICMPType: 8}
	for _, build := range []func(packettest.Spec) []byte{packettest.TCP, packettest.UDP, packettest.ICMP} {
		f.Add([]byte{}, arbitraryFrame(atVM1, frameOf(tun.Header{}, build(spec))))
		f.Add([]byte{}, arbitraryFrame(atVM1, frameOf(tun.Header{GSOType: tun.GSOTCPv4, GSOSize: 4}, build(spec))))
	}
	random := rand.New(rand.NewPCG(5, 5))
	for range 16 {
		f.Add(randomBytes(random, 200), randomBytes(random, 300))
	}
	devices := oracleDevices(f)
	f.Fuzz(func(t *testing.T, policy, steps []byte) {
		if len(policy) > 1<<11 || len(steps) > 1<<13 {
			return
		}
		r := newOracleRig(t, devices, policy)
		(&script{choices: steps}).run(r)
		r.compareFlows()
	})
}

func randomBytes(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

func TestRandomPacketsAndPoliciesAgreeWithTheOracle(t *testing.T) {
	runs := 2000
	if testing.Short() {
		runs = 200
	}
	devices := oracleDevices(t)
	var met happened
	for seed := range runs {
		random := rand.New(rand.NewPCG(uint64(seed), 11))
		r := newOracleRig(t, devices, randomBytes(random, 250))
		(&script{choices: randomBytes(random, 800)}).run(r)
		r.compareFlows()
		met.add(&r.met)
	}
	t.Logf("%+v", met)
}

// figures sums the attachments' counters and the drops.
func figures(e *Engine) (sum AttachmentCount, dropped uint64) {
	for _, c := range e.AttachmentCounts() {
		sum.ReceivePackets += c.ReceivePackets
		sum.ReceiveBytes += c.ReceiveBytes
		sum.TransmitPackets += c.TransmitPackets
		sum.TransmitBytes += c.TransmitBytes
	}
	for _, n := range e.Drops() {
		dropped += n
	}
	return sum, dropped
}

// TestNoPacketAllocatesWhateverItsBytes sends packets of a few hosts and ports with
// random damage, so that they meet every step of the pipeline and every reason
// to drop but those of the topology.
func TestNoPacketAllocatesWhateverItsBytes(t *testing.T) {
	const packets = 1 << 14
	random := rand.New(rand.NewPCG(1, 2))
	addresses := []string{addr1, addr2, addr3, addr4, world}
	flags := []string{"S", "SA", "A", "PA", "FA", "R", "RA", "SF"}
	var frames [packets][]byte
	for i := range frames {
		from := random.IntN(len(addresses))
		s := packettest.Spec{Src: addresses[from], Dst: addresses[random.IntN(len(addresses))],
			SrcPort: uint16(80 + random.IntN(2)), DstPort: uint16(80 + random.IntN(2)), Flags: flags[random.IntN(len(flags))],
			ICMPType: []uint8{0, 3, 8, 13, 14}[random.IntN(5)], Payload: random.IntN(32)}
		p := []func(packettest.Spec) []byte{packettest.TCP, packettest.UDP, packettest.ICMP}[random.IntN(3)](s)
		if random.IntN(4) == 0 {
			p[random.IntN(len(p))] ^= 1 << random.IntN(8)
		}
		h := tun.Header{}
		if random.IntN(8) == 0 {
			h = tun.Header{GSOType: []uint8{tun.GSOTCPv4, tun.GSOUDPL4, 99}[random.IntN(3)], GSOSize: uint16(random.IntN(8))}
		}
		frames[i] = append(append([]byte{byte(from)}, make([]byte, tun.HeaderLen)...), p...)
		h.Encode((*[tun.HeaderLen]byte)(frames[i][1:]))
	}
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 16, MaxPerZone: 8})
	w := r.engine.workers[0]
	next, sent := 0, uint64(0)
	run := func() {
		for range packets / 8 {
			f := frames[next%packets]
			next++
			r.clock += 100 * time.Millisecond
			if r.devices[f[0]].Inject(0, f[1:]) {
				sent++
			}
			if err := w.burst(int(f[0])); err != nil {
				t.Fatal(err)
			}
			for _, d := range r.devices {
				sent -= uint64(d.Drain(0, nil))
			}
		}
	}
	if n := testing.AllocsPerRun(15, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if _, dropped := figures(r.engine); dropped != sent {
		t.Errorf("%d dropped, %d not carried", dropped, sent)
	}
	drops := r.engine.Drops()
	for d := packet.NotDropped + 1; d < packet.NumDrops; d++ {
		switch d {
		case packet.DropMappedAddress, packet.DropExtension, packet.DropExtensionLimit, packet.DropRoutingHeader, packet.DropTransmit, packet.DropFlowConflict, packet.DropKernelNoise, packet.DropICMPError, packet.DropFlowRate,
			packet.DropFragmentTooLong, packet.DropFragmentTiny, packet.DropFragmentOverlap, packet.DropFragmentGaps, packet.DropFragmentLimit:
			// IPv6 alone, a device's refusal, overlapping networks, no rate set, conntrack asked without the
			// pipeline, fragments of one datagram
			continue
		}
		if drops[d] == 0 {
			t.Errorf("no packet was dropped under %s", d)
		}
	}
}
