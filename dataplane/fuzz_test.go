package dataplane

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/tun"
)

// FuzzPipeline holds an engine against the oracle: arbitrary policies, and scripts
// of packets, errors, time and reloads. Whatever the bytes are, each frame is carried
// unchanged to where the oracle says or dropped under the reason that it says, and
// every counter follows.
func FuzzPipeline(f *testing.F) {
	spec := packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1, DstPort: 80, Flags: "S", Payload: 9, ICMPType: 8}
	for _, build := range []func(packettest.Spec) []byte{packettest.TCP, packettest.UDP, packettest.ICMP} {
		f.Add([]byte{}, arbitraryFrame(enginetest.AtVM1, frameOf(tun.Header{}, build(spec))))
		f.Add([]byte{}, arbitraryFrame(enginetest.AtVM1, frameOf(tun.Header{GSOType: tun.GSOTCPv4, GSOSize: 4}, build(spec))))
	}
	random := rand.New(rand.NewPCG(5, 5))
	for range 16 {
		f.Add(randomBytes(random, 200), randomBytes(random, 300))
	}
	devices := oracleDevices(f)
	f.Fuzz(func(t *testing.T, policy, steps []byte) {
		if len(policy) > 1<<11 || len(steps) > 1<<12 {
			return
		}
		r := newOracleRig(t, devices, policy)
		(&script{Choices: steps}).run(r)
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

// notMetByScripts are the reasons that random scripts have no way to.
var notMetByScripts = []packet.Drop{
	packet.DropTransmit, packet.DropSlowReceiver, // a device's refusal
	packet.DropPanic,                                               // a fault of the engine
	packet.DropFenced,                                              // which only a host of a cluster meets
	packet.DropFragmentLimit,                                       // a full table, which the table's own tests have
	packet.DropFlowRate,                                            // which no policy here sets
	packet.DropSourceRoute,                                         // options of IPv4
	packet.DropRouteNone, packet.DropNextHop, packet.DropForwarded, // routes of subnets
	// Translation, which has scripts of its own.
	packet.DropClosed, packet.DropNoFrontend, packet.DropNoBackend, packet.DropHairpin,
	packet.DropNoOutbound, packet.DropSNATExhausted, packet.DropAsymmetric,
}

func TestRandomPacketsAndPoliciesAgreeWithTheOracle(t *testing.T) {
	runs := 1000
	if testing.Short() {
		runs = 100
	}
	devices := oracleDevices(t)
	var met happened
	for seed := range runs {
		random := rand.New(rand.NewPCG(uint64(seed), 11))
		r := newOracleRig(t, devices, randomBytes(random, 250))
		(&script{Choices: randomBytes(random, 800)}).run(r)
		r.compareFlows()
		met.add(&r.met)
	}
	if testing.Short() {
		return
	}
	// What the scripts never reach is not tested, however many there are.
	for d := packet.NotDropped; d < packet.NumDrops; d++ {
		if met.drops[d] == 0 && !slices.Contains(notMetByScripts, d) {
			t.Errorf("no packet came to %s", d)
		}
	}
	if met.begun == 0 || met.passed == 0 || met.errors == 0 || met.readdressed == 0 || met.evicted == 0 || met.restarted == 0 || met.v6 == 0 || met.supers == 0 || met.fragments == 0 || met.held == 0 ||
		met.kept == 0 || met.cut == 0 || len(met.services) != int(topology.NumServices)-1 || len(met.admin) != 3 {
		t.Errorf("something never happened: %+v", met)
	}
}

// TestNoPacketAllocatesWhateverItsBytes sends the frames of random scripts, which
// meet every step of the pipeline and every reason to drop but a few.
func TestNoPacketAllocatesWhateverItsBytes(t *testing.T) {
	packets := 1 << 14
	if testing.Short() {
		packets = 1 << 11
	}
	devices := oracleDevices(t)
	random := rand.New(rand.NewPCG(1, 2))
	var frames []sentFrame
	for len(frames) < packets {
		r := newOracleRig(t, devices, randomBytes(random, 250))
		r.record = &frames
		(&script{Choices: randomBytes(random, 800)}).run(r)
		r.flush()
	}
	frames = frames[:packets]
	// A policy that has something to deny and somebody to forward, and a small table.
	var r *oracleRig
	for r == nil || len(r.policies[0].NetworkSecurityGroups) < 3 || !r.policies[0].NetworkInterfaces[2].EnableIPForwarding {
		policy := randomBytes(random, 250)
		policy[0] = 1 | 48
		r = newOracleRig(t, devices, policy)
	}
	w := r.engine.workers[0]
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	next, sent := 0, uint64(0)
	ready := make([]int, 1)
	run := func() {
		for range packets / 8 {
			f := &frames[next%packets]
			next++
			r.clock += 100 * time.Millisecond
			if r.devices[f.from].Inject(0, f.bytes) {
				sent++
			}
			ready[0] = f.from
			if err := w.turn(ready); err != nil {
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
	dropped := uint64(0)
	// What depends on other packets, which another policy may have refused.
	rare := []packet.Drop{packet.DropFlowConflict, packet.DropTCPState, packet.DropFlowCut, packet.DropFragmentOverlap, packet.DropFragmentGaps}
	for d, n := range r.engine.Drops() {
		dropped += n
		if n == 0 && d > 0 && !testing.Short() && !slices.Contains(rare, packet.Drop(d)) && !slices.Contains(notMetByScripts, packet.Drop(d)) {
			t.Errorf("no packet was dropped under %s", packet.Drop(d))
		}
	}
	if dropped != sent {
		t.Errorf("%d dropped, %d not carried", dropped, sent)
	}
}
