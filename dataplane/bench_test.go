package dataplane

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/tun"
)

// carryCases are the packets whose path must not allocate, each with what makes
// it take that path again and again.
var carryCases = []struct {
	name  string
	from  int
	setup [][]byte // sent from vm1 (even) and vm4 (odd) before
	make  func(i int) []byte
	kinds int // number of different packets
	// took counts the packets that took the path; it must be all that were sent.
	took func(e *Engine) uint64
}{
	{"established", vm1,
		[][]byte{
			packettest.TCP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 40000, DstPort: 80, Flags: "S"}),
			packettest.TCP(packettest.Spec{Src: addr4, Dst: addr1, SrcPort: 80, DstPort: 40000, Flags: "SA"}),
		},
		func(int) []byte {
			return packettest.TCP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: 40000, DstPort: 80, Flags: "A", Payload: 64})
		}, 1,
		func(e *Engine) uint64 { // what arrived, less a packet for each flow: its first
			return e.AttachmentCounts()[vm4].TransmitPackets - e.Flows().Stats().Created
		}},
	{"new-flow-allowed", vm1, nil,
		func(i int) []byte {
			return packettest.UDP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: uint16(i), DstPort: uint16(i >> 16), Payload: 64})
		}, 1 << 16,
		func(e *Engine) uint64 { return e.Flows().Stats().Created }},
	{"denied", internet, nil,
		func(i int) []byte {
			return packettest.TCP(packettest.Spec{Src: world, Dst: addr1, SrcPort: uint16(i), DstPort: 22, Flags: "S"})
		}, 1024,
		func(e *Engine) uint64 { return e.Drops()[packet.DropRule] }},
}

// feeder sends prepared packets through the pipeline, a burst a call.
type feeder struct {
	r       *rig
	from    int
	packets [][]byte
	next    int
	sent    uint64
	took    func(*Engine) uint64
	// again is called before packets repeat.
	again func()
}

func newFeeder(t testing.TB, policy func() *rig, c int) *feeder {
	k := carryCases[c]
	f := &feeder{r: policy(), from: k.from, took: k.took, again: func() {}}
	for i, p := range k.setup {
		f.r.send([]int{vm1, vm4}[i%2], p)
	}
	for i := range k.kinds {
		f.packets = append(f.packets, append(make([]byte, tun.HeaderLen), k.make(i)...))
	}
	return f
}

func (f *feeder) burst() {
	for range burstPackets {
		f.r.devices[f.from].Inject(0, f.packets[f.next%len(f.packets)])
		f.next++
	}
	f.sent += burstPackets
	if err := f.r.engine.workers[0].burst(f.from); err != nil {
		f.r.t.Fatal(err)
	}
	for _, d := range f.r.devices {
		d.Drain(0, nil)
	}
	if f.next >= len(f.packets) && len(f.packets) >= burstPackets {
		f.next = 0
		f.again()
	}
}

// check fails unless every packet took the path that the case is named after.
func (f *feeder) check() {
	if got := f.took(f.r.engine); got != f.sent {
		f.r.t.Errorf("%d of %d packets took the path", got, f.sent)
	}
}

// forget ends all flows and makes their records free, so that repeated packets begin
// flows again.
func (f *feeder) forget() {
	e := f.r.engine
	e.flows.Flush()
	for range 4 { // an epoch a round; two free everything
		e.flows.Expire(e.Now(), 1<<20)
		if err := e.workers[0].burst(f.from); err != nil { // empty: a quiescent point
			f.r.t.Fatal(err)
		}
	}
}

func TestThePathOfAPacketAllocatesNothing(t *testing.T) {
	for i, c := range carryCases {
		t.Run(c.name, func(t *testing.T) {
			f := newFeeder(t, func() *rig { return newRig(t, figureOfTheSeed(), conntrack.Options{Max: 1 << 20}) }, i)
			for range 64 { // slabs and rings are there
				f.burst()
			}
			if n := testing.AllocsPerRun(100, f.burst); n != 0 {
				t.Errorf("%v allocations in a burst of %d packets", n, burstPackets)
			}
			f.check()
		})
	}
}

// manyRules is the figure with n rules in each NSG ahead of the figure's own.
func manyRules(n int) func() []ruleset.Rule {
	return func() []ruleset.Rule {
		var rules []ruleset.Rule
		for i := range n - 1 {
			a := netip.AddrFrom4([4]byte{198, byte(18 + i>>16), byte(i >> 8), byte(i)})
			for _, d := range []ruleset.Direction{ruleset.Inbound, ruleset.Outbound} {
				r := anyRule(fmt.Sprintf("r%d", i), 100+i, d, ruleset.Deny)
				r.Protocol = ruleset.TCP
				r.Source = ruleset.Peer{Prefixes: []netip.Prefix{netip.PrefixFrom(a, 32)}}
				rules = append(rules, r)
			}
		}
		last := allowHTTP()
		last.Priority = 4096
		return append(rules, last)
	}
}

// BenchmarkCarry is the whole pipeline through memory devices: read, decode,
// admit, flow, route, verdict, commit, write, counters. One operation is one packet.
func BenchmarkCarry(b *testing.B) {
	for i, c := range carryCases {
		for _, n := range []int{10, 100, 1000} {
			b.Run(fmt.Sprintf("%s/rules=%d", c.name, n), func(b *testing.B) {
				rules := manyRules(n)
				f := newFeeder(b, func() *rig { return newRig(b, figure(rules(), rules()), conntrack.Options{}) }, i)
				if c.name == "new-flow-allowed" {
					f.again = func() {
						b.StopTimer()
						f.forget()
						b.StartTimer()
					}
				}
				f.burst()
				b.ReportAllocs()
				b.ResetTimer()
				for left := b.N; left > 0; left -= burstPackets {
					f.burst()
				}
				b.StopTimer()
				f.check()
			})
		}
	}
}
