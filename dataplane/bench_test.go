package dataplane

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
)

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
// admit, flow, route, verdict, commit, write, counters. One operation is one packet; with two
// workers each carries half of them, of flows of its own.
func BenchmarkCarry(b *testing.B) {
	for i := range carryCases {
		c := &carryCases[i]
		for _, size := range []struct{ rules, workers int }{{10, 1}, {10, 2}, {1000, 1}} {
			b.Run(fmt.Sprintf("%s/rules=%d/workers=%d", c.name, size.rules, size.workers), func(b *testing.B) {
				rules := manyRules(size.rules)
				f := newFeeder(c.rig(b, figure(rules(), rules()), size.workers), c)
				f.bench(b)
				f.check()
			})
		}
	}
}

// bench carries b.N packets, rounded up to bursts, behind a round that has touched all memory.
func (f *feeder) bench(b *testing.B) {
	round := f.c.packets / burstPackets
	f.carry(round)
	f.forget()
	b.ReportAllocs()
	b.ResetTimer()
	perBurst := burstPackets * len(f.packets)
	for left := (b.N + perBurst - 1) / perBurst; left > 0; left -= round {
		if !f.c.once {
			round = left
		}
		f.carry(min(round, left))
		if f.c.once {
			b.StopTimer()
			f.forget()
			b.StartTimer()
		}
	}
	b.StopTimer()
}

// BenchmarkCarryWatched is BenchmarkCarry while somebody watches, without a reader: a full ring costs what a reader's
// does, but for the copy of the event. A candidate's packets are read behind each burst, so that there is always room: what
// the reader takes is part of the figure.
func BenchmarkCarryWatched(b *testing.B) {
	for i := range carryCases {
		c := &carryCases[i]
		if c.name != "established-TCP" && c.name != "new-flow-allowed" && c.name != "denied" {
			continue
		}
		for _, by := range []struct {
			name    string
			options []watch.Options
		}{{"nobody", nil},
			{"dropped", []watch.Options{{DroppedOnly: true, PerSecond: 10_000, Events: 2048}}},
			{"decided", []watch.Options{{DroppedOnly: true, PerSecond: 10_000, Events: 2048}, {DecidedOnly: true, PerSecond: 20_000, Events: 4096}}},
			{"candidate", nil},
			{"dropped+candidate", []watch.Options{{DroppedOnly: true, PerSecond: 10_000, Events: 2048}}},
			{"all", []watch.Options{{}}}} {
			b.Run(c.name+"/"+by.name, func(b *testing.B) {
				rules := manyRules(10)
				f := newFeeder(c.rig(b, figure(rules(), rules()), 1), c)
				for _, o := range by.options {
					s, err := f.r.engine.Watch(o)
					if err != nil {
						b.Fatal(err)
					}
					defer s.Close()
				}
				if strings.HasSuffix(by.name, "candidate") {
					d, err := f.r.engine.Judge(4096)
					if err != nil {
						b.Fatal(err)
					}
					defer d.Close()
					f.judge = func() { d.Read(f.judged[:]) }
				}
				f.bench(b)
				f.check()
			})
		}
	}
}
