package dataplane

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// loneRig is a sparseRig with a clock of its own, in which vm1's flow to vm4 is a lone one. yields counts.
type loneRig struct {
	*worker
	t       *testing.T
	devices []*tuntest.Memory
	bulk    []byte // a packet of the flow
	now     time.Duration
	yields  int
}

func newLoneRig(t *testing.T) *loneRig {
	t.Helper()
	r := &loneRig{t: t, bulk: udpFrame(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1000, DstPort: 1001, Payload: 1400})}
	r.worker, r.devices = sparseRig(t, new(atomic.Uint64))
	r.engine.clock = func() time.Duration { return r.now }
	r.engine.yield = func() { r.yields++ }
	r.send(1, vm1)
	r.lone.sent, r.carried = loneBytes, 0
	return r
}

// send has each sender send packets of a flow of its own, and the worker carry them all.
func (r *loneRig) send(packets int, senders ...int) {
	r.t.Helper()
	for range packets {
		for _, from := range senders {
			s := packettest.Spec{Src: []string{vm1: addr1, vm2: addr2}[from], Dst: addr4, SrcPort: 1000, DstPort: 1001, Payload: 1400}
			r.devices[from].Inject(0, udpFrame(s))
		}
	}
	r.carryAll()
}

func (r *loneRig) carryAll() {
	r.t.Helper()
	for turnOnce(r.t, r.worker) {
		r.devices[vm4].Drain(0, nil)
	}
}

// Whoever waits for the processor has it once in yieldBytes, unless it was free meanwhile, or one flow is alone.
func TestAWorkerYieldsBesideSeveralFlows(t *testing.T) {
	r := newLoneRig(t)
	packets := yieldBytes/len(r.bulk)/2 + 100
	r.lone.sent = 0
	for sent := 0; sent <= loneBytes; sent += 1000 * len(r.bulk) {
		r.send(1000, vm1)
	}
	if sent := loneBytes / yieldBytes; !r.lone.is() || r.yields < sent-2 || r.yields > sent {
		t.Errorf("a flow that becomes a lone one: %v, its worker yields %d times", r.lone.is(), r.yields)
	}
	r.yields, r.carried = 0, 0
	if r.send(4*packets, vm1); r.yields != 0 {
		t.Errorf("a lone flow's worker yields %d times", r.yields)
	}
	r.carried = 0
	if r.send(packets, vm1, vm2); r.yields != 1 {
		t.Errorf("behind %d bytes of two flows a worker yields %d times", yieldBytes, r.yields)
	}
	r.yields, r.carried = 0, 0
	for range 4 {
		r.send(packets/2, vm1, vm2)
		if _, _, err := r.poller.Wait(time.Millisecond, nil, nil); err != nil { // nothing comes
			t.Fatal(err)
		}
		if err := r.turn(nil); err != nil {
			t.Fatal(err)
		}
	}
	if r.yields != 0 {
		t.Errorf("a worker that has blocked yields %d times", r.yields)
	}
}

// Packets of sparse flows are looked for once in loneLook beside a lone flow, and a turn is longer then, but has an end.
func TestALoneFlowIsRarelyInterrupted(t *testing.T) {
	perBurst := waitingBytes/len(udpFrame(packettest.Spec{Src: addr1, Dst: addr4, Payload: 1400})) + 1
	for _, c := range []struct {
		name        string
		each        time.Duration // that a read takes
		least, most int           // packets of the lone flow before a sparse one
	}{
		{"quick reads", 0, loneBursts * perBurst, loneBursts*perBurst + burstPackets},
		{"slow reads", loneLook, 0, groupPackets},
		{"between", loneLook / groupPackets / 2, groupPackets + 1, 3 * groupPackets},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newLoneRig(t)
			sparse := udpFrame(packettest.Spec{Src: addr2, Dst: addr4, SrcPort: 2000, DstPort: 2001, Payload: 16})
			r.queues[vm1] = tellingReads{r.queues[vm1], func() { r.now += c.each }}
			wrote, came, waited := 0, 0, -1
			r.queues[vm4] = tellingQueue{r.queues[vm4], func(frame []byte) {
				small := len(frame) == len(sparse)
				if small {
					if came++; came == 2 {
						waited = wrote
					}
					wrote = 0
				} else {
					wrote++
				}
				if small && came == 1 || !small && came == 0 && wrote == 1 {
					r.devices[vm2].Inject(1, sparse)
				}
			}}
			r.lone.looked = r.now
			for range 2000 {
				r.devices[vm1].Inject(0, r.bulk)
			}
			for range 3 {
				turnOnce(t, r.worker)
			}
			if waited < c.least || waited > c.most {
				t.Errorf("a sparse packet waited behind %d of a lone flow: %d to %d are allowed", waited, c.least, c.most)
			}
		})
	}
}

// A turn is longer for a lone flow alone: not where others are ready, where writes are slow, or behind its end.
func TestATurnIsLongerForALoneFlow(t *testing.T) {
	const sent = 3000
	perBurst := waitingBytes/len(udpFrame(packettest.Spec{Src: addr1, Dst: addr4, Payload: 1400})) + 1
	for _, c := range []struct {
		name  string
		begin func(r *loneRig)
		most  int // bursts
	}{
		{"alone", func(*loneRig) {}, loneBursts},
		{"another sender is ready", func(r *loneRig) { r.devices[vm2].Inject(0, r.bulk) }, maxBursts},
		{"slow writes", func(r *loneRig) {
			r.queues[vm4] = tellingQueue{r.queues[vm4], func([]byte) { r.now += loneTurn / maxBursts / time.Duration(perBurst-2) }}
		}, maxBursts + 1},
		{"another flow", func(r *loneRig) { r.lone.flow = flowBytes{} }, maxBursts},
		{"a silence", func(r *loneRig) { r.now += loneGap }, maxBursts},
		{"flows that are not counted", func(r *loneRig) { r.devices[vm2].CountArrivals(1, nil); r.askAnew() }, maxBursts},
		{"a sender without a queue for them", func(r *loneRig) { r.sparse[vm1] = nil }, maxBursts},
		{"another device", func(r *loneRig) {
			q := r.queues[vm1]
			r.give(vm1, r.engine.setting.Load().ports[vm1].Device)
			r.queues[vm1] = q
		}, maxBursts},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newLoneRig(t)
			for range sent {
				r.devices[vm1].Inject(0, r.bulk)
			}
			c.begin(r)
			turnOnce(t, r.worker)
			wrote := r.devices[vm4].Drain(0, nil)
			if longer := wrote > (maxBursts+1)*perBurst; wrote > (c.most+1)*perBurst || longer != (c.most > maxBursts+1) {
				t.Errorf("a turn carried %d packets: %d bursts are up to %d", wrote, c.most, c.most*perBurst)
			}
		})
	}
}

// askAnew has the worker's poller ask again what counts packets of sparse flows.
func (r *loneRig) askAnew() {
	if err := r.poller.Remove(vm2); err != nil {
		r.t.Fatal(err)
	}
	if err := r.poller.Add(vm2, r.queues[vm2], r.sparse[vm2]); err != nil {
		r.t.Fatal(err)
	}
	r.poller.Sparse(nil)
}

// A flow that becomes a bulk flow stays in order beside a lone one, and so does a lone one that has been silent.
func TestNoFlowLosesItsOrderBesideALoneOne(t *testing.T) {
	for _, c := range []struct {
		name, src string
		from, to  int
		gap       time.Duration
	}{
		{"another flow", addr1, vm1, 1002, 0},
		{"another sender's", addr2, vm2, 1001, 0},
		{"the lone flow, after a silence", addr1, vm1, 1001, loneGap},
		{"the lone flow, after a silence within a burst", addr1, vm1, 1001, -loneGap},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newLoneRig(t)
			r.now += max(c.gap, 0)
			r.lone.looked = r.now
			packet := func(id, length int) []byte {
				return udpFrame(packettest.Spec{Src: c.src, Dst: addr4, SrcPort: 1000, DstPort: uint16(c.to), Payload: length, ID: uint16(id)})
			}
			once := false
			r.queues[c.from] = tellingReads{r.queues[c.from], func() {
				if !once { // behind the turn's own look for packets of sparse flows
					once = true
					r.now += max(-c.gap, 0)
					r.devices[c.from].Inject(1, packet(1, 16))
					r.devices[c.from].Inject(0, packet(2, 16))
				}
			}}
			r.devices[c.from].Inject(0, packet(0, 1400))
			var came []byte
			for turnOnce(t, r.worker) {
				r.devices[vm4].Drain(0, func(frame []byte) {
					if len(frame) < len(r.bulk) {
						came = append(came, frame[tun.HeaderLen+5])
					}
				})
			}
			if string(came) != "\x01\x02" {
				t.Errorf("packets come as %v", came)
			}
		})
	}
}

// Where ports stand is found in plain headers alone.
func TestTheFlowOfAPacketIsInItsHeaders(t *testing.T) {
	a := packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1000, DstPort: 1001, Payload: 10}
	first, ok := bytesOf(udpFrame(a))
	a.ID, a.Payload = 9, 99
	if again, _ := bytesOf(udpFrame(a)); !ok || first != again {
		t.Error("two packets of a flow differ")
	}
	for _, other := range []packettest.Spec{
		{Src: addr2, Dst: addr4, SrcPort: 1000, DstPort: 1001}, {Src: addr1, Dst: addr3, SrcPort: 1000, DstPort: 1001},
		{Src: addr1, Dst: addr4, SrcPort: 1, DstPort: 1001}, {Src: addr1, Dst: addr4, SrcPort: 1000, DstPort: 1},
	} {
		if b, ok := bytesOf(udpFrame(other)); !ok || b == first {
			t.Errorf("%+v is of the same flow", other)
		}
	}
	a = packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1000, DstPort: 1001}
	if b, ok := bytesOf(append(make([]byte, tun.HeaderLen), packettest.TCP(a)...)); !ok || b == first {
		t.Error("TCP is as UDP")
	}
	options := udpFrame(a)
	options[tun.HeaderLen]++
	if _, ok := bytesOf(options); ok {
		t.Error("ports behind options are found")
	}
	six := packettest.Spec{Src: "fd00::1", Dst: "fd00::4", SrcPort: 1000, DstPort: 1001, Payload: 10}
	b, ok := bytesOf(udpFrame(six))
	six.DstPort++
	if c, again := bytesOf(udpFrame(six)); !ok || !again || b.version != 6 || b == c {
		t.Errorf("IPv6: %v, %v", b, c)
	}
	fragment := udpFrame(a)
	fragment[tun.HeaderLen+6] |= 0x20
	for name, frame := range map[string][]byte{"a fragment": fragment, "short": make([]byte, tun.HeaderLen+23), "short IPv6": udpFrame(six)[:tun.HeaderLen+43]} {
		if _, ok := bytesOf(frame); ok {
			t.Errorf("%s has a flow", name)
		}
	}
}

// The same addresses at another attachment are another flow's.
func TestALoneFlowIsOfOneAttachment(t *testing.T) {
	group := []slot{{frame: udpFrame(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 1000, DstPort: 1001})}}
	flow, _ := bytesOf(group[0].frame)
	for attachment, want := range []bool{vm1: true, vm2: false} {
		l := lone{attachment: vm1, flow: flow, sent: loneBytes}
		if got := l.follows(0, attachment, group, true); got != want || l.is() != want {
			t.Errorf("attachment %d: %v", attachment, got)
		}
	}
}
