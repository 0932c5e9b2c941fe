package inspect

import (
	"fmt"
	"slices"
	"strings"
)

// figures are what rows can be ordered by. A row has only those of its view.
type figures struct {
	position                                        int
	hits, packets, bytes, flows, age, idle          float64
	hitsPerSecond, packetsPerSecond, bytesPerSecond float64
}

// topOrder is a way to order rows: the greatest value first.
type topOrder struct {
	name  string
	value func(*figures) float64
	// total orders rows as long as there are no rates; nil: the order is by no rate.
	total *topOrder
}

var (
	byBytes   = topOrder{name: "bytes", value: func(f *figures) float64 { return f.bytes }}
	byPackets = topOrder{name: "packets", value: func(f *figures) float64 { return f.packets }}
	byHits    = topOrder{name: "hits", value: func(f *figures) float64 { return f.hits }}
	byFlows   = topOrder{name: "flows", value: func(f *figures) float64 { return f.flows }}
	// The rule that is tried first comes first.
	byEvaluation = topOrder{name: "evaluation", value: func(f *figures) float64 { return -float64(f.position) }}
	// The oldest first.
	byAge = topOrder{name: "age", value: func(f *figures) float64 { return f.age }}
	// The flow with the latest packet first.
	byIdle = topOrder{name: "idle", value: func(f *figures) float64 { return -f.idle }}

	byBytesPerSecond   = topOrder{"bytesPerSecond", func(f *figures) float64 { return f.bytesPerSecond }, &byBytes}
	byPacketsPerSecond = topOrder{"packetsPerSecond", func(f *figures) float64 { return f.packetsPerSecond }, &byPackets}
	byHitsPerSecond    = topOrder{"hitsPerSecond", func(f *figures) float64 { return f.hitsPerSecond }, &byHits}

	topOrders = map[TopView][]topOrder{
		TopRules:   {byBytesPerSecond, byPacketsPerSecond, byHitsPerSecond, byBytes, byPackets, byHits, byEvaluation},
		TopFlows:   {byBytesPerSecond, byPacketsPerSecond, byBytes, byPackets, byAge, byIdle},
		TopTalkers: {byBytesPerSecond, byPacketsPerSecond, byBytes, byPackets, byFlows},
		TopDrops:   {byPacketsPerSecond, byPackets},
	}
)

// TopOrders are the orders of a view; the first is the default.
func TopOrders(v TopView) []string {
	var names []string
	for _, o := range topOrders[v] {
		names = append(names, o.name)
	}
	return names
}

func findOrder(v TopView, name string) (topOrder, error) {
	for _, o := range topOrders[v] {
		if o.name == name {
			return o, nil
		}
	}
	return topOrder{}, fmt.Errorf("order: %q: allowed for %s are %s", name, v, strings.Join(TopOrders(v), ", "))
}

// signed is a value that is greatest for the first row.
func (o *topOrder) signed(f *figures, reverse bool) float64 {
	if reverse {
		return -o.value(f)
	}
	return o.value(f)
}

// Sort puts the reading's rows into another order. A row that the reading lacks may lead by it.
func (r *TopReading) Sort(order string, reverse bool) error {
	o, err := findOrder(r.View, order)
	if err != nil {
		return err
	}
	r.Order, r.Reverse = order, reverse
	sortRows(r.Rules, &o, reverse)
	sortRows(r.Flows, &o, reverse)
	sortRows(r.Talkers, &o, reverse)
	sortRows(r.Drops, &o, reverse)
	return nil
}

func sortRows[T any, R interface {
	*T
	figures() figures
}](rows []T, o *topOrder, reverse bool) {
	slices.SortStableFunc(rows, func(a, b T) int {
		fa, fb := R(&a).figures(), R(&b).figures()
		va, vb := o.signed(&fa, reverse), o.signed(&fb, reverse)
		switch {
		case va > vb:
			return -1
		case va < vb:
			return 1
		}
		return 0
	})
}

func (r *TopRule) figures() figures {
	f := figures{position: r.Position, hitsPerSecond: r.HitsPerSecond, packetsPerSecond: r.PacketsPerSecond, bytesPerSecond: r.BytesPerSecond}
	if c := r.Counters; c != nil {
		f.hits, f.packets, f.bytes = float64(c.Hits), float64(c.Packets), float64(c.Bytes)
	}
	return f
}

func (r *TopFlow) figures() figures {
	return figures{
		packets: float64(r.PacketsSent + r.PacketsReceived), bytes: float64(r.BytesSent + r.BytesReceived),
		age: float64(r.AgeMilliseconds), idle: float64(r.IdleMilliseconds),
		packetsPerSecond: r.PacketsPerSecond, bytesPerSecond: r.BytesPerSecond,
	}
}

func (r *TopTalker) figures() figures {
	return figures{
		flows: float64(r.Flows), packets: float64(r.Packets), bytes: float64(r.BytesSent + r.BytesReceived),
		packetsPerSecond: r.PacketsPerSecond, bytesPerSecond: r.BytesPerSecond,
	}
}

func (r *TopDrop) figures() figures {
	return figures{packets: float64(r.Packets), packetsPerSecond: r.PacketsPerSecond}
}

// ranking gives a value that is greatest for the first row.
func (q *TopQuestion) ranking(rates bool) func(*figures) float64 {
	o, _ := findOrder(q.View, q.Order) // complete has found it
	if !rates && o.total != nil {
		o = *o.total
	}
	return func(f *figures) float64 { return o.signed(f, q.Reverse) }
}

// leaders keeps the leading rows, at most limit, in a heap whose root is the last of them. Of
// rows with the same value the lower number leads.
type leaders[T any] struct {
	limit int
	heap  []leader[T]
	seen  int // rows so far, leading or not
}

type leader[T any] struct {
	value  float64
	number uint32
	row    T
}

func (l *leader[T]) before(o *leader[T]) bool {
	return l.value > o.value || l.value == o.value && l.number < o.number
}

// leads counts a row, and reports whether add must take it.
func (h *leaders[T]) leads(value float64, number uint32) bool {
	h.seen++
	next := leader[T]{value: value, number: number}
	return len(h.heap) < h.limit || next.before(&h.heap[0])
}

// add takes a row that leads.
func (h *leaders[T]) add(value float64, number uint32, row *T) {
	next := leader[T]{value, number, *row}
	if len(h.heap) < h.limit {
		h.heap = append(h.heap, next)
		h.up(len(h.heap) - 1)
		return
	}
	h.heap[0] = next
	h.down()
}

func (h *leaders[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.heap[parent].before(&h.heap[i]) {
			return
		}
		h.heap[parent], h.heap[i] = h.heap[i], h.heap[parent]
		i = parent
	}
}

func (h *leaders[T]) down() {
	for i := 0; ; {
		last := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h.heap); child++ {
			if h.heap[last].before(&h.heap[child]) {
				last = child
			}
		}
		if last == i {
			return
		}
		h.heap[last], h.heap[i] = h.heap[i], h.heap[last]
		i = last
	}
}

// sorted are the leaders, the first first.
func (h *leaders[T]) sorted() []leader[T] {
	slices.SortFunc(h.heap, func(a, b leader[T]) int {
		if a.before(&b) {
			return -1
		}
		return 1
	})
	return h.heap
}
