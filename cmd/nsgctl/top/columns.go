package top

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// column is one column of a view. Its cells are made of row i of a reading.
type column struct {
	title string
	order string // the order that it stands for; empty: none
	rank  int    // in a narrow terminal the greatest ranks go first; 0 stays
	right bool   // numbers
	least int    // width below which text is not cut; numbers are never cut
	whole int    // columns of this rank and above go before it is cut; 0: it is cut first
	ends  bool   // text with a port at its end: the middle is cut out
	cell  func(r *inspect.TopReading, i int) string
}

// rateCell is a rate, or a dash while there are no rates.
func rateCell(of func(r *inspect.TopReading, i int) float64) func(*inspect.TopReading, int) string {
	return func(r *inspect.TopReading, i int) string {
		if r.Seconds == 0 {
			return "-"
		}
		return amount(of(r, i))
	}
}

func ruleColumns() []column {
	rule := func(of func(*inspect.TopRule) string) func(*inspect.TopReading, int) string {
		return func(r *inspect.TopReading, i int) string { return of(&r.Rules[i]) }
	}
	total := func(of func(*inspect.RuleCounters) uint64) func(*inspect.TopReading, int) string {
		return rule(func(t *inspect.TopRule) string {
			if t.Counters == nil {
				return "-"
			}
			return amount(float64(of(t.Counters)))
		})
	}
	list := func(of func(*inspect.TopRule) []string) func(*inspect.TopReading, int) string {
		return rule(func(t *inspect.TopRule) string { return strings.Join(of(t), ",") })
	}
	return []column{
		{title: "NSG", least: 10, whole: 3, cell: rule(func(t *inspect.TopRule) string { return lastName(t.NetworkSecurityGroup) })},
		{title: "DIRECTION", rank: 2, cell: rule(func(t *inspect.TopRule) string { return t.Direction })},
		{title: "PRIO", order: "evaluation", right: true, cell: rule(func(t *inspect.TopRule) string { return strconv.Itoa(t.Priority) })},
		{title: "ACCESS", cell: rule(func(t *inspect.TopRule) string { return t.Access })},
		{title: "RULE", least: 24, whole: 3, cell: rule(func(t *inspect.TopRule) string { return t.Name })},
		{title: "PROTO", rank: 7, cell: rule(func(t *inspect.TopRule) string { return t.Protocol })},
		{title: "SOURCE", rank: 8, least: 12, cell: list(func(t *inspect.TopRule) []string { return t.Sources })},
		{title: "DESTINATION", rank: 9, least: 12, cell: list(func(t *inspect.TopRule) []string { return t.Destinations })},
		{title: "PORTS", rank: 10, least: 6, cell: list(func(t *inspect.TopRule) []string { return t.DestinationPorts })},
		{title: "HITS", order: "hits", rank: 1, right: true, cell: total(func(c *inspect.RuleCounters) uint64 { return c.Hits })},
		{title: "PACKETS", order: "packets", rank: 5, right: true, cell: total(func(c *inspect.RuleCounters) uint64 { return c.Packets })},
		{title: "BYTES", order: "bytes", rank: 4, right: true, cell: total(func(c *inspect.RuleCounters) uint64 { return c.Bytes })},
		{title: "HITS/S", order: "hitsPerSecond", rank: 6, right: true, cell: rateCell(func(r *inspect.TopReading, i int) float64 { return r.Rules[i].HitsPerSecond })},
		{title: "PKT/S", order: "packetsPerSecond", right: true, cell: rateCell(func(r *inspect.TopReading, i int) float64 { return r.Rules[i].PacketsPerSecond })},
		{title: "B/S", order: "bytesPerSecond", right: true, cell: rateCell(func(r *inspect.TopReading, i int) float64 { return r.Rules[i].BytesPerSecond })},
	}
}

func flowColumns() []column {
	flow := func(of func(*inspect.TopFlow) string) func(*inspect.TopReading, int) string {
		return func(r *inspect.TopReading, i int) string { return of(&r.Flows[i]) }
	}
	return []column{
		{title: "PROTO", cell: flow(func(f *inspect.TopFlow) string { return f.Protocol })},
		{title: "SOURCE", least: 15, whole: 1, ends: true, cell: flow(func(f *inspect.TopFlow) string { return inspect.Endpoint(f.Source, f.SourcePort) })},
		{title: "DESTINATION", least: 15, whole: 1, ends: true, cell: flow(func(f *inspect.TopFlow) string { return inspect.Endpoint(f.Destination, f.DestinationPort) })},
		{title: "TRANSLATED", rank: 10, least: 15, cell: flow((*inspect.TopFlow).Arrives)},
		{title: "STATE", rank: 1, cell: flow(func(f *inspect.TopFlow) string { return f.State })},
		{title: "FROM", rank: 7, least: 8, cell: flow(func(f *inspect.TopFlow) string { return f.From })},
		{title: "TO", rank: 8, least: 8, cell: flow(func(f *inspect.TopFlow) string { return f.To })},
		{title: "RULE", rank: 9, least: 12, cell: flow(lastRule)},
		{title: "AGE", order: "age", rank: 4, right: true, cell: flow(func(f *inspect.TopFlow) string { return milliseconds(f.AgeMilliseconds) })},
		{title: "IDLE", order: "idle", rank: 3, right: true, cell: flow(func(f *inspect.TopFlow) string { return milliseconds(f.IdleMilliseconds) })},
		{title: "PACKETS", order: "packets", rank: 5, right: true, cell: flow(func(f *inspect.TopFlow) string { return amount(float64(f.PacketsSent + f.PacketsReceived)) })},
		{title: "BYTES", order: "bytes", rank: 2, right: true, cell: flow(func(f *inspect.TopFlow) string { return amount(float64(f.BytesSent + f.BytesReceived)) })},
		{title: "PKT/S", order: "packetsPerSecond", right: true, cell: rateCell(func(r *inspect.TopReading, i int) float64 { return r.Flows[i].PacketsPerSecond })},
		{title: "B/S", order: "bytesPerSecond", right: true, cell: rateCell(func(r *inspect.TopReading, i int) float64 { return r.Flows[i].BytesPerSecond })},
	}
}

func talkerColumns(by inspect.TalkersBy) []column {
	talker := func(of func(*inspect.TopTalker) string) func(*inspect.TopReading, int) string {
		return func(r *inspect.TopReading, i int) string { return of(&r.Talkers[i]) }
	}
	list := []column{
		{title: "SOURCE", least: 15, whole: 1, ends: true, cell: talker(func(t *inspect.TopTalker) string { return t.Source })},
		{title: "DESTINATION", least: 15, whole: 1, ends: true, cell: talker(func(t *inspect.TopTalker) string { return t.Destination })},
		{title: "FROM", rank: 3, least: 8, cell: talker(func(t *inspect.TopTalker) string { return t.From })},
		{title: "TO", rank: 4, least: 8, cell: talker(func(t *inspect.TopTalker) string { return t.To })},
		{title: "FLOWS", order: "flows", right: true, cell: talker(func(t *inspect.TopTalker) string { return amount(float64(t.Flows)) })},
		{title: "SENT", rank: 5, right: true, cell: talker(func(t *inspect.TopTalker) string { return amount(float64(t.BytesSent)) })},
		{title: "RECEIVED", rank: 6, right: true, cell: talker(func(t *inspect.TopTalker) string { return amount(float64(t.BytesReceived)) })},
		{title: "PACKETS", order: "packets", rank: 2, right: true, cell: talker(func(t *inspect.TopTalker) string { return amount(float64(t.Packets)) })},
		{title: "BYTES", order: "bytes", rank: 1, right: true, cell: talker(func(t *inspect.TopTalker) string { return amount(float64(t.BytesSent + t.BytesReceived)) })},
		{title: "PKT/S", order: "packetsPerSecond", right: true, cell: rateCell(func(r *inspect.TopReading, i int) float64 { return r.Talkers[i].PacketsPerSecond })},
		{title: "B/S", order: "bytesPerSecond", right: true, cell: rateCell(func(r *inspect.TopReading, i int) float64 { return r.Talkers[i].BytesPerSecond })},
	}
	return slices.DeleteFunc(list, func(c column) bool {
		return by == inspect.BySource && (c.title == "DESTINATION" || c.title == "TO") ||
			by == inspect.ByDestination && (c.title == "SOURCE" || c.title == "FROM")
	})
}

func dropColumns() []column {
	drop := func(of func(*inspect.TopDrop) string) func(*inspect.TopReading, int) string {
		return func(r *inspect.TopReading, i int) string { return of(&r.Drops[i]) }
	}
	return []column{
		{title: "REASON", least: 12, cell: drop(func(d *inspect.TopDrop) string { return d.Reason })},
		{title: "SHARE", right: true, cell: drop(func(d *inspect.TopDrop) string { return strconv.FormatFloat(100*d.Share, 'f', 1, 64) + "%" })},
		{title: "PACKETS", order: "packets", right: true, cell: drop(func(d *inspect.TopDrop) string { return amount(float64(d.Packets)) })},
		{title: "PKT/S", order: "packetsPerSecond", right: true, cell: rateCell(func(r *inspect.TopReading, i int) float64 { return r.Drops[i].PacketsPerSecond })},
	}
}

// columnsOf returns the columns of a view.
func columnsOf(v inspect.TopView, by inspect.TalkersBy) []column {
	switch v {
	case inspect.TopFlows:
		return flowColumns()
	case inspect.TopTalkers:
		return talkerColumns(by)
	case inspect.TopDrops:
		return dropColumns()
	}
	return ruleColumns()
}

// rows is the number of a reading's rows.
func rows(r *inspect.TopReading) int {
	return len(r.Rules) + len(r.Flows) + len(r.Talkers) + len(r.Drops) // only one is set
}

func milliseconds(n int64) string { return span(time.Duration(n) * time.Millisecond) }

// lastRule is the rule that had the last word, as in nsgctl flows.
func lastRule(f *inspect.TopFlow) string {
	if f.PlatformService != "" && len(f.Rules) == 0 {
		return f.PlatformService
	}
	if len(f.Rules) == 0 {
		return ""
	}
	last := f.Rules[len(f.Rules)-1]
	return last.NetworkSecurityGroup + "/" + last.Name
}

func lastName(id string) string { return id[strings.LastIndex(id, "/")+1:] }
