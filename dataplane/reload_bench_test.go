package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

const (
	reloadGroups = 50
	reloadRules  = 200
	// reloadFresh packets of a burst begin flows.
	reloadFresh = 4
	// reloadSlice bursts are carried without reloads, and then as many with them, in turn.
	reloadSlice = 2_000
)

// BenchmarkReloadUnderLoad carries packets of live flows and of new ones from the internet to
// VM1 while another goroutine reloads a changed policy again and again, from its rules to the
// swap; and in turn the same without reloads. One operation is one packet carried while
// policies are reloaded. It fails unless every packet arrives and no live flow begins again.
func BenchmarkReloadUnderLoad(b *testing.B) {
	for _, c := range []struct {
		flows int
		what  reloadChange
	}{
		{10_000, ruleChanged}, {10_000, everyNSGChanged},
		{1_000_000, ruleChanged}, {1_000_000, interfaceChanged}, {1_000_000, networkChanged},
	} {
		b.Run(fmt.Sprintf("flows=%d/%s", c.flows, c.what), func(b *testing.B) {
			l := newReloadLoad(b, c.flows, c.what)
			l.carry(reloadSlice) // memory is there
			l.endFresh()
			var quiet, loaded []time.Duration
			b.ResetTimer()
			b.StopTimer()
			for left := (b.N + burstPackets - 1) / burstPackets; left > 0; left -= reloadSlice {
				n := min(left, reloadSlice)
				quiet = append(quiet, l.carry(n)...)
				end := l.startReloads()
				b.StartTimer()
				times := l.carry(n)
				b.StopTimer()
				end()
				loaded = append(loaded, times...)
				l.endFresh()
			}
			l.check()
			l.report(quiet, loaded)
		})
	}
}

// reloadChange is what differs from one reload to the next.
type reloadChange string

const (
	ruleChanged      reloadChange = "a rule changed"
	everyNSGChanged  reloadChange = "a rule of every NSG changed"
	interfaceChanged reloadChange = "a network interface came or went"
	networkChanged   reloadChange = "a virtual network changed"
)

// reloadPolicy is the figure and 50 NSGs of 200 rules, of which VM1's packets meet the first
// two; the others are those of further subnets. The edition says which port the first rule of
// NSG1, or of every NSG, names. NSGs that do not change are those of the earlier edition, as
// they are when their files do not change.
func reloadPolicy(edition int, what reloadChange, earlier *policy.Set) *policy.Set {
	rules := func(n int) []ruleset.Rule {
		if what == everyNSGChanged || what == ruleChanged && n == 0 {
			return reloadRulesOf(n, edition)
		}
		return reloadRulesOf(n, 0)
	}
	set := figure(rules(0), rules(1))
	vnet := set.VirtualNetworks[0]
	switch {
	case edition == 0:
	case what == interfaceChanged:
		set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: "extra", ID: "/nic/extra",
			IPConfigurations: []policy.IPConfiguration{{Name: "ip", Address: netip.MustParseAddr("10.0.2.99"), Subnet: vnet.Subnets[1], Primary: true}}})
	case what == networkChanged:
		vnet.DNSServers = []netip.Addr{netip.MustParseAddr("10.0.2.99")}
	}
	for n := 2; n < reloadGroups; n++ {
		g := &ruleset.NSG{Name: fmt.Sprintf("many%d", n), ID: fmt.Sprintf("/nsg/many%d", n), Rules: rules(n)}
		if earlier != nil && what != everyNSGChanged {
			g = earlier.NetworkSecurityGroups[n]
		}
		set.NetworkSecurityGroups = append(set.NetworkSecurityGroups, g)
		vnet.Subnets = append(vnet.Subnets, &policy.Subnet{Name: g.Name, ID: vnet.ID + "/" + g.Name, VirtualNetwork: vnet,
			NetworkSecurityGroup: g, Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(10 + n), 0}), 24)}})
	}
	return set
}

// reloadRulesOf are an NSG's rules, in both directions and each for a source and a port of its
// own; the last lets the benchmark's packets in.
func reloadRulesOf(n, edition int) []ruleset.Rule {
	list := make([]ruleset.Rule, reloadRules)
	for i := range list {
		r := anyRule(fmt.Sprintf("rule%d", i), 100+i, []ruleset.Direction{ruleset.Inbound, ruleset.Outbound}[i%2], ruleset.Allow)
		r.Protocol = ruleset.TCP
		r.Source = ruleset.Peer{Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(n), byte(i)}), 32)}}
		port := uint16(20_000 + i)
		if i == 0 {
			port += uint16(1_000 * edition)
		}
		r.DestinationPorts = []ruleset.PortRange{{First: port, Last: port}}
		list[i] = r
	}
	last := anyRule("AllowUdpIn", 4096, ruleset.Inbound, ruleset.Allow)
	last.Protocol = ruleset.UDP
	list[reloadRules-1] = last
	return list
}

// reloadLoad is an engine of one worker, what it carries, and what is reloaded.
type reloadLoad struct {
	b        *testing.B
	engine   *Engine
	source   *source
	live     int             // flows that stay
	fresh    int             // flows that began after them
	editions [2]*policy.Set  // reloaded in turn
	reloads  []time.Duration // how long each took
}

func newReloadLoad(b *testing.B, flows int, what reloadChange) *reloadLoad {
	l := &reloadLoad{b: b, source: newSource(addr1), live: flows}
	l.editions[0] = reloadPolicy(0, what, nil)
	l.editions[1] = reloadPolicy(1, what, l.editions[0])
	l.engine = crowdUnder(b, l.editions[0], flows, flows+64*reloadSlice, l.source)
	l.answer()
	live, i := atRandom(flows, 1), 0
	l.source.next = func() int {
		if i++; i%(burstPackets/reloadFresh) != 0 {
			return live()
		}
		l.fresh++
		return flows + l.fresh
	}
	return l
}

// answer makes the live flows two-way, which tells them from the fresh ones.
func (l *reloadLoad) answer() {
	p := packettest.UDP(packettest.Spec{Src: addr1, Dst: "11.0.0.0", SrcPort: 53, DstPort: 1})
	answers := &source{frame: append(make([]byte, tun.HeaderLen), p...), reply: true, next: inOrder(l.live)}
	w := l.engine.workers[0]
	w.queues[vm1] = answers
	for left := l.live; left > 0; left -= burstPackets {
		answers.left = min(burstPackets, left)
		if err := w.carryBurst(vm1); err != nil {
			l.b.Fatal(err)
		}
	}
}

// carry carries bursts and returns how long each took.
func (l *reloadLoad) carry(bursts int) []time.Duration {
	times := make([]time.Duration, bursts)
	w := l.engine.workers[0]
	w.flows.Unpark()
	defer w.flows.Park()
	for i := range times {
		start := time.Now()
		burst(l.b, w, l.source, burstPackets)
		times[i] = time.Since(start)
	}
	return times
}

// startReloads reloads the two editions in turn until end is called, which waits for the
// reload that is under way.
func (l *reloadLoad) startReloads() (end func()) {
	var stop atomic.Bool
	var reloading sync.WaitGroup
	reloading.Go(func() {
		for !stop.Load() {
			start := time.Now()
			s, err := l.engine.Prepare(l.editions[(len(l.reloads)+1)%2])
			if err == nil {
				err = l.engine.Swap(s, nil)
			}
			if err != nil {
				l.b.Error(err)
				return
			}
			l.reloads = append(l.reloads, time.Since(start))
		}
	})
	return func() {
		stop.Store(true)
		reloading.Wait()
	}
}

// endFresh ends the flows that began since, so that a long run finds the table as a short one
// does.
func (l *reloadLoad) endFresh() {
	l.engine.flows.Flows(func(f *conntrack.FlowInfo) bool {
		if f.Packets[conntrack.Reply] == 0 {
			l.engine.flows.End(&f.Key)
		}
		return true
	})
}

func (l *reloadLoad) check() {
	for reason, n := range l.engine.Drops() {
		if n > 0 {
			l.b.Errorf("%d packets dropped under %s", n, dropName(reason))
		}
	}
	if n := l.engine.AttachmentCounts()[vm1].TransmitPackets; n != uint64(l.source.sent) {
		l.b.Errorf("%d of %d packets arrived", n, l.source.sent)
	}
	if n := countOf(l.engine, "NSG1", ruleset.Inbound, "AllowUdpIn").Hits; n != uint64(l.live+l.fresh) {
		l.b.Errorf("%d flows were allowed, want %d", n, l.live+l.fresh)
	}
	if n := l.engine.Flows().Stats().Flows; n != int64(l.live) {
		l.b.Errorf("%d of %d live flows are left", n, l.live)
	}
	if n := l.engine.Snapshot().Generation; n != uint64(1+len(l.reloads)) {
		l.b.Errorf("generation %d after %d reloads", n, len(l.reloads))
	}
}

func (l *reloadLoad) report(quiet, loaded []time.Duration) {
	sum := func(times []time.Duration) (sum time.Duration) {
		for _, t := range times {
			sum += t
		}
		return sum
	}
	packets := float64(len(quiet) * burstPackets)
	l.b.ReportMetric(float64(sum(quiet))/packets, "quiet-ns/op")
	l.b.ReportMetric(float64(sum(loaded))/float64(sum(quiet)), "ratio")
	l.b.ReportMetric(float64(sum(l.reloads))/float64(len(l.reloads))/float64(time.Millisecond), "ms/reload")
	l.b.ReportMetric(float64(slices.Max(quiet))/float64(time.Microsecond), "quiet-max-µs")
	l.b.ReportMetric(float64(slices.Max(loaded))/float64(time.Microsecond), "max-µs")
}
