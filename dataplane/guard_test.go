package dataplane

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/virtio"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// overtaken carries a packet of a burst that began with an old snapshot.
func (r *rig) overtaken(old *topology.Snapshot, from int, b []byte) packet.Drop {
	r.t.Helper()
	w := r.engine.workers[0]
	w.time, w.now = r.clock, ticks(r.clock)
	g := slot{frame: append(make([]byte, tun.HeaderLen), b...)}
	if g.drop = virtio.Decode(&w.decoder, g.frame, &g.packet); g.drop != packet.NotDropped {
		r.t.Fatal(g.drop)
	}
	g.key.Set(&g.packet.Tuple, uint16(from))
	g.hash = w.flows.Hash(&g.key)
	drop := w.passage.carry(old, old.Attachments[from], &g)
	w.counters.Flush()
	return drop
}

// endAt ends the records that an attachment keeps.
func (r *rig) endAt(attachment int) {
	r.engine.Flows().Flows(func(f *conntrack.FlowInfo) bool {
		if int(f.Key.Zone) == attachment || int(f.ReplyKey.Zone) == attachment {
			k := f.Key
			r.engine.Flows().End(&k)
		}
		return true
	})
}

// packetsAt counts the packets of the records that an attachment keeps.
func (r *rig) packetsAt(attachment int) (n uint64) {
	r.engine.Flows().Flows(func(f *conntrack.FlowInfo) bool {
		if int(f.Key.Zone) == attachment || int(f.ReplyKey.Zone) == attachment {
			n += f.Packets[conntrack.Original] + f.Packets[conntrack.Reply]
		}
		return true
	})
	return n
}

func denyAll(d ruleset.Direction) []ruleset.Rule {
	return []ruleset.Rule{anyRule("deny", 100, d, ruleset.Deny)}
}

// A reload overtakes a burst between the reading of its snapshot and the insertion of its flows.
func TestAReloadThatOvertakesABurstIsNoticedAtBothEnds(t *testing.T) {
	before := hubWorld{left: byFW("10.2.0.0/24")}
	after := hubWorld{left: byFW("10.2.0.0/24"), b: denyAll(ruleset.Inbound)}
	t.Run("when both records begin", func(t *testing.T) {
		r := hubRig(t, before)
		old := r.engine.Snapshot()
		swap(t, r, after.policy())
		if drop := r.overtaken(old, atFW, ab("S")); drop != packet.DropRule {
			t.Errorf("the new policy denies the packet, and it was %v", drop)
		}
		if n := r.packetsAt(atFW) + r.packetsAt(atB); n != 0 {
			t.Errorf("records of %d packets are left", n)
		}
	})
	t.Run("when the receiver's record begins", func(t *testing.T) {
		r := hubRig(t, before)
		r.play([]step{{atFW, ab("S"), atB, ""}})
		r.endAt(atB)
		old := r.engine.Snapshot()
		swap(t, r, after.policy())
		if drop := r.overtaken(old, atFW, ab("A")); drop != packet.DropRule {
			t.Errorf("the new policy denies the packet, and it was %v", drop)
		}
		if n := r.packetsAt(atB); n != 0 {
			t.Errorf("a record of %d packets is left at the receiver's end", n)
		}
	})
}

// The sender's end let the packet pass and counted it; then the receiver's rules denied it.
func TestAPacketThatTheReceiversEndDropsIsNotCountedAsPassed(t *testing.T) {
	r := hubRig(t, hubWorld{left: byFW("10.2.0.0/24")})
	r.play([]step{{atFW, ab("S"), atB, ""}})
	before := r.packetsAt(atFW)
	r.endAt(atB)
	swap(t, r, hubWorld{left: byFW("10.2.0.0/24"), b: denyAll(ruleset.Inbound)}.policy())
	r.play([]step{{atFW, ab("A"), 0, "rule_deny"}})
	if after := r.packetsAt(atFW); after != before {
		t.Errorf("the sender's record counts %d packets after a dropped one, %d before", after, before)
	}
}

// Packets of one flow can have two destinations when a reload comes between them.
func TestATrainIsForOneAttachment(t *testing.T) {
	r := gatherRig(t, tun.USO, 64)
	w := r.engine.workers[0]
	for i, to := range []int{vm2, vm3, vm2} {
		frame := append(make([]byte, tun.HeaderLen), packettest.UDP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 7, DstPort: 7, ID: uint16(i + 1), Payload: 100})...)
		var p packet.Packet
		if drop := virtio.Decode(&w.decoder, frame, &p); drop != packet.NotDropped {
			t.Fatal(drop)
		}
		if drop := w.write(to, frame, &p, 1); drop != packet.NotDropped {
			t.Fatal(drop)
		}
	}
	w.sendTrains()
	for to, want := range map[int]int{vm2: 2, vm3: 1} {
		if got := len(wirePackets(r.devices[to].Collect())); got != want {
			t.Errorf("%d packets at %d, want %d", got, to, want)
		}
	}
}

// The bytes that wait in a train were sent before the fragment.
func TestAFragmentOvertakesNoTrain(t *testing.T) {
	r := gatherRig(t, tun.USO, 64)
	frames := [][]byte{}
	for _, b := range append([][]byte{packettest.UDP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 7, DstPort: 7, Payload: 100})},
		packettest.Fragments(packettest.UDP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 7, DstPort: 7, Payload: 200}), 9, 48, 48)[0]) {
		frames = append(frames, append(make([]byte, tun.HeaderLen), b...))
	}
	out := r.burst(vm1, frames)[vm4]
	if len(out) != 2 || !bytes.Equal(out[0], frames[0]) || !bytes.Equal(out[1], frames[1]) {
		t.Errorf("%d frames came out, or in another order", len(out))
	}
}

// failing is a queue whose device has gone; it says when it was read.
type failing struct {
	tun.Queue
	read func()
}

func (f failing) Read([]byte) (int, error) {
	f.read()
	return 0, syscall.EIO
}

func TestADeviceThatFailsToReadLeavesTheOthersCarrying(t *testing.T) {
	r := newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1024})
	read := make(chan struct{})
	w := r.engine.workers[0]
	w.queues[vm2] = failing{w.queues[vm2], sync.OnceFunc(func() { close(read) })}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.engine.Run(ctx) }()
	eventually(t, "the failing device is read", func() bool {
		r.devices[vm2].Inject(0, append(make([]byte, tun.HeaderLen), syn(addr2, addr4, 80)...))
		select {
		case <-read:
			return true
		default:
			return false
		}
	})
	eventually(t, "a packet between two others arrives", func() bool {
		r.devices[vm1].Inject(0, append(make([]byte, tun.HeaderLen), syn(addr1, addr4, 80)...))
		return r.devices[vm4].Drain(0, nil) > 0
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestADeviceThatRefusesDoesNotSilenceTheOthers(t *testing.T) {
	var log bytes.Buffer
	r := newRigWith(t, figureOfTheSeed(), Options{Flows: conntrack.Options{Max: 1024}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	w := r.engine.workers[0]
	for _, at := range []int{vm2, vm4} {
		w.queues[at] = full{w.queues[at]}
		r.play([]step{{vm1, syn(addr1, []string{vm2: addr2, vm4: addr4}[at], 80), -1, "transmit"}})
	}
	r.logged()
	for _, name := range []string{"vm2-nic", "vm4-nic"} {
		if !strings.Contains(log.String(), "attachment="+name) {
			t.Errorf("nothing is said of %s:\n%s", name, log.String())
		}
	}
}

// A connection that the internet opened from port 25 is not one to port 25.
func TestAnswersToPort25PassWhereTheirReceiverKnowsTheFlow(t *testing.T) {
	h := hubWorld{left: byFW("0.0.0.0/0")}
	r := newRigWith(t, h.policy(), Options{Attachments: hubSpecs, Subscription: topology.Subscription{Type: "payg"}, Flows: conntrack.Options{Max: 64}})
	asks := packettest.TCP(packettest.Spec{Src: world, Dst: addrA, SrcPort: 25, DstPort: 4000, Flags: "S"})
	answers := packettest.TCP(packettest.Spec{Src: addrA, Dst: world, SrcPort: 4000, DstPort: 25, Flags: "SA"})
	r.play([]step{{atOut, asks, atA, ""}, {atA, answers, atFW, ""}, {atFW, answers, atOut, ""}})
	begins := packettest.TCP(packettest.Spec{Src: addrA, Dst: world, SrcPort: 4001, DstPort: 25, Flags: "S"})
	r.play([]step{{atA, begins, atFW, ""}, {atFW, begins, 0, "smtp_blocked"}})
}

// A translated flow keeps its way, so that rules alone judge it again.
func TestATranslatedFlowIsJudgedAgainByItsRulesAlone(t *testing.T) {
	set := func(rules ...ruleset.Rule) *policy.Set {
		p := underRules(append(rules, on("r", 100, ruleset.Inbound, ruleset.Allow, world, "", 8080))...)
		for _, g := range p.NetworkSecurityGroups {
			g.FlushConnection = true
		}
		return p
	}
	first := packettest.TCP(packettest.Spec{Src: world, Dst: balanced, SrcPort: 40000, DstPort: 80, Flags: "S"})
	r := newRig(t, set(), conntrack.Options{Max: 1024})
	at := r.pass(internet, framed(first)).at
	if at < 0 {
		t.Fatal("the flow does not begin")
	}
	changed := set(anyRule("more", 300, ruleset.Inbound, ruleset.Deny))
	nowhere := &policy.RouteTable{Name: "rt", ID: "/rt/rt", Routes: []policy.Route{{Name: "r", Prefix: netip.MustParsePrefix("128.0.0.0/1"), Hop: policy.HopNone}}}
	for _, sub := range changed.VirtualNetworks[0].Subnets {
		sub.RouteTable = nowhere
	}
	swap(t, r, changed)
	if again := r.pass(internet, framed(first)); again.at != at {
		t.Errorf("judged again it came out at %d, %s; before at %d", again.at, again.drop, at)
	}
}

// A sender beyond its own rate takes no place of its receivers.
func TestAFlowThatDoesNotBeginAtTheSendersEndGivesTheReceiversRateBack(t *testing.T) {
	r := newRigWith(t, hubWorld{left: byFW("10.2.0.0/24")}.policy(), Options{Attachments: hubSpecs, Flows: conntrack.Options{Max: 64, NewPerSecond: 2}})
	udp := func(src, dst string, port uint16) []byte {
		return packettest.UDP(packettest.Spec{Src: src, Dst: dst, SrcPort: port, DstPort: 7})
	}
	r.play([]step{{atFW, udp(addrFW, world, 1), atOut, ""}, {atFW, udp(addrFW, world, 2), atOut, ""}})
	for port := uint16(1); port <= 4; port++ {
		r.play([]step{{atFW, udp(addrA, addrB, port), 0, "flow_rate"}})
	}
	r.play([]step{{atOut, udp(world, addrB, 1), atB, ""}, {atOut, udp(world, addrB, 2), atB, ""}})
}
