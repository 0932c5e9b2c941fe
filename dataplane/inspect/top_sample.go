package inspect

import (
	"math"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/packet"
)

const (
	// shortestWindow is the least time that rates are measured over. Otherwise two readers would
	// make each other's rates jump.
	shortestWindow = 200 * time.Millisecond
	// forgetAfter is when a sample is too old to measure from. Its memory, 32 bytes a flow, is
	// given back then.
	forgetAfter = 2 * time.Minute
)

// window is the time between the last two samples.
type window struct {
	last   time.Time // of the last sample; zero: none
	length time.Duration
}

// advance reports whether a sample is due now, and whether rates can be measured from the last.
func (w *window) advance(now time.Time) (due, rates bool) {
	since := now.Sub(w.last)
	if w.last.IsZero() || since > forgetAfter {
		*w = window{last: now}
		return true, false
	}
	if since < shortestWindow {
		return false, w.length > 0
	}
	*w = window{last: now, length: since}
	return true, true
}

func (w *window) perSecond(now, before uint64) float64 {
	if now < before {
		return 0
	}
	return float64(now-before) / w.length.Seconds()
}

// rounded is a rate to three decimals.
func rounded(rate float64) float64 { return math.Round(rate*1000) / 1000 }

// counts are counters whose number the configuration bounds.
type counts struct {
	rules   []counter.Rule // by slot
	drops   [packet.NumDrops]uint64
	traffic Traffic // without rates
}

func readCounts(e *dataplane.Engine) counts {
	c := counts{rules: e.Counters().Rules(len(e.Registry().Keys())), drops: e.Drops()}
	for _, a := range e.AttachmentCounts() {
		c.traffic.Packets += a.ReceivePackets
		c.traffic.Bytes += a.ReceiveBytes
	}
	for _, n := range c.drops {
		c.traffic.Drops += n
	}
	return c
}

// rates are those of counts, as of the last sample.
type rates struct {
	rules                  []ruleRate // by slot; newer rules have none
	drops                  [packet.NumDrops]float64
	packets, bytes, denied float64
}

type ruleRate struct{ hits, packets, bytes float64 }

// counterSamples measures rates of counters.
type counterSamples struct {
	window
	before counts // at the last sample
	rates  rates
}

// take samples the counters when a sample is due.
func (c *counterSamples) take(now counts, at time.Time) {
	due, measurable := c.advance(at)
	if !due {
		return
	}
	c.rates = rates{}
	if measurable {
		c.rates = c.measure(&now)
	}
	c.before = now
}

func (c *counterSamples) measure(now *counts) rates {
	before := &c.before
	r := rates{
		rules:   make([]ruleRate, len(now.rules)),
		packets: c.perSecond(now.traffic.Packets, before.traffic.Packets),
		bytes:   c.perSecond(now.traffic.Bytes, before.traffic.Bytes),
		denied:  c.perSecond(now.traffic.Drops, before.traffic.Drops),
	}
	for i := range r.rules {
		var was counter.Rule
		if i < len(before.rules) {
			was = before.rules[i]
		}
		is := now.rules[i]
		r.rules[i] = ruleRate{c.perSecond(is.Hits, was.Hits), c.perSecond(is.Packets, was.Packets), c.perSecond(is.Bytes, was.Bytes)}
	}
	for i := range r.drops {
		r.drops[i] = c.perSecond(now.drops[i], before.drops[i])
	}
	return r
}

// flowSample is the last sample of the flow in a record.
type flowSample struct {
	id                               uint64
	packets, bytes                   uint64
	packetsPerSecond, bytesPerSecond float32
}

// flowID tells the successive flows of a record apart. Two with the same ports that begin in one
// tick look alike; then a rate is wrong once.
func flowID(f *conntrack.FlowInfo) uint64 {
	return 1 + (uint64(f.Created)<<32 | uint64(f.Key.SrcPort)<<16 | uint64(f.Key.DstPort))
}

// flowSamples measures rates of flows.
type flowSamples struct {
	window
	records []flowSample // by record
	// due and measurable belong to the current walk.
	due, measurable bool
}

// begin begins a walk over all flows.
func (s *flowSamples) begin(at time.Time) { s.due, s.measurable = s.advance(at) }

// rates are those of the flow that the walk is at.
func (s *flowSamples) rates(f *conntrack.FlowInfo) (packets, bytes float64) {
	if n := int(f.Flow) + 1; n > len(s.records) {
		s.records = append(s.records, make([]flowSample, n-len(s.records))...)
	}
	r, id := &s.records[f.Flow], flowID(f)
	if s.due {
		s.sample(r, id, f)
	}
	if r.id != id {
		return 0, 0 // it began after the last sample
	}
	return float64(r.packetsPerSecond), float64(r.bytesPerSecond)
}

func (s *flowSamples) sample(r *flowSample, id uint64, f *conntrack.FlowInfo) {
	next := flowSample{id: id, packets: f.Packets[0] + f.Packets[1], bytes: f.Bytes[0] + f.Bytes[1]}
	before := *r
	if before.id != id {
		before = flowSample{}
		if f.Age > s.length+conntrack.TickLength {
			before = next // it began before the last sample, which missed it
		}
	}
	if s.measurable {
		next.packetsPerSecond = float32(s.perSecond(next.packets, before.packets))
		next.bytesPerSecond = float32(s.perSecond(next.bytes, before.bytes))
	}
	*r = next
}
