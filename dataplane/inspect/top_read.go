package inspect

import (
	"slices"
	"sync"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// topMemory holds the last samples. One reading is made at a time, so that readers take little
// from the workers: a reading of flows walks the flow table once, one of rules or drops never.
type topMemory struct {
	mu       sync.Mutex
	counters counterSamples
	flows    flowSamples
	atlas    *atlas      // of the last snapshot that a map was made of; nil: of none
	idle     *time.Timer // nil before the first reading
}

// touch puts off forgetting the samples.
func (b *topMemory) touch() {
	if b.idle != nil {
		b.idle.Reset(forgetAfter)
		return
	}
	b.idle = time.AfterFunc(forgetAfter, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.counters, b.flows, b.atlas = counterSamples{}, flowSamples{}, nil
	})
}

// Top makes a reading. The first has no rates: they are measured between readings. The error is
// about the question.
func (s *Service) Top(q TopQuestion) (*TopReading, error) {
	if err := q.complete(); err != nil {
		return nil, err
	}
	b := &s.top
	b.mu.Lock()
	defer b.mu.Unlock()
	b.touch()
	e, at := s.options.Engine, s.options.Now()
	now := readCounts(e)
	b.counters.take(now, at)
	r := &TopReading{
		Time: at, Seconds: b.counters.length.Seconds(),
		Version: s.options.Version, Started: s.started, Generation: e.Snapshot().Generation, FlowTable: flowUse(e.Flows()),
		Traffic: b.counters.show(&now), View: q.View, Order: q.Order, Reverse: q.Reverse, Filter: q.Filter,
	}
	switch q.View {
	case TopRules:
		s.topRules(r, &q, &now)
	case TopFlows:
		s.topFlows(r, &q, s.matching(&q))
	case TopTalkers:
		s.topTalkers(r, &q)
	case TopDrops:
		s.topDrops(r, &q, &now)
	}
	return r, nil
}

func (c *counterSamples) show(now *counts) Traffic {
	t := now.traffic
	t.PacketsPerSecond, t.BytesPerSecond, t.DropsPerSecond = rounded(c.rates.packets), rounded(c.rates.bytes), rounded(c.rates.denied)
	return t
}

// rulePlace is the place of a rule in a snapshot.
type rulePlace struct {
	label string
	table *topology.Table
	index int
}

func (s *Service) topRules(r *TopReading, q *TopQuestion, now *counts) {
	c, filter := &s.top.counters, words(q.Filter)
	rank := q.ranking(c.length > 0)
	first := leaders[rulePlace]{limit: q.Limit}
	position := -1
	eachRule(s.Snapshot(), nil, func(label string, t *topology.Table, i int) bool {
		position++
		if len(filter) > 0 && !hasAll(filter, ruleTexts(label, t, i)...) {
			return true
		}
		f := figures{position: position}
		if slot := int(t.Slots[i]); slot < len(now.rules) {
			n := now.rules[slot]
			f.hits, f.packets, f.bytes = float64(n.Hits), float64(n.Packets), float64(n.Bytes)
			rate := c.rule(slot)
			f.hitsPerSecond, f.packetsPerSecond, f.bytesPerSecond = rate.hits, rate.packets, rate.bytes
		}
		if value := rank(&f); first.leads(value, uint32(position)) {
			first.add(value, uint32(position), &rulePlace{label, t, i})
		}
		return true
	})
	r.Matching, r.Rules = first.seen, []TopRule{}
	for _, l := range first.sorted() {
		p := &l.row
		shown, _ := describeRule(p.label, p.table, p.index, now.rules, false)
		rate := c.rule(int(p.table.Slots[p.index]))
		r.Rules = append(r.Rules, TopRule{shown, int(l.number), rounded(rate.hits), rounded(rate.packets), rounded(rate.bytes)})
	}
}

func (c *counterSamples) rule(slot int) ruleRate {
	if slot < len(c.rates.rules) {
		return c.rates.rules[slot]
	}
	return ruleRate{}
}

// ruleTexts are the texts that a filter looks at.
func ruleTexts(label string, t *topology.Table, i int) []string {
	shown, _ := describeRule(label, t, i, nil, false)
	return slices.Concat([]string{shown.NetworkSecurityGroup, shown.Direction, shown.Name, shown.Access, shown.Protocol},
		shown.Sources, shown.SourcePorts, shown.Destinations, shown.DestinationPorts)
}

func (s *Service) topDrops(r *TopReading, q *TopQuestion, now *counts) {
	c, filter := &s.top.counters, words(q.Filter)
	rank := q.ranking(c.length > 0)
	first := leaders[TopDrop]{limit: q.Limit}
	for reason, n := range now.drops {
		row := TopDrop{Reason: packet.Drop(reason).String(), Packets: n, PacketsPerSecond: rounded(c.rates.drops[reason])}
		if n == 0 || !hasAll(filter, row.Reason) {
			continue
		}
		row.Share = rounded(float64(n) / float64(now.traffic.Drops))
		f := row.figures()
		if value := rank(&f); first.leads(value, uint32(reason)) {
			first.add(value, uint32(reason), &row)
		}
	}
	r.Matching, r.Drops = first.seen, []TopDrop{}
	for _, l := range first.sorted() {
		r.Drops = append(r.Drops, l.row)
	}
}

// ratedFlow is a flow with its rates.
type ratedFlow struct {
	conntrack.FlowInfo
	packetsPerSecond, bytesPerSecond float64
}

// matching is the filter of a question about flows.
func (s *Service) matching(q *TopQuestion) func(*conntrack.FlowInfo) bool {
	e := s.options.Engine
	filter := flowWords(e, s.Snapshot(), e.Registry().Keys(), q.Filter)
	return func(info *conntrack.FlowInfo) bool { return matchesAll(filter, info) }
}

// walk samples all flows, and yields those that match.
func (s *Service) walk(r *TopReading, match func(*conntrack.FlowInfo) bool, yield func(*conntrack.FlowInfo, *figures)) {
	e, book := s.options.Engine, &s.top.flows
	r.Seconds = book.length.Seconds()
	var f figures // outside the loop, because a pointer to it escapes: one allocation for all flows
	e.Flows().Flows(func(info *conntrack.FlowInfo) bool {
		packets, bytes := book.rates(info)
		if !match(info) {
			return true
		}
		f = figures{
			packets: float64(info.Packets[0] + info.Packets[1]), bytes: float64(info.Bytes[0] + info.Bytes[1]), flows: 1,
			age: float64(info.Age), idle: float64(info.Idle), packetsPerSecond: packets, bytesPerSecond: bytes,
		}
		yield(info, &f)
		return true
	})
}

func (s *Service) topFlows(r *TopReading, q *TopQuestion, match func(*conntrack.FlowInfo) bool) {
	book := &s.top.flows
	book.begin(r.Time)
	rank := q.ranking(book.length > 0)
	first := leaders[ratedFlow]{limit: q.Limit}
	s.walk(r, match, func(info *conntrack.FlowInfo, f *figures) {
		if value := rank(f); first.leads(value, uint32(info.Flow)) {
			first.add(value, uint32(info.Flow), &ratedFlow{*info, f.packetsPerSecond, f.bytesPerSecond})
		}
	})
	e := s.options.Engine
	snapshot, keys := e.Snapshot(), e.Registry().Keys()
	r.Matching, r.Flows = first.seen, []TopFlow{}
	for _, l := range first.sorted() {
		r.Flows = append(r.Flows, TopFlow{DescribeFlow(e, snapshot, keys, &l.row.FlowInfo), rounded(l.row.packetsPerSecond), rounded(l.row.bytesPerSecond)})
	}
}

func (s *Service) topTalkers(r *TopReading, q *TopQuestion) {
	book := &s.top.flows
	book.begin(r.Time)
	// The greatest talkers are kept, whichever way the rows are sorted.
	forward := *q
	forward.Reverse = false
	weigh := forward.ranking(book.length > 0)
	all := newTalkers(talkersFollowed)
	e := s.options.Engine
	s.walk(r, s.matching(q), func(info *conntrack.FlowInfo, f *figures) {
		// A flow may have a record at each end. The sender's counts.
		if _, whole := e.Room().Attachment(info.Key.Zone); !whole {
			return
		}
		all.add(talkerOf(q.By, info), weigh(f)).count(info, f)
	})
	rank := q.ranking(book.length > 0)
	first := leaders[talker]{limit: q.Limit}
	for i := range all.list {
		f := all.list[i].figures()
		if value := rank(&f); first.leads(value, uint32(i)) {
			first.add(value, uint32(i), &all.list[i])
		}
	}
	r.By, r.Matching, r.Approximate, r.Uncounted, r.Talkers = q.By, first.seen, all.shrunk, rounded(all.uncounted), []TopTalker{}
	for _, l := range first.sorted() {
		r.Talkers = append(r.Talkers, s.showTalker(q.By, &l.row))
	}
}

// talkerOf is the talker of a flow, by the addresses that the sender uses before translation.
func talkerOf(by TalkersBy, f *conntrack.FlowInfo) (k talkerKey) {
	if by != ByDestination {
		k.source, k.from = f.Key.Src, f.Key.Zone
	}
	if by != BySource {
		k.destination, k.to = f.Key.Dst, f.ReplyKey.Zone
	}
	return k
}

func (s *Service) showTalker(by TalkersBy, t *talker) TopTalker {
	e, snapshot := s.options.Engine, s.Snapshot()
	row := TopTalker{
		Flows: t.flows, Packets: t.packets, BytesSent: t.bytesSent, BytesReceived: t.bytesReceived,
		PacketsPerSecond: rounded(t.packetsPerSecond), BytesPerSecond: rounded(t.bytesPerSecond),
	}
	if by != ByDestination {
		row.Source, row.From = t.key.source.String(), attachmentName(e, snapshot, t.key.from)
	}
	if by != BySource {
		row.Destination, row.To = t.key.destination.String(), attachmentName(e, snapshot, t.key.to)
	}
	return row
}
