package dataplane

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// carryCase is a kind of packet whose path must not allocate, and what makes it take that
// path again and again. Packets are numbered for each worker from 0.
type carryCase struct {
	name    string
	from    int
	packets int // how many different ones a worker has
	make    func(worker, i int) []byte
	// begin is what must have been carried before the packets are; nil: nothing.
	begin func(worker int) []step
	// translates says that the policy has translations.
	translates bool
	// once says that a packet takes its path only once, unless everything is forgotten.
	once bool
	// took counts the packets that took the path; it must grow by all that were sent.
	took func(*Engine) uint64
}

const (
	carryFlows     = 1024 // of a worker
	carryDatagrams = 1024
	carryParts     = 8 // later fragments of a datagram
)

var carryCases = slices.Concat(untranslatedCases, translatedCases)

var untranslatedCases = []carryCase{
	{name: "established-TCP", from: vm1, packets: carryFlows, make: tcpThere(families[0]), begin: connections(families[0]), took: arrived(vm4)},
	{name: "established-TCP-IPv6", from: vm1, packets: carryFlows, make: tcpThere(families[1]), begin: connections(families[1]), took: arrived(vm4)},
	{name: "established-UDP", from: vm1, packets: carryFlows, make: udpThere(families[0]), begin: exchanges(families[0]), took: arrived(vm4)},
	{name: "established-UDP-IPv6", from: vm1, packets: carryFlows, make: udpThere(families[1]), begin: exchanges(families[1]), took: arrived(vm4)},
	{name: "new-flow-allowed", from: vm1, packets: 1 << 16, once: true,
		make: func(worker, i int) []byte {
			return packettest.UDP(packettest.Spec{Src: addr1, Dst: addr4, SrcPort: uint16(i), DstPort: uint16(1 + worker), Payload: 64})
		},
		took: func(e *Engine) uint64 { return e.Flows().Stats().Created }},
	{name: "denied", from: internet, packets: carryFlows,
		make: func(worker, i int) []byte {
			return packettest.TCP(packettest.Spec{Src: world, Dst: addr1, SrcPort: flowPort(worker, i), DstPort: 22, Flags: "S"})
		},
		took: dropped(packet.DropRule)},
	{name: "ICMP-echo", from: vm1, packets: carryFlows, took: arrived(vm4),
		make: func(worker, i int) []byte { return echo(addr1, addr4, 8, flowPort(worker, i)) },
		begin: func(worker int) (steps []step) {
			for i := range carryFlows {
				id := flowPort(worker, i)
				steps = append(steps, step{vm1, echo(addr1, addr4, 8, id), vm4, ""}, step{vm4, echo(addr4, addr1, 0, id), vm1, ""})
			}
			return steps
		}},
	{name: "ICMP-error", from: internet, packets: carryFlows, took: arrived(vm1), // no rule lets ICMP in
		make: func(worker, i int) []byte { return unreachable(world, addr1, query(worker, i)) },
		begin: func(worker int) (steps []step) {
			for i := range carryFlows {
				steps = append(steps, step{vm1, query(worker, i), internet, ""})
			}
			return steps
		}},
	{name: "first-fragment", from: vm1, packets: carryDatagrams * carryParts, once: true,
		make:  func(worker, i int) []byte { return parts(worker, i%carryFlows, worker<<13|i)[0] },
		begin: exchanges(families[0]),
		took:  func(e *Engine) uint64 { return uint64(e.Fragments().Datagrams()) }},
	{name: "later-fragment", from: vm1, packets: carryDatagrams * carryParts, once: true, took: arrived(vm4),
		make: func(worker, i int) []byte {
			d := i % carryDatagrams
			return parts(worker, d, worker<<13|d)[1+i/carryDatagrams]
		},
		begin: func(worker int) (steps []step) {
			for d := range carryDatagrams {
				steps = append(steps, step{vm1, parts(worker, d, worker<<13|d)[0], vm4, ""})
			}
			return steps
		}},
	{name: "malformed", from: vm1, packets: carryFlows, took: dropped(packet.DropIPLength),
		make: func(worker, i int) []byte {
			b := udpThere(families[0])(worker, i)
			return b[:len(b)-1] // less than its total length
		}},
	{name: "spoofed", from: vm1, packets: carryFlows, took: dropped(packet.DropSpoofed),
		make: func(worker, i int) []byte {
			return packettest.UDP(packettest.Spec{Src: addr2, Dst: addr4, SrcPort: flowPort(worker, i), DstPort: 53, Payload: 64})
		}},
}

// arrived counts what came out at an attachment, less a packet for each flow: its first.
func arrived(at int) func(*Engine) uint64 {
	return func(e *Engine) uint64 { return e.AttachmentCounts()[at].TransmitPackets - e.Flows().Stats().Created }
}

func dropped(reason packet.Drop) func(*Engine) uint64 {
	return func(e *Engine) uint64 { return e.Drops()[reason] }
}

// flowPort is what flow i of a worker has as VM1's port, or as its identifier.
func flowPort(worker, i int) uint16 { return uint16(10_000 + worker*carryFlows + i) }

func there(f family, worker, i int) packettest.Spec {
	return packettest.Spec{Src: f.vm1, Dst: f.vm4, SrcPort: flowPort(worker, i), DstPort: 80, Payload: 64}
}

func back(s packettest.Spec) packettest.Spec {
	s.Src, s.Dst, s.SrcPort, s.DstPort = s.Dst, s.Src, s.DstPort, s.SrcPort
	return s
}

func tcpThere(f family) func(worker, i int) []byte {
	return func(worker, i int) []byte {
		s := there(f, worker, i)
		s.Flags = "A"
		return packettest.TCP(s)
	}
}

func udpThere(f family) func(worker, i int) []byte {
	return func(worker, i int) []byte { return packettest.UDP(there(f, worker, i)) }
}

// connections opens a worker's flows of TCP, exchanges makes those of UDP two-way.
func connections(f family) func(worker int) []step {
	return func(worker int) (steps []step) {
		for i := range carryFlows {
			syn := there(f, worker, i)
			answer := back(syn)
			syn.Flags, answer.Flags = "S", "SA"
			steps = append(steps, step{vm1, packettest.TCP(syn), vm4, ""}, step{vm4, packettest.TCP(answer), vm1, ""},
				step{vm1, tcpThere(f)(worker, i), vm4, ""})
		}
		return steps
	}
}

func exchanges(f family) func(worker int) []step {
	return func(worker int) (steps []step) {
		for i := range carryFlows {
			s := there(f, worker, i)
			steps = append(steps, step{vm1, packettest.UDP(s), vm4, ""}, step{vm4, packettest.UDP(back(s)), vm1, ""})
		}
		return steps
	}
}

func echo(src, dst string, icmpType uint8, id uint16) []byte {
	return packettest.ICMP(packettest.Spec{Src: src, Dst: dst, ICMPType: icmpType, ICMPID: id, Payload: 56})
}

func query(worker, i int) []byte {
	return packettest.UDP(packettest.Spec{Src: addr1, Dst: world, SrcPort: flowPort(worker, i), DstPort: 53, Payload: 20})
}

// parts are a datagram of a flow in parts of 64 bytes.
func parts(worker, flow, id int) [][]byte {
	const part = 64
	s := there(families[0], worker, flow)
	s.Payload = part*(1+carryParts) - 8
	sizes := make([]int, carryParts)
	for i := range sizes {
		sizes[i] = part
	}
	return packettest.Fragments(packettest.UDP(s), uint32(id), sizes...)
}

// feeder carries the packets of a case, a burst at a time, through every worker of an engine
// on memory devices.
type feeder struct {
	r       *rig
	c       *carryCase
	begin   []step
	packets [][][]byte // by worker
	next    int        // the same for all
	sent    uint64
	took    uint64 // until the last forget
	before  uint64 // what c.took said then
	// judge reads what is judged again, into judged; nil: nothing is.
	judge  func()
	judged [burstPackets]watch.Decided
}

// carryOptions hold the datagrams of a few workers with room in every bucket.
func carryOptions(workers int) Options {
	return Options{Workers: workers, Flows: conntrack.Options{Max: 1 << 20}, Fragments: fragment.Options{Max: 1 << 17, Lifetime: time.Second}}
}

// rig is one for the case, with the figure's policy that is given.
func (c *carryCase) rig(t testing.TB, p *policy.Set, workers int) *rig {
	p = dualStack(p)
	if c.translates {
		p = translating(p)
	}
	r := newRigWith(t, p, carryOptions(workers))
	r.rewrites = c.translates
	return r
}

func newFeeder(r *rig, c *carryCase) *feeder {
	f := &feeder{r: r, c: c}
	for worker := range r.engine.workers {
		var packets [][]byte
		for i := range c.packets {
			packets = append(packets, append(make([]byte, tun.HeaderLen), c.make(worker, i)...))
		}
		f.packets = append(f.packets, packets)
		if c.begin != nil {
			f.begin = append(f.begin, c.begin(worker)...)
		}
	}
	f.setUp()
	return f
}

func (f *feeder) setUp() {
	f.r.play(f.begin)
	f.next, f.before = 0, f.c.took(f.r.engine)
}

// carry has every worker carry that many bursts, at the same time.
func (f *feeder) carry(bursts int) {
	workers := f.r.engine.workers
	if len(workers) == 1 {
		f.carryOn(workers[0], bursts)
	} else {
		var group sync.WaitGroup
		for _, w := range workers {
			group.Go(func() { f.carryOn(w, bursts) })
		}
		group.Wait()
	}
	f.next = (f.next + bursts*burstPackets) % f.c.packets
	f.sent += uint64(bursts * burstPackets * len(workers))
}

func (f *feeder) carryOn(w *worker, bursts int) {
	w.flows.Unpark()
	defer w.flows.Park()
	packets, next := f.packets[w.index], f.next
	for range bursts {
		for range burstPackets {
			f.r.devices[f.c.from].Inject(w.index, packets[next])
			if next++; next == len(packets) {
				next = 0
			}
		}
		if err := w.carryBurst(f.c.from); err != nil {
			f.r.t.Error(err)
		}
		if f.judge != nil {
			f.judge()
		}
		for _, d := range f.r.devices {
			d.Drain(w.index, nil)
		}
	}
}

// forget ends all flows and datagrams and makes their records free, so that repeated packets
// are new again.
func (f *feeder) forget() {
	e := f.r.engine
	f.took += f.c.took(e) - f.before
	f.r.clock += time.Second // a datagram's life
	e.fragments.Expire(f.r.clock, time.Second)
	e.flows.Flush()
	for _, w := range e.workers {
		w.flows.Park()
	}
	for range 4 { // an epoch a round; two free everything
		e.flows.Expire(e.Now(), 1<<20)
	}
	f.setUp()
}

// check fails unless every packet took the path that the case is named after.
func (f *feeder) check() {
	f.r.t.Helper()
	if took := f.took + f.c.took(f.r.engine) - f.before; took != f.sent {
		f.r.t.Errorf("%d of %d packets took the path", took, f.sent)
	}
}

func TestThePathOfAPacketAllocatesNothing(t *testing.T) {
	runs := 100
	if testing.Short() {
		runs = 10
	}
	for i := range carryCases {
		c := &carryCases[i]
		t.Run(c.name, func(t *testing.T) {
			f := newFeeder(c.rig(t, figureOfTheSeed(), 1), c)
			f.carry(16) // slabs and rings are there
			if n := testing.AllocsPerRun(runs, func() { f.carry(1) }); n != 0 {
				t.Errorf("%v allocations in a burst of %d packets", n, burstPackets)
			}
			f.check()
		})
	}
}
